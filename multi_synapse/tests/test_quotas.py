from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multi_synapse.errors import TenantError
from multi_synapse.options.policy import parse_policy
from multi_synapse.options.quotas import Quotas, bounded

from .shard import Answer, Client, Shard, request
from .watching import wait_for

Assign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.shared_shard

DESTINATIONS = {"allowedDestinations": ["127.0.0.0/8", "::1"]}


def with_quotas(assign: Assign, name: str, quotas: dict[str, Any], overrides: str = "") -> dict[str, Any]:
    return assign(name, overrides=overrides, policy={**DESTINATIONS, "quotas": quotas})


def upload(client: Client, content: bytes) -> Answer:
    headers = {"authorization": f"Bearer {client.token}", "content-type": "application/octet-stream"}
    return request(client.address, "POST", "/_matrix/media/v3/upload?filename=f", None, headers, raw=content)


def expect_refused(answer: Answer, limit_type: str) -> None:
    assert answer.status == 403, answer.body
    assert answer.json["errcode"] == "M_RESOURCE_LIMIT_EXCEEDED"
    assert answer.json["limit_type"] == limit_type
    assert answer.json["admin_contact"] == "mailto:operator@clinic.example"


CONTACT = "admin_contact: mailto:operator@clinic.example\n"


def test_media_in_total_are_bounded_and_can_be_read_on(shard: Shard, assign: Assign) -> None:
    state = shard.expect_started("quota-media", with_quotas(assign, "quota-media", {"mediaBytes": 100_000}, CONTACT))
    client = Client(state["address"]).register()
    first = upload(client, b"a" * 60_000)
    assert first.status == 200, first.body
    second = upload(client, b"b" * 60_000)
    expect_refused(second, "mediaBytes")
    # Browsers show the error only if it may be read.
    assert second.headers["access-control-allow-origin"] == "*"
    # What still fits is taken; what Synapse refuses takes no room.
    anonymous = request(client.address, "POST", "/_matrix/media/v3/upload", None, {}, raw=b"c" * 30_000)
    assert anonymous.status == 401
    assert upload(client, b"d" * 30_000).status == 200
    media = first.json["content_uri"].removeprefix("mxc://")
    assert client.call("GET", f"/_matrix/client/v1/media/download/{media}").status == 200
    client.work()
    assert shard.call("GET", "/v1/load").json["tenants"]["quota-media"]["refused"] == {"mediaBytes": 1}
    # After a restart it is known what there is.
    shard.delete("quota-media")


def test_what_is_there_counts_after_a_restart(shard: Shard, assign: Assign) -> None:
    assignment = with_quotas(assign, "quota-again", {"mediaBytes": 100_000}, CONTACT)
    client = Client(shard.expect_started("quota-again", assignment)["address"]).register()
    assert upload(client, b"a" * 90_000).status == 200
    shard.delete("quota-again")
    client.address = shard.expect_started("quota-again", {**assignment, "epoch": 2})["address"]
    wait_for(lambda: upload(client, b"b" * 20_000).status == 403, lambda: "an upload beyond the quota is taken")


def test_users_are_counted_at_registration(shard: Shard, assign: Assign) -> None:
    overrides = CONTACT + "enable_registration: true\nenable_registration_without_verification: true\nallow_guest_access: true\n"
    state = shard.expect_started("quota-users", with_quotas(assign, "quota-users", {"users": 2}, overrides))
    Client(state["address"]).register()
    body = {"username": "second", "password": "password-of-second", "auth": {"type": "m.login.dummy"}}
    second = request(state["address"], "POST", "/_matrix/client/v3/register", body)
    assert second.status == 200, second.body
    third = {"username": "third", "password": "password-of-third", "auth": {"type": "m.login.dummy"}}
    expect_refused(request(state["address"], "POST", "/_matrix/client/v3/register", third), "users")
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "second"}, "password": "password-of-second"}
    assert request(state["address"], "POST", "/_matrix/client/v3/login", login).status == 200
    # Guests are not users.
    assert request(state["address"], "POST", "/_matrix/client/v3/register?kind=guest", {}).status == 200
    shard.delete("quota-users")


