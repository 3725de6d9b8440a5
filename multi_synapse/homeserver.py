"""One HomeServer's life: made from files, started without stalling the others, and closed so that nothing of it stays."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from synapse.app import homeserver as synapse_app
from synapse.config.homeserver import HomeServerConfig
from synapse.logging.context import LoggingContext, PreserveLoggingContext, make_deferred_yieldable, run_in_background
from synapse.util.caches.response_cache import ResponseCache
from twisted.internet import defer, task, tcp, threads

from . import kept, metrics, resume
from .drain import Misdirected
from .fence import Claim
from .holdings import work_of_tenants
from .memory import Memory
from .options.families import Families
from .options.network import Networks
from .patches import s3
from .patches.network import TenantReactor, forget_networks, set_networks
from .patches.tenants import caches_of_tenants
from .pools import pools_of, threads_of_shard
from .quotas import Keeper, keepers_of_tenants
from .waiting import Limit, current_fiber, run_in_fiber

logger = logging.getLogger(__name__)

_ASYNC_HANDLERS_SECONDS = 5.0
#: How long statements may still run when a tenant stops, before they are ended.
_STATEMENT_SECONDS = 5.0
#: For a statement to end once that was asked for, of the server and of the thread (`waiting.py`: three seconds).
_ABORT_SECONDS = 10.0
#: Of Synapse's own shutdown, which closes ports and waits for nothing else.
_SHUTDOWN_SECONDS = 10.0
#: To look for what the last process left; the tenant serves without it, if its database is slow.
_TAKE_UP_SECONDS = 5.0
#: How often a start that waits for something looks whether it was given up.
_LIMIT_STEP_SECONDS = 0.25
#: For a database that answered a moment ago.
_KEEP_SECONDS = 5.0
_POLL_SECONDS = 0.01
_DEFAULT_NETWORKS = Networks()


@dataclass
class Running:
    """A HomeServer with what it leaves behind unless we clear it up."""

    hs: Any
    triggers: list[Any] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.hs._listening_services[0].getHost().port)


def has_open_requests(running: Running) -> bool:
    for port in running.hs._listening_services:
        site = getattr(port.factory, "wrappedFactory", port.factory)
        if any(channel.requests for channel in site.connections):
            return True
    return False


async def start_homeserver(
    config: HomeServerConfig,
    limit: Limit,
    reactor: Any,
    memory: Memory,
    networks: Networks = _DEFAULT_NETWORKS,
    families: Families | None = None,
) -> Running:
    """Starts a tenant whose database is already ours. A failed start is closed before its exception leaves here.

    @param families of metrics that are exported of it besides those of each tenant
    """
    server_name = config.server.server_name
    metrics.begin_series(server_name, families)
    caches_of_tenants.add_tenant(server_name, config.caches)
    set_networks(server_name, networks)
    running: Running | None = None
    opened: list[Any] = []
    try:
        with LoggingContext(name="start", server_name=server_name):
            hs = synapse_app.create_homeserver(config, TenantReactor(reactor, server_name, networks))
            metrics.name_instance(hs.get_instance_id(), server_name)
            memory.watch(hs)
            running = Running(hs)
            _track_triggers(running)

            def setup() -> None:
                fiber = current_fiber()
                assert fiber is not None
                fiber.opened = opened
                synapse_app.setup(hs)

            def start() -> list[defer.Deferred[None]]:
                return [run_in_background(synapse_app.start, hs, freeze=False)]

            await run_in_fiber(limit, setup)
            limit.check()
            for starting in await run_in_fiber(limit, start):
                await make_deferred_yieldable(_within(limit, starting, reactor))
            await s3.make_clients(hs)
            await _take_up_work(hs, reactor)
        return running
    except BaseException:
        for connection in opened:
            connection.close()
        if running is not None:
            await close_homeserver(running, reactor, gracefully=False)
        else:
            caches_of_tenants.remove_tenant(server_name)
            forget_networks(server_name)
            metrics.drop_series(server_name)
        raise


async def _take_up_work(hs: Any, reactor: Any) -> None:
    """Synapse comes to it in its own time, if it cannot be done now: a tenant that runs is worth more."""
    taking = run_in_background(resume.resume, hs)
    taking.addErrback(lambda failure: logger.error("%s: what is in work is not taken up at once: %s", hs.hostname, failure.getTraceback()))
    if not await make_deferred_yieldable(_at_most(_TAKE_UP_SECONDS, taking, reactor)):
        logger.warning("%s: looking for what is in work takes long; the tenant serves meanwhile", hs.hostname)


@dataclass(frozen=True)
class Keeping:
    """What a stop needs to write down what is queued in memory."""

    claim: Claim
    database: dict[str, Any]
    services: kept.ServicesHeld | None


async def close_homeserver(running: Running, reactor: Any, gracefully: bool, keeping: Keeping | None = None) -> None:
    """Shuts a tenant down; returns when no database connection of it is left.

    `gracefully`: lets it write what it holds (client addresses, presence, locks), which needs a database that is still ours.
    """
    hs = running.hs
    server_name = hs.hostname
    with LoggingContext(name="stop", server_name=server_name):
        for port in list(hs._listening_services):
            # shutdown() closes TCP ports only.
            if type(port) is not tcp.Port:
                with PreserveLoggingContext():
                    await defer.maybeDeferred(port.stopListening)
        with PreserveLoggingContext():
            # If these hang, so will what else runs in the database.
            gracefully = gracefully and await _run_async_handlers(hs, reactor)
            # Before anything is cancelled, so that nothing is written about what the stop itself breaks: that another server
            # cannot be reached, that an event could not be fetched, that an application service is down.
            await _close_database(server_name, reactor, gracefully)
            if gracefully and keeping is not None:
                await _keep(hs, keeping, reactor)
            shutting_down = defer.ensureDeferred(hs.shutdown())
            shutting_down.addErrback(lambda failure: logger.error("shutting %s down: %s", server_name, failure.getTraceback()))
            if not await _at_most(_SHUTDOWN_SECONDS, shutting_down, reactor):
                logger.error("%s does not shut down within %g s; it is left", server_name, _SHUTDOWN_SECONDS)
    forget_cached_responses(hs.get_clock(), reactor)
    for trigger in running.triggers:
        _remove_trigger(reactor, trigger)
    running.triggers.clear()
    # What shutting down may have opened.
    await _close_database(server_name, reactor, patiently=False)
    caches_of_tenants.remove_tenant(server_name)
    forget_networks(server_name)
    metrics.drop_series(server_name)
    work_of_tenants.forget(server_name)
    keepers_of_tenants.forget(server_name)


async def _keep(hs: Any, keeping: Keeping, reactor: Any) -> None:
    try:
        queued = kept.collect(hs, keeping.services)
        if not queued:
            return
        limit = Limit(_KEEP_SECONDS)
        writing = threads.deferToThreadPool(reactor, threads_of_shard.start, kept.write, keeping.database, keeping.claim, queued, limit)
        await writing.addTimeout(_KEEP_SECONDS + 1, reactor)
    except Exception:
        logger.exception("%s: what is queued in memory could not be written", hs.hostname)


def _track_triggers(running: Running) -> None:
    """Synapse registers triggers for the end of the process and never removes some of them: a leak per start."""
    clock = running.hs.get_clock()
    original = clock.add_system_event_trigger
    # Only the list: delayed calls outlive their tenant by minutes and hold its clock, which must not hold the tenant.
    triggers = running.triggers

    def add(*args: Any, **kwargs: Any) -> Any:
        trigger = original(*args, **kwargs)
        triggers.append(trigger)
        return trigger

    clock.add_system_event_trigger = add


async def _run_async_handlers(hs: Any, reactor: Any) -> bool:
    """shutdown() calls these only after it has made background processes impossible, which these are: all of them would fail.

    Returns whether all ended in time.
    """
    handlers = list(hs._async_shutdown_handlers)
    hs._async_shutdown_handlers.clear()
    waiting = []
    for handler in handlers:
        _remove_trigger(reactor, handler.trigger_id)
        waiting.append(defer.maybeDeferred(handler.func, **handler.kwargs))
    waiting.append(_note_media_accesses(hs))
    ended: bool = await _at_most(_ASYNC_HANDLERS_SECONDS, defer.DeferredList(waiting, consumeErrors=True), reactor)
    return ended


def _note_media_accesses(hs: Any) -> defer.Deferred[None]:
    """Synapse writes them once a minute, and by them decides which media are old."""
    if not hs.config.media.can_load_media_repo:
        return defer.succeed(None)
    media = hs.get_media_repository()
    if not (media.recently_accessed_locals or media.recently_accessed_remotes):
        return defer.succeed(None)
    writing: defer.Deferred[None] = defer.maybeDeferred(media._start_update_recently_accessed)
    return writing


def forget_cached_responses(clock: Any, reactor: Any) -> None:
    """Cancels the timers that keep answers of a stopped tenant in its caches: Synapse lets them run on, two minutes after each `/sync`.

    They do not hold the HomeServer, but what was answered; and as they outlive it, they are in the way of giving its memory back.
    """
    for call in reactor.getDelayedCalls():
        # The clock's own function around the cache's method.
        cache = getattr(getattr(call.func, "__wrapped__", None), "__self__", None)
        if isinstance(cache, ResponseCache) and cache.clock is clock:
            call.cancel()


def _at_most(seconds: float, work: defer.Deferred[Any], reactor: Any) -> defer.Deferred[bool]:
    """Fires when the work is done or the time over; unlike a timeout it does not need the work to let itself be cancelled."""
    over: defer.Deferred[bool] = defer.Deferred()

    def fire(in_time: bool) -> None:
        if not over.called:
            over.callback(in_time)

    timer = reactor.callLater(seconds, fire, False)
    work.addBoth(lambda _: fire(True))

    def stop_timer(in_time: bool) -> bool:
        if timer.active():
            timer.cancel()
        return in_time

    return over.addCallback(stop_timer)


def _within(limit: Limit, work: defer.Deferred[Any], reactor: Any) -> defer.Deferred[Any]:
    """Fails when the limit is over or aborted; what goes on then is ended with the tenant."""
    result: defer.Deferred[Any] = defer.Deferred()
    looking = task.LoopingCall(limit.check)
    looking.clock = reactor

    def ended(value: Any) -> None:
        if looking.running:
            looking.stop()
        if not result.called:
            result.callback(value)

    looking.start(_LIMIT_STEP_SECONDS, now=False).addErrback(ended)
    work.addBoth(ended)
    return result


def _remove_trigger(reactor: Any, trigger: Any) -> None:
    try:
        reactor.removeSystemEventTrigger(trigger)
    except (KeyError, ValueError, TypeError):
        # Removed already, as Synapse does with some.
        pass


async def _close_database(server_name: str, reactor: Any, patiently: bool) -> None:
    """Takes no more statements, ends those that run if they take long, and returns when every connection is closed."""
    begun = reactor.seconds()
    aborted = False
    # A start that failed half-way has a pool its HomeServer did not know of, and so would not close.
    for pool in pools_of(server_name):
        if pool.running:
            pool.close()
    while busy := [pool for pool in pools_of(server_name) if pool.is_busy()]:
        passed = reactor.seconds() - begun - (_STATEMENT_SECONDS if patiently else 0)
        if passed > 0 and not aborted:
            aborted = True
            for pool in busy:
                pool.abort()
        if passed > _ABORT_SECONDS:
            # The fence holds without it: the next owner ends these connections from its side.
            logger.error("%s: a database connection does not end; it is cut", server_name)
            for pool in busy:
                pool.cut()
            return
        await task.deferLater(reactor, _POLL_SECONDS)


def free_port(host: str, wanted: int) -> int:
    """`wanted` if it can be listened on, else 0 (any)."""
    if not wanted:
        return 0
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            return 0
    return wanted


def watch_requests(running: Running, name: str, on_request: Callable[[Any], None], keeper: Keeper | None = None) -> None:
    """Calls `on_request` at each request that reaches the tenant, and turns away those for another one, and what its quotas forbid."""
    was_throttled = False
    # A connection that stays open holds what is named here, and must not hold the homeserver.
    server_name = running.hs.hostname

    def hear_of_throttle(is_throttled: bool) -> None:
        """From a gateway, with each request."""
        nonlocal was_throttled
        if is_throttled or was_throttled:
            for pool in pools_of(server_name):
                pool.note_throttled(is_throttled)
        was_throttled = is_throttled

    for port in running.hs._listening_services:
        site = getattr(port.factory, "wrappedFactory", port.factory)
        find = site.getResourceFor

        def watched(request: Any, find: Any = find) -> Any:
            meant = request.getHeader(b"x-synapse-shards-tenant")
            if meant is not None and meant != name.encode():
                return Misdirected()
            if meant is not None:
                hear_of_throttle(request.getHeader(b"x-synapse-shards-throttled") is not None)
            on_request(request)
            refused = keeper.refusal(request) if keeper is not None else None
            return refused or find(request)

        site.getResourceFor = watched
