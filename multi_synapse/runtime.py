"""The shard: its tenants, and the order in which they are started, stopped, fenced and restored."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from synapse.config.homeserver import HomeServerConfig
from synapse.storage.schema import SCHEMA_COMPAT_VERSION, SCHEMA_VERSION
from synapse.util import SYNAPSE_VERSION
from twisted.internet import defer, task, threads

from . import app_services, errors, idle, kept, metrics, users, watchdog
from . import config as tenant_config
from .checker import check as check_assignment
from .checkers import Checker, CheckTimeout
from .drain import Drained, drain
from .due import next_due
from .fence import Claim, claim_database, claims_of_shard, read_owner, release_database
from .greeting import Greeting
from .holdings import cache_entries, work_of_tenants
from .homeserver import Keeping, Running, close_homeserver, free_port, has_open_requests, start_homeserver, watch_requests
from .housekeeping import Housekeeping, Pace
from .media_cache import Bounds, MediaCaches
from .memory import Memory
from .options.meaning import meaning_of
from .patches import s3
from .pools import TenantPool, pools_of, threads_of_shard
from .quotas import keepers_of_tenants
from .settings import Settings
from .state import Assignment, StateDirectory
from .waiting import Limit

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Starts that use the reactor at once; those that wait for their database do not count.
_STARTS_AT_ONCE = 3
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
#: How long a tenant that held up the shard waits for its next start, unless it is put or deleted before.
_HELD_BACK_SECONDS = 30.0
_OWNER_CHECK_SECONDS = 10.0
_OWNER_CHECKS = 12
_SHUTDOWN_DRAIN_SECONDS = 10.0
_RELEASE_SECONDS = 5.0
#: Kept in each pool while tenants are in use, as work comes in bursts.
_IDLE_THREADS = 4
#: Of tenants that rest: their next work is a whole round away.
_RESTING_CONNECTION_SECONDS = 1.0

#: For what the loops of a sweep begin to be seen as work.
_SWEEP_SETTLES_SECONDS = 5.0

STARTING, RUNNING, DRAINING, STOPPING, FAILED, FENCED = "starting", "running", "draining", "stopping", "failed", "fenced"


@dataclass
class Tenant:
    name: str
    assignment: Assignment
    phase: str = STARTING
    error: errors.TenantError | None = None
    #: Of the configuration that runs: what its owner should know, and what it means to the platform.
    warnings: tuple[str, ...] = ()
    meaning: dict[str, Any] | None = None
    port: int = 0
    running: Running | None = None
    #: Of this start: totals with another one began again at nothing.
    run: str = ""
    housekeeping: Housekeeping | None = None
    greeting: Greeting | None = None
    requests: int = 0
    last_request_at: float | None = None
    use: idle.Use = field(default_factory=idle.Use)
    #: Until when the loops of its daily housekeeping are at work; seconds of the reactor.
    swept_until: float | None = None
    #: Of the start under way; aborting it ends the start.
    limit: Limit = field(default_factory=lambda: Limit(float("inf")))
    retry: Any = None

    @property
    def server_name(self) -> str:
        return self.assignment.server_name

    def note_request(self, request: Any) -> None:
        self.requests += 1
        self.last_request_at = time.time()
        self.use.note_request(request)
        if self.housekeeping is not None:
            self.housekeeping.wake()


class Shard:
    def __init__(self, settings: Settings, state: StateDirectory, reactor: Any, memory: Memory) -> None:
        self.settings = settings
        self.instance = secrets.token_hex(8)
        self.started_at = time.time()
        self.shutting_down = False
        self._state = state
        self._reactor = reactor
        self._memory = memory
        self._tenants: dict[str, Tenant] = {}
        #: Of the processes before this one.
        self._former_stalls: list[watchdog.Stall] = []
        self._locks: dict[str, defer.DeferredLock] = {}
        self._parsing = defer.DeferredSemaphore(1)
        self._checker = Checker()
        self._starting = defer.DeferredSemaphore(_STARTS_AT_ONCE)
        claims_of_shard.on_fenced = lambda server_name: reactor.callFromThread(self._found_fenced, server_name)
        self._reviewer = task.LoopingCall(self._review)
        bounds = Bounds(settings.media_cache_bytes, settings.media_cache_seconds)
        self._media = MediaCaches(reactor, threads_of_shard.s3, bounds, lambda name: name in self._tenants)

    def run(self) -> None:
        """Begins the housekeeping and brings back the assigned tenants."""
        shortest = min(self.settings.database_idle_seconds, self.settings.tenant_idle_seconds)
        self._reviewer.start(max(0.5, shortest / 4), now=False)
        self._media.start(self.settings.media_cache_sweep_seconds)
        held_up = {stall.server_name: stall for stall in watchdog.take_news(self._state.path)}
        self._former_stalls = watchdog.read_stalls(self._state.path)
        for name, assignment, port in self._state.assignments():
            tenant = self._tenants[name] = Tenant(name, assignment, port=port)
            stall = held_up.get(assignment.server_name)
            if stall is None:
                _in_background(self._restore(tenant, 0), f"restoring {name}")
            else:
                self._hold_back(tenant, stall)

    # What the control API asks for

    def describe(self) -> dict[str, Any]:
        """The Shard of docs/control-api.md."""
        return {
            "name": self.settings.name,
            "release": SYNAPSE_VERSION,
            "instance": self.instance,
            "pid": _pid(),
            "startedAt": self.started_at,
            "schemaVersion": SCHEMA_VERSION,
            "schemaCompatVersion": SCHEMA_COMPAT_VERSION,
            "stalls": self._stalls(),
            "tenants": [self.describe_tenant(tenant) for tenant in self._tenants.values()],
        }

    def _stalls(self) -> list[dict[str, Any]]:
        names = {tenant.server_name: tenant.name for tenant in self._tenants.values()}
        found = []
        for stall in self._former_stalls:
            described = stall.described()
            del described["known"]
            found.append({**described, "tenant": names.get(stall.server_name or "")})
        return found

    def describe_tenant(self, tenant: Tenant) -> dict[str, Any]:
        """The TenantState of docs/control-api.md."""
        host = self.settings.advertise_host
        return {
            "name": tenant.name,
            "serverName": tenant.server_name,
            "epoch": tenant.assignment.epoch,
            "phase": tenant.phase,
            "address": f"{host}:{tenant.port}" if tenant.phase in (RUNNING, DRAINING) else None,
            "error": {"code": tenant.error.code, "message": tenant.error.message} if tenant.error else None,
            "warnings": list(tenant.warnings),
            "meaning": tenant.meaning,
            "requests": tenant.requests,
            "lastRequestAt": tenant.last_request_at,
        }

    def load(self) -> dict[str, dict[str, Any]]:
        """Totals of each running tenant by its name."""
        by_server_name = metrics.load_by_server_name()
        return {
            tenant.name: _load_of(tenant, tenant.running, by_server_name) for tenant in self._tenants.values() if tenant.running is not None
        }

    def server_name_of(self, name: str) -> str | None:
        """None if the tenant does not run here."""
        tenant = self._tenants.get(name)
        return None if tenant is None or tenant.running is None else tenant.server_name

    async def idle_state(self, name: str) -> dict[str, Any] | None:
        """The Idle of docs/control-api.md; None if the tenant does not run here."""
        tenant = self._tenants.get(name)
        if tenant is None or tenant.phase != RUNNING or tenant.running is None:
            return None
        running = tenant.running
        found = await idle.look(running.hs)
        if tenant.greeting is not None and tenant.greeting.is_under_way():
            found.keeps_awake.append("it tells other servers that it is back")
        if not found.keeps_awake and not idle.open_requests(running.hs):
            await self._keep_house(tenant, running, found)
        return {**_use_of(tenant, running), "keepsAwake": found.keeps_awake, "nextDue": idle.next_due(found).describe()}

    async def greet(self, name: str, spread_seconds: float) -> int | None:
        """Tells the servers that it shares rooms with that it is back; how many; None if the tenant does not run here."""
        tenant = self._tenants.get(name)
        if tenant is None or tenant.phase != RUNNING or tenant.running is None:
            return None
        if tenant.greeting is not None:
            tenant.greeting.close()
        tenant.greeting = Greeting(tenant.running.hs, self._reactor)
        return await tenant.greeting.begin(spread_seconds)

    async def change_user(self, name: str, change: users.Change) -> str | None:
        """The id of the user who was changed; None if the tenant does not run here. @raises errors.Refused"""
        running = self._running(name)
        return None if running is None else await users.apply(running.hs, change)

    def _running(self, name: str) -> Running | None:
        tenant = self._tenants.get(name)
        return tenant.running if tenant is not None and tenant.phase == RUNNING else None

    async def open_session(self, name: str, session: users.Session) -> dict[str, Any] | None:
        """The administrator's id, a token, and its end; None if the tenant does not run here. @raises errors.Refused"""
        running = self._running(name)
        return None if running is None else await users.open_session(running.hs, session)

    async def end_sessions(self, name: str, sessions: list[users.Opened]) -> int | None:
        """How many there were still; None if the tenant does not run here."""
        running = self._running(name)
        return None if running is None else await users.end_sessions(running.hs, sessions)

    async def ping_app_service(self, name: str, service_id: str) -> dict[str, Any] | None:
        """None if the tenant does not run here. @raises errors.Refused"""
        running = self._running(name)
        return None if running is None else await app_services.ping(running.hs, service_id)

    async def _keep_house(self, tenant: Tenant, running: Running, found: idle.Look) -> None:
        """Before a long sleep: what the loops do in a day is done first."""
        now = self._reactor.seconds()
        if tenant.swept_until is None and idle.is_housekeeping_due(found) and tenant.housekeeping is not None:
            tenant.swept_until = now + tenant.housekeeping.sweep() + _SWEEP_SETTLES_SECONDS
        if tenant.swept_until is not None and now < tenant.swept_until:
            found.keeps_awake.append("its daily housekeeping is at work, for some seconds")
        elif tenant.swept_until is not None or found.housekept_at is None:
            # One without a record is new here, and has its day before it.
            tenant.swept_until = None
            await idle.note_housekeeping(running.hs)
            found.housekept_at = time.time()

    def phases(self) -> list[str]:
        return [tenant.phase for tenant in self._tenants.values()]

    async def start(self, name: str, assignment: Assignment) -> dict[str, Any]:
        """Starts a tenant, or finds that it runs already. @raises errors.TenantError"""
        lock = self._lock(name)
        await lock.acquire()
        try:
            tenant = self._tenants.get(name)
            if tenant is not None and tenant.phase == RUNNING:
                self._check_epoch(tenant, assignment)
                return self.describe_tenant(tenant)
            self._check_server_name(name, assignment.server_name)
            former = tenant
            if former is not None:
                self._cancel_retry(former)
            tenant = self._tenants[name] = Tenant(name, assignment)
            try:
                await self._start(tenant, assignment.port)
            except errors.TenantError:
                del self._tenants[name]
                await self._in_thread(lambda: self._state.forget(name))
                raise
            return self.describe_tenant(tenant)
        finally:
            lock.release()

    async def check(self, name: str, assignment: Assignment) -> dict[str, Any]:
        """Whether the configuration could be started here. Starts nothing, asks no database. @raises errors.TenantError"""
        limit = Limit(self.settings.start_seconds)
        # In time linear in its size, and so at once: most of what is refused is refused here.
        options = await self._bounded(limit, lambda: self._read_options(assignment))
        if not options.options:
            # Nothing of it is the tenant's, and so nothing needs a process that can be killed.
            async with _turn(self._parsing, limit):
                found: dict[str, Any] = await self._bounded(limit, lambda: check_assignment(assignment))
            return found
        work = self._in_thread(lambda: self._checker.check(assignment.to_json()))
        try:
            answer: dict[str, Any] = await work
        except CheckTimeout as error:
            raise errors.TenantError(errors.INVALID_CONFIG, str(error)) from None
        return answer

    async def stop(self, name: str, drain_seconds: float, release: bool = False) -> dict[str, Any]:
        """Drains and stops a tenant and forgets its assignment. A start that is under way is given up.

        `release`: no shard has it next, so the fence says that it has no owner.
        """
        begun = time.monotonic()
        if name not in self._tenants:
            return {
                "absent": True,
                "drained": True,
                "released": False,
                "longPolls": 0,
                "requestsLeft": 0,
                "seconds": 0.0,
                "position": None,
                "used": None,
            }
        tenant = self._tenants[name]
        if tenant.phase == STARTING:
            tenant.limit.aborted.set()
        lock = self._lock(name)
        await lock.acquire()
        try:
            current = self._tenants.get(name)
            drained = Drained()
            released = False
            if current is not None:
                # First, so that a shard that dies here does not bring the tenant back.
                await self._in_thread(lambda: self._state.forget(name))
                self._cancel_retry(current)
                running = current.running
                drained = await self._stop(current, drain_seconds, gracefully=True)
                del self._tenants[name]
                if release and running is not None:
                    released = await self._release(current, tenant_config.database_arguments(running.hs.config))
            return {
                "absent": current is None,
                "drained": drained.requests_left == 0,
                "released": released,
                "longPolls": drained.long_polls,
                "requestsLeft": drained.requests_left,
                "seconds": round(time.monotonic() - begun, 3),
                "position": drained.position,
                "used": drained.used,
            }
        finally:
            lock.release()

    async def shut_down(self) -> None:
        """Drains and stops every tenant at once; the assignments stay."""
        self.shutting_down = True
        self._reviewer.stop()
        self._media.stop()
        self._checker.close()
        await defer.gatherResults([defer.ensureDeferred(self._shut_down_tenant(tenant)) for tenant in list(self._tenants.values())])

    def check_owners(self, gap: float) -> None:
        """After the process stood still: are the tenants still ours? Their connections would tell, but an idle one opens none."""
        logger.warning("the process stood still for %.1f s; asking every tenant's database who owns it", gap)
        for tenant in list(self._tenants.values()):
            if tenant.phase == RUNNING:
                _in_background(self._check_owner(tenant), f"checking the owner of {tenant.name}")

    # Starting

    async def _start(self, tenant: Tenant, wanted_port: int = 0) -> None:
        """Brings a tenant to `running`. @raises errors.TenantError after which nothing of it is left in the process"""
        assignment = tenant.assignment
        tenant.phase, tenant.error = STARTING, None
        limit = tenant.limit = Limit(self.settings.start_seconds)
        known_secrets, modules = tenant_config.known_secrets(assignment), frozenset[str]()
        try:
            options = await self._bounded(limit, lambda: self._read_options(assignment))
            known_secrets |= options.secrets
            modules = options.modules
            async with _turn(self._parsing, limit):
                config = await self._bounded(limit, lambda: self._load(tenant, options, wanted_port))
            tenant.warnings, tenant.meaning = options.warnings, meaning_of(config, options.options)
            claim = self._claim(tenant)
            arguments = tenant_config.database_arguments(config)
            left_alone = self.settings.database_roles_left_alone
            await self._bounded(limit, lambda: claim_database(arguments, claim, limit, left_alone))
            claims_of_shard.add(assignment.server_name, claim)
            async with _turn(self._starting, limit):
                policy = assignment.policy
                tenant.running = await start_homeserver(config, limit, self._reactor, self._memory, policy.networks(), policy.families())
            tenant.run = secrets.token_hex(8)
            tenant.port = tenant.running.port
            tenant.housekeeping = self._housekeeping_of(tenant.running)
            self._media.watch(tenant.name, tenant.running.hs)
            tenant.use.note()
            tenant.use.watch_polls(tenant.running.hs)
            keeper = keepers_of_tenants.add(tenant.running.hs, policy.quotas)
            watch_requests(tenant.running, tenant.name, tenant.note_request, keeper)
            await self._in_thread(lambda: self._state.assign(tenant.name, assignment, tenant.port))
            tenant.phase = RUNNING
            self._memory.tenant_started(self.phases().count(RUNNING))
            logger.info("tenant %s (%s) runs with epoch %d on port %d", tenant.name, tenant.server_name, assignment.epoch, tenant.port)
        except BaseException as error:
            problem = errors.describe(error, known_secrets, modules)
            logger.warning("tenant %s cannot be started: %s: %s", tenant.name, problem.code, problem.message)
            if problem.code == errors.START_FAILED:
                logger.error("tenant %s: %s", tenant.name, errors.trace_of(error, known_secrets))
            if tenant.running is not None:
                await self._stop(tenant, 0, gracefully=False)
            claims_of_shard.remove(assignment.server_name)
            self._memory.collect_soon()
            raise problem from None

    def _read_options(self, assignment: Assignment) -> tenant_config.TenantOptions:
        known, modules = tenant_config.known_secrets(assignment), frozenset[str]()
        try:
            options = tenant_config.read_options(assignment)
            modules = options.modules
            if s3.MODULE in modules:
                s3.ensure_applied()
            return options
        except BaseException as error:
            raise errors.describe(error, known, modules) from None

    def _load(self, tenant: Tenant, options: tenant_config.TenantOptions, wanted_port: int) -> HomeServerConfig:
        assignment, host = tenant.assignment, self.settings.listen_host
        directory = self._state.write_tenant_files(tenant.name, assignment.overrides, assignment.signing_key)
        tenant_config.write_configuration(options, directory, host, free_port(host, wanted_port))
        return tenant_config.load_homeserver_config(directory, options.options)

    def _check_epoch(self, tenant: Tenant, assignment: Assignment) -> None:
        ours, asked = tenant.assignment.epoch, assignment.epoch
        if asked < ours:
            raise errors.TenantError(errors.STALE_EPOCH, f"tenant {tenant.name} runs here with epoch {ours}, which is above {asked}")
        if asked > ours:
            raise errors.TenantError(
                errors.ALREADY_RUNNING, f"tenant {tenant.name} runs here with epoch {ours}; stop it before epoch {asked}"
            )

    def _check_server_name(self, name: str, server_name: str) -> None:
        for other in self._tenants.values():
            if other.name != name and other.server_name == server_name:
                raise errors.TenantError(errors.ALREADY_RUNNING, f"the server name {server_name} is run here by tenant {other.name}")

    async def _restore(self, tenant: Tenant, attempt: int) -> None:
        """Starts an assigned tenant when the shard comes up; a failure is tried again, as the controller may be away."""
        lock = self._lock(tenant.name)
        await lock.acquire()
        try:
            if self._tenants.get(tenant.name) is not tenant or self.shutting_down:
                return
            try:
                await self._start(tenant, tenant.port)
            except errors.Fenced as fenced:
                await self._set_fenced(tenant, fenced)
            except errors.TenantError as error:
                tenant.phase, tenant.error = FAILED, error
                delay = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
                tenant.retry = self._reactor.callLater(
                    delay, lambda: _in_background(self._restore(tenant, attempt + 1), f"restoring {tenant.name}")
                )
        finally:
            lock.release()

    def _hold_back(self, tenant: Tenant, stall: watchdog.Stall) -> None:
        """Leaves the others in peace for a while, so that the controller can decide where this one runs."""
        where = f", in {stall.stack[0]}" if stall.stack else ""
        text = f"its code held up the whole shard for {stall.seconds:.0f} s{where}; tried again in {_HELD_BACK_SECONDS:g} s"
        logger.error("tenant %s: %s", tenant.name, text)
        tenant.phase, tenant.error = FAILED, errors.TenantError(errors.STALLED, text)
        tenant.retry = self._reactor.callLater(
            _HELD_BACK_SECONDS, lambda: _in_background(self._restore(tenant, 0), f"restoring {tenant.name}")
        )

    def _cancel_retry(self, tenant: Tenant) -> None:
        if tenant.retry is not None and tenant.retry.active():
            tenant.retry.cancel()
        tenant.retry = None

    # Stopping

    async def _stop(self, tenant: Tenant, drain_seconds: float, gracefully: bool) -> Drained:
        running = tenant.running
        if running is None:
            return Drained()
        tenant.phase = DRAINING
        if tenant.housekeeping is not None:
            tenant.housekeeping.close()
            tenant.housekeeping = None
        if tenant.greeting is not None:
            tenant.greeting.close()
            tenant.greeting = None
        keeping = self._keeping(tenant, running) if gracefully else None
        for pool in pools_of(tenant.server_name):
            pool.let_go()
        drained = await drain(running.hs, drain_seconds, self._reactor)
        if not self.shutting_down:
            # Before its counters are dropped.
            drained.used = _load_of(tenant, running, metrics.load_by_server_name(tenant.server_name))
        tenant.phase = STOPPING
        await close_homeserver(running, self._reactor, gracefully, keeping)
        tenant.running = None
        claims_of_shard.remove(tenant.server_name)
        self._memory.tenant_stopped()
        logger.info("tenant %s (%s) has stopped", tenant.name, tenant.server_name)
        return drained

    def _keeping(self, tenant: Tenant, running: Running) -> Keeping | None:
        """Also tells application services nothing more, so that what they are told and what is kept cannot overlap."""
        try:
            services = kept.hold_services(running.hs)
        except Exception:
            logger.exception("tenant %s: application services cannot be held", tenant.name)
            services = None
        return Keeping(self._claim(tenant), tenant_config.database_arguments(running.hs.config), services)

    def _claim(self, tenant: Tenant) -> Claim:
        return Claim(tenant.assignment.epoch, self.settings.name, self.instance)

    async def _release(self, tenant: Tenant, arguments: dict[str, Any]) -> bool:
        claim, limit = self._claim(tenant), Limit(_RELEASE_SECONDS)
        try:
            return await self._bounded(limit, lambda: release_database(arguments, claim, limit))
        except Exception as error:
            # The next owner waits a while, and claims it then.
            logger.warning("tenant %s: its database could not be released: %s", tenant.name, type(error).__name__)
            return False

    async def _shut_down_tenant(self, tenant: Tenant) -> None:
        self._cancel_retry(tenant)
        if tenant.phase == STARTING:
            tenant.limit.aborted.set()
        lock = self._lock(tenant.name)
        await lock.acquire()
        try:
            await self._stop(tenant, _SHUTDOWN_DRAIN_SECONDS, gracefully=True)
        except Exception:
            logger.exception("stopping tenant %s", tenant.name)
        finally:
            lock.release()

    # The fence

    def _found_fenced(self, server_name: str) -> None:
        for tenant in self._tenants.values():
            if tenant.server_name == server_name and tenant.phase in (STARTING, RUNNING):
                _in_background(self._drop_fenced(tenant), f"dropping {tenant.name}")

    async def _drop_fenced(self, tenant: Tenant) -> None:
        lock = self._lock(tenant.name)
        await lock.acquire()
        try:
            if self._tenants.get(tenant.name) is not tenant or tenant.phase != RUNNING:
                return
            logger.warning("tenant %s: its database has another owner; it is dropped", tenant.name)
            await self._stop(tenant, 0, gracefully=False)
            await self._set_fenced(tenant, errors.Fenced("another shard has taken the tenant's database"))
        finally:
            lock.release()

    async def _set_fenced(self, tenant: Tenant, why: errors.Fenced) -> None:
        tenant.phase, tenant.error = FENCED, why
        await self._in_thread(lambda: self._state.forget(tenant.name))

    async def _check_owner(self, tenant: Tenant) -> None:
        for _ in range(_OWNER_CHECKS):
            running = tenant.running
            if tenant.phase != RUNNING or running is None:
                return
            arguments = tenant_config.database_arguments(running.hs.config)
            try:
                owner = await self._in_thread(lambda: read_owner(arguments, Limit(_OWNER_CHECK_SECONDS)))
            except Exception as error:
                # No answer is no verdict; and without the database nothing can be written.
                logger.warning("tenant %s: its database did not say who owns it: %s", tenant.name, type(error).__name__)
                await task.deferLater(self._reactor, 5)
                continue
            if owner != (tenant.assignment.epoch, self.instance):
                await self._drop_fenced(tenant)
            return

    # Helpers

    def _housekeeping_of(self, running: Running) -> Housekeeping:
        hs = running.hs
        return Housekeeping(
            clock=hs.get_clock(),
            reactor=self._reactor,
            pace=Pace(self.settings.tenant_idle_seconds, self.settings.idle_round_seconds),
            in_use=lambda: has_open_requests(running),
            database_jobs=lambda: sum(pool.jobs_given() for pool in pools_of(hs.hostname)),
            next_due=lambda: next_due(hs),
        )

    def _review(self) -> None:
        """Finds idle tenants, and takes from the process what is unused."""
        resting: set[str] = set()
        for tenant in self._tenants.values():
            if tenant.housekeeping is None:
                continue
            try:
                tenant.housekeeping.review()
            except Exception:
                # The others' reviews must go on, and so do this tenant's loops.
                logger.exception("tenant %s: its housekeeping could not be looked at", tenant.name)
            if tenant.housekeeping.is_resting():
                resting.add(tenant.server_name)
        for pool in list(TenantPool.alive):
            pool.close_idle(_RESTING_CONNECTION_SECONDS if pool.server_name in resting else self.settings.database_idle_seconds)
        threads_of_shard.trim(self._reactor, min(_IDLE_THREADS, len(self._tenants) - len(resting)))

    def _lock(self, name: str) -> defer.DeferredLock:
        return self._locks.setdefault(name, defer.DeferredLock())

    def _in_thread(self, function: Callable[[], T]) -> defer.Deferred[T]:
        return threads.deferToThreadPool(self._reactor, threads_of_shard.start, function)

    async def _bounded(self, limit: Limit, function: Callable[[], T]) -> T:
        """Runs a function in a thread and stops waiting for it when the limit is over."""
        limit.check()
        work = self._in_thread(function)

        def timed_out(_result: Any, _seconds: float) -> Any:
            limit.check()
            raise errors.DatabaseTimeout("no answer in time")

        # A little later than the limit, which the work itself keeps to where it can.
        result: T = await work.addTimeout(limit.remaining() + 1, self._reactor, onTimeoutCancel=timed_out)
        return result


