from __future__ import annotations

import threading
import time
from types import SimpleNamespace

from twisted.python.threadpool import ThreadPool

from multi_synapse.pools import SharedThreads


def test_threads_that_ended_are_forgotten() -> None:
    # Prevents: a shard grows by what Twisted keeps of each thread that its pools ever had, several at each start of a tenant.
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
        end = time.monotonic() + 10
        while sum(len(pool.threads) for pool in pools) > 1 and time.monotonic() < end:
            shared.trim(reactor)
            time.sleep(0.01)
        assert [len(pool.threads) for pool in pools] == [0, 1, 0, 0, 0]
    finally:
        busy.set()
        for pool in pools:
            pool.stop()