def test_a_full_database_is_read_on_and_rooms_can_be_left(shard: Shard, assign: Assign) -> None:
    assignment = with_quotas(assign, "quota-database", {"databaseBytes": 10**12}, CONTACT)
    client = Client(shard.expect_started("quota-database", assignment)["address"]).register()
    client.work()
    shard.delete("quota-database")
    small = {**assignment, "epoch": 2, "policy": {**DESTINATIONS, "quotas": {"databaseBytes": 1}}}
    client.address = shard.expect_started("quota-database", small)["address"]
    path = f"/_matrix/client/v3/rooms/{client.room}/send/m.room.message"
    number = iter(range(1000))
    message = {"msgtype": "m.text", "body": "hello"}
    last: list[Answer] = []

    def is_refused() -> bool:
        last[:] = [client.call("PUT", f"{path}/{next(number)}", message)]
        return last[0].status == 403

    wait_for(is_refused, lambda: f"messages are taken: {last}")
    expect_refused(last[0], "databaseBytes")
    expect_refused(client.call("POST", "/_matrix/client/v3/createRoom", {}), "databaseBytes")
    assert client.call("GET", "/_matrix/client/v3/sync").status == 200
    assert client.call("POST", f"/_matrix/client/v3/rooms/{client.room}/leave", {}).status == 200
    shard.delete("quota-database")


def test_synapses_own_bounds_hold(shard: Shard, assign: Assign) -> None:
    quotas = {"uploadBytes": 1000, "monthlyActiveUsers": 1, "remoteRoomComplexity": 0.5}
    overrides = CONTACT + "max_upload_size: 90M\nmax_mau_value: 1000\nlimit_usage_by_mau: true\nmau_trial_days: 900\n"
    state = shard.expect_started("quota-own", with_quotas(assign, "quota-own", quotas, overrides))
    client = Client(state["address"]).register()
    client.sync()
    assert upload(client, b"a" * 1001).status == 413
    assert client.ok("GET", "/_matrix/client/v1/media/config") == {"m.upload.size": 1000}
    second = Client(state["address"])
    wait_for(lambda: _registers_not(second), lambda: "a second active user is registered")
    shard.delete("quota-own")


def _registers_not(client: Client) -> bool:
    try:
        client.register()
    except AssertionError as error:
        return "M_RESOURCE_LIMIT_EXCEEDED" in str(error)
    return False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_upload_size": 10_000}),
        ({"max_upload_size": "1K"}, {"max_upload_size": 1024}),
        ({"max_upload_size": "90M"}, {"max_upload_size": 10_000}),
    ],
)
def test_a_tenant_may_bound_itself_more(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert bounded(given, Quotas(upload_bytes=10_000)) == expected


def test_a_tenants_narrower_numbers_stay() -> None:
    given = {
        "limit_usage_by_mau": True,
        "max_mau_value": 3,
        "limit_remote_rooms": {"enabled": True, "complexity": 0.1, "complexity_error": "too large", "admins_can_join": True},
    }
    options = bounded(given, Quotas(monthly_active_users=10, remote_room_complexity=1))
    assert options["max_mau_value"] == 3
    assert options["limit_remote_rooms"] == {
        "enabled": True,
        "complexity": 0.1,
        "complexity_error": "too large",
        "admins_can_join": False,
    }
    # What it does not use does not bound it.
    unused = bounded({"max_mau_value": 3}, Quotas(monthly_active_users=10))
    assert (unused["limit_usage_by_mau"], unused["max_mau_value"]) == (True, 10)


@pytest.mark.parametrize("wrong", [[], {"user": 1}, {"users": -1}, {"users": 1.5}, {"users": True}, {"users": "1"}, {"users": 2**60}])
def test_wrong_quotas_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(TenantError) as caught:
        parse_policy({"quotas": wrong})
    assert "policy.quotas" in caught.value.message


def test_quotas_are_read_as_they_are_written() -> None:
    policy = parse_policy({"quotas": {"users": 5, "mediaBytes": 10, "remoteRoomComplexity": 1.5}})
    assert parse_policy(policy.to_json()) == policy
