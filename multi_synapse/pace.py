"""Keeps a busy tenant from standing in its neighbours' way at a finer grain than whole requests.

An initial sync is some hundred database jobs, up to ten of them at once, each with a thread that wants Python's lock and a result that
the reactor handles. A neighbour's send is twenty jobs in a row with some fifty statements, and would wait among all these at each of
them: it takes four times as long, however seldom the gateway lets such a sync through. So the busiest tenant has one job after
another while others have work. That costs it little, as Python runs one of them at a time anyway. And threads are asked to hand
over Python's lock sooner, as each statement's answer waits for it.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable

#: For `sys.setswitchinterval`, instead of 5 ms. In the bench this alone changes little, and with the rest of this module much.
SWITCH_SECONDS = 0.0003
#: Of a core: a tenant that takes less is never held back.
_BUSY_SHARE = 0.25
#: Over which the share is averaged: shorter than a request that does harm.
_AVERAGE_SECONDS = 0.2
#: A tenant has work if it was given a job within this time.
_ACTIVE_SECONDS = 0.25

Clock = Callable[[], float]


class Pace:
    """The processor time that a tenant takes now, and whether it has work. An estimate: of two charges at once, one may be lost."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._share = 0.0
        self._at = clock()
        self._had_work_at = float("-inf")

    def charge(self, seconds: float) -> None:
        self._share, self._at = self.share() + seconds / _AVERAGE_SECONDS, self._clock()

    def share(self) -> float:
        """Of a core."""
        return self._share * math.exp((self._at - self._clock()) / _AVERAGE_SECONDS)

    def note_work(self) -> None:
        self._had_work_at = self._clock()

    def has_work(self) -> bool:
        return self._clock() - self._had_work_at < _ACTIVE_SECONDS


class Paces:
    """Those of all tenants of a shard. A tenant is forgotten with its pace."""

    def __init__(self) -> None:
        # Replaced rather than changed: threads read it.
        self._all: tuple[weakref.ref[Pace], ...] = ()

    def add(self, pace: Pace) -> Pace:
        self._all = (*(known for known in self._all if known() is not None), weakref.ref(pace))
        return pace

    def gives_way(self, pace: Pace) -> bool:
        """Whether this tenant is the busiest of those that have work, and there are others."""
        own = pace.share()
        if own < _BUSY_SHARE:
            return False
        others = [other.share() for known in self._all if (other := known()) is not None and other is not pace and other.has_work()]
        return bool(others) and own > max(others)
