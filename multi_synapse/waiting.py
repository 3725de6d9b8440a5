"""Waiting for PostgreSQL: never without a bound, and on the reactor without standing still.

psycopg2 calls one function of ours whenever it waits for the server. In a thread that function polls, bounded by a
limit. In a fiber (a greenlet on the reactor's thread) it gives the reactor back until the socket is ready: that is how
Synapse's synchronous set-up, some 200 statements, runs without stalling the other tenants.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import greenlet
import psycopg2
import psycopg2.extensions
from synapse.logging.context import PreserveLoggingContext, current_context, make_deferred_yieldable
from twisted.internet import defer, threads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from .errors import DatabaseAborted, DatabaseTimeout

T = TypeVar("T")

#: A statement without an answer is given up after this time; above the statement_timeout that Synapse sets (10 minutes).
LONGEST_STATEMENT_SECONDS = 660.0
#: To connect, from the first packet to the first statement.
CONNECT_SECONDS = 10.0
#: How often a thread that waits looks whether its work was aborted.
_SLICE_SECONDS = 0.25
#: After an abort, the time the server has to end the statement before the connection is cut.
_CUT_SECONDS = 3.0

#: How long a fiber computes before it gives the reactor back, where it may: far below what users notice, far above a switch's cost.
BREATH_SECONDS = 0.005

_here = threading.local()


class Limit:
    """Bounds a piece of database work in time, and lets it be aborted from another thread."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self.aborted = threading.Event()

    def remaining(self) -> float:
        return self._end - time.monotonic()

    def extend(self, seconds: float) -> None:
        """For time spent in a queue of our own, which is not the database's fault."""
        self._end += seconds

    def check(self) -> None:
        """@raises DatabaseAborted, DatabaseTimeout"""
        if self.aborted.is_set():
            raise DatabaseAborted("given up, as the tenant is being stopped")
        if self.remaining() <= 0:
            raise DatabaseTimeout(f"no answer within {self._seconds:g} s")

    def __enter__(self) -> Limit:
        self._outer = getattr(_here, "limit", None)
        _here.limit = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.limit = self._outer


class Fiber(greenlet.greenlet):
    """A greenlet on the reactor's thread with the bound of its work."""

    limit: Limit
    #: Connections of its set-up, to be closed if that fails.
    opened: list[Any]
    #: When the reactor last gave it its thread.
    entered = 0.0
    #: Says what came of it; called when it has ended, outside of it.
    deliver: Callable[[], None]

    def resume(self) -> None:
        """Goes on with it, until it pauses or ends. The only way to switch to a fiber."""
        with PreserveLoggingContext():
            self.switch()
        # Not from within: what waits for it goes on here, and must neither run under its limit nor be taken for it.
        if self.dead:
            self.deliver()

    def pause(self) -> None:
        """Gives the reactor its thread back until this fiber is resumed."""
        with PreserveLoggingContext():
            self.parent.switch()
        self.entered = time.monotonic()


def current_fiber() -> Fiber | None:
    fiber = greenlet.getcurrent()
    return fiber if isinstance(fiber, Fiber) else None


def run_in_fiber(limit: Limit, function: Callable[..., T], *args: Any) -> defer.Deferred[T]:
    """Runs a function that talks to PostgreSQL synchronously; the reactor goes on while it waits for the server. Not from a fiber."""
    if current_fiber() is not None:
        raise RuntimeError("a fiber cannot begin another one: it would be paused with it")
    result: defer.Deferred[T] = defer.Deferred()
    context = current_context()
    outcome: list[Any] = []

    def body() -> None:
        with PreserveLoggingContext(context):
            try:
                outcome.append(function(*args))
            except BaseException:
                outcome.append(Failure())

    def deliver() -> None:
        value = outcome.pop()
        if isinstance(value, Failure):
            result.errback(value)
        else:
            result.callback(value)

    fiber = Fiber(body)
    fiber.deliver = deliver
    fiber.limit = limit
    fiber.opened = []
    fiber.entered = time.monotonic()
    fiber.resume()
    return make_deferred_yieldable(result)


def breathe(unless: Callable[[], bool] = lambda: False) -> None:
    """In a fiber that has kept the reactor for a while: lets it do what else is to be done, and goes on then. Else nothing."""
    from twisted.internet import reactor

    fiber = current_fiber()
    if fiber is not None and time.monotonic() - fiber.entered > BREATH_SECONDS and not unless():
        reactor.callLater(0, fiber.resume)  # type: ignore[attr-defined]
        fiber.pause()


def in_thread(pool: ThreadPool, function: Callable[[], T]) -> T:
    """From a fiber: runs a function in a thread and waits for it, the reactor going on meanwhile."""
    from twisted.internet import reactor

    fiber = current_fiber()
    if fiber is None:
        return function()
    limit = fiber.limit

    def bounded() -> T:
        with limit:
            return function()

    outcome: list[Any] = []
    with PreserveLoggingContext():
        deferred = threads.deferToThreadPool(reactor, pool, bounded)

        def done(value: Any) -> None:
            outcome.append(value)
            fiber.resume()

        deferred.addBoth(done)
        while not outcome:
            fiber.pause()
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


class _SocketWait:
    """What the reactor watches for a fiber: the database connection's socket."""

    def __init__(self, descriptor: int, wake: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._wake = wake

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "postgresql"

    def doRead(self) -> None:
        self._wake()

    def doWrite(self) -> None:
        self._wake()

    def connectionLost(self, _reason: object) -> None:
        self._wake()


def _wait(connection: Any) -> None:
    fiber = current_fiber()
    if fiber is not None:
        _wait_in_fiber(connection, fiber)
    else:
        _wait_in_thread(connection)


def _wait_in_fiber(connection: Any, fiber: Fiber) -> None:
    from twisted.internet import reactor

    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        fiber.limit.check()
        watched = reactor.addReader if state == psycopg2.extensions.POLL_READ else reactor.addWriter  # type: ignore[attr-defined]
        woken = False

        def wake() -> None:
            nonlocal woken
            if not woken:
                woken = True
                fiber.resume()

        socket = _SocketWait(connection.fileno(), wake)
        watched(socket)
        # In slices, so that an abort is noticed.
        timer = reactor.callLater(min(_SLICE_SECONDS, max(0.0, fiber.limit.remaining())), wake)  # type: ignore[attr-defined]
        fiber.pause()
        reactor.removeReader(socket)  # type: ignore[attr-defined]
        reactor.removeWriter(socket)  # type: ignore[attr-defined]
        if timer.active():
            timer.cancel()


def _wait_in_thread(connection: Any) -> None:
    limit: Limit | None = getattr(_here, "limit", None)
    end = time.monotonic() + LONGEST_STATEMENT_SECONDS
    cut_at: float | None = None
    poll = select.poll()
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        if limit is not None:
            if not limit.aborted.is_set():
                limit.check()
            elif cut_at is None:
                # Raising closes our end only; who aborts also asks the server to end the backend, and it may still do so.
                cut_at = time.monotonic() + _CUT_SECONDS
            elif time.monotonic() > cut_at:
                limit.check()
        if time.monotonic() > end:
            raise DatabaseTimeout(f"no answer within {LONGEST_STATEMENT_SECONDS:g} s")
        descriptor = connection.fileno()
        poll.register(descriptor, select.POLLIN if state == psycopg2.extensions.POLL_READ else select.POLLOUT)
        poll.poll(_SLICE_SECONDS * 1000)
        poll.unregister(descriptor)


def install() -> None:
    """Makes psycopg2 wait through us, in the whole process."""
    psycopg2.extensions.set_wait_callback(_wait)
