from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from multi_synapse import pools
from multi_synapse.pace import Pace, Paces
from multi_synapse.pools import FairShare, TenantJobs


def test_the_share_is_that_of_the_last_moments() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(100):
        now[0] += 0.01
        pace.charge(0.005)
    assert pace.share() == pytest.approx(0.5, abs=0.05)
    now[0] += 1.0
    assert pace.share() < 0.01


def test_only_the_busiest_of_those_with_work_gives_way() -> None:
    now = [0.0]
    paces = Paces()
    busiest, busy, calm = (paces.add(Pace(lambda: now[0])) for _ in range(3))
    busiest.charge(0.2)
    busy.charge(0.1)
    assert not paces.gives_way(busiest)
    calm.note_work()
    busiest.note_work()
    assert [paces.gives_way(pace) for pace in (busiest, busy, calm)] == [True, False, False]
    now[0] = 0.249
    assert paces.gives_way(busiest)
    now[0] = 0.251
    busiest.charge(0.2)
    assert not paces.gives_way(busiest)


def test_a_tenant_that_takes_little_never_gives_way() -> None:
    now = [0.0]
    paces = Paces()
    calm, idle = paces.add(Pace(lambda: now[0])), paces.add(Pace(lambda: now[0]))
    for _ in range(1000):
        now[0] += 0.1
        calm.charge(0.018)
        idle.note_work()
        assert not paces.gives_way(calm)


def test_a_tenant_that_left_is_forgotten() -> None:
    paces = Paces()
    stays, leaves = paces.add(Pace()), paces.add(Pace())
    stays.charge(1.0)
    leaves.note_work()
    assert paces.gives_way(stays)
    del leaves
    assert not paces.gives_way(stays)


class Reactor(Clock):
    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)


