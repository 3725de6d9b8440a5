"""Thread pools that all tenants of the shard share, and the tenants' database pools on top of them.

Stock Synapse gives every tenant five resolver and five database threads, as many connections that it never closes, and
joins the threads on the reactor when it stops. Here jobs of all tenants run on one pool, at most `cp_max` of a tenant at
once; a connection is opened when a job needs it and closed when it was idle for a while.
"""

from __future__ import annotations

import functools
import heapq
import logging
import os
import socket
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.enterprise import adbapi
from twisted.internet import defer
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from .errors import DatabaseAborted
from .pace import Pace, Paces
from .waiting import CONNECT_SECONDS, Limit

logger = logging.getLogger(__name__)

#: Database jobs of all tenants at once, beside one of each. Far above what one core of Python can use: the rest may be waiting for
#: databases that hang.
_SHARED_JOBS = 64
#: For these and one of each tenant; `FairShare` keeps to it.
_DATABASE_THREADS = 4096
#: Connecting, claiming and config parsing; apart from the above, so that hanging starts never take a thread from running tenants.
_START_THREADS = 32
_RESOLVER_THREADS = 8
#: Uploads and downloads of all tenants at once; each that waits for a server, or for a slow client, has one.
_S3_THREADS = 64
#: Of one tenant: the others have threads left when its server is silent.
S3_JOBS_OF_TENANT = 10

_TERMINATE_SECONDS = 3.0
#: A job that has taken this long waits for the database rather than for this process: others of its tenant need not wait for it.
_HANGING_SECONDS = 0.05
#: How often a job that waits for neighbours looks whether they are done.
_LOOK_SECONDS = 0.005

_job = threading.local()


class SharedThreads:
    """The process's thread pools, besides the reactor's own."""

    def __init__(self) -> None:
        self.database = ThreadPool(0, _DATABASE_THREADS, "database")
        self.start = ThreadPool(0, _START_THREADS, "start")
        self.resolver = ThreadPool(0, _RESOLVER_THREADS, "resolver")
        self.s3 = ThreadPool(0, _S3_THREADS, "s3")

    def all(self) -> tuple[ThreadPool, ...]:
        return (self.database, self.start, self.resolver, self.s3)

    def start_all(self, reactor: Any) -> None:
        for pool in self.all():
            pool.start()
            reactor.addSystemEventTrigger("during", "shutdown", pool.stop)

    def trim(self, reactor: Any, keep: int = 0) -> None:
        """Ends threads that have nothing to do, but for `keep` in each pool: Twisted's pools only ever grow."""
        for pool in (*self.all(), reactor.getThreadPool()):
            # And it keeps what it knew of those that ended, 2 KiB each. A thread without a number has not begun yet.
            for thread in list(pool.threads):
                if thread.ident is not None and not thread.is_alive():
                    pool.threads.remove(thread)
            team = getattr(pool, "_team", None)
            if team is not None and pool.started:
                idle = team.statistics().idleWorkerCount
                if idle > keep:
                    team.shrink(idle - keep)


threads_of_shard = SharedThreads()


