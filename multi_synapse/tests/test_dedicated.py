from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synapse.config import server

from ..dedicated import _listen_without_ipv6
from .dedicated import Dedicated
from .postgres import Postgres
from .service import running_service
from .shard import Client, Shard
from .test_fence import database_of, message_bodies, with_epoch
from .watching import PATIENCE_SECONDS, wait_for

Assign = Callable[..., dict[str, Any]]
NewShard = Callable[..., Shard]
NewDedicated = Callable[..., Dedicated]

REVISION = 2**32


@pytest.fixture
def new_dedicated(python: Path, folder: Path) -> Iterator[NewDedicated]:
    made: list[Dedicated] = []

    def make(assignment: dict[str, Any], *options: str, name: str = "dedicated") -> Dedicated:
        dedicated = Dedicated(python, folder / name, assignment, *options)
        made.append(dedicated)
        return dedicated.start()

    yield make
    for dedicated in made:
        dedicated.kill()


def fence_of(postgres: Postgres, assignment: dict[str, Any]) -> tuple[int, str]:
    epoch, shard = postgres.query("SELECT epoch, shard FROM synapse_shards.fence", database=database_of(assignment))[0]
    return epoch, shard


def names_of_connections(postgres: Postgres, assignment: dict[str, Any]) -> set[str]:
    sql = "SELECT application_name FROM pg_stat_activity WHERE datname = %s"
    return {row[0] for row in postgres.query(sql, database_of(assignment))}


@pytest.mark.smoke
def test_a_tenant_goes_from_a_shard_to_its_own_synapse_and_back(
    shard: Shard, new_dedicated: NewDedicated, assign: Assign, postgres: Postgres
) -> None:
    # Guards against: users, rooms or messages are lost on the way, or both run at once.
    assignment = assign("grows", epoch=1 * REVISION + 1)
    client = Client(shard.expect_started("grows", assignment)["address"]).register()
    client.create_room()
    client.send("on the shard")
    dedicated = new_dedicated(assignment, "--fence-revision", "2")
    dedicated.expect_said("waiting until it is released")
    # What the controller goes by.
    assert "synapse-shards waiting 2" in names_of_connections(postgres, assignment)
    assert not dedicated.is_healthy()
    client.send("still on the shard")
    assert shard.call("DELETE", "/v1/tenants/grows?drainSeconds=5&release=true").json["released"] is True
    dedicated.expect_healthy()
    assert fence_of(postgres, assignment) == (2 * REVISION + 1, "dedicated")
    client.address = dedicated.address
    client.send("on its own")
    dedicated.signal(signal.SIGTERM)
    dedicated.expect_end(0)
    assert fence_of(postgres, assignment) == (2 * REVISION + 1, "")
    client.address = shard.expect_started("grows", with_epoch(assignment, 3 * REVISION + 1))["address"]
    client.send("back on the shard")
    assert {"on the shard", "still on the shard", "on its own", "back on the shard"} <= message_bodies(postgres, database_of(assignment))


def test_an_application_service_gets_each_event_once_on_the_way_to_a_dedicated_synapse_and_back(
    shard: Shard, new_dedicated: NewDedicated, assign: Assign, folder: Path
) -> None:
    with running_service(seconds=1) as service:
        assignment = assign("bridged", epoch=1 * REVISION + 1)
        assignment["base"]["app_service_config_files"] = [service.registration(folder)]
        client = Client(shard.expect_started("bridged", assignment)["address"]).register()
        client.create_room()
        wanted = []

        def send(text: str) -> None:
            wanted.append(text)
            client.send(text)

        for number in range(3):
            send(f"shard {number}")
        dedicated = new_dedicated(assignment, "--fence-revision", "2")
        dedicated.expect_said("waiting until it is released")
        send("at last")
        shard.call("DELETE", "/v1/tenants/bridged?drainSeconds=10&release=true")
        dedicated.expect_healthy()
        client.address = dedicated.address
        for number in range(3):
            send(f"dedicated {number}")
        dedicated.signal(signal.SIGTERM)
        dedicated.expect_end(0)
        client.address = shard.expect_started("bridged", with_epoch(assignment, 3 * REVISION + 1))["address"]
        send("back")
        wait_for(lambda: len(service.bodies()) >= len(wanted))
        assert service.bodies() == wanted


