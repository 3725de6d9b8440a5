"""Fibers that compute, and the log that everything waits for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from synapse.app.homeserver import SynapseHomeServer
from synapse.http.server import JsonResource
from synapse.logging.context import LoggingContext, current_context
from synapse.server import cache_in_self
from twisted.internet import defer
from twisted.internet.testing import MemoryReactorClock

from multi_synapse import log, waiting
from multi_synapse.patches import start
from multi_synapse.waiting import Limit, breathe, current_fiber, run_in_fiber


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MemoryReactorClock:
    clock = MemoryReactorClock()
    monkeypatch.setattr("twisted.internet.reactor", clock, raising=False)
    return clock


def test_a_fiber_that_computes_for_long_gives_the_reactor_back(
    clock: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Guards against: all tenants of a shard stand still while one is started; and the log says that they did it, under its name.
    monkeypatch.setattr(waiting, "BREATH_SECONDS", 0.0)
    steps: list[object] = []

    def work() -> str:
        for step in range(2):
            steps.append((step, current_context()))
            breathe()
        return "done"

    async def start() -> tuple[str, object]:
        with LoggingContext(name="start", server_name="a.example") as context:
            done = await run_in_fiber(Limit(10), work)
            assert current_context() is context
            return done, context

    before = current_context()
    result = defer.ensureDeferred(start())
    assert (len(steps), result.called, current_context()) == (1, False, before)
    clock.advance(0)
    assert current_context() is before
    done, context = result.result  # type: ignore[misc]
    assert done == "done"
    assert steps == [(0, context), (1, context)]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_servlets_made_within_a_getter_are_made_at_once(clock: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: two tenants that start at once fail with "Cyclic dependency", as Synapse's getters know only one builder in a process.
    monkeypatch.setattr(waiting, "BREATH_SECONDS", 0.0)
    monkeypatch.setattr(JsonResource, "register_paths", lambda *_: steps.append("registered"))
    monkeypatch.setattr(SynapseHomeServer, "get_part_of_test", cache_in_self(get_part_of_test), raising=False)
    start.register_servlets_in_pieces()
    steps: list[str] = []
    hs = SynapseHomeServer.__new__(SynapseHomeServer)
    within = run_in_fiber(Limit(10), hs.get_part_of_test)  # type: ignore[attr-defined]
    assert (within.result, steps) == ("part", ["registered"])
    outside = run_in_fiber(Limit(10), lambda: JsonResource.register_paths(None, "GET", [], None, ""))  # type: ignore[arg-type]
    assert (outside.called, steps) == (False, ["registered"])
    clock.advance(0)
    assert (outside.called, steps) == (True, ["registered", "registered"])


def get_part_of_test(_hs: object) -> str:
    JsonResource.register_paths(None, "GET", [], None, "")  # type: ignore[arg-type]
    return "part"


def test_a_fiber_that_computes_briefly_goes_on(clock: MemoryReactorClock) -> None:
    # Guards against: each of hundreds of servlets costs a turn of the reactor.
    result = run_in_fiber(Limit(10), lambda: breathe() or "done")  # type: ignore[func-returns-value]
    assert result.result == "done"
    assert clock.getDelayedCalls() == []


def test_what_waits_for_a_fiber_goes_on_outside_of_it(clock: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the next tenant would be started within the fiber of the last, with its limit.
    monkeypatch.setattr(waiting, "BREATH_SECONDS", 0.0)
    seen: list[object] = []

    def within(limit: Limit) -> None:
        fiber = current_fiber()
        seen.append(fiber is not None and fiber.limit is limit)
        breathe()

    async def start_two() -> None:
        for seconds in (10, 20):
            limit = Limit(seconds)
            await run_in_fiber(limit, within, limit)
            seen.append(current_fiber())

    result = defer.ensureDeferred(start_two())
    clock.advance(0)
    clock.advance(0)
    assert result.called
    assert seen == [True, None, True, None]


def test_a_fiber_that_fails_says_so(clock: MemoryReactorClock) -> None:
    def fail() -> None:
        raise ValueError("no")

    async def start() -> str:
        try:
            await run_in_fiber(Limit(1), fail)
        except ValueError as error:
            return str(error)
        return "nothing"

    assert defer.ensureDeferred(start()).result == "no"  # type: ignore[comparison-overlap]


def test_breathing_outside_a_fiber_does_nothing(clock: MemoryReactorClock) -> None:
    # Guards against: a Synapse that is not started in a fiber, as a dedicated one, stops at its first servlet.
    breathe()
    assert clock.getDelayedCalls() == []


def test_a_full_log_file_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Guards against: the log grows until the disk is full, as the handler asks less than the standard one.
    monkeypatch.setattr(log, "_FILE_BYTES", 1000)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    file = tmp_path / "shard.log"
    try:
        log.set_up_logging("INFO", file)
        for _ in range(40):
            logging.getLogger("a").info("x" * 90)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard.log", *(f"shard.log.{number}" for number in range(1, 6))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
