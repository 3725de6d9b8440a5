"""Where a tenant may connect to, in each of the ways in which Synapse connects."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from multi_synapse.errors import TenantError
from multi_synapse.options.network import Networks, parse_destination
from multi_synapse.options.policy import parse_policy
from multi_synapse.patches.network import DestinationRefused, TenantReactor

from .shard import Client, Shard, request
from .watching import wait_for

pytestmark = pytest.mark.shared_shard

Assign = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.1",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "::",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "localhost",
        "example.org",
        "2130706433",
        "",
    ],
)
def test_addresses_of_the_platform_are_refused(address: str) -> None:
    assert Networks().refuses(address, 80)


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_internet_are_not_refused(address: str) -> None:
    assert not Networks().refuses(address, 443)


def test_an_operator_opens_and_closes_destinations() -> None:
    networks = Networks.of(("10.1.0.0/16", "127.0.0.1:8448", "[::1]:9000", "fd00::/8"), ("1.1.1.0/24",))
    for address, port in (("10.1.2.3", 1), ("127.0.0.1", 8448), ("::1", 9000), ("fd12::1", 5), ("::ffff:10.1.0.1", 1)):
        assert not networks.refuses(address, port), address
    for address, port in (("10.2.0.1", 1), ("127.0.0.1", 8449), ("::1", 9001), ("1.1.1.1", 443)):
        assert networks.refuses(address, port), address


@pytest.mark.parametrize("text", ["localhost", "10.1.0.0/8", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1:x", "[::1", "10.0.0.1:1:2"])
def test_a_destination_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|network|address"):
        parse_destination(text)
    with pytest.raises(TenantError, match="allowedDestinations"):
        parse_policy({"allowedDestinations": [text]})


def test_a_tenants_reactor_connects_to_what_is_allowed_only() -> None:
    from twisted.internet import reactor
    from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTime

    made = TenantReactor(reactor, "a.example", Networks.of(("127.0.0.1:9",), ()))
    assert IReactorTime.providedBy(made) and IReactorPluggableNameResolver.providedBy(made)
    assert made.nameResolver is reactor.nameResolver  # type: ignore[attr-defined]
    for connect in (made.connectTCP, made.connectSSL):
        with pytest.raises(DestinationRefused):
            connect("127.0.0.1", 10, None)
        with pytest.raises(DestinationRefused):
            connect("localhost", 9, None)
    with pytest.raises(DestinationRefused):
        made.connectUNIX("/run/postgresql/.s.PGSQL.5432", None)
    with pytest.raises(DestinationRefused):
        made.spawnProcess(None, "/bin/sh")


class Trap:
    """A server of the platform's: whatever reaches it got through."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        trap = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _answer(self) -> None:
                trap.reached.append(f"{self.command} {self.path}")
                body = json.dumps({"active": False, "issuer": "http://x"}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *_args: Any) -> None:
                """Not into the tests' output."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


def everything(trap: Trap) -> str:
    """All options that name an address, at one that is the platform's."""
    return yaml.safe_dump(
        {
            "oidc_providers": [
                {
                    "idp_id": "trap",
                    "idp_name": "Trap",
                    "issuer": f"{trap.url}/oidc",
                    "client_id": "a",
                    "client_secret": "b",
                    "scopes": ["openid"],
                    "skip_verification": True,
                }
            ],
            "cas_config": {"enabled": True, "server_url": f"{trap.url}/cas"},
            "recaptcha_siteverify_api": f"{trap.url}/recaptcha",
            "recaptcha_public_key": "a",
            "recaptcha_private_key": "b",
            "enable_registration_captcha": True,
            "enable_registration": True,
            "email": {"smtp_host": "127.0.0.1", "smtp_port": trap.port, "notif_from": "a@b.example"},
            "url_preview_enabled": True,
            "url_preview_ip_range_blacklist": [],
            "url_preview_ip_range_whitelist": ["0.0.0.0/0"],
            "ip_range_blacklist": [],
            "ip_range_whitelist": ["0.0.0.0/0"],
            "federation_ip_range_blacklist": [],
            "synapse_shards": {
                "app_services": [
                    {
                        "id": "trap",
                        "url": f"{trap.url}/appservice",
                        "as_token": "as-token",
                        "hs_token": "hs-token",
                        "sender_localpart": "bridge",
                        "namespaces": {"users": [{"regex": "@.*", "exclusive": False}]},
                    }
                ]
            },
        }
    )