def test_a_first_start_in_an_empty_database(new_dedicated: NewDedicated, assign: Assign, databases: Any, postgres: Postgres) -> None:
    # Guards against: a new homeserver that never had a shard cannot start, or starts without a fence.
    assignment = assign("fresh", database=databases.create_empty(f"t_empty_{int(time.time() * 1000)}"))
    dedicated = new_dedicated(assignment).expect_healthy()
    assert fence_of(postgres, assignment) == (1, "dedicated")
    Client(dedicated.address).register().work()
    # A restart of its own does not wait for itself, also where the process could not release anything.
    dedicated.kill()
    dedicated.start().expect_healthy()
    assert fence_of(postgres, assignment) == (2, "dedicated")


def test_a_pod_of_an_older_revision_does_not_start(
    shard: Shard, new_dedicated: NewDedicated, assign: Assign, postgres: Postgres, folder: Path
) -> None:
    # Guards against: a pod that Kubernetes restarts while it is being removed takes the tenant from its new shard.
    assignment = assign("stale", epoch=6 * REVISION + 1)
    client = Client(shard.expect_started("stale", assignment)["address"]).register()
    revision = folder / "revision"
    revision.write_text("5\n")
    stale = ("--fence-revision-file", str(revision), "--handover-seconds", "1")
    new_dedicated(assignment, *stale).expect_end(3)
    # Also where the owner has let go.
    shard.call("DELETE", "/v1/tenants/stale?drainSeconds=5&release=true")
    second = new_dedicated(assignment, *stale, name="second")
    second.expect_end(3)
    assert "this is revision 5: this pod is out of date" in second.said
    assert fence_of(postgres, assignment) == (6 * REVISION + 1, "")
    client.address = shard.expect_started("stale", with_epoch(assignment, 6 * REVISION + 2))["address"]
    client.work()


def test_a_rollback_to_an_older_revision(shard: Shard, new_dedicated: NewDedicated, assign: Assign, postgres: Postgres) -> None:
    # Guards against: `helm rollback`, which writes the revision of then, leaves a homeserver that never starts again.
    assignment = assign("rolled", epoch=6 * REVISION + 1)
    shard.expect_started("rolled", assignment)
    dedicated = new_dedicated(assignment, "--fence-revision", "2")
    dedicated.expect_said("waiting until it is released to this older revision")
    assert "synapse-shards waiting 2" in names_of_connections(postgres, assignment)
    shard.call("DELETE", "/v1/tenants/rolled?drainSeconds=5&release=true")
    time.sleep(0.5)
    assert fence_of(postgres, assignment) == (6 * REVISION + 1, "")
    # As the controller does, which knows what is wanted now.
    postgres.query("UPDATE synapse_shards.fence SET instance = 'dedicated' WHERE shard = ''", database=database_of(assignment))
    dedicated.expect_healthy()
    assert fence_of(postgres, assignment) == (6 * REVISION + 2, "dedicated")
    # Its restarts need no leave, orderly or not.
    dedicated.signal(signal.SIGTERM)
    dedicated.expect_end(0)
    dedicated.start().expect_healthy()
    dedicated.kill()
    dedicated.start().expect_healthy()
    assert fence_of(postgres, assignment) == (6 * REVISION + 4, "dedicated")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_an_owner_that_ended_without_a_word_is_waited_for_and_shut_out(
    new_shard: NewShard, new_dedicated: NewDedicated, assign: Assign, postgres: Postgres, end: int
) -> None:
    # Guards against: a shard that died, or stands still, keeps the tenant down forever; or writes when it comes back.
    shard = new_shard()
    assignment = assign("torn", epoch=1)
    client = Client(shard.expect_started("torn", assignment)["address"]).register()
    client.create_room()
    client.send("before")
    shard.signal(end)
    begun = time.monotonic()
    dedicated = new_dedicated(assignment, "--fence-revision", "1", "--handover-seconds", "4").expect_healthy()
    assert time.monotonic() - begun > 4
    assert "has not released the database within 4 s" in dedicated.said
    client.address = dedicated.address
    client.send("after")
    if end == signal.SIGSTOP:
        shard.signal(signal.SIGCONT)
        shard.expect_phase("torn", "fenced")
    else:
        shard.wait()
        shard.start()
        shard.expect_phase("torn", "fenced")
    client.send("later")
    assert fence_of(postgres, assignment) == (REVISION + 1, "dedicated")


