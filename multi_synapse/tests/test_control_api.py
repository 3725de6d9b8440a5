from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .shard import CHECKOUT, Shard, request
from .watching import PATIENCE_SECONDS

pytestmark = pytest.mark.shared_shard


def test_only_health_and_metrics_are_open(shard: Shard) -> None:
    # Guards against: anybody who reaches the port starts, stops or reads tenants.
    assert shard.call("GET", "/healthz", token=None).json == {"ok": True}
    assert "multi_synapse_tenants" in shard.call("GET", "/metrics", token=None).body.decode()
    for method, path in (
        ("GET", "/v1/shard"),
        ("PUT", "/v1/tenants/a"),
        ("DELETE", "/v1/tenants/a"),
        ("GET", "/v1/load"),
        ("POST", "/v1/preparers"),
        ("GET", "/v1/stats"),
        ("GET", "/nothing"),
    ):
        for token in (None, "", "wrong", "token-of-the-test-shard"):
            answer = shard.call(method, path, token=token)
            assert (answer.status, answer.code) == (401, "Unauthorized"), (method, path, token)


def test_bad_requests_say_what_is_wrong(shard: Shard) -> None:
    # Guards against: a wrong request crashes the shard or is answered with a stack trace.
    expected = [
        (shard.call("GET", "/nothing"), 404, "NotFound"),
        (shard.call("POST", "/v1/shard"), 405, "MethodNotAllowed"),
        (shard.call("PUT", "/v1/tenants/Bad_Name", {}), 400, "InvalidName"),
        (shard.call("PUT", "/v1/tenants/..%2fx", {}), 400, "InvalidName"),
        (shard.call("PUT", "/v1/tenants/a", raw=b"{"), 400, "InvalidJson"),
        (shard.call("PUT", "/v1/tenants/a", raw=b"[" * 100000), 400, "InvalidJson"),
        (shard.call("PUT", "/v1/tenants/a", {}), 422, "InvalidConfig"),
        (shard.call("DELETE", "/v1/tenants/a?drainSeconds=soon"), 400, "InvalidArgument"),
        (shard.call("DELETE", "/v1/tenants/a?drainSeconds=nan"), 400, "InvalidArgument"),
        (shard.call("DELETE", "/v1/tenants/a?drainSeconds=-1"), 400, "InvalidArgument"),
    ]
    for answer, status, code in expected:
        assert (answer.status, answer.code) == (status, code), answer.body
    assert shard.tenants() == {}


