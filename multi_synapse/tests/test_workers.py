from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .postgres import Postgres
from .shard import Client, Shard
from .team import REDIS, Team
from .test_dedicated import REVISION, fence_of
from .test_fence import database_of, message_bodies, with_epoch
from .watching import wait_for

Assign = Callable[..., dict[str, Any]]
NewTeam = Callable[..., Team]

pytestmark = pytest.mark.skipif(REDIS is None, reason="needs redis-server or valkey-server")

WORKERS = ["event-creator-0", "event-persister-0", "federation-sender-0"]
DUTIES = {"stream_writers": {"events": ["event-persister-0"]}, "federation_sender_instances": ["federation-sender-0"]}


@pytest.fixture
def new_team(python: Path, folder: Path) -> Iterator[NewTeam]:
    made: list[Team] = []

    def make(assignment: dict[str, Any], *options: str, name: str = "team") -> Team:
        team = Team(python, folder / name, assignment, *options, workers=WORKERS, duties=DUTIES)
        made.append(team)
        return team.start()

    yield make
    for team in made:
        team.kill()


def connections(postgres: Postgres, assignment: dict[str, Any]) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    return int(postgres.query(sql, database_of(assignment))[0][0])


def test_a_tenant_goes_from_a_shard_to_its_own_synapse_with_workers_and_back(
    shard: Shard, new_team: NewTeam, assign: Assign, postgres: Postgres
) -> None:
    # Guards against: what a worker was asked is lost when all of them stop; or one still has the database when it is released.
    assignment = assign("grows", epoch=1 * REVISION + 1)
    client = Client(shard.expect_started("grows", assignment)["address"]).register()
    client.create_room()
    client.send("on the shard")
    team = new_team(assignment, "--fence-revision", "2")
    team.main.expect_said("waiting until it is released")
    for worker in team.workers.values():
        worker.expect_said("waiting for the main process")
    shard.call("DELETE", "/v1/tenants/grows?drainSeconds=5&release=true")
    team.expect_healthy()
    assert fence_of(postgres, assignment) == (2 * REVISION + 1, "dedicated")
    client.address = team.workers["event-creator-0"].address
    client.send("by workers")
    # Written by the persister, which the creator asks.
    (writer,) = postgres.query("SELECT instance_name FROM events ORDER BY stream_ordering DESC LIMIT 1", database=database_of(assignment))
    assert writer == ("event-persister-0",)
    sent = ["by workers"]
    answers: list[int] = []
    stop = threading.Event()

    def chat() -> None:
        """Until it is told to go elsewhere, as a gateway is: nothing that was answered may be missing."""
        while not stop.is_set():
            body = f"message {len(sent)}"
            path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/{len(sent)}"
            try:
                answer = client.call("PUT", path, {"msgtype": "m.text", "body": body})
            except ConnectionRefusedError:
                return
            if answer.status == 421:
                return
            answers.append(answer.status)
            sent.append(body)

    chatting = threading.Thread(target=chat)
    chatting.start()
    time.sleep(0.5)
    team.signal(signal.SIGTERM)
    for process in team.processes:
        process.expect_end(0)
    stop.set()
    chatting.join()
    assert answers and set(answers) == {200}
    assert fence_of(postgres, assignment) == (2 * REVISION + 1, "")
    assert connections(postgres, assignment) == 0
    client.address = shard.expect_started("grows", with_epoch(assignment, 3 * REVISION + 1))["address"]
    client.send("back on the shard")
    assert {"on the shard", *sent, "back on the shard"} <= message_bodies(postgres, database_of(assignment))


def test_workers_that_stand_still_write_nothing_once_the_tenant_is_elsewhere(
    shard: Shard, new_team: NewTeam, assign: Assign, postgres: Postgres
) -> None:
    # Guards against: the main process is shut out, and a worker that the fence does not know of writes on.
    assignment = assign("leaves", epoch=2 * REVISION + 1)
    team = new_team(assignment, "--fence-revision", "1").expect_healthy()
    client = Client(team.main.address).register()
    client.create_room()
    client.address = team.workers["event-creator-0"].address
    client.send("before")
    for worker in team.workers.values():
        worker.signal(signal.SIGSTOP)
    client.address = shard.expect_started("leaves", assignment)["address"]
    client.send("on the shard")
    team.main.expect_end(4)
    written = message_bodies(postgres, database_of(assignment))
    for worker in team.workers.values():
        worker.signal(signal.SIGCONT)
        worker.expect_said("beginning anew")
        wait_for(lambda worker=worker: worker.said.count("waiting for the main process") == 2)  # type: ignore[misc]
        assert not worker.is_healthy()
    assert message_bodies(postgres, database_of(assignment)) == written
    client.send("still on the shard")


def test_workers_begin_anew_with_their_main_process(new_team: NewTeam, assign: Assign, postgres: Postgres) -> None:
    # Guards against: after a crash of the main process, workers stay away, or go on with what another claim let them read.
    assignment = assign("crashes")
    team = new_team(assignment).expect_healthy()
    wait_for(lambda: team.workers_cpu_seconds() > 0)
    client = Client(team.main.address).register()
    client.create_room()
    team.main.signal(signal.SIGKILL)
    client.address = team.workers["event-creator-0"].address
    # Its database is still theirs.
    client.send("without the main process")
    team.main.start()
    for worker in team.workers.values():
        worker.expect_said("beginning anew")
    team.expect_healthy()
    assert fence_of(postgres, assignment) == (2, "dedicated")
    client.send("with the next one")
    wait_for(lambda: team.workers_cpu_seconds() > 0)


def test_a_database_is_not_released_while_a_worker_has_it(new_team: NewTeam, assign: Assign, postgres: Postgres) -> None:
    # Guards against: released is taken for let go of, and the next owner does not wait for who still writes.
    assignment = assign("lingers")
    team = new_team(assignment, "--drain-seconds", "1").expect_healthy()
    team.workers["event-persister-0"].signal(signal.SIGSTOP)
    team.main.signal(signal.SIGTERM)
    team.main.expect_end(0)
    assert "workers have not ended; the database is not released" in team.main.said
    assert fence_of(postgres, assignment) == (1, "dedicated")
    assert (team.folder / "crew" / "ended").exists()
