"""What keeps PostgreSQL from its work for every client: a full disk, no place left, no writes. It passes; no tenant is to blame for it."""

from __future__ import annotations

import re

import psycopg2

DATABASE_FULL = "DatabaseFull"
DATABASE_OVERLOADED = "DatabaseOverloaded"
DATABASE_READ_ONLY = "DatabaseReadOnly"

_WORDS = {
    DATABASE_FULL: "the database server's disk is full",
    DATABASE_OVERLOADED: "the database server has no connection, memory or other resource left",
    DATABASE_READ_ONLY: "the database takes no writes: a standby, or read-only by its settings",
}

# The longest first.
_BY_STATE = (("53100", DATABASE_FULL), ("53", DATABASE_OVERLOADED), ("25006", DATABASE_READ_ONLY))

# libpq gives no code for what the server says before there is a connection.
_BY_TEXT = (
    (re.compile(r"No space left on device|disk full|Disk quota exceeded"), DATABASE_FULL),
    (re.compile(r"too many clients|too many connections|connection slots are reserved|out of memory|could not fork"), DATABASE_OVERLOADED),
)


def trouble_of(error: BaseException | None) -> tuple[str, str] | None:
    """A code and words without the server's own, or None for anything else."""
    if not isinstance(error, psycopg2.Error):
        return None
    code = _code_of(error)
    return None if code is None else (code, _WORDS[code])


def _code_of(error: psycopg2.Error) -> str | None:
    if error.pgcode is not None:
        return next((code for state, code in _BY_STATE if error.pgcode.startswith(state)), None)
    text = str(error)
    return next((code for pattern, code in _BY_TEXT if pattern.search(text)), None)
