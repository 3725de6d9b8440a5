"""Threads of Synapse's Rust side: each tenant that answered `/versions` once keeps a tokio runtime, of four threads and two descriptors."""

from __future__ import annotations

from typing import Any

import synapse.server

from .process import replace

#: Of all tenants: what runs there is short, and needs Python's lock for most of it.
_WORKER_THREADS = 2

_shared: Any = None


class _Process:
    """The part of a HomeServer that a runtime needs, for a runtime that lives as long as the process."""

    def get_reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor

    def register_sync_shutdown_handler(self, **_handler: Any) -> None:
        """It ends with the process. A tenant's HomeServer would end it with the first of them that stops."""


def share_tokio_runtime() -> None:
    # Older releases have one for the process.
    original = getattr(synapse.server, "RustRuntime", None)
    if original is None:
        return

    def shared(hs: Any, worker_threads: int = 4) -> Any:
        global _shared
        if _shared is None:
            _shared = original(hs=_Process(), worker_threads=min(worker_threads, _WORKER_THREADS))
        return _shared

    replace(synapse.server, "RustRuntime", shared)
