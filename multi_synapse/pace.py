"""Keeps a busy tenant from standing in its neighbours' way at a finer grain than whole requests.

An initial sync is some hundred database jobs, up to ten of them at once, each with a thread that wants Python's lock and a result that
the reactor handles. A neighbour's send is twenty jobs in a row with some fifty statements, and would wait among all these at each of
them: it takes four times as long, however seldom the gateway lets such a sync through. So the busiest tenant has one job after
another while others have work. That costs it little, as Python runs one of them at a time anyway. And threads are asked to hand
over Python's lock sooner, as each statement's answer waits for it.

A tenant that is over its budget is throttled: gateways let few of its requests through, and say so with each. It *steps back*: while a
neighbour is at work, its jobs begin one by one, with a pause after each, so that what overlaps with a neighbour's request is little.
When nobody else is at work, it goes on at once.
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
#: A tenant is at work if it was given a job, or had one's result, within this time: in a request, one job follows another sooner.
_AT_WORK_SECONDS = 0.01
#: How long a tenant that steps back pauses while others are at work, for each second of processor time that it took: it has a fifth.
_PAUSE_FOR_EACH = 4.0
#: It gets on whatever others do.
_LONGEST_PAUSE_SECONDS = 0.25
#: How long a tenant steps back after a gateway has said that it is throttled, if none says anything else: longer than its requests take.
_STEPS_BACK_SECONDS = 180.0

Clock = Callable[[], float]


class Pace:
    """The processor time that a tenant takes now, whether it has work, and whether it steps back. An estimate: of two charges at once, one
    may be lost."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._share = 0.0
        self._at = clock()
        self._had_work_at = float("-inf")
        self._throttled_at = float("-inf")
        self._pauses_until = float("-inf")
        self._is_let_go = False

    def charge(self, seconds: float) -> None:
        now = self._clock()
        self._share, self._at = self.share() + seconds / _AVERAGE_SECONDS, now
        self._pauses_until = min(max(now, self._pauses_until) + seconds * _PAUSE_FOR_EACH, now + _LONGEST_PAUSE_SECONDS)

    def share(self) -> float:
        """Of a core."""
        return self._share * math.exp((self._at - self._clock()) / _AVERAGE_SECONDS)

    def note_work(self) -> None:
        self._had_work_at = self._clock()

    def has_work(self) -> bool:
        return self._clock() - self._had_work_at < _ACTIVE_SECONDS

    def is_at_work(self) -> bool:
        return self._clock() - self._had_work_at < _AT_WORK_SECONDS

    def note_throttled(self, is_throttled: bool) -> None:
        self._throttled_at = self._clock() if is_throttled else float("-inf")

    def let_go(self) -> None:
        """From now on it steps back for nobody, whatever gateways say."""
        self._is_let_go = True

    def steps_back(self) -> bool:
        return not self._is_let_go and self._clock() - self._throttled_at < _STEPS_BACK_SECONDS

    def pause(self) -> float:
        """Seconds until its next job, if it steps back."""
        return max(0.0, self._pauses_until - self._clock())


class Paces:
    """Those of all tenants of a shard. A tenant is forgotten with its pace."""

    def __init__(self) -> None:
        # Replaced rather than changed: threads read it.
        self._all: tuple[weakref.ref[Pace], ...] = ()

    def add(self, pace: Pace) -> Pace:
        self._all = (*(known for known in self._all if known() is not None), weakref.ref(pace))
        return pace

    def gives_way(self, pace: Pace) -> bool:
        """Whether this tenant has one job after another: others have work, and it steps back or is the busiest of all."""
        own = pace.share()
        steps_back = pace.steps_back()
        if own < _BUSY_SHARE and not steps_back:
            return False
        others = [other for known in self._all if (other := known()) is not None and other is not pace and other.has_work()]
        if steps_back:
            return any(not other.steps_back() for other in others)
        return bool(others) and own > max(other.share() for other in others)

    def pause(self, pace: Pace) -> float:
        """Seconds for which this tenant's next job has to wait while others are at work."""
        if not pace.steps_back():
            return 0.0
        others = (other for known in self._all if (other := known()) is not None and other is not pace)
        return pace.pause() if any(other.is_at_work() and not other.steps_back() for other in others) else 0.0