@asynccontextmanager
async def _turn(semaphore: defer.DeferredSemaphore, limit: Limit) -> AsyncIterator[None]:
    """Waits for a turn; the wait does not count against the limit, an abort during it does."""
    begun = time.monotonic()
    await semaphore.acquire()
    try:
        limit.extend(time.monotonic() - begun)
        limit.check()
        yield
    finally:
        semaphore.release()


def _load_of(tenant: Tenant, running: Running, by_server_name: dict[str, dict[str, float]]) -> dict[str, Any]:
    name = tenant.server_name
    work = work_of_tenants.of(name)
    keeper = keepers_of_tenants.of(name)
    return {
        "run": tenant.run,
        "epoch": tenant.assignment.epoch,
        **_use_of(tenant, running),
        **by_server_name.get(name, metrics.empty_load()),
        "databaseRows": work.database_rows,
        "imageSeconds": work.image_seconds,
        "heldBackSeconds": round(sum(pool.held_back_seconds() for pool in pools_of(name)), 3),
        "cacheEntries": cache_entries(name),
        "refused": dict(keeper.refused) if keeper is not None else {},
    }


def _use_of(tenant: Tenant, running: Running) -> dict[str, float]:
    return {"inFlight": idle.open_requests(running.hs), "lastUse": round(tenant.use.seconds(), 3)}


def _in_background(work: Any, what: str) -> None:
    deferred = defer.ensureDeferred(work)
    deferred.addErrback(lambda failure: logger.error("%s: %s", what, failure.getTraceback()))


def _pid() -> int:
    import os

    return os.getpid()
