"""What Synapse has no bound for: how many users a tenant has."""

from __future__ import annotations

import functools
from typing import Any

from synapse.handlers.register import RegistrationHandler

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
