"""`python -m multi_synapse.checker`: checks configurations for a shard, in a process that the shard can kill.

Lines of JSON in and out. It ends at end of input, and when nothing was asked for a while: it costs a good hundred megabytes.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import config as tenant_config
from . import errors, lifetime
from .options.meaning import meaning_of
from .release import installed_release
from .state import Assignment, write_atomically

_IDLE_SECONDS = 60.0
#: Above the shard's own limit (`checkers.py`), for when the shard has been killed during a check.
_MOST_SECONDS = 30
#: A check that needs more would hurt the shard.
_MOST_MEMORY = 2 * 1024**3


def check(assignment: Assignment) -> dict[str, Any]:
    """What the configuration means, with warnings. Asks no database. @raises TenantError"""
    known, modules = tenant_config.known_secrets(assignment), set[str]()
    try:
        tenant = tenant_config.read_options(assignment)
        known |= tenant.secrets
        modules |= tenant.modules
        with tempfile.TemporaryDirectory(prefix="multi-synapse-check-") as directory:
            write_atomically(Path(directory) / "signing.key", assignment.signing_key)
            tenant_config.write_configuration(tenant, Path(directory), "127.0.0.1", 0)
            config = tenant_config.load_homeserver_config(Path(directory), tenant.options)
            return {"ok": True, "warnings": list(tenant.warnings), "meaning": meaning_of(config, tenant.options)}
    except BaseException as error:
        raise errors.describe(error, known, modules) from None


def answer(line: bytes) -> dict[str, Any]:
    """To one line of input. Never raises."""
    try:
        return check(Assignment.parse(json.loads(line)))
    except errors.TenantError as error:
        return {"error": {"code": error.code, "message": error.message}}
    except Exception as error:
        return {"error": {"code": errors.INVALID_CONFIG, "message": f"the configuration cannot be checked: {type(error).__name__}"}}


def _serve(source: _Lines, out: Any) -> None:
    out.write(json.dumps({"ready": True}) + "\n")
    out.flush()
    while select.select([source], [], [], _IDLE_SECONDS)[0]:
        line = source.readline()
        if not line:
            return
        with lifetime.at_most(_MOST_SECONDS):
            said = answer(line)
        out.write(json.dumps(said) + "\n")
        out.flush()


def main() -> int:
    from . import log, patches

    os.umask(0o077)
    _limit(resource.RLIMIT_AS, _MOST_MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    # Only answers may go to stdout, whatever Synapse prints.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    log.set_up_logging("ERROR", None)
    # Whether this release may be hosted was decided for the shard.
    patches.allow([installed_release()])
    patches.apply_all()
    # Unbuffered: what is in a buffer does not make `select` return.
    with os.fdopen(os.dup(0), "rb", buffering=0) as source:
        _serve(_Lines(source), out)
    return 0


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    # What the shard was given may be less.
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (allowed, allowed))


class _Lines:
    """Reads lines without taking more from the descriptor than a line at a time needs; one question comes after one answer."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def fileno(self) -> int:
        number: int = self._source.fileno()
        return number

    def readline(self) -> bytes:
        parts = []
        while True:
            part = self._source.read(1024 * 1024)
            parts.append(part)
            if not part or part.endswith(b"\n"):
                return b"".join(parts) if part else b""


if __name__ == "__main__":
    sys.exit(main())
