from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from multi_synapse.idle import is_poll

from .postgres import Postgres
from .service import running_service
from .shard import Client, Shard

Assign = Callable[..., dict[str, Any]]
NewShard = Callable[..., Shard]


def idle(shard: Shard, name: str = "a") -> Any:
    answer = shard.call("GET", f"/v1/tenants/{name}/idle")
    assert answer.status == 200, answer.body
    return answer.json


def idle_when(shard: Shard, what: str, is_so: Callable[[Any], bool], seconds: float = 120) -> Any:
    for deadline in (time.time() + seconds,):
        while time.time() < deadline:
            if is_so(answer := idle(shard)):
                return answer
            time.sleep(0.2)
    raise AssertionError(f"not {what}: {answer}")


def may_sleep(answer: Any) -> bool:
    return bool(answer["keepsAwake"] == [] and answer["inFlight"] == 0)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/_matrix/client/v3/sync", True),
        (b"/_matrix/client/r0/sync", True),
        (b"/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", True),
        (b"/_matrix/client/v3/rooms/!r/messages", False),
        (b"/_matrix/client/v3/sync/more", False),
        (b"/sync", False),
    ],
)
def test_polls_are_known_by_their_path(path: bytes, expected: bool) -> None:
    assert is_poll(path) is expected


@pytest.mark.smoke
def test_a_tenant_that_nobody_uses_may_sleep_for_at_most_a_day(new_shard: NewShard, assign: Assign, postgres: Postgres) -> None:
    shard = new_shard()
    assignment = assign("a", overrides="max_event_delay_duration: 1h\n")
    client = Client(shard.expect_started("a", assignment)["address"]).register()
    client.work()
    answer = idle_when(shard, "free of work", may_sleep)
    assert answer["nextDue"]["reason"] == "its daily housekeeping"
    assert 0.75 * 86_400 < answer["nextDue"]["at"] - time.time() <= 86_400

    # Polls that return nothing are no use of it, nor are they open requests; a request, and a poll with news, are.
    since = client.sync()["next_batch"]
    since = client.sync(since)["next_batch"]
    time.sleep(1.2)
    assert client.sync(since)["next_batch"]
    assert client.call("GET", "/health").status == 200
    assert idle(shard)["lastUse"] > 1
    polling = threading.Thread(target=lambda: client.sync(since, timeout_ms=8_000))
    polling.start()
    time.sleep(0.5)
    waiting = idle(shard)
    assert (waiting["inFlight"], waiting["keepsAwake"]) == (0, [])
    assert waiting["lastUse"] > 1
    client.send("news")
    polling.join()
    assert idle(shard)["lastUse"] < 1
    load = shard.call("GET", "/v1/load").json["tenants"]["a"]
    assert load["inFlight"] == 0
    assert load["lastUse"] < 2

    # Somebody who types is waited for.
    client.ok(
        "PUT",
        f"/_matrix/client/v3/rooms/{quote(client.room)}/typing/{quote('@' + client.user + ':a.localhost')}",
        {"typing": True, "timeout": 4_000},
    )
    assert "somebody is typing" in idle(shard)["keepsAwake"]

    # What has a time is told with it.
    path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/later?org.matrix.msc4140.delay=1800000"
    client.ok("PUT", path, {"msgtype": "m.text", "body": "later"})
    due = idle_when(shard, "free of work", may_sleep)["nextDue"]
    assert due["reason"] == "a delayed event"
    assert abs(due["at"] - time.time() - 1800) < 60

    # What is due already keeps it awake; so do background updates, and what an application service has not taken.
    database = str(assignment["base"]["database"]["args"]["dbname"])
    postgres.query("INSERT INTO application_services_txns (as_id, txn_id, event_ids) VALUES ('bridge', 1, '[]')", database=database)
    postgres.query("INSERT INTO background_updates (update_name, progress_json) VALUES ('some_update', '{}')", database=database)
    kept = idle(shard)["keepsAwake"]
    assert "a transaction for the application service bridge" in kept
    assert "background updates of its database" in kept
    postgres.query("DELETE FROM application_services_txns", database=database)
    postgres.query("DELETE FROM background_updates", database=database)

    # Before a long sleep the housekeeping is done that it would miss.
    postgres.query("UPDATE synapse_shards.housekeeping SET done_at = %s", time.time() - 80_000, database=database)
    first = idle_when(shard, "at its housekeeping", lambda answer: any("housekeeping" in reason for reason in answer["keepsAwake"]))
    assert first["nextDue"]["at"] - time.time() <= 86_400 - 80_000
    idle_when(shard, "done with its housekeeping", may_sleep)
    ((done_at,),) = postgres.query("SELECT done_at FROM synapse_shards.housekeeping", database=database)
    assert time.time() - done_at < 30


def test_a_tenant_that_does_not_run_here_is_not_found(new_shard: NewShard) -> None:
    answer = new_shard().call("GET", "/v1/tenants/nobody/idle")
    assert (answer.status, answer.code) == (404, "NotFound")
    assert "nobody" in answer.message


def test_an_application_service_that_is_still_away_is_tried_once_and_then_after_as_long_as_it_has_been_away(
    new_shard: NewShard, assign: Assign, folder: Path, postgres: Postgres
) -> None:
    shard = new_shard()
    with running_service() as service:
        assignment = assign("a")
        assignment["base"]["app_service_config_files"] = [service.registration(folder)]
        client = Client(shard.expect_started("a", assignment)["address"]).register()
        client.work()
        shard.delete("a")
    # Nobody answers at its address from now on.
    database = str(assignment["base"]["database"]["args"]["dbname"])
    (name,) = [yaml.safe_load(Path(file).read_text())["id"] for file in assignment["base"]["app_service_config_files"]]
    postgres.query("INSERT INTO application_services_txns (as_id, txn_id, event_ids) VALUES (%s, 1, '[]')", name, database=database)
    postgres.query(
        "CREATE TABLE synapse_shards.services_away (as_id text PRIMARY KEY, since double precision NOT NULL);"
        "GRANT ALL ON synapse_shards.services_away TO PUBLIC;"
        "INSERT INTO synapse_shards.services_away VALUES (%s, %s)",
        name,
        time.time() - 2_000,
        database=database,
    )
    assignment["epoch"] += 1
    shard.expect_started("a", assignment)
    due = idle_when(shard, "done with its attempt", may_sleep)["nextDue"]
    assert due["reason"] == f"a transaction for the application service {name}, which is away"
    assert 1_900 < due["at"] - time.time() < 2_200
    # One that takes what it was owed is not away any more.
    postgres.query("DELETE FROM application_services_txns", database=database)
    idle(shard)
    assert postgres.query("SELECT * FROM synapse_shards.services_away", database=database) == []
