"""Shards forked from one process: they share its memory and nothing else, and outlive it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .forks import Forked, ForkServer
from .shard import CHECKOUT, TOKEN, Client, request


@pytest.fixture(scope="module")
def server(python: Path) -> Iterator[ForkServer]:
    server = ForkServer(python, CHECKOUT)
    assert server.ready == {"ready": True}
    yield server
    server.close()


class ForkedShard:
    def __init__(self, server: ForkServer, folder: Path, name: str, **more: Any) -> None:
        self.folder = folder / name
        (self.folder / "state").mkdir(parents=True)
        (self.folder / "token").write_text(TOKEN)
        settings = {
            "name": name,
            "stateDir": str(self.folder / "state"),
            "control": {"host": "127.0.0.1", "port": 0},
            "tokenFile": str(self.folder / "token"),
            "readyFile": str(self.folder / "ready.json"),
            "logFile": str(self.folder / "shard.log"),
        }
        self.config = self.folder / "shard.json"
        self.config.write_text(json.dumps(settings))
        self.process: Forked = server.fork(
            {
                "arguments": ["--config", str(self.config)],
                "environment": {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "MARK": name},
                "directory": str(self.folder),
                "output": str(self.folder / "output"),
                **more,
            }
        )

    def ready(self) -> dict[str, Any]:
        end = time.monotonic() + 60
        while not (self.folder / "ready.json").exists():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "output").read_text()
            time.sleep(0.01)
        announced: dict[str, Any] = json.loads((self.folder / "ready.json").read_text())
        return announced

    def call(self, method: str, path: str, body: Any = None) -> Any:
        address = self.ready()["address"].removeprefix("http://")
        answer = request(address, method, path, body, {"authorization": f"Bearer {TOKEN}"})
        assert answer.status == 200, answer.body
        return answer.json

    def proc(self, file: str) -> str:
        return Path(f"/proc/{self.process.pid}/{file}").read_text()


@pytest.fixture
def fork(server: ForkServer, folder: Path) -> Iterator[Callable[..., ForkedShard]]:
    made: list[ForkedShard] = []

    def make(name: str, **more: Any) -> ForkedShard:
        shard = ForkedShard(server, folder, name, **more)
        made.append(shard)
        return shard

    yield make
    for shard in made:
        shard.process.kill()


def kilobytes(smaps: str, field: str) -> int:
    return sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith(f"{field}:"))


def test_a_forked_shard_is_a_process_like_any_other(server: ForkServer, fork: Callable[..., ForkedShard]) -> None:
    one, two = fork("one"), fork("two")
    for shard in (one, two):
        assert shard.ready()["pid"] == shard.process.pid
        # What `ps` shows, and the launcher knows it by.
        assert shard.proc("cmdline").rstrip("\0").split("\0")[1:] == ["-m", "multi_synapse", "--config", str(shard.config)]
        assert os.getsid(shard.process.pid) == shard.process.pid
        assert shard.call("GET", "/v1/shard")["pid"] == shard.process.pid
    assert one.call("GET", "/v1/shard")["release"] == server.python.parents[1].name.removeprefix("synapse-")
    # Each has a reactor of its own: sockets, pipes and event polls are shared with nobody.
    opened = [{os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")} for pid in (one.process.pid, two.process.pid)]
    assert {item for item in opened[0] & opened[1] if item.startswith(("socket:", "pipe:"))} == set()


def test_shards_of_one_server_share_most_of_their_memory(fork: Callable[..., ForkedShard]) -> None:
    for shard in (fork("one"), fork("two")):
        shard.ready()
        smaps = shard.proc("smaps_rollup")
        shared = kilobytes(smaps, "Shared_Dirty")
        assert shared > 2 * kilobytes(smaps, "Private_Dirty"), smaps


def test_tenants_of_forked_shards_work(fork: Callable[..., ForkedShard], assign: Callable[..., dict[str, Any]]) -> None:
    shards = {name: fork(name) for name in ("one", "two")}
    for name, shard in shards.items():
        state = shard.call("PUT", f"/v1/tenants/{name}", assign(name))
        assert state["phase"] == "running"
        client = Client(state["address"]).register()
        client.create_room()
        client.send(f"from {name}")
    for shard in shards.values():
        shard.process.send_signal(signal.SIGTERM)
    assert [shard.process.wait(60) for shard in shards.values()] == [0, 0]


def test_the_end_of_a_shard_is_told_with_its_code(fork: Callable[..., ForkedShard]) -> None:
    killed, stopped = fork("killed"), fork("stopped")
    killed.ready()
    stopped.ready()
    killed.process.kill()
    assert killed.process.wait(30) == -signal.SIGKILL
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.process.wait(30) == 0


def test_a_wrong_configuration_is_said_where_a_shard_says_it(server: ForkServer, folder: Path) -> None:
    (folder / "shard.json").write_text("{}")
    process = server.fork(
        {
            "arguments": ["--config", str(folder / "shard.json")],
            "environment": {},
            "directory": str(folder),
            "output": str(folder / "output"),
        }
    )
    assert process.wait(30) == 2
    assert "shard.json" in (folder / "output").read_text()


def test_a_process_that_cannot_be_confined_is_not_started(server: ForkServer, folder: Path) -> None:
    with pytest.raises(AssertionError, match="could not be confined"):
        server.fork(
            {
                "arguments": ["--config", str(folder / "shard.json")],
                "environment": {},
                "directory": str(folder / "is-not-there"),
                "output": str(folder / "output"),
            }
        )
    assert "FileNotFoundError" in (folder / "output").read_text()


def test_shards_outlive_their_server(python: Path, folder: Path) -> None:
    server = ForkServer(python, CHECKOUT)
    shard = ForkedShard(server, folder, "one")
    try:
        shard.ready()
        assert server.close() == 0
        assert shard.call("GET", "/v1/shard")["name"] == "one"
    finally:
        os.kill(shard.process.pid, signal.SIGKILL)
