from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .postgres import Postgres
from .shard import Client, Shard
from .watching import PATIENCE_SECONDS

Assign = Callable[..., dict[str, Any]]
NewShard = Callable[..., Shard]


def database_of(assignment: dict[str, Any]) -> str:
    return str(assignment["base"]["database"]["args"]["dbname"])


def with_epoch(assignment: dict[str, Any], epoch: int) -> dict[str, Any]:
    return {**assignment, "epoch": epoch}


def message_bodies(postgres: Postgres, database: str) -> set[str]:
    sql = "SELECT json::json->'content'->>'body' FROM event_json JOIN events USING (event_id) WHERE type = 'm.room.message'"
    return {row[0] for row in postgres.query(sql, database=database)}


def test_a_paused_shard_that_comes_back_cannot_write(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a shard that was given up for lost comes back and writes to databases that others own by now.
    old, new = new_shard("old"), new_shard("new")
    assignments = {name: assign(name) for name in ("busy", "idle", "kept")}
    addresses = {name: old.expect_started(name, assignment)["address"] for name, assignment in assignments.items()}
    database = database_of(assignments["busy"])
    client = Client(addresses["busy"]).register()
    client.create_room()
    kept = Client(addresses["kept"]).register()
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(index: int) -> None:
        count = 0
        while not stop.is_set():
            body = f"old-{index}-{count}"
            count += 1
            try:
                path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/{body}"
                if client.call("PUT", path, {"msgtype": "m.text", "body": body}, timeout=PATIENCE_SECONDS).status == 200:
                    acknowledged.append(body)
            except OSError:
                if stop.is_set() or "busy" not in old.tenants() or old.tenants()["busy"]["phase"] != "running":
                    return

    writers = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for writer in writers:
        writer.start()
    while len(acknowledged) < 10:
        time.sleep(0.01)
    old.signal(signal.SIGSTOP)
    time.sleep(2.5)
    for name in ("busy", "idle"):
        new.expect_started(name, with_epoch(assignments[name], 2))
    written_at_takeover = message_bodies(postgres, database)
    acknowledged_at_takeover = set(acknowledged)
    assert acknowledged_at_takeover <= written_at_takeover
    old.signal(signal.SIGCONT)
    state = old.expect_phase("busy", "fenced")
    assert state["error"]["code"] == "Fenced"
    # The idle one opens no connection; the pause tells.
    old.expect_phase("idle", "fenced")
    stop.set()
    for writer in writers:
        writer.join(PATIENCE_SECONDS)
    assert message_bodies(postgres, database) == written_at_takeover
    assert set(acknowledged) <= written_at_takeover
    # What was not taken over serves on.
    kept.work()
    assert old.tenants()["kept"]["phase"] == "running"
    # The new owner works on the same data.
    client.address = new.tenants()["busy"]["address"]
    client.work()
    # A fenced tenant stays listed, and its assignment is gone.
    old.kill()
    old.start()
    old.expect_phase("kept", "running")
    assert set(old.tenants()) == {"kept"}


def test_two_processes_of_one_shard(new_shard: NewShard, assign: Assign) -> None:
    # Guards against: two processes that both think they are the shard both write to its tenants' databases.
    first, second = new_shard("twin", "a"), new_shard("twin", "b")
    assignment = assign("torn")
    client = Client(first.expect_started("torn", assignment)["address"]).register()
    client.work()
    second.expect_started("torn", assignment)
    first.expect_phase("torn", "fenced")
    client.address = second.tenants()["torn"]["address"]
    client.work()
    # Asked again, the first takes it back, and the second notices.
    first.expect_started("torn", assignment)
    second.expect_phase("torn", "fenced")
    assert second.delete("torn").json["absent"] is False
    assert second.tenants() == {}


def test_lower_epochs_and_other_shards_are_refused(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: an order that is out of date takes a database from its owner.
    one, two = new_shard("one"), new_shard("two")
    assignment = assign("mine", epoch=3)
    client = Client(one.expect_started("mine", assignment)["address"]).register()
    for epoch in (1, 2, 3):
        answer = two.put("mine", with_epoch(assignment, epoch))
        assert (answer.status, answer.code) == (409, "Fenced")
        assert "one" in answer.message
    assert two.tenants() == {}
    client.work()
    two.expect_started("mine", with_epoch(assignment, 4))
    one.expect_phase("mine", "fenced")
    answer = one.put("mine", assignment)
    assert (answer.status, answer.code) == (409, "Fenced")
    rows = postgres.query("SELECT epoch, shard, instance FROM synapse_shards.fence", database=database_of(assignment))
    assert rows == [(4, "two", two.instance)]


def test_a_fence_that_others_made_is_used(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: the runtime only works with a fence table that it made itself.
    assignment = assign("given", epoch=7)
    database = database_of(assignment)
    postgres.query("CREATE SCHEMA synapse_shards AUTHORIZATION tenant", database=database)
    postgres.query("CREATE TABLE synapse_shards.fence (epoch bigint, shard text, instance text)", database=database)
    postgres.query("ALTER TABLE synapse_shards.fence OWNER TO tenant", database=database)
    postgres.query("INSERT INTO synapse_shards.fence VALUES (6, 'elsewhere', 'gone')", database=database)
    shard.expect_started("given", assignment)
    assert postgres.query("SELECT epoch FROM synapse_shards.fence", database=database) == [(7,)]


def test_locks_of_a_dead_owner_are_cleared(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: after a crash, joins and purges wait two minutes for a lock whose holder is dead.
    shard = new_shard()
    assignment = assign("locks")
    database = database_of(assignment)
    now = int(time.time() * 1000)
    postgres.query(
        f"INSERT INTO worker_locks (lock_name, lock_key, instance_name, token, last_renewed_ts) VALUES ('a', 'b', 'dead', 't', {now})",
        database=database,
    )
    postgres.query(
        "INSERT INTO worker_read_write_locks (lock_name, lock_key, instance_name, write_lock, token, last_renewed_ts)"
        f" VALUES ('new_event_during_purge', 'b', 'dead', true, 't', {now})",
        database=database,
    )
    shard.expect_started("locks", assignment)
    for table in ("worker_locks", "worker_read_write_locks"):
        assert postgres.query(f"SELECT * FROM {table} WHERE instance_name = 'dead'", database=database) == []


def test_connections_of_others_are_ended(shard: Shard, assign: Assign, postgres: Postgres, folder: Path) -> None:
    # Guards against: a connection that the former owner opened before the takeover goes on writing.
    assignment = assign("taken")
    args = assignment["base"]["database"]["args"]
    former = postgres.connect(args["dbname"], args["user"], args["password"])
    operator = postgres.connect(args["dbname"])
    shard.expect_started("taken", assignment)
    try:
        former.cursor().execute("SELECT 1")
        raise AssertionError("the former owner's connection lives")
    except Exception as error:
        assert "terminat" in str(error) or "closed" in str(error)
    with operator.cursor() as cursor:
        cursor.execute("SELECT 1")
    operator.close()


def test_a_stranger_that_may_write_is_refused_by_name(new_shard: Callable[..., Shard], assign: Assign, postgres: Postgres) -> None:
    # It could be a former owner, whom the tenant's role may not end.
    role = f"stranger_{secrets.token_hex(3)}"
    postgres.query(f"CREATE ROLE {role} LOGIN PASSWORD 'stranger'")
    assignment = assign("barred")
    postgres.query(f"GRANT INSERT ON events TO {role}", database=database_of(assignment))
    stranger = postgres.connect(database_of(assignment), role, "stranger")
    shard = new_shard()
    answer = shard.put("barred", assignment)
    assert (answer.status, answer.code) == (422, "DatabaseUnsuitable")
    assert all(part in answer.message for part in (role, f"backend {stranger.info.backend_pid}", f"GRANT {role}", "databaseRolesLeftAlone"))
    tolerant = new_shard("tolerant", databaseRolesLeftAlone=[role])
    tolerant.expect_started("barred", assignment)
    with stranger.cursor() as cursor:
        cursor.execute("SELECT 1")
    stranger.close()


def test_a_stranger_that_only_reads_is_left_alone(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    # A backup or an exporter, whose connection must not keep a tenant from starting.
    role = f"exporter_{secrets.token_hex(3)}"
    postgres.query(f"CREATE ROLE {role} LOGIN PASSWORD 'exporter' IN ROLE pg_read_all_data")
    assignment = assign("watched")
    exporter = postgres.connect(database_of(assignment), role, "exporter")
    shard.expect_started("watched", assignment)
    with exporter.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM events")
    exporter.close()
