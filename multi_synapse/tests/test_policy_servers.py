"""A room's policy server (MSC4284) has a say in what a tenant sends and takes in, before and after a move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from synapse.crypto.event_signing import compute_event_signature

from .peer import ROOM_VERSION, Peer
from .shard import Client, Shard
from .test_federation_stops import newest, open_room
from .test_stops import moved
from .watching import wait_for


def becomes_policy_server(peer: Peer, client: Client) -> None:
    """Refuses what says that it is spam."""
    key = generate_signing_key("policy_server")

    def sign(event: dict[str, Any]) -> tuple[int, Any]:
        if "spam" in str(event["content"].get("body")):
            return 403, {"errcode": "M_FORBIDDEN", "error": "spam"}
        return 200, compute_event_signature(ROOM_VERSION, event, peer.name, key)

    peer.answers["^/_matrix/policy/v1/sign$"] = sign
    content = {"via": peer.name, "public_keys": {"ed25519": encode_verify_key_base64(get_verify_key(key))}}
    client.ok("PUT", f"/_matrix/client/v3/rooms/{client.room}/state/m.room.policy/", content)


def say(client: Client, body: str) -> int:
    path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/{body.replace(' ', '-')}"
    return client.call("PUT", path, {"msgtype": "m.text", "body": body}).status


def seen(client: Client) -> list[str]:
    chunk = client.ok("GET", f"/_matrix/client/v3/rooms/{client.room}/messages?dir=b&limit=50")["chunk"]
    return [event["content"]["body"] for event in reversed(chunk) if event["type"] == "m.room.message"]


def test_what_a_policy_server_refuses_is_neither_sent_nor_shown(
    shard: Shard,
    other_shard: Shard,
    federated: dict[str, Any],
    new_peer: Callable[[], Peer],
) -> None:
    peer = new_peer()
    address = shard.expect_started("here", federated)["address"]
    client = Client(address).register()
    room = open_room(client)
    peer.join("here.localhost", address, room)
    becomes_policy_server(peer, client)

    assert [say(client, "hello"), say(client, "spam")] == [200, 403]
    spam = peer.message(room, "spam from there", [newest(client)])
    fine = peer.message(room, "hello from there", [newest(client)], depth=101)
    assert peer.send(spam, fine)["pdus"] == {peer.id_of(spam): {}, peer.id_of(fine): {}}
    wait_for(lambda: seen(client) == ["hello", "hello from there"])

    client.address = moved("here", federated, shard, other_shard)
    assert [say(client, "after the move"), say(client, "more spam")] == [200, 403]
    assert seen(client) == ["hello", "hello from there", "after the move"]
