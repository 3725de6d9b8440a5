"""What is under way between a tenant and another homeserver when the tenant stops; docs/stops.md names each of these."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from .peer import Peer
from .postgres import Postgres
from .shard import Client, Shard, request
from .test_stops import moved
from .watching import PATIENCE_SECONDS, wait_for

Assign = Callable[..., dict[str, Any]]
Shards = Callable[..., Shard]


def open_room(client: Client) -> str:
    client.room = client.ok("POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat", "room_version": "10"})["room_id"]
    return client.room


def newest(client: Client) -> str:
    return str(client.ok("GET", f"/_matrix/client/v3/rooms/{client.room}/messages?dir=b&limit=1")["chunk"][0]["event_id"])


def has_event(postgres: Postgres, assignment: dict[str, Any], event_id: str) -> bool:
    database = assignment["base"]["database"]["args"]["dbname"]
    sql = "SELECT NOT outlier FROM events WHERE event_id = %s AND rejection_reason IS NULL"
    return postgres.query(sql, event_id, database=database) == [(True,)]


class Work(NamedTuple):
    event_id: str
    missing_id: str
    #: Set when the third server may tell its key.
    answer_keys: threading.Event


def event_in_work(shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer]) -> Work:
    """A peer's event is taken up: the third server's event before it is missing, and that server does not tell its key yet."""
    peer, third = new_peer(), new_peer()
    address = shard.expect_started("here", federated)["address"]
    client = Client(address).register()
    room = open_room(client)
    for server in (peer, third):
        server.join("here.localhost", address, room)
    third.published = 2
    missing = third.message(room, "missing", [newest(client)], key=1)
    event = peer.message(room, "in work", [third.id_of(missing)], depth=101)
    peer.answers["/get_missing_events/"] = lambda _body: (200, {"events": [missing]})
    answer_keys = third.hold("/key/v2/server$")
    before = third.asked.count("/_matrix/key/v2/server")
    assert peer.send(event)["pdus"] == {peer.id_of(event): {}}
    wait_for(lambda: third.asked.count("/_matrix/key/v2/server") > before)
    return Work(peer.id_of(event), third.id_of(missing), answer_keys)


@pytest.mark.smoke
def test_an_event_of_another_server_that_was_in_work_is_taken_up_at_once(
    shard: Shard, other_shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer], postgres: Postgres
) -> None:
    work = event_in_work(shard, federated, new_peer)
    moving = threading.Thread(target=lambda: shard.delete("here", 1))
    moving.start()
    moving.join(PATIENCE_SECONDS)
    database = federated["base"]["database"]["args"]["dbname"]
    assert not has_event(postgres, federated, work.event_id)
    # What the stop broke is nobody's failure.
    assert postgres.query("SELECT * FROM event_failed_pull_attempts", database=database) == []
    assert postgres.query("SELECT * FROM destinations WHERE retry_interval > 0", database=database) == []
    work.answer_keys.set()
    federated["epoch"] += 1
    other_shard.expect_started("here", federated)
    wait_for(lambda: has_event(postgres, federated, work.event_id))
    assert has_event(postgres, federated, work.missing_id)


def test_a_stop_waits_for_keys_that_come_soon(
    shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer], postgres: Postgres
) -> None:
    work = event_in_work(shard, federated, new_peer)
    threading.Timer(1.5, work.answer_keys.set).start()
    begun = time.monotonic()
    assert shard.delete("here", 100).json["drained"] is True
    assert 1 < time.monotonic() - begun < 90
    assert has_event(postgres, federated, work.event_id)


class OnItsWay(NamedTuple):
    peer: Peer
    client: Client
    event_id: str
    #: Set when the peer may answer.
    answers: threading.Event


def on_its_way(shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer]) -> OnItsWay:
    """A peer that got a message before does not answer the transaction with the next one, "0"."""
    peer = new_peer()
    address = shard.expect_started("here", federated)["address"]
    client = Client(address).register()
    room = open_room(client)
    peer.join("here.localhost", address, room)
    client.send("arrives")
    wait_for(lambda: peer.bodies() == ["arrives"])
    answers = peer.hold("/federation/v1/send/")
    sent = peer.sends()
    event = client.send("0")
    wait_for(lambda: peer.sends() > sent)
    return OnItsWay(peer, client, event, answers)


@pytest.mark.smoke
def test_another_server_gets_all_that_was_on_its_way_to_it(
    shard: Shard, other_shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer]
) -> None:
    peer, client, event, answers = on_its_way(shard, federated, new_peer)
    for number in range(1, 5):
        client.send(f"{number}")
    client.ok("POST", f"/_matrix/client/v3/rooms/{client.room}/receipt/m.read/{event}", {})
    client.ok("PUT", "/_matrix/client/v3/sendToDevice/m.test/1", {"messages": {peer.user(): {"*": {"to": "device"}}}})
    begun = time.monotonic()
    peer.tenant = moved("here", federated, shard, other_shard, drain_seconds=100)
    # A server that is slow holds nobody up.
    assert time.monotonic() - begun < 90
    peer.transactions.clear()
    answers.set()
    # Without anything new that would set the queue going.
    wait_for(lambda: peer.bodies()[-5:] == ["0", "1", "2", "3", "4"], peer.bodies)
    wait_for(lambda: event in str(peer.edus("m.receipt")))
    wait_for(lambda: any(content["type"] == "m.test" for content in peer.edus("m.direct_to_device")))


@pytest.mark.smoke
def test_what_was_on_its_way_is_sent_first_however_slowly_it_is_read(
    shard: Shard, other_shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer], postgres: Postgres
) -> None:
    peer, client, _event, answers = on_its_way(shard, federated, new_peer)
    client.send("1")
    client.send("2")
    # What wakes the queue of this server at the start.
    client.ok("PUT", "/_matrix/client/v3/sendToDevice/m.test/1", {"messages": {peer.user(): {"*": {"to": "device"}}}})
    assert shard.delete("here", 100).status == 200
    answers.set()
    wait_for(lambda: peer.answered() == peer.sends())
    peer.transactions.clear()
    federated["epoch"] += 1
    database = federated["base"]["database"]["args"]["dbname"]
    with closing(postgres.connect(database)) as locking:
        with locking.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE synapse_shards.kept IN ACCESS EXCLUSIVE MODE")
        client.address = other_shard.expect_started("here", federated)["address"]
        client.send("3")
        # Later than anything that it could have sent meanwhile.
        client.ok("GET", f"/_matrix/client/v3/rooms/{client.room}/messages?dir=b&limit=1")
        assert peer.transactions == []
        locking.rollback()
    wait_for(lambda: len(peer.bodies()) >= 4)
    assert peer.bodies() == ["0", "1", "2", "3"]
    wait_for(lambda: any(content["type"] == "m.test" for content in peer.edus("m.direct_to_device")))
    wait_for(lambda: postgres.query("SELECT * FROM synapse_shards.kept", database=database) == [])


def test_a_draining_tenant_answers_the_server_whose_answer_it_waits_for(
    shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer]
) -> None:
    peer = new_peer()
    address = shard.expect_started("here", federated)["address"]
    client = Client(address).register()
    draining = threading.Event()
    answers: list[Any] = []

    def make_join(_body: Any) -> tuple[int, Any]:
        draining.wait(PATIENCE_SECONDS)
        time.sleep(0.5)
        for method, path in (
            ("GET", "/_matrix/key/v2/server"),
            ("GET", "/_matrix/federation/v1/version"),
            ("GET", "/_matrix/client/versions"),
            ("PUT", "/_matrix/federation/v1/send/1"),
        ):
            answers.append(request(address, method, path, {} if method == "PUT" else None, timeout=5).status)
        return 403, {"errcode": "M_FORBIDDEN", "error": "not today"}

    peer.answers["/make_join/"] = make_join
    joined: list[Any] = []
    joining = threading.Thread(
        target=lambda: joined.append(client.call("POST", f"/_matrix/client/v3/join/!room:{peer.name}?server_name={peer.name}", {}))
    )
    joining.start()
    wait_for(lambda: any("make_join" in path for path in peer.asked))
    result: list[Any] = []
    stopping = threading.Thread(target=lambda: result.append(shard.delete("here", 15).json))
    stopping.start()
    shard.expect_phase("here", "draining")
    draining.set()
    joining.join(PATIENCE_SECONDS)
    stopping.join(PATIENCE_SECONDS)
    assert answers == [200, 200, 421, 421]
    assert joined[0].status == 403
    assert result[0]["drained"] is True
    assert result[0]["seconds"] < 8
    with pytest.raises(ConnectionRefusedError):
        request(address, "GET", "/_matrix/key/v2/server")


def _greetings(peer: Peer) -> int:
    return sum("/federation/v1/send/greeting-" in path for path in peer.asked)


def test_a_tenant_that_was_away_greets_the_servers_that_it_shares_rooms_with_and_no_others(
    shard: Shard, federated: dict[str, Any], new_peer: Callable[[], Peer], postgres: Postgres
) -> None:
    here, other, gone = new_peer(), new_peer(), new_peer()
    address = shard.expect_started("here", federated)["address"]
    client = Client(address).register()
    room = open_room(client)
    for peer in (here, other, gone):
        peer.join("here.localhost", address, room)
    database = federated["base"]["database"]["args"]["dbname"]
    postgres.query("DELETE FROM current_state_events WHERE state_key = %s", gone.user(), database=database)
    for peer in (here, other, gone):
        peer.transactions.clear()
        peer.asked.clear()
    answers = here.hold("/federation/v1/send/greeting-")
    assert shard.call("POST", "/v1/tenants/here/greet?spreadSeconds=0.1").json == {"servers": 2}
    wait_for(lambda: any("greeting-" in path for path in here.asked))
    telling = "it tells other servers that it is back"
    assert telling in shard.call("GET", "/v1/tenants/here/idle").json["keepsAwake"]
    answers.set()
    # Beside it, a slow machine may only now send what the joins were.
    for peer in (here, other):
        wait_for(lambda peer=peer: _greetings(peer) == 1 and any(sent["pdus"] == [] for sent in peer.transactions))  # type: ignore[misc]
        assert peer.authorizations[-1].startswith('X-Matrix origin="here.localhost"')
    wait_for(lambda: telling not in shard.call("GET", "/v1/tenants/here/idle").json["keepsAwake"])
    assert _greetings(gone) == 0
    # A stop does not wait for those that have still to be greeted.
    assert shard.call("POST", "/v1/tenants/here/greet?spreadSeconds=600").json == {"servers": 2}
    assert shard.delete("here").status == 200
    refused = shard.call("POST", "/v1/tenants/here/greet")
    assert (refused.status, refused.code) == (404, "NotFound")
    assert "here" in refused.message
