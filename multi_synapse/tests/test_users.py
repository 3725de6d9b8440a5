from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multi_synapse.errors import Refused
from multi_synapse.users import Change, Opened, Session

from .shard import Client, Shard
from .watching import wait_for

Assign = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"user": "ada"},
        {"user": "ada", "password": "x", "admin": True},
        {"user": "ada", "admin": True, "erase": True},
        {"user": "ada", "password": 5},
        {"user": "ada", "password": ""},
        {"user": "ada", "password": "x" * 513},
        {"user": "ada", "password": "x", "logoutDevices": "yes"},
        {"user": "ada", "deactivate": False},
        {"user": "ada", "admin": 1},
        {"user": "@ada:elsewhere", "admin": True},
        {"user": "", "admin": True},
        {"user": 5, "admin": True},
        {"password": "x"},
    ],
)
def test_a_change_that_is_none_is_refused_with_what_is_allowed(body: Any) -> None:
    with pytest.raises(Refused) as refused:
        Change.parse(body)
    assert refused.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"user": "ada"},
        {"user": "ada", "seconds": 0},
        {"user": "ada", "seconds": 28_801},
        {"user": "ada", "seconds": True},
        {"seconds": 60},
    ],
)
def test_a_session_that_is_none_is_refused_with_what_is_allowed(body: Any) -> None:
    with pytest.raises(Refused) as refused:
        Session.parse(body)
    assert refused.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"sessions": {}},
        {"sessions": [], "user": "ada"},
        {"sessions": [{"user": "ada"}]},
        {"sessions": [{"user": "ada", "until": True}]},
        {"sessions": [{"user": "@ada:x", "until": 1}]},
        {"sessions": [{"user": "ada", "until": 1, "token": "x"}]},
        {"sessions": [{"user": "ada", "until": 1}] * 101},
    ],
)
def test_sessions_to_end_that_are_none_are_refused_with_what_is_allowed(body: Any) -> None:
    with pytest.raises(Refused) as refused:
        Opened.parse_all(body)
    assert refused.value.code == "InvalidArgument"


@pytest.mark.shared_shard
def test_accounts_are_changed_as_synapse_changes_them(shard: Shard, assign: Assign) -> None:
    state = shard.expect_started("users", assign("users"))
    client = Client(state["address"]).register()
    user = client.call("GET", "/_matrix/client/v3/account/whoami").json["user_id"]
    localpart = user[1:].split(":")[0]

    def change(**body: Any) -> Any:
        return shard.call("POST", "/v1/tenants/users/users", {"user": localpart, **body})

    def session(seconds: int) -> Any:
        return shard.call("POST", "/v1/tenants/users/sessions", {"user": localpart, "seconds": seconds})

    def with_token(answer: Any) -> Client:
        found = Client(state["address"])
        found.token = answer.json["token"]
        return found

    def sign_in(password: str) -> Any:
        return client.call(
            "POST",
            "/_matrix/client/v3/login",
            {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": localpart}, "password": password},
        )

    # The session of before stays where it is asked for, and ends where it is not.
    answer = change(password="a better one", logoutDevices=False)
    assert (answer.status, answer.json) == (200, {"userId": user})
    assert client.call("GET", "/_matrix/client/v3/account/whoami").status == 200
    assert sign_in("a better one").status == 200
    assert change(password="the best").status == 200
    assert client.call("GET", "/_matrix/client/v3/account/whoami").status == 401
    assert sign_in("a better one").status == 403
    client.token = sign_in("the best").json["access_token"]

    assert client.call("GET", f"/_synapse/admin/v2/users/{user}").status == 403
    assert (session(60).status, session(60).code) == (409, "UserRefused")
    assert change(admin=True).status == 200
    assert client.call("GET", f"/_synapse/admin/v2/users/{user}").json["admin"] is True
    opened = session(60)
    assert (opened.status, opened.json["userId"]) == (200, user)
    admin = with_token(opened)
    assert admin.call("GET", f"/_synapse/admin/v2/users/{user}").json["admin"] is True
    # It is of no device, and says so; each is another one, and ends alone.
    assert "device_id" not in admin.call("GET", "/_matrix/client/v3/account/whoami").json
    other = with_token(session(60))
    assert admin.call("POST", "/_matrix/client/v3/logout", {}).status == 200
    assert admin.call("GET", "/_matrix/client/v3/account/whoami").status == 401
    assert other.call("GET", "/_matrix/client/v3/account/whoami").status == 200
    ended = with_token(session(1))
    wait_for(lambda: ended.call("GET", "/_matrix/client/v3/account/whoami").status == 401 or None, lambda: "the session does not end")
    assert opened.json["token"] not in shard.logged

    # Those that were opened here are ended by what was answered, once; whatever else signed the user in stays.
    def end(*sessions: Any) -> Any:
        body = {"sessions": [{"user": localpart, "until": answer.json["until"]} for answer in sessions]}
        return shard.call("POST", "/v1/tenants/users/sessions/end", body)

    first, second = session(60), session(90)
    assert 0 < second.json["until"] - first.json["until"] < 60_000
    assert (end(first).json, end(first).json) == ({"ended": 1}, {"ended": 0})
    assert with_token(first).call("GET", "/_matrix/client/v3/account/whoami").status == 401
    assert with_token(second).call("GET", "/_matrix/client/v3/account/whoami").status == 200
    assert end(first, second).json == {"ended": 1}
    assert with_token(second).call("GET", "/_matrix/client/v3/account/whoami").status == 401
    assert client.call("GET", "/_matrix/client/v3/account/whoami").status == 200
    assert shard.call("POST", "/v1/tenants/nobody/sessions/end", {"sessions": []}).code == "NotFound"

    assert change(admin=False).status == 200
    assert client.call("GET", f"/_synapse/admin/v2/users/{user}").status == 403

    assert change(deactivate=True, erase=True).status == 200
    assert client.call("GET", "/_matrix/client/v3/account/whoami").status == 401
    assert sign_in("the best").status == 403
    refused = change(password="once more")
    assert (refused.status, refused.code) == (409, "UserRefused")
    assert session(60).code == "UserRefused"

    unknown = shard.call("POST", "/v1/tenants/users/users", {"user": "nobody", "admin": True})
    assert (unknown.status, unknown.code) == (404, "UserNotFound")
    elsewhere = shard.call("POST", "/v1/tenants/elsewhere/users", {"user": "nobody", "admin": True})
    assert (elsewhere.status, elsewhere.code) == (404, "NotFound")
    assert "elsewhere" in elsewhere.message
    # No password is in what the shard says.
    assert "a better one" not in shard.logged and "the best" not in shard.logged
