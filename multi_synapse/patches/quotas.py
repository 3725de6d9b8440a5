"""What Synapse has no bound for: how many users a tenant has."""

from __future__ import annotations

import functools
from typing import Any

from synapse.handlers.deactivate_account import DeactivateAccountHandler
from synapse.handlers.register import RegistrationHandler
from synapse.storage.databases.main.registration import RegistrationWorkerStore

from ..quotas import keepers_of_tenants
from .process import replace


def count_users_at_registration() -> None:
    """However they come: by registration, single sign-on, an administrator or a module, this is the way into the database."""
    original = RegistrationHandler.register_with_store

    @functools.wraps(original)
    async def register_with_store(self: Any, user_id: str, *args: Any, **kwargs: Any) -> None:
        keeper = keepers_of_tenants.of(self.hs.hostname)
        # Guests and the users of bridges are not counted.
        if keeper is None or kwargs.get("make_guest") or kwargs.get("appservice_id") is not None:
            await original(self, user_id, *args, **kwargs)
            return
        await keeper.admit_user(lambda: original(self, user_id, *args, **kwargs))

    replace(RegistrationHandler, "register_with_store", register_with_store)


def count_users_at_activation() -> None:
    """An administrator would make accounts, deactivate them, and activate them all again."""
    original = DeactivateAccountHandler.activate_account

    @functools.wraps(original)
    async def activate_account(self: Any, user_id: str) -> None:
        keeper = keepers_of_tenants.of(self.hs.hostname)
        user = None if keeper is None else await self.store.get_user_by_id(user_id)
        # Those that count already, and those that never do.
        if keeper is None or user is None or not user.is_deactivated or user.is_guest or user.appservice_id is not None:
            await original(self, user_id)
            return
        await keeper.admit_user(lambda: original(self, user_id))

    replace(DeactivateAccountHandler, "activate_account", activate_account)


def count_support_users() -> None:
    """An administrator would call everybody support: those are not counted as active, and not held to the quota."""
    original = RegistrationWorkerStore.is_support_user_txn

    @functools.wraps(original)
    def is_support_user_txn(self: Any, txn: Any, user_id: str) -> bool:
        keeper = keepers_of_tenants.of(self.hs.hostname)
        if keeper is not None and keeper.bounds_active_users:
            return False
        return bool(original(self, txn, user_id))

    replace(RegistrationWorkerStore, "is_support_user_txn", is_support_user_txn)
