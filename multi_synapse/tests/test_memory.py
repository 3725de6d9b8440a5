from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from twisted.internet import defer
from twisted.internet.testing import MemoryReactorClock

from multi_synapse.memory import Memory


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryReactorClock]:
    monkeypatch.setattr("multi_synapse.memory.threads.deferToThreadPool", lambda *_: defer.succeed(None))
    yield MemoryReactorClock()
    gc.unfreeze()


def test_stops_on_a_large_shard_are_collected_by_tens(clock: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch) -> None:
    full: list[float] = []
    large = Memory(clock)

    def collect() -> defer.Deferred[None]:
        full.append(clock.seconds())
        return Memory.collect(large)

    monkeypatch.setattr(large, "collect", collect)
    large.tenant_started(25)
    clock.advance(1)
    # Thirty in a minute.
    for _ in range(30):
        large.tenant_stopped()
        clock.advance(2)
    assert len(full) == 3
    # The last few wait for their turn, but not forever.
    large.tenant_stopped()
    clock.pump([10] * 40)
    assert len(full) == 4


def test_stops_that_follow_each_other_share_a_collection(clock: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch) -> None:
    full: list[float] = []
    small = Memory(clock)
    monkeypatch.setattr(small, "collect", lambda: full.append(clock.seconds()))
    for _ in range(5):
        small.tenant_stopped()
        clock.advance(0.1)
    clock.advance(2)
    assert len(full) == 1
