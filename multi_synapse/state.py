"""What a shard keeps on disk: its assignments and its ports. Readable by its user only; every write is atomic."""

from __future__ import annotations

import fcntl
import gzip
import json
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import INVALID_CONFIG, TenantError
from .options.policy import Policy, parse_policy

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LARGEST_OVERRIDES = 256 * 1024
_LOCK_POLL_SECONDS = 0.05
_COPY_SUFFIX = ".json.gz"


def is_tenant_name(name: str) -> bool:
    """A DNS label; names become directories here, so nothing else may pass."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Assignment:
    """What the controller sends to start a tenant; docs/control-api.md."""

    server_name: str
    epoch: int
    base: dict[str, Any]
    overrides: str
    signing_key: str
    #: To listen on if it is free; 0: any.
    port: int = 0
    #: What the operator allows beyond the table of options.
    policy: Policy = field(default_factory=Policy)

    @staticmethod
    def parse(raw: Any) -> Assignment:
        """@raises TenantError InvalidConfig naming the field"""

        def wrong(what: str) -> TenantError:
            return TenantError(INVALID_CONFIG, f"the assignment is not valid: {what}")

        if not isinstance(raw, dict):
            raise wrong("it is not an object")
        unknown = set(raw) - {"serverName", "epoch", "base", "overrides", "signingKey", "port", "policy"}
        if unknown:
            raise wrong(f"unknown key {sorted(unknown)[0]!r}")
        for key, kind in (("serverName", str), ("base", dict), ("overrides", str), ("signingKey", str)):
            if not isinstance(raw.get(key), kind):
                raise wrong(f"{key} is missing or of the wrong type, expected {'an object' if kind is dict else 'a string'}")
        epoch = raw.get("epoch")
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 1 <= epoch < 2**63:
            raise wrong("epoch is not a whole number from 1")
        if not raw["serverName"] or len(raw["serverName"]) > 255:
            raise wrong("serverName is empty or longer than 255 characters")
        if len(raw["overrides"]) > _LARGEST_OVERRIDES:
            raise wrong(f"overrides are longer than {_LARGEST_OVERRIDES} characters")
        port = raw.get("port", 0)
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise wrong("port is not a number from 0 to 65535")
        policy = parse_policy(raw.get("policy", {}))
        return Assignment(raw["serverName"], epoch, raw["base"], raw["overrides"], raw["signingKey"], port, policy)

    def to_json(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "serverName": self.server_name,
            "epoch": self.epoch,
            "base": self.base,
            "overrides": self.overrides,
            "signingKey": self.signing_key,
            "port": self.port,
            "policy": self.policy.to_json(),
        }


class StateInUse(Exception):
    """Another process uses the state directory."""


class StateDirectory:
    """The state directory of a shard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        self._tenants = path / "tenants"
        self._tenants.mkdir(mode=0o700, exist_ok=True)

    def lock(self, seconds: float) -> None:
        """Makes it this process's alone until it ends; waits up to `seconds` for a process that is ending. @raises StateInUse

        Two processes would take each other's tenants by the fence, and the loser would remove the winner's assignments.
        """
        self._lock = (self.path / "lock").open("w")
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > end:
                    raise StateInUse(f"{self.path} is used by another process; end that one first") from None
            time.sleep(_LOCK_POLL_SECONDS)

    def seed(self, source: Path) -> list[str]:
        """Takes over the assignments in `source` (NAME.json.gz), if this directory has never been used. Returns the names.

        Once used, it knows better: what it holds is what ran here, while the copy may be a minute old (Kubernetes is slow to
        bring mounted Secrets up to date), and would bring back what was stopped and lose what was started since. In a new
        one the copy is all there is; what is out of date in it is refused by the fence.
        """
        marker = self.path / "seeded"
        if marker.exists():
            return []
        taken = []
        for file in sorted(source.glob(f"*{_COPY_SUFFIX}")):
            name = file.name.removesuffix(_COPY_SUFFIX)
            try:
                if not is_tenant_name(name):
                    raise ValueError("not the name of a tenant")
                assignment = Assignment.parse(json.loads(gzip.decompress(file.read_bytes())))
            except (OSError, EOFError, ValueError, TenantError) as error:
                logger.error("the assignment in %s cannot be read, and is left out: %s", file, type(error).__name__)
                continue
            self.write_tenant_files(name, assignment.overrides, assignment.signing_key)
            self.assign(name, assignment, assignment.port)
            taken.append(name)
        # Last: a seeding that was interrupted is done again.
        write_atomically(marker, "")
        return taken

    def tenant_directory(self, name: str) -> Path:
        assert is_tenant_name(name)
        return self._tenants / name

    def write_tenant_files(self, name: str, overrides: str, signing_key: str) -> Path:
        """Writes what `assign` does not; it is not an assignment until then. Returns the tenant's directory."""
        directory = self.tenant_directory(name)
        directory.mkdir(mode=0o700, exist_ok=True)
        write_atomically(directory / "overrides.yaml", overrides)
        write_atomically(directory / "signing.key", signing_key)
        return directory

    def assign(self, name: str, assignment: Assignment, port: int) -> None:
        """From now on the tenant is started when the shard comes up again."""
        record = {
            "serverName": assignment.server_name,
            "epoch": assignment.epoch,
            "base": assignment.base,
            "port": port,
            "policy": assignment.policy.to_json(),
        }
        write_atomically(self.tenant_directory(name) / "assignment.json", json.dumps(record))

    def forget(self, name: str) -> None:
        # The assignment goes first: an interruption here must not bring the tenant back.
        (self.tenant_directory(name) / "assignment.json").unlink(missing_ok=True)
        shutil.rmtree(self.tenant_directory(name), ignore_errors=True)

    def assignments(self) -> list[tuple[str, Assignment, int]]:
        """Name, assignment and last port of each assigned tenant. Leftovers of interrupted starts are removed."""
        found = []
        for directory in sorted(self._tenants.iterdir()):
            if not (directory / "assignment.json").exists():
                shutil.rmtree(directory, ignore_errors=True)
                continue
            try:
                found.append(_read_assignment(directory))
            except (OSError, ValueError, KeyError, TypeError, TenantError):
                logger.exception("the assignment in %s cannot be read and is left alone", directory)
        return found

    def remembered_control_port(self) -> int:
        try:
            port = int(json.loads((self.path / "control.json").read_text())["port"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return port if 0 < port < 65536 else 0

    def remember_control_port(self, port: int) -> None:
        write_atomically(self.path / "control.json", json.dumps({"port": port}))


def _read_assignment(directory: Path) -> tuple[str, Assignment, int]:
    record = json.loads((directory / "assignment.json").read_text("utf-8"))
    assignment = Assignment(
        server_name=record["serverName"],
        epoch=record["epoch"],
        base=record["base"],
        overrides=(directory / "overrides.yaml").read_text("utf-8"),
        signing_key=(directory / "signing.key").read_text("utf-8"),
        # An earlier version of this runtime wrote none.
        policy=parse_policy(record.get("policy", {})),
    )
    return directory.name, assignment, int(record["port"])


def write_atomically(path: Path, content: str) -> None:
    """Writes a file (mode 0600) so that a crash leaves the old or the new content, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
