from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from synapse.notifier import Notifier
from synapse.types import StreamToken
from synapse.util.clock import Clock
from twisted.internet import defer, task

from multi_synapse.patches.http import end_long_polls, make_long_polls_drainable

from .postgres import Postgres
from .shard import Client, Shard, expect_no_stall, gateway_headers
from .watching import PATIENCE_SECONDS

Assign = Callable[..., dict[str, Any]]


def test_nobody_in_flight_is_cut_off(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: a move resets connections, loses an acknowledged message, or lets a long poll run into the stop.
    assignment = assign("busy")
    address = shard.expect_started("busy", assignment)["address"]
    client = Client(address).register()
    client.create_room()
    # Another user's, whom the messages below do not wake.
    waiting = Client(address).register()
    since = waiting.sync()["next_batch"]
    polls: list[Any] = []
    sent: list[str] = []
    failed: list[BaseException] = []

    def poll(index: int) -> None:
        # Distinct requests: equal ones share one wait.
        wanted = json.dumps({"room": {"timeline": {"limit": index + 1}}}, separators=(",", ":"))
        polls.append(waiting.call("GET", f"/_matrix/client/v3/sync?timeout=30000&since={since}&filter={wanted}"))

    def send() -> None:
        while True:
            try:
                path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/{uuid.uuid4().hex}"
                answer = client.call("PUT", path, {"msgtype": "m.text", "body": "under way"})
                # On its way to another shard: a gateway sends it again.
                if answer.status == 421:
                    return
                assert answer.status == 200, answer.body
                sent.append(answer.json["event_id"])
            except ConnectionRefusedError:
                return
            except BaseException as error:
                failed.append(error)
                return

    upload = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
    upload.putrequest("POST", "/_matrix/media/v3/upload?filename=x")
    sent_headers = {"authorization": f"Bearer {client.token}", "content-type": "text/plain", "content-length": "2000"}
    for key, value in {**sent_headers, **gateway_headers()}.items():
        upload.putheader(key, value)
    upload.endheaders()
    upload.send(b"x" * 1000)

    pollers = [threading.Thread(target=poll, args=(index,)) for index in range(4)]
    for thread in pollers:
        thread.start()
    time.sleep(0.5)
    assert not polls
    senders = [threading.Thread(target=send) for _ in range(4)]
    for thread in senders:
        thread.start()
    while len(sent) < 5:
        time.sleep(0.01)
    result: list[Any] = []
    stop = threading.Thread(target=lambda: result.append(shard.delete("busy", 15).json))
    stop.start()
    time.sleep(1)
    # The stop waits for the upload.
    assert stop.is_alive()
    assert shard.tenants()["busy"]["phase"] == "draining"
    upload.send(b"y" * 1000)
    response = upload.getresponse()
    assert response.status == 200
    assert b"mxc://" in response.read()
    for thread in (*pollers, *senders, stop):
        thread.join(PATIENCE_SECONDS)
    assert not failed
    assert [answer.status for answer in polls] == [200] * 4
    assert all(answer.json["next_batch"] for answer in polls)
    assert result[0]["drained"] is True
    assert result[0]["requestsLeft"] == 0
    assert result[0]["longPolls"] == 4
    database = assignment["base"]["database"]["args"]["dbname"]
    assert postgres.connections_to(database) == 0
    stored = {row[0] for row in postgres.query("SELECT event_id FROM events", database=database)}
    assert set(sent) <= stored


@pytest.mark.parametrize("is_woken_before", [False, True])
def test_a_poll_that_a_stop_ends_is_worked_out_once(is_woken_before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: each poll makes stops and moves longer by work that is done twice; or its answer is of before the last event.
    monkeypatch.setattr(Notifier, "wait_for_events", Notifier.wait_for_events)
    make_long_polls_drainable()
    clock = Clock(task.Clock(), server_name="a.example")  # type: ignore[arg-type,multiple-argument-names]
    streams: dict[str, Any] = {}
    notifier = SimpleNamespace(
        user_to_user_stream=streams,
        event_sources=SimpleNamespace(get_current_token=lambda: StreamToken.START),
        reactor=None,
        clock=clock,
        hs=SimpleNamespace(get_clock=lambda: clock),
        _register_with_keys=lambda stream: streams.update({stream.user_id: stream}),
    )
    seen: list[Any] = []

    async def nothing_new(_before: Any, after: Any) -> str:
        seen.append(after)
        return ""

    waiting = defer.ensureDeferred(Notifier.wait_for_events(notifier, "@ada:a.example", 30_000, nothing_new, room_ids=[]))  # type: ignore[arg-type]
    (stream,) = streams.values()
    expected = 1
    if is_woken_before:
        for listener in stream.update_and_fetch_deferreds(StreamToken.START, 0):
            listener.callback(StreamToken.START)
        expected = 2
    assert not waiting.called
    notifier.event_sources = SimpleNamespace(get_current_token=lambda: "now")
    assert end_long_polls(SimpleNamespace(get_notifier=lambda: notifier)) == 1
    assert waiting.result == ""
    assert len(seen) == expected
    assert seen[-1] == "now"


def lasting(position: str) -> list[str]:
    """Without presence and typing, as gateways compare them."""
    return [key for index, key in enumerate(position.split("_")) if index not in (1, 2)]


def slide(client: Client, position: str, timeout_ms: int) -> Any:
    query = f"?timeout={timeout_ms}" + (f"&pos={quote(position)}" if position else "")
    body = {"lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}}, "extensions": {"e2ee": {"enabled": True}}}
    return client.ok("POST", f"/_matrix/client/unstable/org.matrix.simplified_msc3575/sync{query}", body)


@pytest.mark.smoke
def test_a_stop_tells_where_the_streams_ended(shard: Shard, assign: Assign) -> None:
    # Guards against: a gateway answers "nothing new" to who was not told everything, or wakes a tenant for who was.
    assignment = assign("ended")
    address = shard.expect_started("ended", assignment)["address"]
    client = Client(address).register()
    # Others, to whom nothing of what follows happens, so that Synapse leaves their positions where they are.
    classic, sliding = Client(address).register(), Client(address).register()
    early = classic.sync()["next_batch"]
    pos = slide(sliding, "", 0)["pos"]
    answers: dict[str, Any] = {}
    polls = [
        threading.Thread(target=lambda: answers.update(classic=classic.sync(early, 60_000)["next_batch"])),
        threading.Thread(target=lambda: answers.update(sliding=slide(sliding, pos, 60_000)["pos"])),
    ]
    for poll in polls:
        poll.start()
    time.sleep(0.5)
    client.create_room()
    client.send("the last one")
    position = shard.delete("ended", 15).json["position"]
    for poll in polls:
        poll.join(PATIENCE_SECONDS)
    assert lasting(answers["classic"]) == lasting(position)
    assert lasting(answers["sliding"].split("/")[1]) == lasting(position)
    assert lasting(early) != lasting(position)
    # Nothing happened while it was stopped, and nothing is new when it is back.
    assignment["epoch"] += 1
    classic.address = sliding.address = shard.expect_started("ended", assignment)["address"]
    after = classic.sync(answers["classic"])
    assert "rooms" not in after
    assert lasting(after["next_batch"]) == lasting(position)
    assert slide(sliding, answers["sliding"], 0)["rooms"] == {}


def test_a_drain_ends_at_its_deadline(shard: Shard, assign: Assign) -> None:
    # Guards against: one slow client holds up a move forever.
    address = shard.expect_started("slow", assign("slow"))["address"]
    client = Client(address).register()
    upload = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
    upload.putrequest("POST", "/_matrix/media/v3/upload")
    upload.putheader("authorization", f"Bearer {client.token}")
    for key, value in gateway_headers().items():
        upload.putheader(key, value)
    upload.putheader("content-length", "2000")
    upload.endheaders()
    upload.send(b"x")
    time.sleep(0.2)
    result = shard.delete("slow", 1).json
    assert (result["drained"], result["requestsLeft"]) == (False, 1)
    # What is still open may move the streams.
    assert result["position"] is None
    assert 1 <= result["seconds"] < 10
    upload.close()


def test_a_running_statement_does_not_stall_the_others(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    # Guards against: stopping a tenant joins its database threads on the reactor, or returns while it still uses its database.
    client = Client(shard.expect_started("neighbour", assign("neighbour"))["address"]).register()
    assignment = assign("locked")
    locked = Client(shard.expect_started("locked", assignment)["address"]).register()
    locked.create_room()
    database = assignment["base"]["database"]["args"]["dbname"]
    blocker = postgres.connect(database)
    blocker.autocommit = False
    blocker.cursor().execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
    request = threading.Thread(target=lambda: locked.call("GET", f"/_matrix/client/v3/rooms/{locked.room}/messages?dir=b"), daemon=True)
    request.start()
    time.sleep(0.5)
    shard.stats()
    result: list[Any] = []
    stop = threading.Thread(target=lambda: result.append(shard.delete("locked", 1)))
    stop.start()
    while stop.is_alive():
        client.work()
    assert result[0].status == 200
    expect_no_stall(shard)
    assert postgres.connections_to(database) == 1
    blocker.close()
