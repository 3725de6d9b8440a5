from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

from twisted.python.threadpool import ThreadPool

from multi_synapse.pools import FairShare, SharedThreads

from .watching import wait_for


def test_threads_that_ended_are_forgotten() -> None:
    # Guards against: a shard grows by what Twisted keeps of each thread that its pools ever had, several at each start of a tenant.
    shared, of_reactor = SharedThreads(), ThreadPool(0, 4)
    reactor = SimpleNamespace(getThreadPool=lambda: of_reactor)
    pools = (*shared.all(), of_reactor)
    for pool in pools:
        pool.start()
    try:
        ended, busy = threading.Event(), threading.Event()
        for pool in pools:
            pool.callInThread(ended.wait)
        shared.start.callInThread(busy.wait)
        shared.trim(reactor)
        assert [len(pool.threads) for pool in pools] == [1, 2, 1, 1, 1]
        ended.set()

        def sizes() -> list[int]:
            shared.trim(reactor)
            return [len(pool.threads) for pool in pools]

        wait_for(lambda: sizes() == [0, 1, 0, 0, 0], sizes)
    finally:
        busy.set()
        for pool in pools:
            pool.stop()


def test_each_tenant_has_a_thread_whatever_the_others_do() -> None:
    started: list[str] = []
    running: list[Callable[[], None]] = []
    shares = FairShare(3, running.append)

    def ask(tenant: int, name: str) -> None:
        shares.ask(tenant, lambda: started.append(name))

    # Twenty tenants whose databases hang want five threads each.
    for tenant in range(20):
        for job in range(5):
            ask(tenant, f"{tenant}.{job}")
    assert len(running) == 20 + 3
    ask(99, "answers")
    assert len(running) == 20 + 3 + 1
    running.pop()()
    assert started == ["answers"]
    # And again.
    ask(99, "answers again")
    running.pop()()
    assert started[-1] == "answers again"


def test_threads_go_to_those_that_have_fewest() -> None:
    running: list[tuple[int, int]] = []

    def run(job: Callable[[], None]) -> None:
        jobs.append(job)

    jobs: list[Callable[[], None]] = []
    shares = FairShare(2, run)
    for number in range(6):
        shares.ask(1, lambda number=number: running.append((1, number)))  # type: ignore[misc]
    assert len(jobs) == 3
    shares.ask(2, lambda: running.append((2, 0)))
    shares.ask(2, lambda: running.append((2, 1)))
    assert len(jobs) == 4
    # A thread of the first tenant's is free: the second one has fewer.
    jobs[0]()
    jobs[4]()
    assert running == [(1, 0), (2, 1)]
    for job in jobs[1:4] + jobs[5:]:
        job()
    while len(running) < 8:
        jobs[len(running)]()
    assert sorted(running) == [(1, number) for number in range(6)] + [(2, 0), (2, 1)]
