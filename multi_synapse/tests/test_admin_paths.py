"""The gateway knows every path of Synapse's admin API: what it lets a tenant's administrators have, and what not."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import MagicMock

import pytest
import synapse.rest.admin

from .shard import CHECKOUT

#: As the gateway's tables have them: methods, a path, and for what is refused the reason.
CLASSED = re.compile(r"^([A-Z,]+) (/_synapse/admin/\S+)(?: \| .+)?$", re.MULTILINE)


class Recorder:
    """In the place of Synapse's HTTP server."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

    def register_paths(self, method: str, path_patterns: Any, *_: Any) -> None:
        self.found |= {(method, plain(pattern.pattern)) for pattern in path_patterns}


def plain(pattern: str) -> str:
    """A pattern of Synapse's with a star for each part that a request fills in."""
    return re.sub(r"\(\?P<\w+>[^)]*\)", "*", pattern.removeprefix("^").removesuffix("$"))


@pytest.fixture(scope="module")
def admin_api() -> set[tuple[str, str]]:
    recorder = Recorder()
    for delegated in (False, True):
        hs = MagicMock()
        hs.config.mas.enabled = hs.config.experimental.msc3861.enabled = hs.config.auth.delegation_enabled = delegated
        hs.config.worker.worker_app = None
        synapse.rest.admin.register_servlets(hs, recorder)  # type: ignore[arg-type]
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
