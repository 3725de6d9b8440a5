"""Watches the process itself: how long the reactor stood still, and whether the whole process did (SIGSTOP, a frozen machine)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

_COARSE_SECONDS = 0.1
#: Used for a while after the lag was asked for: finer, and more expensive.
_FINE_SECONDS = 0.005
_FINE_FOR_SECONDS = 120.0
#: After a gap of this length the tenants may belong to another shard.
_PAUSE_SECONDS = 2.0


class Probe:
    def __init__(self, reactor: Any, on_pause: Callable[[float], None], on_tick: Callable[[], None] = lambda: None) -> None:
        self._reactor = reactor
        self._on_pause = on_pause
        self._on_tick = on_tick
        self._longest = 0.0
        self._fine_until = 0.0
        self._due = 0.0
        self._timer: Any = None

    def start(self) -> None:
        self._schedule()

    def take_longest_lag(self) -> float:
        """Seconds of the longest stall since the last call."""
        longest, self._longest = self._longest, 0.0
        now = _now()
        if now > self._fine_until:
            self._fine_until = now + _FINE_FOR_SECONDS
            self._timer.cancel()
            self._schedule()
        self._fine_until = now + _FINE_FOR_SECONDS
        return longest

    def _schedule(self) -> None:
        interval = _FINE_SECONDS if _now() < self._fine_until else _COARSE_SECONDS
        self._due = _now() + interval
        self._timer = self._reactor.callLater(interval, self._tick)

    def _tick(self) -> None:
        self._on_tick()
        late = _now() - self._due
        self._longest = max(self._longest, late)
        self._schedule()
        if late > _PAUSE_SECONDS:
            self._on_pause(late)


def _now() -> float:
    # Unlike the monotonic clock it counts on while the machine sleeps.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def starved_seconds() -> float:
    """How long the main thread has been ready to run and was not let: by a machine that is full, or by a container's limit."""
    try:
        with open("/proc/self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def memory() -> tuple[int, int]:
    """Resident and proportional set size in bytes."""
    rss = pss = 0
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Rss:"):
                rss = int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss = int(line.split()[1]) * 1024
    return rss, pss


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptor_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def trigger_count(reactor: Any) -> int:
    """System event triggers of the reactor: a trigger that a stopped tenant leaves behind keeps the tenant in memory."""
    phases = ("before", "during", "after")
    return sum(len(getattr(event, phase)) for event in reactor._eventTriggers.values() for phase in phases)
