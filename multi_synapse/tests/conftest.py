"""Real PostgreSQL, real Synapse: what the tests have in common."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .forks import ForkServer
from .peer import Peer
from .postgres import Postgres
from .shard import CHECKOUT, SHARED_SECRET, UNTESTED, Shard
from .watching import PATIENCE_SECONDS

PASSWORD = "tenant-database-password"
ROLE = "tenant"
TEMPLATE = "template_of_tenants"


def pythons() -> list[Path]:
    """Interpreters to test with: MULTI_SYNAPSE_PYTHON, separated by colons, or the one that runs pytest."""
    given = os.environ.get("MULTI_SYNAPSE_PYTHON", "")
    return [Path(item) for item in given.split(":") if item] or [Path(sys.executable)]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smoke: run against every release in MULTI_SYNAPSE_PYTHON, not only the first")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "python" in metafunc.fixturenames:
        every = metafunc.definition.get_closest_marker("smoke") is not None
        chosen = pythons() if every else pythons()[:1]
        metafunc.parametrize("python", chosen, ids=[item.parents[1].name for item in chosen], scope="session")


#: Files that take longest. Begun last, one of them would keep one process busy while the other has nothing to do.
SLOW = ["leaks", "housekeeping", "dedicated", "restore", "failures", "fence", "federation_stops", "images", "media", "stops"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {f"test_{name}": rank for rank, name in enumerate(SLOW)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(SLOW)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.query(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        yield server
    finally:
        server.remove()


class Preparer:
    """The preparer process; docs/control-api.md."""

    def __init__(self, python: Path, allowed: Iterable[str] = UNTESTED) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "multi_synapse.prepare", *(f"--allow-untested-release={release}" for release in allowed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        self.ready = self.read()

    def read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the preparer ended"
        return json.loads(line)

    def begin(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def send(self, command: dict[str, Any]) -> Any:
        self.begin(command)
        return self.read()

    def close(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(PATIENCE_SECONDS)


class Databases:
    """Databases of tenants, copied from a template."""

    def __init__(self, postgres: Postgres, python: Path, allowed: Iterable[str] = UNTESTED) -> None:
        self.postgres = postgres
        self.template = f"{TEMPLATE}_{secrets.token_hex(3)}"
        self.create_empty(self.template)
        preparer = Preparer(python, allowed)
        answer = preparer.send({"command": "template", "database": self.arguments(self.template)})
        assert answer["event"] == "done", answer
        assert preparer.close() == 0

    def arguments(self, database: str) -> dict[str, Any]:
        return self.postgres.arguments(database, ROLE, PASSWORD)

    def create_empty(self, name: str) -> str:
        self.postgres.query(f"CREATE DATABASE {name} OWNER {ROLE} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0")
        return name

    def create(self) -> str:
        name = f"t_{secrets.token_hex(4)}"
        self.postgres.query(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {self.template}")
        return name


@pytest.fixture(scope="session")
def databases_of(postgres: Postgres) -> Callable[[Path], Databases]:
    made: dict[Path, Databases] = {}

    def of(python: Path) -> Databases:
        if python not in made:
            made[python] = Databases(postgres, python)
        return made[python]

    return of


@pytest.fixture
def databases(databases_of: Callable[[Path], Databases], python: Path) -> Databases:
    return databases_of(python)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="multi-synapse-"))
    yield path
    shutil.rmtree(path, ignore_errors=True) if not os.environ.get("KEEP") else print(path)


@pytest.fixture(scope="session")
def fork_server(python: Path) -> Iterator[ForkServer]:
    server = ForkServer(python, CHECKOUT, *(f"--allow-untested={release}" for release in UNTESTED))
    yield server
    server.close()


@pytest.fixture
def new_shard(python: Path, folder: Path, fork_server: ForkServer) -> Iterator[Callable[..., Shard]]:
    made: list[Shard] = []

    def make(name: str = "test-0", folder_name: str | None = None, **settings: Any) -> Shard:
        shard = Shard(python, folder / (folder_name or name), name, fork_server, **settings)
        made.append(shard)
        return shard.start()

    yield make
    for shard in made:
        shard.kill()


class SharedShards:
    """A shard of each release for tests that leave it as they found it, as importing Synapse takes seconds."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="multi-synapse-shared-"))
        self._shards: dict[tuple[Path, str], Shard] = {}
        self._started = 0

    def take(self, python: Path, name: str) -> Shard:
        if (python, name) not in self._shards:
            self._started += 1
            self._shards[python, name] = Shard(python, self._folder / str(self._started), name).start()
        shard = self._shards[python, name]
        shard.mark_log()
        # What came before is no stall of this test.
        shard.stats()
        return shard

    def give_back(self, python: Path, name: str) -> None:
        """Without tenants. A shard that a test has ended, or that does not get rid of a tenant, is not used again."""
        shard = self._shards[python, name]
        try:
            for tenant in shard.tenants():
                shard.delete(tenant)
            is_empty = shard.tenants() == {}
        except OSError:
            is_empty = False
        if not is_empty:
            shard.kill()
            del self._shards[python, name]

    def close(self) -> None:
        for shard in self._shards.values():
            shard.kill()
        shutil.rmtree(self._folder, ignore_errors=True) if not os.environ.get("KEEP") else print(self._folder)