def test_a_dedicated_process_that_is_fenced_ends_at_once(
    shard: Shard, new_dedicated: NewDedicated, assign: Assign, postgres: Postgres
) -> None:
    # Guards against: two owners: a shard has taken the tenant, and the old process serves on, or writes when it wakes.
    assignment = assign("leaves", epoch=2 * REVISION + 1)
    dedicated = new_dedicated(assignment, "--fence-revision", "1").expect_healthy()
    client = Client(dedicated.address).register()
    client.create_room()
    client.send("before")
    dedicated.signal(signal.SIGSTOP)
    client.address = shard.expect_started("leaves", assignment)["address"]
    client.send("on the shard")
    written = message_bodies(postgres, database_of(assignment))
    dedicated.signal(signal.SIGCONT)
    dedicated.expect_end(4)
    assert "by now" in dedicated.said or "another owner" in dedicated.said
    assert message_bodies(postgres, database_of(assignment)) == written
    # Started again by whatever keeps it running, it says why it may not.
    dedicated.options = ("--fence-revision", "1", "--handover-seconds", "1")
    dedicated.start().expect_end(3)
    client.send("still on the shard")


def test_listeners_are_at_ipv4_alone_where_the_kernel_has_no_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synapse would end: it takes an address of IPv6 that it cannot have for an error."""
    monkeypatch.setattr(server, "DEFAULT_BIND_ADDRESSES", list(server.DEFAULT_BIND_ADDRESSES))

    def addresses() -> list[str]:
        listener = server.parse_listener_def(0, {"port": 8080, "type": "http", "tls": False})
        assert isinstance(listener, server.TCPListenerConfig)
        return list(listener.bind_addresses)

    (tmp_path / "if_inet6").touch()
    _listen_without_ipv6(tmp_path / "if_inet6")
    assert addresses() == ["::", "0.0.0.0"]
    _listen_without_ipv6(tmp_path / "nothing")
    assert addresses() == ["0.0.0.0"]


def test_two_dedicated_processes_at_once(new_dedicated: NewDedicated, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a pod that is recreated while the old one lives on, on a node that does not answer, makes two owners.
    assignment = assign("twins")
    first = new_dedicated(assignment, "--fence-revision", "1", name="first").expect_healthy()
    client = Client(first.address).register()
    second = new_dedicated(assignment, "--fence-revision", "1", name="second").expect_healthy()
    first.expect_end(4)
    client.address = second.address
    client.work()
    assert fence_of(postgres, assignment) == (REVISION + 2, "dedicated")


def test_the_end_answers_what_waits(new_dedicated: NewDedicated, assign: Assign) -> None:
    # Guards against: clients that wait for events get a reset connection whenever the process is stopped.
    assignment = assign("polite")
    dedicated = new_dedicated(assignment).expect_healthy()
    client = Client(dedicated.address).register()
    client.create_room()
    since = client.sync()["next_batch"]
    answers: list[Any] = []
    poll = threading.Thread(target=lambda: answers.append(client.sync(since, timeout_ms=110_000)))
    poll.start()
    time.sleep(0.5)
    begun = time.monotonic()
    dedicated.signal(signal.SIGTERM)
    poll.join(PATIENCE_SECONDS)
    assert answers and "next_batch" in answers[0]
    dedicated.expect_end(0)
    assert time.monotonic() - begun < 100


def test_a_start_that_fails_leaves_the_database_released(new_dedicated: NewDedicated, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a mistake in the configuration makes the way back to a shard wait for a process that never ran.
    assignment = assign("broken")
    assignment["base"]["modules"] = [{"module": "no.such.Module", "config": {}}]
    broken = new_dedicated(assignment, "--fence-revision", "3")
    assert broken.process is not None
    assert broken.process.wait(PATIENCE_SECONDS) == 1
    postgres.query("CREATE TABLE IF NOT EXISTS unused (n int)", database=database_of(assignment))
    rows = postgres.query("SELECT to_regclass('synapse_shards.fence') IS NOT NULL", database=database_of(assignment))
    if rows[0][0]:
        assert fence_of(postgres, assignment)[1] == ""
    # Two databases, or none of PostgreSQL, cannot be fenced.
    assignment = assign("lite")
    assignment["base"]["database"] = {"name": "sqlite3", "args": {"database": ":memory:"}}
    refused = new_dedicated(assignment, name="lite")
    refused.expect_end(2)
    assert "exactly one PostgreSQL database" in refused.said


def test_a_released_epoch_is_spent(shard: Shard, assign: Assign) -> None:
    # Guards against: an order to start that was delayed in the network brings a tenant back that has left for good.
    assignment = assign("left", epoch=5)
    shard.expect_started("left", assignment)
    assert shard.call("DELETE", "/v1/tenants/left?drainSeconds=1&release=true").json["released"] is True
    answer = shard.put("left", assignment)
    assert (answer.status, answer.code) == (409, "Fenced")
    shard.expect_started("left", with_epoch(assignment, 6))
    # Without release, as in a move, the order may be repeated.
    assert shard.delete("left").json["released"] is False
    shard.expect_started("left", with_epoch(assignment, 6))
