"""What an operator changes of a tenant's accounts (docs/control-api.md, *Accounts*): by Synapse's own handlers, as its admin API does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synapse.api.errors import SynapseError
from synapse.logging.context import LoggingContext, PreserveLoggingContext, run_in_background
from synapse.types import UserID, create_requester

from .errors import Refused

_LONGEST_LOCALPART = 255
_LONGEST_PASSWORD = 512
#: What a request may hold beside `user`, exactly one of the first; what belongs to each may be left out.
_CHANGES: dict[str, tuple[type, str | None]] = {"password": (str, "logoutDevices"), "deactivate": (bool, "erase"), "admin": (bool, None)}


@dataclass(frozen=True)
class Change:
    localpart: str
    kind: str
    value: Any
    #: `logoutDevices` or `erase`.
    rest: bool

    @staticmethod
    def parse(value: Any) -> Change:
        """@raises Refused InvalidArgument"""
        if not isinstance(value, dict):
            raise _invalid("the request's body is not an object")
        kinds = [kind for kind in _CHANGES if kind in value]
        if len(kinds) != 1:
            raise _invalid(f"the request holds not exactly one of {', '.join(_CHANGES)}")
        [kind] = kinds
        wanted, extra = _CHANGES[kind]
        allowed = {"user", kind, extra}
        unknown = sorted(key for key in value if key not in allowed)
        if unknown:
            raise _invalid(f"{unknown[0]}: not allowed beside {kind}")
        localpart, given, rest = value.get("user"), value[kind], value.get(extra or "", kind == "password")
        if not isinstance(localpart, str) or not 0 < len(localpart) <= _LONGEST_LOCALPART or set(localpart) & {":", "\0", "@"}:
            raise _invalid("user: not the part of a user id before the colon")
        if not isinstance(given, (str, bool)) or not isinstance(given, wanted) or (kind == "deactivate" and given is not True):
            raise _invalid(f"{kind}: not {'true' if kind == 'deactivate' else 'a text' if wanted is str else 'true or false'}")
        if isinstance(given, str) and not 0 < len(given) <= _LONGEST_PASSWORD:
            raise _invalid(f"password: allowed are 1 to {_LONGEST_PASSWORD} characters")
        if not isinstance(rest, bool):
            raise _invalid(f"{extra}: neither true nor false")
        return Change(localpart, kind, given, rest)


async def apply(hs: Any, change: Change) -> str:
    """The id of the user who was changed. @raises Refused"""
    with PreserveLoggingContext(LoggingContext(name="shard_users", server_name=hs.hostname)):
        changing = run_in_background(_apply, hs, change)
    return str(await changing)


async def _apply(hs: Any, change: Change) -> str:
    user = UserID(change.localpart, hs.hostname)
    user_id: str = user.to_string()
    if _keeps_no_accounts(hs.config):
        raise Refused(
            409,
            "UserRefused",
            f"{hs.hostname} keeps no accounts itself: its authentication service does (matrix_authentication_service)",
        )
    store = hs.get_datastores().main
    found = await store.get_user_by_id(user_id)
    if found is None:
        raise Refused(404, "UserNotFound", f"there is no user {user_id}")
    if change.kind == "password" and found.is_deactivated:
        raise Refused(409, "UserRefused", f"{user_id} is deactivated")
    try:
        await _CHANGERS[change.kind](hs, user, change)
    except SynapseError as error:
        raise Refused(409, "UserRefused", f"{hs.hostname} refuses it: {error.msg}") from error
    return user_id


async def _set_password(hs: Any, user: UserID, change: Change) -> None:
    hashed = await hs.get_auth_handler().hash(change.value)
    await hs.get_set_password_handler().set_password(user.to_string(), hashed, change.rest)


async def _deactivate(hs: Any, user: UserID, change: Change) -> None:
    requester = create_requester(user)
    await hs.get_deactivate_account_handler().deactivate_account(user.to_string(), change.rest, requester, by_admin=True)


async def _set_admin(hs: Any, user: UserID, change: Change) -> None:
    await hs.get_datastores().main.set_server_admin(user, change.value)


_CHANGERS = {"password": _set_password, "deactivate": _deactivate, "admin": _set_admin}


def _keeps_no_accounts(config: Any) -> bool:
    delegated = getattr(getattr(config.experimental, "msc3861", None), "enabled", False)
    return bool(delegated or getattr(getattr(config, "mas", None), "enabled", False))


def _invalid(message: str) -> Refused:
    return Refused(400, "InvalidArgument", message)
