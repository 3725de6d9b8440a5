"""The gateway knows every path of Synapse's admin API: what it lets a tenant's administrators have, and what not."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any
from unittest.mock import MagicMock

import pytest
import synapse.rest.admin

from .shard import CHECKOUT

#: As the gateway's tables have them: methods, a path, and for what is refused the reason.
CLASSED = re.compile(r"^([A-Z,]+) (/_synapse/admin/\S+)(?: \| .+)?$", re.MULTILINE)

#: Lists that have no parts: of one user or one room, as the client API gives them as well, or of what administrators make one by one.
WHOLE = {
    "v1/registration_tokens",
    "v1/room/*/media",
    "v1/rooms/*/forward_extremities",
    "v1/rooms/*/members",
    "v1/rooms/*/state",
    "v1/scheduled_tasks",
    "v1/user/redact_status/*",
    "v1/users/*/accountdata",
    "v1/users/*/joined_rooms",
    "v1/users/*/memberships",
    "v1/users/*/pushers",
    "v1/whois/*",
    "v2/rooms/*/delete_status",
    "v2/users/*/devices",
}
#: What is no list, or has a fixed number of entries.
NO_LIST = {
    "v1/auth_providers/*/users/*",
    "v1/background_updates/enabled",
    "v1/background_updates/status",
    "v1/event_reports/*",
    "v1/experimental_features/*",
    "v1/federation/destinations/*",
    "v1/fetch_event/*",
    "v1/media/*/*",
    "v1/purge_history_status/*",
    "v1/registration_tokens/*",
    "v1/rooms/*",
    "v1/rooms/*/block",
    "v1/rooms/*/timestamp_to_event",
    "v1/server_version",
    "v1/statistics/database/rooms",
    "v1/threepid/*/users/*",
    "v1/user_reports/*",
    "v1/username_available",
    "v1/users/*/admin",
    "v1/users/*/cumulative_joined_room_count",
    "v1/users/*/override_ratelimit",
    "v1/users/*/sent_invite_count",
    "v2/rooms/delete_status/*",
    "v2/users/*",
    "v2/users/*/devices/*",
}


class Recorder:
    """In the place of Synapse's HTTP server."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

        #: Paths that are read, which of Synapse's classes answers there.
        self.readers: dict[str, str] = {}

    def register_paths(self, method: str, path_patterns: Any, _callback: Any, name: str) -> None:
        paths = {plain(pattern.pattern) for pattern in path_patterns}
        self.found |= {(method, path) for path in paths}
        if method == "GET":
            self.readers |= dict.fromkeys(paths, name)


def plain(pattern: str) -> str:
    """A pattern of Synapse's with a star for each part that a request fills in."""
    return re.sub(r"\(\?P<\w+>[^)]*\)", "*", pattern.removeprefix("^").removesuffix("$"))


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    recorder = Recorder()
    for delegated in (False, True):
        hs = MagicMock()
        hs.config.mas.enabled = hs.config.experimental.msc3861.enabled = hs.config.auth.delegation_enabled = delegated
        hs.config.worker.worker_app = None
        synapse.rest.admin.register_servlets(hs, recorder)  # type: ignore[arg-type]
    return recorder


@pytest.fixture(scope="module")
def admin_api(recorder: Recorder) -> set[tuple[str, str]]:
    api = {(method, path) for method, path in recorder.found if path.startswith("/_synapse/admin/")}
    # One path with an end that may be left out.
    optional = {(method, path) for method, path in api if "(" in path}
    assert optional == {("POST", "/_synapse/admin/v1/purge_history/*(/*)?")}
    return (api - optional) | {("POST", "/_synapse/admin/v1/purge_history/*"), ("POST", "/_synapse/admin/v1/purge_history/*/*")}


@pytest.fixture(scope="module")
def classed() -> list[tuple[str, str]]:
    text = (CHECKOUT / "src" / "gateway" / "admin-paths.ts").read_text()
    return [(method, path) for methods, path in CLASSED.findall(text) for method in methods.split(",")]


def test_every_path_is_classed_once(admin_api: set[tuple[str, str]], classed: list[tuple[str, str]]) -> None:
    assert len(admin_api) > 90
    assert sorted(admin_api - set(classed)) == [], "class these in src/gateway/admin-paths.ts and docs/admin-access.md"
    assert len(classed) == len(set(classed))


def test_nothing_is_classed_that_is_not_there(admin_api: set[tuple[str, str]], classed: list[tuple[str, str]]) -> None:
    assert sorted(set(classed) - admin_api) == []


def test_a_list_that_is_let_through_has_parts_or_is_known_to_have_none(recorder: Recorder) -> None:
    text = (CHECKOUT / "src" / "gateway" / "admin-paths.ts").read_text()
    through = {path for methods, path in CLASSED.findall(text[: text.index("export const REFUSED")]) if "GET" in methods.split(",")}
    unlimited = {path.removeprefix("/_synapse/admin/") for path in through if not has_limit(recorder.readers[path])}
    assert sorted(unlimited - WHOLE - NO_LIST) == [], "which can be long? refuse these in src/gateway/admin-paths.ts, or class them here"
    assert sorted((WHOLE | NO_LIST) - unlimited) == []


def has_limit(servlet: str) -> bool:
    """Whether what answers looks at the `limit` of a request, or has one."""
    [found] = {
        value
        for name, module in sys.modules.items()
        if name.startswith("synapse.rest.admin")
        for key, value in vars(module).items()
        if key == servlet and inspect.isclass(value)
    }
    source = "".join(inspect.getsource(vars(one)["on_GET"]) for one in found.__mro__ if "on_GET" in vars(one))
    return '"limit"' in source or "PaginationConfig.from_request" in source or "limit = 100" in source