class Shard:
    """The jobs of tenants, whose threads run when the test says so; a job that gets one is in `running`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.reactor = Reactor()
        self.tenants: list[TenantJobs] = []
        self.threads: list[Callable[[], None]] = []
        self.ran: list[str] = []
        #: What happens while a job runs.
        self.during: dict[str, Callable[[], None]] = {}
        monkeypatch.setattr(pools, "time", self)
        monkeypatch.setattr(pools, "Pace", lambda: Pace(self.monotonic))
        monkeypatch.setattr(pools, "paces_of_shard", Paces())
        monkeypatch.setattr(pools, "shares_of_shard", FairShare(64, self.threads.append))

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return 0.0

    def tenant(self) -> TenantJobs:
        self.tenants.append(TenantJobs(5, lambda slots: None, self.reactor))
        return self.tenants[-1]

    def give(self, jobs: TenantJobs, name: str) -> None:
        def run() -> None:
            self.ran.append(name)
            self.during.get(name, lambda: None)()

        jobs.callInThreadWithCallback(None, run)

    def run_threads(self) -> None:
        while self.threads:
            self.threads.pop(0)()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.reactor.advance(seconds)


@pytest.fixture
def shard(monkeypatch: pytest.MonkeyPatch) -> Shard:
    return Shard(monkeypatch)


def _busy(shard: Shard) -> TenantJobs:
    busy, neighbour = shard.tenant(), shard.tenant()
    busy.pace.charge(1.0)
    shard.give(neighbour, "neighbour")
    shard.run_threads()
    shard.ran.clear()
    return busy


def test_a_busy_tenant_has_one_job_after_another_while_its_neighbours_have_work(shard: Shard) -> None:
    busy = _busy(shard)
    for number in range(5):
        shard.give(busy, f"job {number}")
    assert len(shard.threads) == 1
    shard.run_threads()
    assert shard.ran == [f"job {number}" for number in range(5)]


def test_a_busy_tenant_alone_has_its_jobs_at_once(shard: Shard) -> None:
    busy = shard.tenant()
    busy.pace.charge(1.0)
    for number in range(5):
        shard.give(busy, f"job {number}")
    assert len(shard.threads) == 5


def test_a_calm_tenant_has_its_jobs_at_once(shard: Shard) -> None:
    _busy(shard)
    calm = shard.tenant()
    for number in range(5):
        shard.give(calm, f"job {number}")
    assert len(shard.threads) == 5


def test_jobs_of_a_busy_tenant_do_not_wait_for_one_that_waits_for_its_database(shard: Shard) -> None:
    busy, neighbour = _busy(shard), shard.tenant()

    def hang() -> None:
        for _ in range(20):
            shard.pass_time(0.06)
            busy.pace.charge(1.0)
            shard.give(neighbour, "neighbour")
            shard.run_threads()

    shard.during["job 0"] = hang
    for number in range(4):
        shard.give(busy, f"job {number}")
    shard.threads.pop(0)()
    assert "job 3" in shard.ran


def test_several_jobs_that_hang_leave_the_others_a_slot(shard: Shard) -> None:
    busy, neighbour = _busy(shard), shard.tenant()

    def keep_busy() -> None:
        shard.pass_time(0.06)
        busy.pace.charge(1.0)
        shard.give(neighbour, "neighbour")

    def hang() -> None:
        keep_busy()
        shard.run_threads()

    for number in range(4):
        shard.during[f"job {number}"] = hang
    for number in range(6):
        shard.give(busy, f"job {number}")
    shard.run_threads()
    assert [name for name in shard.ran if name != "neighbour"] == [f"job {number}" for number in range(6)]


def _throttled(shard: Shard) -> tuple[TenantJobs, TenantJobs]:
    """One that is throttled, and a neighbour that is at work."""
    busy, neighbour = shard.tenant(), shard.tenant()
    busy.pace.note_throttled(True)
    neighbour.pace.note_work()
    return busy, neighbour


def _run_two(shard: Shard, busy: TenantJobs, seconds: float) -> None:
    """Two jobs, of which the first takes that long, as far as they may run."""
    shard.during["job 0"] = lambda: busy.pace.charge(seconds)
    for number in range(2):
        shard.give(busy, f"job {number}")
    shard.run_threads()


def test_a_throttled_tenant_pauses_after_each_job_in_proportion_to_what_it_took(shard: Shard) -> None:
    busy, neighbour = _throttled(shard)
    _run_two(shard, busy, 0.02)
    assert shard.ran == ["job 0"]
    for _ in range(15):
        shard.pass_time(0.005)
        neighbour.pace.note_work()
        shard.run_threads()
    assert shard.ran == ["job 0"]
    shard.pass_time(0.006)
    shard.run_threads()
    assert shard.ran == ["job 0", "job 1"]
    assert busy.held_back_seconds() == pytest.approx(0.081, abs=0.006)


def test_a_throttled_tenant_goes_on_at_once_when_nobody_else_is_at_work(shard: Shard) -> None:
    busy, _neighbour = _throttled(shard)
    _run_two(shard, busy, 10.0)
    shard.pass_time(0.011)
    shard.run_threads()
    assert shard.ran == ["job 0", "job 1"]


def test_a_throttled_tenant_gets_on_however_busy_its_neighbours_are(shard: Shard) -> None:
    busy, neighbour = _throttled(shard)
    for number in range(3):
        shard.during[f"job {number}"] = lambda: busy.pace.charge(10.0)
        shard.give(busy, f"job {number}")
    for _ in range(200):
        shard.run_threads()
        busy.pace.note_throttled(True)
        neighbour.pace.note_work()
        shard.pass_time(0.005)
    assert [name for name in shard.ran if name.startswith("job")] == ["job 0", "job 1", "job 2"]


def test_a_throttled_tenant_alone_has_its_jobs_at_once(shard: Shard) -> None:
    busy = shard.tenant()
    busy.pace.note_throttled(True)
    for number in range(5):
        shard.give(busy, f"job {number}")
    assert len(shard.threads) == 5


def test_what_waits_takes_one_timer_and_little_more(shard: Shard) -> None:
    busy, neighbour = _throttled(shard)
    for number in range(100):
        shard.during[f"job {number}"] = lambda: busy.pace.charge(0.002)
        shard.give(busy, f"job {number}")
    most = 0
    while busy.is_working():
        neighbour.pace.note_work()
        shard.run_threads()
        shard.pass_time(0.001)
        most = max(most, len(shard.reactor.getDelayedCalls()))
    assert len(shard.ran) == 100
    # Those that a shorter wait has taken the place of end by themselves.
    assert most <= 10


def test_a_tenant_that_is_being_stopped_steps_back_no_more(shard: Shard) -> None:
    busy, _neighbour = _throttled(shard)
    busy.pace.let_go()
    busy.pace.note_throttled(True)
    _run_two(shard, busy, 1.0)
    assert shard.ran == ["job 0", "job 1"]


def test_a_job_that_is_held_back_is_work(shard: Shard) -> None:
    busy, _neighbour = _throttled(shard)
    _run_two(shard, busy, 1.0)
    assert (shard.ran, busy.working) == (["job 0"], set())
    assert busy.is_working()


def test_throttled_tenants_do_not_wait_for_each_other(shard: Shard) -> None:
    busy, other = _throttled(shard)
    other.pace.note_throttled(True)
    _run_two(shard, busy, 1.0)
    assert shard.ran == ["job 0", "job 1"]


def test_a_tenant_steps_back_no_longer_than_it_is_throttled(shard: Shard) -> None:
    busy, neighbour = _throttled(shard)
    shard.pass_time(60.0)
    assert busy.pace.steps_back()
    busy.pace.note_throttled(False)
    neighbour.pace.note_work()
    _run_two(shard, busy, 0.01)
    assert shard.ran == ["job 0", "job 1"]
    assert busy.held_back_seconds() == 0


def test_what_a_stopped_tenant_waited_with_is_cancelled(shard: Shard) -> None:
    busy = _busy(shard)
    results: list[bool] = []
    for _ in range(3):
        busy.callInThreadWithCallback(lambda ok, result: results.append(ok), lambda: None)
    busy.stop()
    assert results == [False, False, False]
    shard.run_threads()
    shard.pass_time(1.0)
    assert not shard.threads
