"""Housekeeping of idle tenants.

A Synapse has about 110 looping calls, many of which run every few seconds: they are what an idle tenant costs in processor time, database
connections and threads. In a tenant that is idle they are held, and run together in a round now and then; a request, or any work
in the database, gives all of them back at once. `rules.py` says which loops may be held, and why that does no harm.

Single timers (`call_later`: delayed and expiring events, pushers, retries) are left alone and keep their time, and so do loops
that are not in the rules: those of modules, of a newer Synapse, and those that renew a lock that is held.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import defer

from .rules import RULES, name_of, owner_of

logger = logging.getLogger(__name__)

#: Loops with this interval or a shorter one run once after the last activity before they are held: they write or pass on what it left.
_FREQUENT_SECONDS = 60.0
#: Loops that are due together run one after the other, on one database connection, and leave room for others' requests.
_APART_SECONDS = 0.02
#: After activity all frequent loops have run by then. After a round they need less.
_SETTLE_SECONDS = 65.0
_SETTLE_ROUND_SECONDS = 10.0
#: The shortest interval for looking for what is due at a certain time, as in stock Synapse.
_DUE_STEP_SECONDS = 60.0

_unknown_loops: set[str] = set()


@dataclass(frozen=True)
class Pace:
    #: Without requests for this long, a tenant is idle.
    idle_seconds: float
    #: From one round of housekeeping to the next.
    round_seconds: float


@dataclass
class _Held:
    loop: Any
    due: float


@dataclass
class Housekeeping:
    """Of one tenant; all its methods are called on the reactor."""

    clock: Any
    reactor: Any
    pace: Pace
    #: Whether a request is being answered, or waits for something to happen.
    in_use: Callable[[], bool]
    #: Number of jobs that the tenant's database pool has been given since its start.
    database_jobs: Callable[[], int]
    #: When the next thing in the database is due (seconds since the epoch), for which only a loop looks.
    next_due: Callable[[], defer.Deferred[float | None]]
    idle: bool = False
    _held: list[_Held] = field(default_factory=list)
    #: Timers of loops that were given back because they were due.
    _given_back: set[Any] = field(default_factory=set)
    _active_at: float = 0.0
    _settled_at: float = 0.0
    _round_at: float = 0.0
    _jobs_seen: int = 0
    _closed: bool = False

    def __post_init__(self) -> None:
        self._note_activity()

    def wake(self) -> None:
        """The tenant is used: every loop keeps its time again, and what is overdue runs now."""
        self._note_activity()
        if self.idle:
            self.idle = False
            self._release(float("inf"))

    def review(self) -> None:
        """Looks whether the tenant is idle; to be called every few seconds."""
        if self._closed:
            return
        now = self.reactor.seconds()
        if self.in_use() or (self.idle and now > self._settled_at and self.database_jobs() != self._jobs_seen):
            self.wake()
        self._jobs_seen = self.database_jobs()
        if not self.idle:
            if now - self._active_at < self.pace.idle_seconds:
                return
            self.idle = True
            self._settled_at = max(now, self._active_at + _SETTLE_SECONDS)
            self._plan_round(now)
        elif now >= self._round_at:
            self._settled_at = now + _SETTLE_ROUND_SECONDS
            self._begin_round(now)
            self._plan_round(now)
        if now <= self._settled_at:
            self._hold()

    def sweep(self) -> float:
        """Runs every loop once, one after the other, whatever its interval: a tenant that sleeps for most of the day has few other chances.

        Returns the seconds until the last has begun.
        """
        self.wake()
        now = self.reactor.seconds()
        waiting = [loop for loop in self.clock._looping_calls if loop.running and loop.call is not None and loop.call.active()]
        for position, loop in enumerate(waiting):
            due = now + position * _APART_SECONDS
            if loop.call.getTime() > due:
                loop.call.cancel()
                loop.call = self.reactor.callLater(due - now, loop)
        return len(waiting) * _APART_SECONDS

    def is_resting(self) -> bool:
        """Idle, and no loop of the last round may still be at work."""
        return self.idle and self.reactor.seconds() > self._settled_at

    def close(self) -> None:
        """The tenant is being stopped. Its clock ends the loops, those that are held too."""
        self._closed = True
        self._held.clear()
        self._given_back.clear()

    def _note_activity(self) -> None:
        self._active_at = self.reactor.seconds()

    def _hold(self) -> None:
        for loop in list(self.clock._looping_calls):
            call = loop.call
            # None: it runs just now, or is held.
            if call is None or not loop.running or not call.active() or call in self._given_back:
                continue
            name = name_of(loop)
            rule = RULES.get(name)
            if rule is None:
                _note_unknown(name)
                continue
            due = call.getTime()
            if loop.interval <= _FREQUENT_SECONDS and due - loop.interval < self._active_at:
                continue
            if rule.needed is not None and rule.needed(owner_of(loop)):
                continue
            call.cancel()
            loop.call = None
            self._held.append(_Held(loop, due))

    def _release(self, until: float) -> None:
        """Gives back the loops that are due by then: the overdue ones in turn, others at their time."""
        now = self.reactor.seconds()
        ready = sorted((held for held in self._held if held.due <= until), key=lambda held: held.due)
        self._held = [held for held in self._held if held.due > until]
        self._given_back.clear()
        for position, held in enumerate(ready):
            if held.loop.running and held.loop.call is None:
                held.loop.call = self.reactor.callLater(max(position * _APART_SECONDS, held.due - now), held.loop)
                if held.due <= now:
                    self._given_back.add(held.loop.call)

    def _begin_round(self, now: float) -> None:
        for held in self._held:
            # A loop that looks for what is due by a time must look now, whenever its own turn is.
            if held.loop.interval <= _FREQUENT_SECONDS:
                held.due = min(held.due, now)
        self._release(now)

    def _plan_round(self, now: float) -> None:
        # Tenants that were started together must not have their rounds together.
        self._round_at = now + self.pace.round_seconds * random.uniform(0.8, 1.0)  # noqa: S311

        def came(due: float | None) -> None:
            if due is not None:
                self._round_at = min(self._round_at, max(due, now + min(_DUE_STEP_SECONDS, self.pace.round_seconds)))

        def failed(_failure: Any) -> None:
            # When in doubt, look as often as stock Synapse.
            self._round_at = min(self._round_at, now + _DUE_STEP_SECONDS)

        self.next_due().addCallbacks(came, failed)


def _note_unknown(name: str) -> None:
    if name not in _unknown_loops:
        _unknown_loops.add(name)
        logger.info("the loop %s is not in the rules of housekeeping: it goes on in idle tenants", name)
