"""Shards forked from one process: they share its memory and nothing else, and outlive it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .forks import Forked, ForkServer
from .shard import CHECKOUT, Client, Shard


def process_of(shard: Shard) -> Forked:
    assert isinstance(shard.process, Forked)
    return shard.process


def proc(shard: Shard, file: str) -> str:
    return Path(f"/proc/{process_of(shard).pid}/{file}").read_text()


def descriptors_of(shard: Shard) -> set[str]:
    found = set()
    for fd in Path(f"/proc/{process_of(shard).pid}/fd").iterdir():
        # A connection that ends during the look is shared with nobody.
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(fd))
    return found


def kilobytes(smaps: str, field: str) -> int:
    return sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith(f"{field}:"))


def test_a_forked_shard_is_a_process_like_any_other(fork_server: ForkServer, new_shard: Callable[..., Shard]) -> None:
    assert fork_server.ready == {"ready": True}
    one, two = new_shard("one"), new_shard("two")
    for shard in (one, two):
        pid = process_of(shard).pid
        assert json.loads(shard.ready.read_text())["pid"] == pid
        # What `ps` shows, and the launcher knows it by.
        assert proc(shard, "cmdline").rstrip("\0").split("\0")[1:] == ["-m", "multi_synapse", "--config", str(shard.config)]
        assert os.getsid(pid) == pid
        assert shard.call("GET", "/v1/shard").json["pid"] == pid
    assert one.call("GET", "/v1/shard").json["release"] == fork_server.python.parents[1].name.removeprefix("synapse-")
    # Each has a reactor of its own: sockets, pipes and event polls are shared with nobody.
    assert {item for item in descriptors_of(one) & descriptors_of(two) if item.startswith(("socket:", "pipe:"))} == set()


def test_shards_of_one_server_share_most_of_their_memory(new_shard: Callable[..., Shard]) -> None:
    for shard in (new_shard("one"), new_shard("two")):
        smaps = proc(shard, "smaps_rollup")
        shared = kilobytes(smaps, "Shared_Dirty")
        assert shared > 2 * kilobytes(smaps, "Private_Dirty"), smaps


def test_tenants_of_forked_shards_work(new_shard: Callable[..., Shard], assign: Callable[..., dict[str, Any]]) -> None:
    shards = {name: new_shard(name) for name in ("one", "two")}
    for name, shard in shards.items():
        client = Client(shard.expect_started(name, assign(name))["address"]).register()
        client.create_room()
        client.send(f"from {name}")
    for shard in shards.values():
        shard.signal(signal.SIGTERM)
    assert [process_of(shard).wait(60) for shard in shards.values()] == [0, 0]


def test_the_end_of_a_shard_is_told_with_its_code(new_shard: Callable[..., Shard]) -> None:
    killed, stopped = process_of(new_shard("killed")), process_of(new_shard("stopped"))
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(30) == 0


def request_in(folder: Path, directory: Path) -> dict[str, Any]:
    """For a shard with a configuration in the folder, and what it says."""
    return {
        "arguments": ["--config", str(folder / "shard.json")],
        "environment": {},
        "directory": str(directory),
        "output": str(folder / "output"),
    }


def test_a_wrong_configuration_is_said_where_a_shard_says_it(fork_server: ForkServer, folder: Path) -> None:
    (folder / "shard.json").write_text("{}")
    process = fork_server.fork(request_in(folder, folder))
    assert process.wait(30) == 2
    assert "shard.json" in (folder / "output").read_text()


def test_a_process_that_cannot_be_confined_is_not_started(fork_server: ForkServer, folder: Path) -> None:
    with pytest.raises(AssertionError, match="could not be confined"):
        fork_server.fork(request_in(folder, folder / "is-not-there"))
    assert "FileNotFoundError" in (folder / "output").read_text()


def test_shards_outlive_their_server(python: Path, folder: Path) -> None:
    server = ForkServer(python, CHECKOUT)
    shard = Shard(python, folder / "one", "one", server).start()
    try:
        assert server.close() == 0
        assert shard.call("GET", "/v1/shard").json["name"] == "one"
    finally:
        os.kill(process_of(shard).pid, signal.SIGKILL)
