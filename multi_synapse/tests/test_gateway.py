"""What a tenant's listener and the gateways tell each other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from multi_synapse.gateway_secret import GatewaySecrets

from .postgres import Postgres
from .shard import TOKEN, Client, Shard, gateway_headers, request
from .watching import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.shared_shard

Assign = Callable[..., dict[str, Any]]
DAY = 86_400.0


def raw(address: str, text: str) -> bytes:
    """Everything that comes back until the connection is closed."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(text.encode())
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received


class TestSecrets:
    def test_each_shard_and_each_day_has_another(self) -> None:
        now = 10 * DAY
        shards = [GatewaySecrets(token, lambda: now) for token in ("one", "two")]
        told = [shard.tell() for shard in shards]
        now = 11 * DAY
        told += [shard.tell() for shard in shards]
        assert len(set(told)) == 4
        assert all(secret.isascii() and " " not in secret and len(secret) < 100 for secret in told)

    def test_one_expires_when_the_controller_knows_two_later_ones_and_not_by_the_clock(self) -> None:
        now = 10 * DAY
        secrets = GatewaySecrets("token", lambda: now)
        first = secrets.tell().encode()
        assert secrets.accepts(first)
        # The controller is away for days.
        now = 15 * DAY
        assert secrets.accepts(first)
        second = secrets.tell().encode()
        assert secrets.accepts(first) and secrets.accepts(second)
        assert secrets.tell().encode() == second
        now = 16 * DAY
        third = secrets.tell().encode()
        assert [secrets.accepts(each) for each in (first, second, third)] == [False, True, True]

    def test_a_shard_that_has_just_started_accepts_what_gateways_have(self) -> None:
        old = GatewaySecrets("token", lambda: 10 * DAY).tell().encode()
        restarted = GatewaySecrets("token", lambda: 20 * DAY)
        assert restarted.accepts(old)
        restarted.tell()
        assert restarted.accepts(old)

    def test_a_clock_that_is_set_back_brings_no_old_one_back(self) -> None:
        now = 10 * DAY
        secrets = GatewaySecrets("token", lambda: now)
        newest = secrets.tell()
        now = 8 * DAY
        assert secrets.tell() == newest

    @pytest.mark.parametrize("given", [None, b"", b".", b"10", b"10.", b"10.x", b"-1.x", "1\u0661.x".encode(), b"9" * 100 + b".x"])
    def test_what_is_none_is_refused(self, given: bytes | None) -> None:
        assert not GatewaySecrets("token", lambda: 10 * DAY).accepts(given)


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "X-Synapse-Shards-Secret: \r\n",
        "X-Synapse-Shards-Secret: 1.guess\r\n",
        f"X-Synapse-Shards-Secret: {GatewaySecrets('another-token').tell()}\r\n",
        f"X-Synapse-Shards-Secret: {TOKEN}\r\n",
        "Expect: 100-continue\r\nContent-Length: 5\r\n",
        "X-Synapse-Shards-Tenant: t\r\nX-Forwarded-For: 127.0.0.1\r\n",
    ],
)
def test_a_listener_that_is_reached_directly_answers_nothing(shard: Shard, assign: Assign, headers: str) -> None:
    address = shard.expect_started("t", assign("t"))["address"]
    for method in ("GET /_matrix/client/versions", "POST /_matrix/client/v3/login", "OPTIONS /"):
        assert raw(address, f"{method} HTTP/1.1\r\nHost: t.localhost\r\n{headers}\r\n") == b""
    assert request(address, "GET", "/_matrix/client/versions").status == 200


