"""Quotas hold for what an administrator of the tenant does, too: without a shard, with Synapse's own handler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from synapse.api.errors import ResourceLimitError
from synapse.handlers.deactivate_account import DeactivateAccountHandler
from synapse.storage.databases.main.registration import RegistrationWorkerStore

from multi_synapse import quotas
from multi_synapse.options.quotas import Quotas
from multi_synapse.patches import quotas as patch


@pytest.fixture
def activated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Those whom Synapse's own function has activated."""
    done: list[str] = []

    async def activate_account(_self: Any, user_id: str) -> None:
        done.append(user_id)

    monkeypatch.setattr(DeactivateAccountHandler, "activate_account", activate_account)
    patch.count_users_at_activation()
    yield done
    quotas.keepers_of_tenants.forget("a.example")


def handler(users: int, **user: Any) -> Any:
    """Of a tenant that may have two users."""
    hs = MagicMock(hostname="a.example")
    hs.config.server.admin_contact = None
    keeper = quotas.Keeper(hs, Quotas(users=2))
    keeper._users = AsyncMock(return_value=users)  # type: ignore[method-assign]
    quotas.keepers_of_tenants._by_server_name["a.example"] = keeper
    found = SimpleNamespace(**{"is_deactivated": True, "is_guest": False, "appservice_id": None, **user})
    made = DeactivateAccountHandler.__new__(DeactivateAccountHandler)
    made.hs = hs
    made.store = SimpleNamespace(get_user_by_id=AsyncMock(return_value=found))  # type: ignore[assignment]
    return made


def test_an_account_that_is_activated_again_counts(activated: list[str]) -> None:
    asyncio.run(handler(1).activate_account("@x:a.example"))
    assert activated == ["@x:a.example"]
    with pytest.raises(ResourceLimitError):
        asyncio.run(handler(2).activate_account("@y:a.example"))
    assert activated == ["@x:a.example"]


@pytest.mark.parametrize("user", [{"is_deactivated": False}, {"appservice_id": 1}])
def test_what_does_not_count_can_be_activated_at_the_limit(activated: list[str], user: dict[str, Any]) -> None:
    asyncio.run(handler(2, **user).activate_account("@x:a.example"))
    assert activated == ["@x:a.example"]


@pytest.mark.parametrize(("bounds", "is_support"), [(Quotas(monthly_active_users=1), False), (Quotas(users=1), True)])
def test_users_of_the_type_support_are_active_like_others_where_active_users_are_bounded(
    monkeypatch: pytest.MonkeyPatch, bounds: Quotas, is_support: bool
) -> None:
    monkeypatch.setattr(RegistrationWorkerStore, "is_support_user_txn", lambda *_: True)
    patch.count_support_users()
    hs = MagicMock(hostname="a.example")
    keeper = quotas.Keeper(hs, bounds)
    monkeypatch.setitem(quotas.keepers_of_tenants._by_server_name, "a.example", keeper)
    store: Any = SimpleNamespace(hs=hs)
    assert RegistrationWorkerStore.is_support_user_txn(store, MagicMock(), "@x:a.example") is is_support


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        (b"/_synapse/admin/v1/join/!r:a.example", True),
        (b"/_synapse/admin/v1/send_server_notice", True),
        (b"/_synapse/admin/v1/send_server_notice/1", True),
        (b"/_synapse/admin/v1/user/@x:a.example/redact", False),
        (b"/_synapse/admin/v1/rooms/!r:a.example/make_room_admin", False),
        (b"/_synapse/admin/v1/deactivate/@x:a.example", False),
    ],
)
def test_a_full_database_takes_nothing_from_an_administrator_that_adds_to_it(path: bytes, refused: bool) -> None:
    hs = MagicMock()
    hs.config.server.admin_contact = None
    hs.get_clock().time.return_value = 0.0
    keeper = quotas.Keeper(hs, Quotas(database_bytes=1))
    keeper._database.value = 2
    request = SimpleNamespace(method=b"POST", path=path)
    assert (keeper.refusal(request) is not None) == refused
