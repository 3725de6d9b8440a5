"""What was acknowledged, or was on its way, when a tenant stopped; docs/stops.md names each of these."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .postgres import Postgres
from .service import running_service
from .shard import Client, Shard
from .watching import wait_for

Assign = Callable[..., dict[str, Any]]
Shards = Callable[..., Shard]


def moved(name: str, assignment: dict[str, Any], source: Shard, target: Shard, drain_seconds: float = 10) -> str:
    """Moves a tenant as the controller does; its new address."""
    assert source.delete(name, drain_seconds).status == 200
    assignment["epoch"] += 1
    address: str = target.expect_started(name, assignment)["address"]
    return address


@pytest.mark.smoke
def test_an_application_service_gets_each_event_once_over_a_move(shard: Shard, other_shard: Shard, assign: Assign, folder: Path) -> None:
    """The case slow-appservice: each transaction takes 1.5 s."""
    with running_service(seconds=1.5) as service:
        assignment = assign("bridged")
        assignment["base"]["app_service_config_files"] = [service.registration(folder)]
        client = Client(shard.expect_started("bridged", assignment)["address"]).register()
        client.create_room()
        for number in range(6):
            client.send(f"before {number}")
            time.sleep(0.25)
        client.address = moved("bridged", assignment, shard, other_shard)
        for number in range(4):
            client.send(f"after {number}")
        wanted = [f"before {number}" for number in range(6)] + [f"after {number}" for number in range(4)]
        wait_for(lambda: len(service.bodies()) >= len(wanted))
        time.sleep(2)
        assert service.bodies() == wanted
        # Not even under the number of the first time, as the stop waits for an answer that comes soon.
        assert len(service.transactions) == len({path for path, _ in service.transactions})


def test_an_application_service_that_is_slower_than_a_stop_gets_the_transaction_again(
    shard: Shard, other_shard: Shard, assign: Assign, folder: Path
) -> None:
    with running_service(seconds=60) as service:
        assignment = assign("bridged")
        assignment["base"]["app_service_config_files"] = [service.registration(folder)]
        client = Client(shard.expect_started("bridged", assignment)["address"]).register()
        client.create_room()
        client.send("cut off")
        wait_for(lambda: service.transactions)
        client.send("queued")
        begun = time.monotonic()
        client.address = moved("bridged", assignment, shard, other_shard, drain_seconds=100)
        # Its answer takes a minute.
        assert time.monotonic() - begun < 50
        service.seconds = 0
        # Without anything new that would set the queue going.
        wait_for(lambda: service.bodies() == ["cut off", "queued"])
        client.send("after")
        wait_for(lambda: service.bodies() == ["cut off", "queued", "after"])


def test_an_application_service_gets_receipts_that_were_queued_at_a_stop(
    shard: Shard, other_shard: Shard, assign: Assign, folder: Path
) -> None:
    with running_service() as service:
        assignment = assign("bridged")
        assignment["base"]["app_service_config_files"] = [service.registration(folder)]
        client = Client(shard.expect_started("bridged", assignment)["address"]).register()
        client.create_room()
        event = client.send("read me")
        wait_for(lambda: service.bodies() == ["read me"])
        service.seconds = 4
        client.send("keeps the service busy")
        wait_for(lambda: len(service.bodies()) == 2)
        client.ok("POST", f"/_matrix/client/v3/rooms/{client.room}/receipt/m.read/{event}", {})
        assert service.ephemeral("m.receipt") == []
        client.address = moved("bridged", assignment, shard, other_shard)
        wait_for(lambda: service.ephemeral("m.receipt"))
        content = service.ephemeral("m.receipt")[0]["content"]
        assert list(content) == [event]


def test_an_application_service_gets_what_a_crash_left_unsent(new_shard: Shards, assign: Assign, folder: Path) -> None:
    shard = new_shard()
    with running_service() as service:
        assignment = assign("bridged")
        assignment["base"]["app_service_config_files"] = [service.registration(folder)]
        client = Client(shard.expect_started("bridged", assignment)["address"]).register()
        client.create_room()
        client.send("taken")
        wait_for(lambda: service.bodies() == ["taken"])
        service.seconds = 60
        client.send("in flight")
        wait_for(lambda: service.bodies() == ["taken", "in flight"])
        shard.kill()
        service.seconds = 0
        service.transactions.clear()
        shard.start()
        wait_for(lambda: service.bodies() == ["in flight"])


def test_a_stop_writes_when_media_were_read(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    assignment = assign("media")
    client = Client(shard.expect_started("media", assignment)["address"]).register()
    uri = client.ok("POST", "/_matrix/media/v3/upload?filename=x", {"a": 1})["content_uri"]
    client.ok("GET", f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}")
    assert shard.delete("media", 5).status == 200
    database = assignment["base"]["database"]["args"]["dbname"]
    assert postgres.query("SELECT last_access_ts IS NOT NULL FROM local_media_repository", database=database) == [(True,)]


def test_a_stop_writes_who_was_there_and_from_where(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    assignment = assign("people")
    client = Client(shard.expect_started("people", assignment)["address"]).register()
    client.sync()
    client.ok("PUT", f"/_matrix/client/v3/presence/@{client.user}:people.localhost/status", {"presence": "unavailable"})
    assert shard.delete("people", 5).status == 200
    database = assignment["base"]["database"]["args"]["dbname"]
    assert postgres.query("SELECT state FROM presence_stream ORDER BY stream_id DESC LIMIT 1", database=database) == [("unavailable",)]
    assert postgres.query("SELECT DISTINCT ip FROM user_ips", database=database) == [("127.0.0.1",)]
    assert postgres.query("SELECT count(*) FROM devices WHERE last_seen IS NOT NULL", database=database) == [(1,)]
