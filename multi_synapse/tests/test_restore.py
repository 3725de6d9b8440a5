from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .postgres import Postgres
from .shard import CHECKOUT, Client, Shard
from .watching import PATIENCE_SECONDS

Assign = Callable[..., dict[str, Any]]
NewShard = Callable[..., Shard]


def test_after_kill_everything_comes_back(new_shard: NewShard, assign: Assign) -> None:
    # Guards against: after a crash tenants stay away until the controller acts, lose data, or are found at another address.
    shard = new_shard()
    clients = {name: Client(shard.expect_started(name, assign(name))["address"]).register() for name in ("a", "b", "c", "d", "e")}
    sent = {name: (client.create_room(), client.send("kept"))[1] for name, client in clients.items()}
    before = {name: state["address"] for name, state in shard.tenants().items()}
    shard.kill()
    shard.start()
    for name, client in clients.items():
        state = shard.expect_phase(name, "running")
        assert state["address"] == before[name]
        assert client.ok("GET", f"/_matrix/client/v3/rooms/{client.room}/event/{sent[name]}")["content"]["body"] == "kept"
        client.work()


def test_a_taken_port_is_no_obstacle(new_shard: NewShard, assign: Assign) -> None:
    # Guards against: a tenant stays away because somebody else got its port meanwhile.
    import socket

    shard = new_shard()
    address = shard.expect_started("a", assign("a"))["address"]
    shard.kill()
    host, port = address.split(":")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((host, int(port)))
        squatter.listen()
        shard.start()
        state = shard.expect_phase("a", "running")
        assert state["address"] != address
        Client(state["address"]).register().work()


def test_sigterm_drains_and_keeps_the_assignments(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a node that is emptied cuts requests off, or its tenants are forgotten.
    import threading

    shard = new_shard()
    assignment = assign("a")
    client = Client(shard.expect_started("a", assignment)["address"]).register()
    shard.expect_started("b", assign("b"))
    since = client.sync()["next_batch"]
    answers: list[Any] = []
    poll = threading.Thread(target=lambda: answers.append(client.sync(since, 30000)))
    poll.start()
    time.sleep(0.3)
    shard.signal(signal.SIGTERM)
    assert shard.wait() == 0
    poll.join(PATIENCE_SECONDS)
    assert answers[0]["next_batch"]
    assert postgres.connections_to(assignment["base"]["database"]["args"]["dbname"]) == 0
    shard.start()
    shard.expect_phase("a", "running")
    shard.expect_phase("b", "running")


def test_restoring_what_another_shard_took(new_shard: NewShard, assign: Assign) -> None:
    # Guards against: a shard that comes up again takes tenants back from where they were moved meanwhile.
    old, new = new_shard("old"), new_shard("new")
    assignment = assign("moved")
    old.expect_started("moved", assignment)
    old.kill()
    address = new.expect_started("moved", {**assignment, "epoch": 2})["address"]
    old.start()
    state = old.expect_phase("moved", "fenced")
    assert state["error"]["code"] == "Fenced"
    Client(address).register().work()
    old.kill()
    old.start()
    assert old.tenants() == {}


def test_a_failed_restore_is_shown_and_tried_again(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: shard and database come up together, the shard is first, and its tenants stay away forever.
    shard = new_shard()
    shard.expect_started("a", assign("a"))
    shard.expect_started("b", assign("b"))
    shard.kill()
    postgres.stop()
    try:
        shard.start()
        state = shard.expect_phase("a", "failed")
        assert state["error"]["code"] == "DatabaseUnreachable"
        assert state["address"] is None
    finally:
        postgres.start()
    shard.expect_phase("a", "running")
    shard.expect_phase("b", "running")


def test_deleting_while_it_waits_to_be_tried_again(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a tenant that was taken away comes back with its next attempt.
    shard = new_shard()
    shard.expect_started("a", assign("a"))
    shard.kill()
    postgres.stop()
    try:
        shard.start()
        shard.expect_phase("a", "failed")
        assert shard.delete("a").json["absent"] is False
    finally:
        postgres.start()
    time.sleep(3)
    assert shard.tenants() == {}


def test_one_process_per_state_directory(new_shard: NewShard, assign: Assign) -> None:
    # Guards against: two processes on one state directory remove each other's assignments.
    shard = new_shard()
    shard.expect_started("a", assign("a"))
    process = subprocess.run(
        [shard.python, "-m", "multi_synapse", "--config", shard.config],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert process.returncode == 2
    assert "used by another process" in process.stderr
    assert shard.tenants()["a"]["phase"] == "running"


def keep_copy(directory: Path, name: str, assignment: dict[str, Any], port: int = 0) -> None:
    """What the launcher keeps in the shard's Secret on Kubernetes."""
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps({**assignment, "port": port}).encode()))


def test_a_new_state_directory_is_seeded_once(new_shard: NewShard, assign: Assign, folder: Path) -> None:
    # Guards against: a recreated pod starts nothing, or elsewhere than gateways look; and a container that merely restarts brings back
    # what was stopped, from a copy that is a minute old.
    copies = folder / "copies"
    first = new_shard("same", folder_name="first-pod")
    asked = assign("a")
    state = first.expect_started("a", {**asked, "port": 21007})
    assert state["address"] == "127.0.0.1:21007"
    client = Client(state["address"]).register()
    client.create_room()
    event = client.send("kept")
    first.kill()
    keep_copy(copies, "a", asked, 21007)
    keep_copy(copies, "b", assign("b"), 21008)
    (copies / "broken.json.gz").write_bytes(b"not gzip")
    second = new_shard("same", folder_name="second-pod", assignmentsDir=str(copies))
    assert second.expect_phase("a", "running")["address"] == "127.0.0.1:21007"
    assert client.ok("GET", f"/_matrix/client/v3/rooms/{client.room}/event/{event}")["content"]["body"] == "kept"
    assert second.expect_phase("b", "running")["address"] == "127.0.0.1:21008"
    second.delete("b")
    second.expect_started("c", assign("c"))
    second.kill()
    second.start()
    second.expect_phase("a", "running")
    second.expect_phase("c", "running")
    assert set(second.tenants()) == {"a", "c"}


def test_an_old_copy_is_refused_by_the_fence(new_shard: NewShard, assign: Assign, folder: Path) -> None:
    # Guards against: a recreated pod takes a tenant back that was moved away after its copy was written.
    assignment = assign("moved")
    keep_copy(folder / "copies", "moved", assignment)
    address = new_shard("new").expect_started("moved", {**assignment, "epoch": 2})["address"]
    old = new_shard("old", assignmentsDir=str(folder / "copies"))
    assert old.expect_phase("moved", "fenced")["error"]["code"] == "Fenced"
    Client(address).register().work()
