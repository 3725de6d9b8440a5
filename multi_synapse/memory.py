"""Garbage: when the collector runs, and giving memory back after tenants stopped.

A full collection takes about half a millisecond per thousand objects, of which the bare process has 150,000 and a tenant 11,000,
and every tenant stalls meanwhile. So the bare process is pinned, out of the collector's sight, once. On a small shard a stopped
tenant is then collected soon, which takes a few milliseconds per tenant. On a large one the tenants are frozen too, so that the
collections that happen all the time stay short; the garbage of stopped tenants, which only a full one finds, waits and is
collected for several at once.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

from synapse.metrics import install_gc_manager
from twisted.internet import defer, threads

from . import pinned
from .pools import threads_of_shard

#: Stops and failures that follow each other within this share a collection.
_COLLECT_AFTER_SECONDS = 1.0
#: From this number on, tenants are frozen: collecting them takes 40 to 80 ms.
_LARGE_SHARD = 9
_FREEZE_AFTER_SECONDS = 0.5
#: On a large shard a full collection waits for this number of stopped tenants (1.2 MiB each, empty) or this time.
_MOST_STOPPED = 10
_FULL_EVERY_SECONDS = 300.0


class Memory:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._homeservers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._collecting: Any = None
        self._freezing: Any = None
        self._large = False
        self._stopped = 0
        self._last_full = self._reactor.seconds()

    def start(self) -> None:
        pinned.pin()
        install_gc_manager()

    def watch(self, hs: Any) -> None:
        self._homeservers.add(hs)

    def live_homeservers(self) -> int:
        return len(self._homeservers)

    def tenant_started(self, running: int) -> None:
        """`running`: how many tenants there are now."""
        if running >= _LARGE_SHARD and self._freezing is None:
            self._freezing = self._reactor.callLater(_FREEZE_AFTER_SECONDS, self._freeze)

    def tenant_stopped(self) -> None:
        self._stopped += 1
        self.collect_soon()

    def collect_soon(self) -> None:
        if self._collecting is not None:
            # A collection that is about to run is shared; one that runs much later must not delay this one.
            if self._collecting.getTime() - self._reactor.seconds() <= _COLLECT_AFTER_SECONDS:
                return
            self._collecting.cancel()
        self._collecting = self._reactor.callLater(_COLLECT_AFTER_SECONDS, self._collect_when_due)

    def collect(self) -> defer.Deferred[None]:
        """Collects all garbage, which is a stall; fires when freed memory is back with the system."""
        if self._large:
            gc.unfreeze()
        gc.collect()
        if self._large:
            gc.freeze()
        self._stopped = 0
        self._last_full = self._reactor.seconds()
        # Freed memory is scattered over malloc's arenas; without this it never goes back.
        return threads.deferToThreadPool(self._reactor, threads_of_shard.start, _malloc_trim)

    def _freeze(self) -> None:
        self._freezing = None
        self._large = True
        # Without this, garbage at hand would be frozen with the rest.
        gc.collect(1)
        gc.freeze()

    def _collect_when_due(self) -> None:
        self._collecting = None
        since = self._reactor.seconds() - self._last_full
        if not self._large or self._stopped >= _MOST_STOPPED or since >= _FULL_EVERY_SECONDS:
            self.collect()
            return
        # What failed starts left is not frozen.
        gc.collect()
        if self._stopped:
            self._collecting = self._reactor.callLater(_FULL_EVERY_SECONDS - since, self._collect_when_due)


def _malloc_trim() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