def test_the_secret_is_the_controllers_to_know_and_in_no_log(shard: Shard, assign: Assign) -> None:
    address = shard.expect_started("t", assign("t"))["address"]
    secret = shard.call("GET", "/v1/shard").json["gatewaySecret"]
    assert secret == gateway_headers()["x-synapse-shards-secret"]
    assert request(address, "GET", "/_matrix/client/versions").status == 200
    raw(address, "GET / HTTP/1.1\r\nHost: t.localhost\r\nX-Synapse-Shards-Secret: 7.aWrongOne\r\n\r\n")
    time.sleep(0.2)
    log = shard.logged
    assert secret not in log and "aWrongOne" not in log
    assert shard.call("GET", "/v1/shard", token=None).status == 401


def test_a_database_that_restarts_is_told_apart_from_a_fault(shard: Shard, assign: Assign, postgres: Postgres) -> None:
    client = Client(shard.expect_started("t", assign("t"))["address"]).register()
    client.create_room()
    path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message/"
    postgres.stop()
    try:
        for method, where in (("GET", "/_matrix/client/v3/joined_rooms"), ("PUT", f"{path}1"), ("POST", "/_matrix/client/v3/createRoom")):
            answer = client.call(method, where, {"msgtype": "m.text", "body": "x"})
            assert (answer.status, answer.json["errcode"]) == (503, "M_LIMIT_EXCEEDED"), (method, answer.body)
            assert answer.json["retry_after_ms"] > 0
            assert answer.headers["x-synapse-shards"] == "database-away"
            assert int(answer.headers["retry-after"]) > 0
    finally:
        postgres.start()
    wait_for(lambda: client.call("PUT", f"{path}1", {"msgtype": "m.text", "body": "x"}).status == 200)
    # It answers, and cannot write: what reads goes on, and nothing is held for what writes.
    database = postgres.query("SELECT datname FROM pg_stat_activity WHERE datname LIKE 't\\_%' LIMIT 1")[0][0]
    postgres.query(
        """CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER is_full BEFORE INSERT ON account_data EXECUTE FUNCTION is_full()""",
        database=database,
    )
    where = "/_matrix/client/v3/user/@" + f"{client.user}:t.localhost/account_data/x"
    answer = client.call("PUT", where, {})
    assert (answer.status, answer.json["errcode"]) == (503, "M_LIMIT_EXCEEDED"), answer.body
    assert "x-synapse-shards" not in answer.headers and int(answer.headers["retry-after"]) > 0
    assert client.call("GET", "/_matrix/client/v3/joined_rooms").status == 200
    postgres.query("DROP TRIGGER is_full ON account_data", database=database)
    assert client.call("PUT", where, {}).status == 200
    # What is wrong in itself stays what it is.
    assert client.call("PUT", f"{path}2", {"msgtype": 5}).status in (200, 400)
    assert client.call("GET", "/_matrix/client/v3/rooms/!none:t.localhost/state").status == 403


def test_a_tenant_is_held_back_from_when_a_gateway_says_that_it_is_throttled_until_it_does_not(
    shard: Shard, assign: Callable[..., dict[str, Any]]
) -> None:
    busy, neighbour = (Client(shard.expect_started(name, assign(name))["address"]).register() for name in ("busy", "neighbour"))
    neighbour.create_room()
    ending = threading.Event()

    def be_at_work() -> None:
        while not ending.is_set():
            neighbour.send("hello")

    def held_back() -> float:
        return float(shard.call("GET", "/v1/load").json["tenants"]["busy"]["heldBackSeconds"])

    def as_a_gateway(**headers: str) -> None:
        headers = {"x-synapse-shards-tenant": "busy", "authorization": f"Bearer {busy.token}", **headers}
        assert request(busy.address, "GET", "/_matrix/client/v3/account/whoami", headers=headers).status == 200

    at_work = threading.Thread(target=be_at_work)
    at_work.start()
    try:
        busy.create_room()
        assert held_back() == 0
        as_a_gateway(**{"x-synapse-shards-throttled": "1"})
        busy.create_room()
        assert held_back() > 0
        as_a_gateway()
        # What was held then goes on.
        busy.create_room()
        held = held_back()
        busy.create_room()
        assert held_back() == held
    finally:
        ending.set()
        at_work.join()
