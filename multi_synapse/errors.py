"""Why a tenant was refused or could not be started: a stable code, and one sentence that never holds a secret."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import psycopg2
from twisted.internet.error import CannotListenError

from .database_trouble import trouble_of

INVALID_CONFIG = "InvalidConfig"
OPTION_NOT_ALLOWED = "OptionNotAllowed"
SIGNING_KEY_INVALID = "SigningKeyInvalid"
DATABASE_AUTHENTICATION_FAILED = "DatabaseAuthenticationFailed"
DATABASE_UNREACHABLE = "DatabaseUnreachable"
DATABASE_MISSING = "DatabaseMissing"
DATABASE_UNSUITABLE = "DatabaseUnsuitable"
PORT_IN_USE = "PortInUse"
MODULE_FAILED = "ModuleFailed"
START_FAILED = "StartFailed"
FENCED = "Fenced"
STALE_EPOCH = "StaleEpoch"
ALREADY_RUNNING = "AlreadyRunning"
STALLED = "Stalled"

_STATUS = {FENCED: 409, STALE_EPOCH: 409, ALREADY_RUNNING: 409}
_LONGEST_MESSAGE = 600
_MOST_CAUSES = 4


class TenantError(Exception):
    """A refusal with its code (docs/control-api.md); `status` is the HTTP status it is answered with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUS.get(code, 422)


class Refused(Exception):
    """A request of the control API that is refused for its own sake; answered with that status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class OptionError(TenantError):
    """One option of a tenant's configuration, which is refused; `owner` is whose it is (options/option.py)."""

    def __init__(self, code: str, message: str, option: str, why: str, owner: str = "refused") -> None:
        super().__init__(code, message)
        self.option, self.why, self.owner = option, why, owner


class Fenced(TenantError):
    """Another owner has the tenant's database."""

    def __init__(self, message: str) -> None:
        super().__init__(FENCED, message)


class DatabaseTimeout(psycopg2.OperationalError):
    """The database did not answer within our bound."""


class DatabaseAborted(psycopg2.OperationalError):
    """We gave up on a statement because its tenant is being stopped."""


# What libpq says when a connection is refused by the server; it gives no code for these.
_CONNECTION_REFUSALS = (
    (re.compile(r'database "[^"]*" does not exist'), DATABASE_MISSING),
    (re.compile(r"password authentication failed|no password supplied|authentication failed"), DATABASE_AUTHENTICATION_FAILED),
    (re.compile(r'role "[^"]*" does not exist|is not permitted to log in|no pg_hba\.conf entry'), DATABASE_AUTHENTICATION_FAILED),
    (re.compile(r"permission denied for database"), DATABASE_AUTHENTICATION_FAILED),
)


def describe(error: BaseException, secrets: Iterable[str] = (), modules: Iterable[str] = ()) -> TenantError:
    """Turns what came out of a start into a code and a sentence.

    `secrets` are blanked out wherever they appear; `modules` are the tenant's Python modules, to whom an exception
    raised in their code is put down.
    """
    found = _classify(error, {name.split(".")[0] for name in modules})
    found.message = _one_sentence(_redact(found.message, secrets))
    return found


