"""That nothing is waited for without end while a tenant's lock is held."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.testing import MemoryReactorClock

from multi_synapse import homeserver
from multi_synapse.errors import DatabaseAborted
from multi_synapse.waiting import Limit


class Stuck:
    """A pool with a thread that does not come back."""

    running = False

    def __init__(self) -> None:
        self.said: list[str] = []

    def is_busy(self) -> bool:
        return True

    def abort(self) -> None:
        self.said.append("abort")

    def cut(self) -> None:
        self.said.append("cut")


def test_a_database_thread_that_does_not_come_back_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, clock = Stuck(), MemoryReactorClock()
    monkeypatch.setattr(homeserver, "pools_of", lambda _name: [pool])
    closing = defer.ensureDeferred(homeserver._close_database("a.example", clock, patiently=True))
    clock.pump([0.1] * 49)
    assert pool.said == []
    clock.pump([0.1] * 10)
    assert pool.said == ["abort"]
    assert not closing.called
    clock.pump([0.1] * 110)
    assert closing.called
    assert pool.said == ["abort", "cut"]


def test_a_start_that_waits_for_something_can_be_given_up() -> None:
    clock, limit = MemoryReactorClock(), Limit(3600)
    failed: list[Any] = []
    work: defer.Deferred[None] = defer.Deferred()
    homeserver._within(limit, work, clock).addErrback(failed.append)
    clock.advance(0.25)
    assert failed == []
    limit.aborted.set()
    clock.advance(0.25)
    assert failed[0].check(DatabaseAborted)
    work.callback(None)
    assert clock.getDelayedCalls() == []


def test_what_ends_in_time_is_answered() -> None:
    clock = MemoryReactorClock()
    work: defer.Deferred[str] = defer.Deferred()
    result = homeserver._within(Limit(10), work, clock)
    work.callback("done")
    assert result.result == "done"
    assert clock.getDelayedCalls() == []