@pytest.fixture(scope="session")
def shared_shards() -> Iterator[SharedShards]:
    shards = SharedShards()
    yield shards
    shards.close()


def _shard(request: pytest.FixtureRequest, name: str) -> Iterator[Shard]:
    if request.node.get_closest_marker("shared_shard") is None:
        new_shard: Callable[..., Shard] = request.getfixturevalue("new_shard")
        yield new_shard(name)
        return
    shards: SharedShards = request.getfixturevalue("shared_shards")
    python: Path = request.getfixturevalue("python")
    yield shards.take(python, name)
    shards.give_back(python, name)


@pytest.fixture
def shard(request: pytest.FixtureRequest, python: Path) -> Iterator[Shard]:
    """A new one; for tests with the mark `shared_shard` the one that they share: without tenants, but not new."""
    yield from _shard(request, "test-0")


@pytest.fixture
def other_shard(request: pytest.FixtureRequest, python: Path) -> Iterator[Shard]:
    """A second one, for tenants to move to."""
    yield from _shard(request, "test-1")


@pytest.fixture
def own_shard(new_shard: Callable[..., Shard]) -> Shard:
    """A new one in any file: for a test that counts what a process has, or that harms it."""
    return new_shard()


def signing_key() -> str:
    return f"ed25519 a_{secrets.token_hex(3)} {base64.b64encode(secrets.token_bytes(32)).decode().rstrip('=')}\n"


@pytest.fixture
def assign(databases: Databases, folder: Path) -> Callable[..., dict[str, Any]]:
    """Makes an assignment for a new tenant, its database included."""

    def make(
        name: str,
        epoch: int = 1,
        overrides: str = "",
        database: str | None = None,
        policy: dict[str, Any] | None = None,
        **args: Any,
    ) -> dict[str, Any]:
        arguments = {**databases.arguments(database or databases.create()), **args}
        base = {
            "server_name": f"{name}.localhost",
            "public_baseurl": f"http://{name}.localhost:8008",
            "database": {"name": "psycopg2", "args": arguments},
            "media_store_path": str(folder / "media" / name),
            "macaroon_secret_key": "macaroon-secret-of-the-tests",
            "form_secret": "form-secret-of-the-tests",
            "registration_shared_secret": SHARED_SECRET,
            "report_stats": False,
            "trusted_key_servers": [],
            "federation_ip_range_blacklist": [],
            "suppress_key_server_warning": True,
            **{name: {"per_second": 1000, "burst_count": 1000} for name in ("rc_message", "rc_room_creation", "rc_media_create")},
        }
        return {
            "serverName": f"{name}.localhost",
            "epoch": epoch,
            "base": base,
            "overrides": overrides,
            "signingKey": signing_key(),
            # The tenants' neighbors and servers are on this machine.
            "policy": policy if policy is not None else {"allowedDestinations": ["127.0.0.0/8", "::1"]},
        }

    return make


@pytest.fixture
def new_peer(folder: Path) -> Iterator[Callable[[], Peer]]:
    made: list[Peer] = []

    def make() -> Peer:
        made.append(Peer(folder))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def federated(assign: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    assignment = assign("here")
    assignment["base"] |= {"federation_verify_certificates": False, "rc_federation": {"window_size": 1000, "sleep_limit": 1000}}
    return assignment