def _classify(error: BaseException, modules: set[str]) -> TenantError:
    from synapse.app._base import ListenerException
    from synapse.config import ConfigError
    from synapse.storage.engines import IncorrectDatabaseSetup
    from synapse.storage.prepare_database import PrepareDatabaseException
    from synapse.storage.schema import SCHEMA_VERSION
    from synapse.util import SYNAPSE_VERSION

    if isinstance(error, TenantError):
        return error
    if _raised_in_module(error.__traceback__, modules):
        return TenantError(MODULE_FAILED, f"a module of the tenant failed: {_name_and_text(error)}")
    if isinstance(error, DatabaseTimeout | DatabaseAborted):
        return TenantError(DATABASE_UNREACHABLE, f"the database does not answer: {error}")
    if trouble := trouble_of(error):
        code, words = trouble
        return TenantError(code, f"{words}: {_last_cause(str(error))}")
    if isinstance(error, psycopg2.errors.InsufficientPrivilege):
        return TenantError(DATABASE_UNSUITABLE, f"the database role lacks a privilege: {error}")
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        text = str(error)
        for pattern, code in _CONNECTION_REFUSALS:
            if pattern.search(text):
                return TenantError(code, f"the database refuses the connection: {_last_cause(text)}")
        return TenantError(DATABASE_UNREACHABLE, f"the database cannot be reached: {_last_cause(text)}")
    if isinstance(error, psycopg2.Error):
        return TenantError(DATABASE_UNSUITABLE, f"the database cannot be used: {error}")
    if isinstance(error, IncorrectDatabaseSetup | PrepareDatabaseException):
        return TenantError(DATABASE_UNSUITABLE, f"the database cannot be used: {_plain(error)}")
    if isinstance(error, ValueError) and "too new" in str(error):
        text = f"the schema of the database is too new for Synapse {SYNAPSE_VERSION}, which knows schemas up to {SCHEMA_VERSION}"
        return TenantError(DATABASE_UNSUITABLE, text)
    if isinstance(error, ListenerException | CannotListenError):
        return TenantError(PORT_IN_USE, f"a port cannot be listened on: {error.__cause__ or error}")
    if isinstance(error, ConfigError):
        return TenantError(INVALID_CONFIG, _config_error_text(error))
    if isinstance(error, SystemExit):
        code = MODULE_FAILED if modules else START_FAILED
        return TenantError(code, f"something in the start wanted to end the process (exit code {error.code})")
    return TenantError(START_FAILED, f"the start failed: {_name_and_text(error)}")


def trace_of(error: BaseException, secrets: Iterable[str]) -> str:
    """An exception with its trace, for the log."""
    return _redact("".join(traceback.format_exception(error)), secrets)


def config_problem(error: BaseException, options: Iterable[str] = ()) -> BaseException:
    """An exception of Synapse's config parser, as an InvalidConfig unless it is something better known.

    The parser raises KeyError, TypeError and the like for values of a wrong shape, without saying which; the line of the
    parser that fell over usually names it among `options`, the tenant's own.
    """
    from synapse.config import ConfigError

    if isinstance(error, TenantError | ConfigError | psycopg2.Error):
        return error
    if _in_load_module(error.__traceback__):
        return TenantError(MODULE_FAILED, f"a module of the tenant cannot be loaded: {_name_and_text(error)}")
    suspect = _option_in_trace(error.__traceback__, options)
    where = f" at {suspect}" if suspect else ""
    return TenantError(INVALID_CONFIG, f"the configuration cannot be read{where}: {_name_and_text(error)}")


def _option_in_trace(trace: TracebackType | None, options: Iterable[str]) -> str | None:
    lines = [frame.line or "" for frame in traceback.extract_tb(trace) if f"{os.sep}synapse{os.sep}config{os.sep}" in frame.filename]
    for line in reversed(lines):
        words = set(re.findall(r"\w+", line))
        found = [option for option in options if option in words]
        if found:
            return found[0]
    return None


def _config_error_text(error: Any) -> str:
    """Where and what, with its causes; bounded, as causes may form a ring."""
    where = f" at {'.'.join(error.path)}" if error.path else ""
    parts = [str(error.msg)]
    cause = error.__cause__
    while cause is not None and len(parts) < _MOST_CAUSES:
        parts.append(_plain(cause))
        cause = cause.__cause__
    return f"the configuration is not valid{where}: {': '.join(parts)}"


def _raised_in_module(trace: TracebackType | None, modules: set[str]) -> bool:
    if not modules:
        return False
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(trace))
    return any(name.split(".")[0] in modules for name in names)


def _in_load_module(trace: TracebackType | None) -> bool:
    return any(frame.f_code.co_name == "load_module" for frame, _ in traceback.walk_tb(trace))


def _name_and_text(error: BaseException) -> str:
    text = _plain(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _plain(error: BaseException) -> str:
    """The text of an exception; Synapse raises some with a format string and its arguments apart."""
    first, *rest = error.args or ("",)
    if isinstance(first, str) and rest and "%" in first:
        try:
            return first % tuple(rest)
        except (TypeError, ValueError):
            pass
    return str(error)


def _last_cause(text: str) -> str:
    """libpq lists each address it tried, one a line: the first line holds the cause, the next ones advice."""
    return text.strip().splitlines()[0] if text.strip() else "no reason given"


def _redact(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, "…")
    return text


def _one_sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