def test_bodies_are_bounded(shard: Shard) -> None:
    # Guards against: a request without end fills the shard's memory.
    host, port = shard.address.split(":")
    for head, chunk in (
        (b"Content-Length: 99999999\r\n\r\n", b"x"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ):
        with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(b"PUT /v1/tenants/a HTTP/1.1\r\nHost: x\r\n" + head)
            try:
                for _ in range(64):
                    connection.sendall(chunk)
                answer = connection.recv(65536)
            except ConnectionError:
                answer = b"HTTP/1.1 413"
        assert answer.startswith(b"HTTP/1.1 413") or answer == b""
    assert shard.call("GET", "/healthz").status == 200


def test_describes_itself(shard: Shard) -> None:
    # Guards against: the controller takes one run of the process for another, or a release for another.
    state = shard.call("GET", "/v1/shard").json
    assert state["name"] == "test-0"
    assert state["instance"] == shard.instance
    assert shard.process is not None
    assert state["pid"] == shard.process.pid
    assert state["schemaVersion"] >= state["schemaCompatVersion"] > 0
    assert state["tenants"] == []
    assert shard.delete("nobody").json["absent"] is True


def test_address_is_kept(own_shard: Shard) -> None:
    # Guards against: after a restart nobody finds the shard; or a new run is taken for the old one.
    address, instance = own_shard.address, own_shard.instance
    own_shard.kill()
    own_shard.start()
    assert own_shard.address == address
    assert own_shard.instance != instance


@pytest.mark.smoke
def test_tenant_lifecycle(shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: a tenant is not what the contract says, from start to stop.
    from .shard import Client

    assignment = assign("clinic-a", epoch=5, overrides="enable_registration_captcha: false\nmax_upload_size: 7M\n")
    state = shard.expect_started("clinic-a", assignment)
    assert (state["serverName"], state["epoch"], state["error"]) == ("clinic-a.localhost", 5, None)
    client = Client(state["address"]).register()
    client.work()
    assert client.ok("GET", "/_matrix/client/v1/media/config")["m.upload.size"] == 7 * 1024 * 1024
    key = client.ok("GET", "/_matrix/key/v2/server")
    assert key["server_name"] == "clinic-a.localhost"

    again = shard.expect_started("clinic-a", assignment)
    assert again["address"] == state["address"]
    assert again["requests"] > 0
    assert again["lastRequestAt"] is not None
    stale, newer = shard.put("clinic-a", {**assignment, "epoch": 4}), shard.put("clinic-a", {**assignment, "epoch": 6})
    assert [(stale.status, stale.code), (newer.status, newer.code)] == [(409, "StaleEpoch"), (409, "AlreadyRunning")]
    twin = shard.put("clinic-b", assignment)
    assert (twin.status, twin.code) == (409, "AlreadyRunning")

    load = shard.call("GET", "/v1/load").json
    assert load["tenants"]["clinic-a"]["requests"] >= 4
    assert load["tenants"]["clinic-a"]["events"] >= 2
    assert load["process"]["cpuSeconds"] > 0
    assert load["process"]["memory"]["bytes"] > 10_000_000
    before = load["tenants"]["clinic-a"]
    client.work()
    after = shard.call("GET", "/v1/load").json["tenants"]["clinic-a"]
    # What tells who made a shard grow: of work that takes little of each.
    assert after["responseBytes"] > before["responseBytes"] + 100
    assert after["databaseRows"] > before["databaseRows"] + 10
    assert after["cpuSeconds"] > before["cpuSeconds"]
    assert after["cacheEntries"] > 20
    text = shard.call("GET", "/metrics").body.decode()
    assert "synapse_storage_events_persisted_events_total{" in text
    assert 'server_name="clinic-a.localhost"' in text
    assert re.search(r'multi_synapse_tenant_database_rows_total\{tenant="clinic-a"\} [1-9]', text)

    stopped = shard.delete("clinic-a", 5).json
    assert (stopped["absent"], stopped["drained"]) == (False, True)
    # The last figures, for who adds them up.
    assert stopped["used"]["run"] == before["run"] == after["run"] != ""
    assert stopped["used"]["epoch"] == assignment["epoch"]
    assert stopped["used"]["requests"] >= after["requests"]
    assert stopped["used"]["cpuSeconds"] >= after["cpuSeconds"]
    with pytest.raises(OSError):
        Client(state["address"]).call("GET", "/_matrix/client/versions")
    assert shard.tenants() == {}
    assert "clinic-a" not in shard.call("GET", "/metrics").body.decode()
    assert shard.call("GET", "/v1/load").json["tenants"] == {}

    back = shard.expect_started("clinic-a", assignment)
    assert shard.call("GET", "/v1/load").json["tenants"]["clinic-a"]["run"] != before["run"]
    client.address = back["address"]
    client.work()


def test_the_log_names_tenants_and_holds_no_secret(shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: lines of different tenants cannot be told apart; keys and passwords end in the log.
    from .shard import Client

    assignments = {name: assign(name) for name in ("one", "two")}
    for name, assignment in assignments.items():
        Client(shard.expect_started(name, assignment)["address"]).register().work()
    lines = [json.loads(line) for line in shard.logged.splitlines()]
    assert {"one.localhost", "two.localhost"} <= {line["serverName"] for line in lines}
    assert set(lines[0]) == {"time", "level", "logger", "serverName", "request", "message"}
    access = [line for line in lines if line["logger"].startswith("synapse.access")]
    assert len([line for line in access if "createRoom" in line["message"] and "Processed request" in line["message"]]) == 2
    text = shard.logged
    for assignment in assignments.values():
        base = assignment["base"]
        for secret in (
            base["macaroon_secret_key"],
            base["form_secret"],
            base["database"]["args"]["password"],
            assignment["signingKey"].split()[2],
        ):
            assert secret not in text


def test_checks_a_configuration_without_starting_it(shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: a tenant is stopped for a configuration that cannot be started.
    running = shard.expect_started("a", assign("a"))
    check = "/v1/tenants/a/check"
    good = shard.call("POST", check, assign("a", epoch=2)).json
    meaning = {
        "database": None,
        "hosts": ["a.localhost"],
        "publicBaseUrl": "http://a.localhost:8008/",
        "bucket": None,
        "authenticationService": False,
    }
    assert good == {"ok": True, "warnings": [], "meaning": meaning}
    mas = "matrix_authentication_service: {enabled: true, endpoint: 'https://mas.example/', secret: s}\npassword_config: {enabled: false}"
    assert shard.call("POST", check, assign("a", epoch=2, overrides=mas)).json["meaning"] == meaning | {"authenticationService": True}
    bad = shard.call("POST", check, assign("a", epoch=2, overrides="media_retention: {local_media_lifetime: soon}"))
    assert (bad.status, bad.code) == (422, "InvalidConfig")
    refused = shard.call("POST", check, assign("a", epoch=2, overrides="use_frozen_dicts: true"))
    assert (refused.status, refused.code) == (422, "OptionNotAllowed")
    assert shard.tenants()["a"] == running
    assert shard.call("GET", check).status == 405


@pytest.mark.parametrize("program", ["checker", "prepare"])
def test_processes_of_a_shard_say_nothing_in_words(program: str, python: Path) -> None:
    # Guards against: lines in a shard's output that are no JSON. Libraries warn when they are imported.
    command = [str(python), "-m", f"multi_synapse.{program}"]
    ended = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    for line in ended.stdout.splitlines():
        json.loads(line)


def test_turns_away_what_is_meant_for_another_tenant(shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: a gateway with an old route logs a client out by asking another homeserver that has the port now.
    address = shard.expect_started("a", assign("a"))["address"]
    path = "/_matrix/client/versions"
    assert request(address, "GET", path).status == 200
    assert request(address, "GET", path, headers={"X-Synapse-Shards-Tenant": "a"}).status == 200
    other = request(address, "GET", path, headers={"X-Synapse-Shards-Tenant": "b"})
    assert other.status == 421
    assert other.json["errcode"] == "M_UNKNOWN"