class PoolFacade:
    """A shared pool as Synapse sees it: starting and stopping it is the shard's business."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


class ShareOfPool(PoolFacade):
    """A shared pool of which one tenant has up to `most` threads at once; its other jobs wait for them."""

    def __init__(self, pool: ThreadPool, most: int) -> None:
        super().__init__(pool)
        self._free = most
        self._queue: deque[tuple[Any, Any, Any, Any]] = deque()
        self._lock = threading.Lock()

    def callInThreadWithCallback(self, on_result: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            if self._free == 0:
                self._queue.append((on_result, function, args, kwargs))
                return
            self._free -= 1
        self._run(on_result, function, args, kwargs)

    def _run(self, on_result: Any, function: Any, args: Any, kwargs: Any) -> None:
        def done(ok: bool, result: Any) -> None:
            with self._lock:
                following = self._queue.popleft() if self._queue else None
                self._free += following is None
            if on_result:
                on_result(ok, result)
            if following is not None:
                self._run(*following)

        self._pool.callInThreadWithCallback(done, function, *args, **kwargs)


class FairShare:
    """Database threads of all tenants: one for each tenant that wants one, whatever the others do, and more for those with fewest.

    Tenants whose databases hang take no thread from those whose databases answer.
    """

    def __init__(self, shared: int, run: Callable[[Callable[[], None]], None]) -> None:
        self._free = shared
        self._run = run
        self._running: Counter[int] = Counter()
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._lock = threading.Lock()

    def ask(self, tenant: int, job: Callable[[], None]) -> None:
        """Runs the job in a thread as soon as there is one for the tenant, which is any number that stays its own."""
        with self._lock:
            self._waiting.append((tenant, job))
            chosen = self._take()
        self._start(chosen)

    def _take(self) -> list[tuple[int, Callable[[], None]]]:
        chosen = []
        while self._waiting:
            # The first of those that have fewest.
            position = min(range(len(self._waiting)), key=lambda index: self._running[self._waiting[index][0]])
            tenant, _ = self._waiting[position]
            if self._running[tenant]:
                if not self._free:
                    break
                self._free -= 1
            self._running[tenant] += 1
            chosen.append(self._waiting.pop(position))
        return chosen

    def _start(self, chosen: list[tuple[int, Callable[[], None]]]) -> None:
        for tenant, job in chosen:
            self._run(functools.partial(self._run_job, tenant, job))

    def _run_job(self, tenant: int, job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            with self._lock:
                self._running[tenant] -= 1
                if self._running[tenant]:
                    self._free += 1
                else:
                    del self._running[tenant]
                chosen = self._take()
            self._start(chosen)


class TenantJobs:
    """Looks like a ThreadPool to adbapi; runs at most `most` jobs of one tenant at once on the shared database threads.

    A job runs in a numbered slot, and a slot owns a connection. The lowest free slot is taken first, so that the others go
    idle and their connections are closed. The busiest tenant has one job after another while others have work (pace.py).
    """

    def __init__(self, most: int, close_slots: Callable[[Iterable[int]], None], reactor: Any) -> None:
        self.min, self.max = 0, most
        self.pace = paces_of_shard.add(Pace())
        self._reactor = reactor
        self._looks_at = float("inf")
        #: When the job in a slot began, or was to.
        self._began_at: dict[int, float] = {}
        #: For how long its jobs have had a pause, and since when they have one now.
        self._held_back_seconds = 0.0
        self._held_back_since: float | None = None
        self.threads: tuple[()] = ()
        self.working: set[int] = set()
        #: Jobs that were ever given to it.
        self.given = 0
        #: Aborting it makes every statement that runs, and every later one, fail.
        self.limit = Limit(float("inf"))
        self._close_slots = close_slots
        self._free = list(range(most))
        self._used_at: dict[int, float] = {}
        self._queue: deque[tuple[Any, Any, Any, Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        pass

    def callInThreadWithCallback(self, on_result: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            if self._closed:
                raise DatabaseAborted("the tenant is being stopped")
            self._queue.append((on_result, function, args, kwargs))
            self.given += 1
            self.pace.note_work()
            slot = self._take_slot()
        self._run_soon(slot)

    def _take_slot(self) -> int | None:
        if not self._queue or not self._free:
            return None
        if (wait := self._seconds_to_wait()) > 0:
            self._look_again(wait)
            return None
        slot = heapq.heappop(self._free)
        self.working.add(slot)
        self._note_begin(slot)
        return slot

    def _note_begin(self, slot: int) -> None:
        now = self._began_at[slot] = time.monotonic()
        if self._held_back_since is not None:
            self._held_back_seconds += now - self._held_back_since
            self._held_back_since = None

    def _seconds_to_wait(self, slot: int | None = None) -> float:
        """Until it is to be asked again whether the next job, of this slot, may begin; 0 if it may."""
        if self._gives_way(slot):
            return _HANGING_SECONDS
        pause = paces_of_shard.pause(self.pace)
        if pause > 0 and self._held_back_since is None:
            self._held_back_since = time.monotonic()
        return min(pause, _LOOK_SECONDS)

    def is_working(self) -> bool:
        """Whether a job runs, or waits."""
        with self._lock:
            return bool(self.working or self._queue)

    def held_back_seconds(self) -> float:
        """For how long its next job was kept for the sake of its neighbours (pace.py)."""
        with self._lock:
            since = self._held_back_since
            return self._held_back_seconds + (time.monotonic() - since if since is not None else 0.0)

    def _gives_way(self, slot: int | None = None) -> bool:
        """Whether the next job, of this slot, has to wait for one that runs in another."""
        recently = time.monotonic() - _HANGING_SECONDS
        is_computing = any(other != slot and began > recently for other, began in self._began_at.items())
        return is_computing and paces_of_shard.gives_way(self.pace)

    def _look_again(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        # A look takes care of what a later one was for, which does nothing then.
        if due < self._looks_at:
            self._looks_at = due
            self._reactor.callFromThread(self._reactor.callLater, seconds, self._on_look, due)

    def _on_look(self, due: float) -> None:
        with self._lock:
            if due != self._looks_at:
                return
            self._looks_at = float("inf")
            slot = self._take_slot()
            if self._queue and self._free:
                self._look_again(self._seconds_to_wait() or _HANGING_SECONDS)
        self._run_soon(slot)

    def _run_soon(self, slot: int | None) -> None:
        if slot is not None:
            shares_of_shard.ask(id(self), functools.partial(self._run, slot))

    def _run(self, slot: int) -> None:
        _job.slot = slot
        with self.limit:
            while True:
                with self._lock:
                    wait = self._seconds_to_wait(slot) if self._queue else 0.0
                    if not self._queue or wait > 0:
                        del self._began_at[slot]
                        closed = self._closed
                        if not closed:
                            self._release(slot)
                        if wait > 0:
                            self._look_again(wait)
                        break
                    on_result, function, args, kwargs = self._queue.popleft()
                    self._note_begin(slot)
                began = time.thread_time()
                try:
                    ok, result = True, function(*args, **kwargs)
                except BaseException:
                    ok, result = False, Failure()
                self.pace.charge(time.thread_time() - began)
                self.pace.note_work()
                if on_result:
                    on_result(ok, result)
                # A thread that waits for its next job must not keep the last one's tenant alive.
                del on_result, function, args, kwargs, result
        _job.slot = None
        if closed:
            self._close_slots([slot])
            with self._lock:
                self._release(slot)

    def _release(self, slot: int) -> None:
        self._used_at[slot] = time.monotonic()
        self.working.discard(slot)
        heapq.heappush(self._free, slot)

    def close_idle(self, seconds: float) -> None:
        """Closes the connections of slots that were unused for `seconds`."""
        now = time.monotonic()
        with self._lock:
            idle = [slot for slot in self._free if slot in self._used_at and now - self._used_at[slot] > seconds]
            for slot in idle:
                self._free.remove(slot)
                del self._used_at[slot]
                # Counts as working until its connection is closed: a stop waits for that.
                self.working.add(slot)
            heapq.heapify(self._free)
        if idle:
            threads_of_shard.database.callInThread(self._close_and_return, idle)

    def _close_and_return(self, slots: list[int]) -> None:
        self._close_slots(slots)
        with self._lock:
            for slot in slots:
                self.working.discard(slot)
                heapq.heappush(self._free, slot)
            next_slot = self._take_slot()
        self._run_soon(next_slot)

    def stop(self) -> list[int]:
        """No new jobs, queued ones fail, running ones finish. Returns the slots that were idle."""
        with self._lock:
            self._closed = True
            queued = list(self._queue)
            self._queue.clear()
            self._held_back_since = None
            idle = list(self._free)
        for on_result, *_ in queued:
            if on_result:
                on_result(False, Failure(defer.CancelledError("the tenant is being stopped")))
        return idle


class ChargedReactor:
    """The reactor as a tenant's pool sees it: what is done with the result of a job is charged to the tenant."""

    def __init__(self, reactor: Any, pace: Pace) -> None:
        self._reactor = reactor
        self._pace = pace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def callFromThread(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self._reactor.callFromThread(self._charge, function, args, kwargs)

    def _charge(self, function: Any, args: Any, kwargs: Any) -> None:
        began = time.thread_time()
        try:
            function(*args, **kwargs)
        finally:
            self._pace.charge(time.thread_time() - began)
            self._pace.note_work()


paces_of_shard = Paces()
shares_of_shard = FairShare(_SHARED_JOBS, threads_of_shard.database.callInThread)


class TenantPool(adbapi.ConnectionPool):
    """adbapi's pool with its threads exchanged; a drop-in for `synapse.storage.database.adbapi.ConnectionPool`."""

    alive: weakref.WeakSet[TenantPool] = weakref.WeakSet()
    server_name = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        reactor = kwargs["cp_reactor"]
        self._jobs = TenantJobs(max(1, int(kwargs.get("cp_max", 5))), self._close_slots, reactor)
        super().__init__(*args, **kwargs)
        self._reactor: Any = ChargedReactor(reactor, self._jobs.pace)
        self.threadID = lambda: getattr(_job, "slot", None)
        self.alive.add(self)

    # adbapi's constructor makes a thread pool and assigns it.
    @property
    def threadpool(self) -> TenantJobs:
        return self._jobs

    @threadpool.setter
    def threadpool(self, _unused: object) -> None:
        pass

    def start(self) -> None:
        # Without adbapi's shutdown trigger: the shard stops its tenants itself.
        self.running = True

    def connect(self) -> Any:
        if getattr(_job, "slot", None) in self.connections:
            return super().connect()
        self._jobs.limit.check()
        with Limit(CONNECT_SECONDS) as limit:
            limit.aborted = self._jobs.limit.aborted
            return super().connect()

    def finalClose(self) -> None:
        self.shutdownID = None
        self.running = False
        idle = self._jobs.stop()
        if self.connections:
            threads_of_shard.database.callInThread(self._close_slots, idle)

    def note_throttled(self, is_throttled: bool) -> None:
        self._jobs.pace.note_throttled(is_throttled)

    def let_go(self) -> None:
        """What is left of its work does not wait for others any more: the tenant is being stopped."""
        self._jobs.pace.let_go()

    def close_idle(self, seconds: float) -> None:
        self._jobs.close_idle(seconds)

    def is_busy(self) -> bool:
        """Whether a job runs or a connection is open."""
        return bool(self._jobs.working or self.connections)

    def held_back_seconds(self) -> float:
        return self._jobs.held_back_seconds()

    def jobs_given(self) -> int:
        return self._jobs.given

    def is_working(self) -> bool:
        return self._jobs.is_working()

    def abort(self) -> None:
        """Has the server end the statements that run; their connections are cut if it does not react."""
        self._jobs.limit.aborted.set()
        threads_of_shard.start.callInThread(self._terminate_backends)

    def cut(self) -> None:
        """Ends the connections at this end, for a thread that does not come back: the server may be gone without a word."""
        for connection in list(self.connections.values()):
            try:
                with socket.socket(fileno=os.dup(connection.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)
            except Exception:
                logger.debug("cutting a database connection failed", exc_info=True)

    def _terminate_backends(self) -> None:
        # Not connection.cancel(): that waits forever if the server accepts the connection and never answers.
        try:
            pids = [connection.info.backend_pid for connection in list(self.connections.values())]
            with Limit(_TERMINATE_SECONDS):
                connection = self.dbapi.connect(*self.connargs, **self.connkw)
                try:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (pids,))
                finally:
                    connection.close()
        except Exception as error:
            logger.info("the statements of a stopping tenant could not be ended by the server: %s", type(error).__name__)

    def _close_slots(self, slots: Iterable[int]) -> None:
        for slot in slots:
            connection = self.connections.get(slot)
            if connection is None:
                continue
            try:
                connection.close()
            except Exception:
                logger.debug("closing a database connection failed", exc_info=True)
            # Only now: without an entry the connection counts as closed.
            self.connections.pop(slot, None)


def pools_of(server_name: str) -> list[TenantPool]:
    return [pool for pool in list(TenantPool.alive) if pool.server_name == server_name]


def open_connections() -> int:
    """Database connections of all tenants' pools in this process."""
    return sum(len(pool.connections) for pool in list(TenantPool.alive))
