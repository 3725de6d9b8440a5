from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Databases
from .postgres import Postgres
from .shard import Client, Shard
from .watching import children_of, command_of, is_gone, wait_for

Assign = Callable[..., dict[str, Any]]


def create(shard: Shard) -> str:
    answer = shard.call("POST", "/v1/preparers", {})
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def wait(shard: Shard, name: str, not_state: str) -> dict[str, Any]:
    """As the controller does: asks, and is answered when it is in another state."""

    def other_state() -> dict[str, Any] | None:
        state: dict[str, Any] = shard.call("GET", f"/v1/preparers/{name}?not={not_state}&waitSeconds=10").json
        return None if state["state"] == not_state else state

    return wait_for(other_state)


def migrate(assignment: dict[str, Any], name: str, shard: str) -> dict[str, Any]:
    return {"command": "migrate", "assignment": assignment, "name": name, "shard": shard, "instance": "prep"}


def preparers(shard: Shard) -> list[int]:
    """Not all of its children: the watchdog is one too."""
    assert shard.process is not None
    return [child for child in children_of(shard.process.pid) if "multi_synapse.prepare" in command_of(child)]


def test_a_database_is_prepared_for_a_shard(shard: Shard, databases: Databases, assign: Assign, postgres: Postgres) -> None:
    # Guards against: on Kubernetes, where the controller runs no Python, no tenant's database gets a schema.
    empty = databases.create_empty("prepared_through_the_api")
    assignment = assign("a", epoch=3, database=empty)
    name = create(shard)
    ready = wait(shard, name, "starting")
    assert (ready["state"], ready["event"]["event"]) == ("ready", "ready")
    assert shard.call("POST", f"/v1/preparers/{name}", migrate(assignment, "a", "test-0")).status == 200
    done = wait(shard, name, "working")
    assert (done["state"], done["event"]["event"]) == ("ready", "done"), done
    assert postgres.query("SELECT epoch, shard FROM synapse_shards.fence", database=empty) == [(3, "test-0")]
    Client(shard.expect_started("a", assignment)["address"]).register().work()
    wrong = shard.call("POST", f"/v1/preparers/{name}", migrate({**assignment, "epoch": 2}, "a", "other"))
    assert wrong.status == 200
    assert wait(shard, name, "working")["event"]["code"] == "Fenced"
    pids = preparers(shard)
    assert len(pids) == 1
    assert shard.call("DELETE", f"/v1/preparers/{name}").status == 200
    wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert shard.call("GET", f"/v1/preparers/{name}").code == "NotFound"


def test_they_are_bounded_and_say_why_not(own_shard: Shard) -> None:
    # Guards against: a burst of upgrades takes the memory of the pod that serves everybody; or a command is lost in a busy preparer.
    first, _second = create(own_shard), create(own_shard)
    third = own_shard.call("POST", "/v1/preparers", {})
    assert (third.status, third.code) == (429, "TooManyPreparers")
    early = own_shard.call("POST", f"/v1/preparers/{first}", {"command": "template"})
    assert (early.status, early.code) == (409, "NotReady")
    assert own_shard.call("POST", f"/v1/preparers/{first}", []).code == "InvalidJson"
    assert own_shard.call("GET", f"/v1/preparers/{first}?waitSeconds=99").code == "InvalidArgument"
    assert own_shard.call("GET", f"/v1/preparers/{first}?not=nonsense").code == "InvalidArgument"
    assert own_shard.call("GET", "/v1/preparers/unknown").code == "NotFound"
    own_shard.call("DELETE", f"/v1/preparers/{first}")
    create(own_shard)


def test_one_that_dies_says_so(own_shard: Shard) -> None:
    # Guards against: a controller waits for a preparer that the kernel killed, or the shard never has room for another.
    name, other = create(own_shard), create(own_shard)
    wait(own_shard, name, "starting")
    wait(own_shard, other, "starting")
    for pid in preparers(own_shard):
        os.kill(pid, signal.SIGKILL)
    ended = wait(own_shard, name, "ready")
    assert (ended["state"], ended["event"]["code"]) == ("ended", "PreparerEnded")
    wait(own_shard, other, "ready")
    create(own_shard)
    create(own_shard)


def test_none_outlives_its_controller(new_shard: Callable[..., Shard]) -> None:
    # Guards against: preparers of a controller that was killed stay forever, and with them the claim on a tenant's database.
    shard = new_shard(preparerLeaseSeconds=1)
    wait(shard, create(shard), "starting")
    pids = preparers(shard)
    wait_for(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_its_shard(own_shard: Shard, number: signal.Signals) -> None:
    # Guards against: a process that nobody knows of works on a tenant's database.
    wait(own_shard, create(own_shard), "starting")
    pids = preparers(own_shard)
    own_shard.signal(number)
    own_shard.wait()
    wait_for(lambda: all(is_gone(pid) for pid in pids))
