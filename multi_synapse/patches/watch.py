"""Whose code runs, for the watchdog: it sees memory, and nothing else, of a process that stands still."""

from __future__ import annotations

import threading
from typing import Any

from synapse.logging import context as logging_context

from ..watchdog import Beat
from .process import replace

#: Of this process's watchdog, if it has one.
beat: Beat | None = None


def note_tenant_at_work() -> None:
    if beat is None:
        return
    original = logging_context.set_current_context
    sentinel = logging_context.SENTINEL_CONTEXT
    reactor_thread = threading.get_ident()
    get_ident, numbers, number_of = threading.get_ident, beat.numbers, beat.number_of

    def set_current_context(context: Any) -> Any:
        if get_ident() == reactor_thread:
            numbers[1] = 0 if context is sentinel else number_of(context.server_name)
        return original(context)

    replace(logging_context, "set_current_context", set_current_context)
