from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from synapse.util.clock import Clock
from synapse.util.duration import Duration
from twisted.internet import defer
from twisted.internet.testing import MemoryReactorClock

from multi_synapse import rules
from multi_synapse.due import NEXT_DUE
from multi_synapse.housekeeping import Housekeeping, Pace

from .postgres import Postgres
from .shard import Client, Shard

Assign = Callable[..., dict[str, Any]]
NewShard = Callable[..., Shard]


class World:
    """A clock with loops, their housekeeping, and a time that is the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, due: list[Any] | None = None) -> None:
        self.reactor = MemoryReactorClock()
        self.clock = Clock(self.reactor, "test")
        self.open_requests = False
        self.jobs = 0
        self.runs: dict[str, list[float]] = {}
        self._monkeypatch = monkeypatch
        answers = iter(due or [])

        def next_due() -> defer.Deferred[float | None]:
            answer = next(answers, None)
            return defer.fail(answer) if isinstance(answer, Exception) else defer.succeed(answer)

        self.housekeeping = Housekeeping(
            clock=self.clock,
            reactor=self.reactor,
            pace=Pace(idle_seconds=30, round_seconds=600),
            in_use=lambda: self.open_requests,
            database_jobs=lambda: self.jobs,
            next_due=next_due,
        )

    def loop(self, name: str, seconds: float, rule: rules.Rule | None = None) -> None:
        times = self.runs.setdefault(name, [])

        def function() -> None:
            times.append(self.reactor.seconds())

        function.__qualname__ = name
        made = self.clock.looping_call(function, Duration(seconds=seconds))
        if rule is not None:
            self._monkeypatch.setitem(rules.RULES, rules.name_of(made), rule)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.5)):
            self.reactor.advance(0.5)
            if self.reactor.seconds() % 2.5 == 0:
                self.housekeeping.review()

    def ran(self, name: str) -> int:
        """How often since it was last asked."""
        count = len(self.runs[name])
        self.runs[name].clear()
        return count


HOLD = rules.Rule("of the test")


def test_loops_of_an_idle_tenant_run_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: idle tenants keep processor and database busy with housekeeping; or their housekeeping is never done.
    world = World(monkeypatch)
    world.loop("often", 5, HOLD)
    world.loop("seldom", 900, HOLD)
    world.pass_time(100)
    assert world.ran("often") >= 5
    world.pass_time(350)
    assert world.ran("often") == 0
    assert world.housekeeping.is_resting()
    world.pass_time(600)
    assert 1 <= world.ran("often") <= 4
    # At most a round late.
    world.pass_time(900 + 600 - 1050)
    assert world.ran("seldom") == 1


def test_a_request_gives_the_loops_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: a tenant that is used again goes on as if it were idle: nobody times out, nothing is rotated or reaped.
    world = World(monkeypatch)
    for name in ("a", "b"):
        world.loop(name, 10, HOLD)
    world.pass_time(200)
    world.ran("a"), world.ran("b")
    world.housekeeping.wake()
    world.reactor.advance(0.1)
    assert world.ran("a") == world.ran("b") == 1
    world.pass_time(20)
    assert world.ran("a") == 2


def test_work_in_the_database_and_open_requests_are_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: a tenant that sends delayed events, purges a room or answers a long poll has its housekeeping held.
    world = World(monkeypatch)
    world.loop("a", 10, HOLD)
    world.pass_time(200)
    assert world.housekeeping.is_resting()
    world.jobs += 1
    world.pass_time(5)
    assert not world.housekeeping.idle
    world.pass_time(195)
    assert world.housekeeping.is_resting()
    world.open_requests = True
    world.pass_time(300)
    assert not world.housekeeping.idle
    assert world.ran("a") > 30


def test_frequent_loops_run_once_after_the_last_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: what a request left to be written by a loop waits for the next round, and a killed process loses it.
    world = World(monkeypatch)
    world.loop("flush", 60, HOLD)
    world.pass_time(59)
    world.housekeeping.wake()
    world.ran("flush")
    world.pass_time(65)
    # It ran at 60, and, as the request was at 59, not before 120 again.
    assert world.ran("flush") >= 1
    world.pass_time(300)
    assert world.ran("flush") == 0


def test_loops_that_are_not_known_or_needed_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: a lock that is held expires as nobody renews it; somebody types forever.
    world = World(monkeypatch)
    needed = True
    world.loop("renewal", 30)
    world.loop("typing", 5, rules.Rule("of the test", lambda _owner: needed))
    world.pass_time(60)
    world.ran("renewal"), world.ran("typing")
    world.pass_time(60)
    assert (world.ran("renewal"), world.ran("typing")) == (2, 12)
    needed = False
    world.housekeeping.wake()
    world.pass_time(120)
    world.ran("renewal"), world.ran("typing")
    world.pass_time(60)
    assert (world.ran("renewal"), world.ran("typing")) == (2, 0)


def test_what_is_due_in_the_database_keeps_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: a scheduled task of an idle tenant comes a whole round late.
    world = World(monkeypatch, due=[200.0])
    world.loop("tasks", 60, HOLD)
    world.pass_time(199)
    world.ran("tasks")
    world.pass_time(6)
    assert world.ran("tasks") == 1


def test_when_it_is_not_known_what_is_due_one_looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: a database that is away for a moment makes scheduled tasks come a round late.
    world = World(monkeypatch, due=[RuntimeError("no database")])
    world.loop("tasks", 60, HOLD)
    world.pass_time(32.5)
    world.ran("tasks")
    world.pass_time(75)
    assert world.ran("tasks") >= 1


def test_a_stopped_tenant_leaves_no_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: held loops of a stopped tenant start again, on a closed database.
    world = World(monkeypatch)
    world.loop("a", 10, HOLD)
    world.pass_time(200)
    world.housekeeping.close()
    world.clock.shutdown()
    world.ran("a")
    world.pass_time(1000)
    world.housekeeping.wake()
    world.pass_time(100)
    assert world.ran("a") == 0
    assert world.reactor.getDelayedCalls() == []


@pytest.mark.smoke
def test_every_loop_of_synapse_has_a_rule(new_shard: NewShard, assign: Assign) -> None:
    # Guards against: a new release of Synapse has loops that keep idle tenants awake, and nobody notices.
    shard = new_shard(tenantIdleSeconds=1, databaseIdleSeconds=1)
    Client(shard.expect_started("a", assign("a"))["address"]).register().work()
    # Presence begins to look for timeouts after 30 s.
    time.sleep(36)
    unknown = [line for line in shard.logged.splitlines() if "not in the rules" in line]
    assert unknown == []


def test_an_idle_tenant_rests_and_keeps_its_appointments(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: idle tenants keep connections open; or their delayed events and scheduled tasks come late.
    shard = new_shard(tenantIdleSeconds=5, databaseIdleSeconds=5)
    delayed = assign("delayed", overrides="max_event_delay_duration: 1h\n")
    tasks = assign("tasks")
    client = Client(shard.expect_started("delayed", delayed)["address"]).register()
    client.work()
    other = Client(shard.expect_started("tasks", tasks)["address"]).register()
    other.work()
    databases = [str(item["base"]["database"]["args"]["dbname"]) for item in (delayed, tasks)]
    begun = time.time()
    path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/late?org.matrix.msc4140.delay=85000"
    client.ok("PUT", path, {"msgtype": "m.text", "body": "late"})
    # Due when nothing else is.
    parameters = json.dumps({"user_id": f"@{other.user}:tasks.localhost", "device_id": "GONE", "up_to_stream_id": 1})
    postgres.query(
        "INSERT INTO scheduled_tasks (id, action, status, timestamp, params) VALUES ('t', 'delete_device_messages', 'scheduled', %s, %s)",
        int((begun + 90) * 1000),
        parameters,
        database=databases[1],
    )
    while time.time() < begun + 72:
        time.sleep(0.2)
    seen = []
    while time.time() < begun + 82:
        seen.append(sum(postgres.connections_to(database) for database in databases))
        time.sleep(0.2)
    assert max(seen) == 0, seen
    assert shard.stats(collect=False)["threads"] <= 4

    def late_messages() -> int:
        sql = "SELECT count(*) FROM event_json JOIN events USING (event_id) WHERE type = 'm.room.message' AND json LIKE '%%late%%'"
        return int(postgres.query(sql, database=databases[0])[0][0])

    def task_status() -> str:
        return str(postgres.query("SELECT status FROM scheduled_tasks", database=databases[1])[0][0])

    assert (late_messages(), task_status()) == (0, "scheduled")
    arrived: dict[str, float] = {}
    while len(arrived) < 2 and time.time() < begun + 120:
        if late_messages():
            arrived.setdefault("message", time.time() - begun)
        if task_status() != "scheduled":
            arrived.setdefault("task", time.time() - begun)
        time.sleep(0.2)
    assert arrived["message"] < 85 + 5, arrived
    assert arrived["task"] < 90 + 10, arrived
    # And it is there for the next request.
    other.work()


def test_what_is_due_is_read_from_the_tables(databases: Any, postgres: Postgres) -> None:
    # Guards against: a server that could not be reached is sent what it missed a whole round late.
    database = databases.create()

    def due() -> int | None:
        at = postgres.query(NEXT_DUE, database=database)[0][0]
        return None if at is None else int(at)

    def insert(table: str, **row: Any) -> None:
        columns, places = ", ".join(row), ", ".join(["%s"] * len(row))
        postgres.query(f"INSERT INTO {table} ({columns}) VALUES ({places})", *row.values(), database=database)

    assert due() is None
    insert("scheduled_tasks", id="done", action="a", status="complete", timestamp=1)
    insert("destinations", destination="up", retry_last_ts=0, retry_interval=0, last_successful_stream_ordering=7)
    insert("rooms", room_id="!r", is_public=False)
    insert("destination_rooms", destination="up", room_id="!r", stream_ordering=7)
    assert due() is None
    insert("scheduled_tasks", id="later", action="a", status="scheduled", timestamp=9000)
    assert due() == 9000
    insert("destinations", destination="down", retry_last_ts=4000, retry_interval=2000, last_successful_stream_ordering=6)
    insert("destination_rooms", destination="down", room_id="!r", stream_ordering=7)
    assert due() == 6000
    insert("device_federation_outbox", destination="new", stream_id=1, queued_ts=1, messages_json="{}")
    assert due() == 0
