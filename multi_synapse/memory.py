"""Garbage: the collector's schedule, and giving memory back after tenants stopped.

A full collection takes about 0.7 ms per thousand objects, and everything stalls meanwhile. So what the process itself is made
of is frozen once, out of the collector's sight, and stopped tenants are collected soon but not one by one.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import weakref
from typing import Any

from synapse.metrics import install_gc_manager
from twisted.internet import defer, threads

from .pools import threads_of_shard

logger = logging.getLogger(__name__)

#: Stops that follow each other within this share a collection.
_COLLECT_AFTER_SECONDS = 1.0


class Memory:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._homeservers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._timer: Any = None

    def start(self) -> None:
        gc.collect()
        gc.freeze()
        install_gc_manager()

    def watch(self, hs: Any) -> None:
        self._homeservers.add(hs)

    def live_homeservers(self) -> int:
        return len(self._homeservers)

    def collect_soon(self) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(_COLLECT_AFTER_SECONDS, self._collect_and_trim)

    def collect(self) -> defer.Deferred[None]:
        """Collects all garbage, a stall of its own; fires when freed memory is back with the system."""
        gc.collect()
        # Freed memory is scattered over malloc's arenas; without this it never goes back.
        return threads.deferToThreadPool(self._reactor, threads_of_shard.start, _malloc_trim)

    def _collect_and_trim(self) -> None:
        self._timer = None
        self.collect()


def _malloc_trim() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
