"""What an operator changes of a tenant's accounts (docs/control-api.md, *Accounts*): by Synapse's own handlers, as its admin API does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from synapse.api.errors import SynapseError
from synapse.logging.context import LoggingContext, PreserveLoggingContext, run_in_background
from synapse.types import UserID, create_requester

from .errors import Refused

_LONGEST_LOCALPART = 255
_LONGEST_PASSWORD = 512
#: Of an administrator's session that is opened for somebody: a working day.
_LONGEST_SESSION_SECONDS = 8 * 3600
#: That are ended by one request.
_MOST_SESSIONS = 100
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
        localpart, given, rest = _localpart_in(value), value[kind], value.get(extra or "", kind == "password")
        if not isinstance(given, (str, bool)) or not isinstance(given, wanted) or (kind == "deactivate" and given is not True):
            raise _invalid(f"{kind}: not {'true' if kind == 'deactivate' else 'a text' if wanted is str else 'true or false'}")
        if isinstance(given, str) and not 0 < len(given) <= _LONGEST_PASSWORD:
            raise _invalid(f"password: allowed are 1 to {_LONGEST_PASSWORD} characters")
        if not isinstance(rest, bool):
            raise _invalid(f"{extra}: neither true nor false")
        return Change(localpart, kind, given, rest)


@dataclass(frozen=True)
class Session:
    """Of an administrator, with a token that ends."""

    localpart: str
    seconds: int

    @staticmethod
    def parse(value: Any) -> Session:
        """@raises Refused InvalidArgument"""
        if not isinstance(value, dict):
            raise _invalid("the request's body is not an object")
        unknown = sorted(set(value) - {"user", "seconds"})
        if unknown:
            raise _invalid(f"{unknown[0]}: not allowed")
        seconds = value.get("seconds")
        if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds <= _LONGEST_SESSION_SECONDS:
            raise _invalid(f"seconds: allowed are 1 to {_LONGEST_SESSION_SECONDS}")
        return Session(_localpart_in(value), seconds)


@dataclass(frozen=True)
class Opened:
    """A session that `open_session` opened, by what it answered."""

    localpart: str
    until: int

    @staticmethod
    def parse_all(value: Any) -> list[Opened]:
        """@raises Refused InvalidArgument"""
        given = value.get("sessions") if isinstance(value, dict) else None
        if not isinstance(given, list) or len(given) > _MOST_SESSIONS or set(value) != {"sessions"}:
            raise _invalid(f"sessions: not a list of at most {_MOST_SESSIONS}")
        return [Opened._parse(one) for one in given]

    @staticmethod
    def _parse(value: Any) -> Opened:
        until = value.get("until") if isinstance(value, dict) else None
        if not isinstance(until, int) or isinstance(until, bool) or set(value) != {"user", "until"}:
            raise _invalid("sessions: one is not a user and until, in milliseconds")
        return Opened(_localpart_in(value), until)


async def apply(hs: Any, change: Change) -> str:
    """The id of the user who was changed. @raises Refused"""
    return str(await _as_tenant(hs, _apply, change))


async def open_session(hs: Any, session: Session) -> dict[str, Any]:
    """The id of the administrator, the token of the session, which is nowhere else, and when it ends, in milliseconds. @raises Refused"""
    found: dict[str, Any] = await _as_tenant(hs, _open_session, session)
    return found


async def end_sessions(hs: Any, sessions: list[Opened]) -> int:
    """How many there were still."""
    ended: int = await _as_tenant(hs, _end_sessions, sessions)
    return ended


async def _as_tenant(hs: Any, function: Callable[..., Coroutine[Any, Any, Any]], asked: Any) -> Any:
    with PreserveLoggingContext(LoggingContext(name="shard_users", server_name=hs.hostname)):
        done = run_in_background(function, hs, asked)
    return await done


async def _find(hs: Any, user: UserID) -> Any:
    user_id: str = user.to_string()
    if _keeps_no_accounts(hs.config):
        raise Refused(
            409,
            "UserRefused",
            f"{hs.hostname} keeps no accounts itself: its authentication service does (matrix_authentication_service)",
        )
    found = await hs.get_datastores().main.get_user_by_id(user_id)
    if found is None:
        raise Refused(404, "UserNotFound", f"there is no user {user_id}")
    return found


async def _open_session(hs: Any, session: Session) -> dict[str, Any]:
    user_id: str = UserID(session.localpart, hs.hostname).to_string()
    found = await _find(hs, UserID(session.localpart, hs.hostname))
    if not found.is_admin or found.is_deactivated or found.locked:
        raise Refused(409, "UserRefused", f"{user_id} is no administrator who may sign in")
    until = hs.get_clock().time_msec() + session.seconds * 1000
    try:
        # Of no device: one would be told to everybody who shares a room with the user.
        token = await hs.get_auth_handler().create_access_token_for_user_id(user_id, None, until)
    except SynapseError as error:
        raise Refused(409, "UserRefused", f"{hs.hostname} refuses it: {error.msg}") from error
    return {"userId": user_id, "token": token, "until": until}


async def _end_sessions(hs: Any, sessions: list[Opened]) -> int:
    ended = 0
    for session in sessions:
        where = {"user_id": UserID(session.localpart, hs.hostname).to_string(), "valid_until_ms": session.until}
        # By its end, which is of a millisecond, and by having no device: whatever else signed the user in is left alone.
        rows = await hs.get_datastores().main.db_pool.simple_select_list("access_tokens", where, ("token", "device_id"), "end_sessions")
        for token, device in rows:
            if device is None and await _end(hs, token):
                ended += 1
    return ended


async def _end(hs: Any, token: str) -> bool:
    try:
        await hs.get_auth_handler().delete_access_token(token)
    except SynapseError:
        # Its user has signed out meanwhile.
        return False
    return True


async def _apply(hs: Any, change: Change) -> str:
    user = UserID(change.localpart, hs.hostname)
    user_id: str = user.to_string()
    found = await _find(hs, user)
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


def _localpart_in(value: dict[str, Any]) -> str:
    localpart = value.get("user")
    if not isinstance(localpart, str) or not 0 < len(localpart) <= _LONGEST_LOCALPART or set(localpart) & {":", "\0", "@"}:
        raise _invalid("user: not the part of a user id before the colon")
    return localpart


def _invalid(message: str) -> Refused:
    return Refused(400, "InvalidArgument", message)