def use_everything(client: Client, trap: Trap, mail: bool = True) -> None:
    """Makes the homeserver connect in each way that it has; a trap that is reached would keep mail waiting."""
    client.call("GET", "/_matrix/client/v3/login/sso/redirect/oidc-trap?redirectUrl=http://x")
    client.call("GET", "/_matrix/client/v3/login/cas/ticket?redirectUrl=http://x&ticket=1")
    client.call("GET", f"/_matrix/client/v1/media/preview_url?url={trap.url}/preview")
    for path in ("account/password", "register") if mail else ():
        body = {"client_secret": "s", "email": "a@b.example", "send_attempt": 1}
        client.call("POST", f"/_matrix/client/v3/{path}/email/requestToken", body)
    client.call("GET", f"/_matrix/client/v3/directory/room/%23a%3A127.0.0.1%3A{trap.port}")
    invitation = {"id_server": f"127.0.0.1:{trap.port}", "id_access_token": "t", "medium": "email", "address": "a@b.example"}
    client.call("POST", f"/_matrix/client/v3/rooms/{client.room}/invite", invitation)
    wish = {"username": f"u{time.time_ns()}", "password": "secret-password"}
    flows = request(client.address, "POST", "/_matrix/client/v3/register", wish)
    assert flows.status == 401, flows.body
    captcha = {"type": "m.login.recaptcha", "session": flows.json["session"], "response": "r"}
    request(client.address, "POST", "/_matrix/client/v3/register", {**wish, "auth": captcha})
    pusher = {"app_display_name": "a", "app_id": "a", "device_display_name": "d", "kind": "http", "lang": "en", "pushkey": "k"}
    client.call("POST", "/_matrix/client/v3/pushers/set", {**pusher, "data": {"url": f"{trap.url}/_matrix/push/v1/notify"}})
    client.send("to the application service")


def test_no_way_of_connecting_reaches_the_platform(shard: Shard, assign: Assign, trap: Trap) -> None:
    state = shard.expect_started("spy", assign("spy", overrides=everything(trap), policy={}))
    client = Client(state["address"]).register()
    client.create_room()
    use_everything(client, trap)
    # The application service's turn comes later; each refusal is in the log.
    wait_for(lambda: shard.logged.count(f"a connection to 127.0.0.1 port {trap.port} is refused") >= 5)
    assert trap.reached == []


def test_the_same_reaches_what_an_operator_allowed(shard: Shard, assign: Assign, trap: Trap) -> None:
    policy = {"allowedDestinations": [f"127.0.0.1:{trap.port}"]}
    state = shard.expect_started("spy", assign("spy", overrides=everything(trap), policy=policy))
    client = Client(state["address"]).register()
    client.create_room()
    use_everything(client, trap, mail=False)
    for place in ("/oidc", "/cas", "/recaptcha", "/preview", "/appservice"):
        wait_for(lambda place=place: any(place in line for line in trap.reached))  # type: ignore[misc]


def test_delegated_authentication_uses_the_tenants_connections(shard: Shard, assign: Assign, trap: Trap) -> None:
    overrides = yaml.safe_dump(
        {"matrix_authentication_service": {"enabled": True, "endpoint": trap.url, "secret": "s"}, "password_config": {"enabled": False}}
    )
    threads = shard.fewest_threads(1)
    refused = shard.expect_started("refused", assign("refused", overrides=overrides, policy={}))
    answer = request(refused["address"], "GET", "/_matrix/client/v3/account/whoami", headers={"authorization": "Bearer t"})
    assert answer.status == 503 and trap.reached == []
    policy = {"allowedDestinations": [f"127.0.0.1:{trap.port}"]}
    allowed = shard.expect_started("allowed", assign("allowed", overrides=overrides, policy=policy))
    answer = request(allowed["address"], "GET", "/_matrix/client/v3/account/whoami", headers={"authorization": "Bearer t"})
    assert answer.status == 401 and answer.json["errcode"] == "M_UNKNOWN_TOKEN", answer.body
    assert any("introspect" in line for line in trap.reached)
    # Users are not made here: the controller knows that by this answer.
    answer = request(allowed["address"], "GET", "/_synapse/admin/v1/register")
    assert answer.status == 404 and answer.json["errcode"] == "M_UNRECOGNIZED", answer.body
    # None of its own, as it would have with the client in Rust.
    assert shard.fewest_threads() <= threads + 4


def test_a_bucket_at_an_address_of_the_platform_is_not_reached(shard: Shard, assign: Assign, trap: Trap) -> None:
    pytest.importorskip("s3_storage_provider")
    provider = {
        "module": "s3_storage_provider.S3StorageProviderBackend",
        "store_local": True,
        "store_synchronous": True,
        "config": {"bucket": "b", "access_key_id": "a", "secret_access_key": "s", "endpoint_url": trap.url, "region_name": "us-east-1"},
    }
    state = shard.expect_started("s3", assign("s3", overrides=yaml.safe_dump({"media_storage_providers": [provider]}), policy={}))
    client = Client(state["address"]).register()
    answer = request(
        client.address,
        "POST",
        "/_matrix/media/v3/upload?filename=x",
        raw=b"content",
        headers={"authorization": f"Bearer {client.token}", "content-type": "text/plain"},
    )
    assert answer.status >= 500
    assert trap.reached == []


def test_a_socket_of_the_machine_is_no_database(shard: Shard, assign: Assign) -> None:
    overrides = "database: {name: psycopg2, args: {host: /var/run/postgresql, user: postgres, dbname: postgres}}"
    assert shard.put("a", assign("a", overrides=overrides, database="none")).code == "OptionNotAllowed"
    assert shard.tenants() == {}
