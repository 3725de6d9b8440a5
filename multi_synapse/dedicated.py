"""`python -m multi_synapse.dedicated --config homeserver.yaml …`: Synapse's own homeserver for one tenant, behind the tenant's fence.

Everything is upstream's `synapse.app.homeserver` with all its options; added are the claim of the database before anything
touches it, the proof that each of its connections asks for, an orderly end, and the release of the database then. So a tenant can
move between a shard and a dedicated Synapse, and never runs in both (docs/control-api.md, *The fence*).

With `--crew DIRECTORY` it has workers, and with `--worker NAME` as well it is one: upstream's `synapse.app.generic_worker`, which joins
the claim of the main process, and begins anew when that has another one (crew.py).
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import psycopg2
from prometheus_client import REGISTRY

from .crew import MAIN, Crew
from .crew_time import OwnTime, WorkersTime
from .release import UnsupportedRelease, check_release, warn

logger = logging.getLogger("multi_synapse.dedicated")

#: Exit codes, so that a pod shows what happened. 1 is Synapse's own.
WRONG_CONFIGURATION = 2
NEWER_REVISION = 3
FENCED = 4

#: An epoch is a revision of the deployment, and a count within it.
REVISION_BITS = 32
_LARGEST_REVISION = 2**30
#: How a process that waits for the database is known to the controller: by the name of its connection, which ends with it.
WAITING_NAME = "synapse-shards waiting"
#: In the fence, as the heir of a released database: the controller's leave to any process that waits, of any revision.
GRANTED = "dedicated"
_POLL_SECONDS = 0.1
_CLAIM_SECONDS = 60.0
_RELEASE_SECONDS = 5.0
_KEEP_SECONDS = 5.0
_CONNECT_SECONDS = 10
#: As a shard by default.
_SWEEP_SECONDS = 600.0
#: How often the fence is read by a process that opens no connection.
_WATCH_SECONDS = 5.0
_RECONNECT_SECONDS = 1.0
#: How often it is looked whether the other processes have ended.
_CREW_STEP_SECONDS = 0.05
#: The router asks twice in this time whether a process is there, and sends nothing more to one that says it is not.
_ROUTER_SECONDS = 1.0
#: Beyond the time to drain, for what processes ask each other at last, and for workers to end after that.
_LAST_ASKED_SECONDS = 2.0
_WORKERS_END_SECONDS = 15.0


_WORKER_NAME = re.compile(r"(?!main$)[a-z0-9][a-z0-9-]{0,60}")

#: Of `patches`: the fence, and what a stop needs.
_PATCHES = ("fence", "long-polls", "processes", "services-in-flight", "servers-in-flight", "queues-of-servers")
_PATCHES_OF_WORKERS = ("ports-of-workers",)
#: There is one where the kernel has IPv6.
_IPV6 = Path("/proc/net/if_inet6")


class CannotOwn(Exception):
    """The database is not to be ours; the sentence says why."""


@dataclass(frozen=True)
class Settings:
    owner: str
    revision: int
    handover_seconds: float
    drain_seconds: float
    allow_untested_releases: tuple[str, ...] = ()
    #: Where its processes meet, if there are workers; and its name, if it is one.
    crew: Path | None = None
    worker: str | None = None


def parse_arguments(arguments: list[str]) -> tuple[Settings, list[str]]:
    """Our settings, and what is left for Synapse."""
    parser = argparse.ArgumentParser(prog="multi_synapse.dedicated", allow_abbrev=False, add_help=False)
    parser.add_argument("--fence-owner", default="dedicated", metavar="NAME")
    revision = parser.add_mutually_exclusive_group()
    revision.add_argument("--fence-revision", type=_revision, default=0, metavar="N")
    revision.add_argument("--fence-revision-file", type=Path, metavar="FILE")
    parser.add_argument("--handover-seconds", type=_seconds, default=120.0, metavar="S")
    parser.add_argument("--drain-seconds", type=_seconds, default=10.0, metavar="S")
    parser.add_argument("--allow-untested-release", action="append", default=[], metavar="VERSION")
    parser.add_argument("--crew", type=Path, metavar="DIRECTORY")
    parser.add_argument("--worker", metavar="NAME")
    ours, rest = parser.parse_known_args(arguments)
    if ours.worker is not None and (ours.crew is None or not _WORKER_NAME.fullmatch(ours.worker)):
        parser.error(f"--worker {ours.worker}: needs --crew, and a name of small letters, digits and dashes that is not main")
    if not ours.fence_owner:
        parser.error("--fence-owner is empty; it names this deployment in the fence")
    number = ours.fence_revision
    if ours.fence_revision_file is not None:
        try:
            number = _revision(ours.fence_revision_file.read_text("utf-8"))
        except (OSError, ValueError, argparse.ArgumentTypeError) as error:
            parser.error(f"--fence-revision-file {ours.fence_revision_file}: {error}")
    untested = tuple(ours.allow_untested_release)
    return Settings(ours.fence_owner, number, ours.handover_seconds, ours.drain_seconds, untested, ours.crew, ours.worker), rest


def acquire(arguments: dict[str, Any], settings: Settings, instance: str) -> Any:
    """Claims the database after its owner has released it, or after the handover time. Blocks.

    @raises CannotOwn where a newer revision has it to the end, TenantError, psycopg2.Error
    """
    from .errors import Fenced
    from .fence import Claim, claim_database
    from .waiting import Limit

    end = time.monotonic() + settings.handover_seconds
    with _Waiting(arguments, settings.revision) as waiting:
        said = ""
        while True:
            epoch, shard, heir = waiting.read()
            is_ours = shard == settings.owner or (shard == "" and heir in (settings.owner, GRANTED))
            # Helm's rollback writes the number of then: it is for the controller to say that the old is the new.
            is_older = epoch >> REVISION_BITS > settings.revision and not is_ours
            if (is_older or shard not in ("", settings.owner)) and time.monotonic() < end:
                now = f"the database belongs to {shard or 'nobody'} with epoch {epoch}, of revision {epoch >> REVISION_BITS}"
                if now != said:
                    _say(f"{now}; waiting until it is released{' to this older revision' if is_older else ''}")
                    said = now
                time.sleep(_POLL_SECONDS)
                continue
            if is_older:
                raise CannotOwn(
                    f"the database belongs to revision {epoch >> REVISION_BITS} of its deployment (epoch {epoch}, "
                    f"{shard or 'released'}), and this is revision {settings.revision}: this pod is out of date, and does not start"
                )
            if shard not in ("", settings.owner):
                _say(f"{shard} has not released the database within {settings.handover_seconds:g} s; it is claimed all the same")
            claim = Claim(max(epoch + 1, (settings.revision << REVISION_BITS) + 1), settings.owner, instance)
            waiting.close()
            try:
                claim_database(arguments, claim, Limit(_CLAIM_SECONDS))
            except Fenced:
                # Somebody was quicker; whether that one outranks us is read again.
                continue
            return claim


class _Waiting:
    """The connection of a process that waits; it may be ended by the claim of another, and is made again then."""

    def __init__(self, arguments: dict[str, Any], revision: int) -> None:
        self._arguments = {**arguments, "application_name": f"{WAITING_NAME} {revision}"}
        self._connection: Any = None

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> tuple[int, str, str]:
        from .fence import read_fence

        for attempt in (1, 2):
            try:
                if self._connection is None:
                    self._connection = psycopg2.connect(**self._arguments)
                return read_fence(self._connection)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                fresh = self._connection is None
                self.close()
                if fresh or attempt == 2:
                    raise
        raise AssertionError

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Dedicated:
    """One run of Synapse's `main` with the fence around it."""

    def __init__(self, settings: Settings, crew: Crew | None) -> None:
        self._settings = settings
        self._crew = crew
        self._instance = secrets.token_hex(8)
        self._arguments: dict[str, Any] = {}
        self._claim: Any = None
        self._hs: Any = None
        self._stopping = False

    def run(self, arguments: list[str]) -> int:
        from . import patches
        from .fence import claims_of_shard
        from .patches.process import replace

        _listen_without_ipv6(_IPV6)
        if self._crew is not None and self._crew.is_main:
            REGISTRY.register(WorkersTime(self._crew.directory))
        synapse_app = import_module("synapse.app.generic_worker" if self._settings.worker else "synapse.app.homeserver")
        patches.allow(self._settings.allow_untested_releases)
        for name in (*_PATCHES, *(_PATCHES_OF_WORKERS if self._is_worker else ())):
            patches.apply(name)
        claims_of_shard.on_fenced = lambda _server_name: self._fenced("another owner has taken the tenant's database")
        create = synapse_app.create_homeserver

        def create_homeserver(config: Any, *args: Any, **kwargs: Any) -> Any:
            self._own(config)
            # None where it has no media repository.
            providers = getattr(config.media, "media_storage_providers", ())
            if any(provider.__module__ == "s3_storage_provider" for provider, *_ in providers):
                patches.apply("s3-faults")
            self._hs = create(config, *args, **kwargs)
            return self._hs

        replace(synapse_app, "create_homeserver", create_homeserver)
        replace(synapse_app, "start", _and_resume(synapse_app.start))
        sys.argv[1:] = arguments
        try:
            synapse_app.main()
        finally:
            self._release()
        return 0

    @property
    def _is_worker(self) -> bool:
        return self._settings.worker is not None

    def _own(self, config: Any) -> None:
        from twisted.internet import reactor

        from .config import check_databases, database_arguments
        from .errors import TenantError
        from .fence import claims_of_shard

        try:
            check_databases(config)
            # A server that does not answer must not be waited for forever.
            self._arguments = {"connect_timeout": _CONNECT_SECONDS, **database_arguments(config)}
            if self._crew is not None and self._is_worker:
                self._claim = self._crew.await_claim(self._arguments, _say)
            else:
                if self._crew is not None:
                    self._crew.await_workers(set(config.worker.instance_map) - {MAIN}, _say)
                self._claim = acquire(self._arguments, self._settings, self._instance)
        except CannotOwn as error:
            _end(NEWER_REVISION, str(error))
        except TenantError as error:
            _end(WRONG_CONFIGURATION, error.message)
        except psycopg2.Error as error:
            _end(1, f"the database cannot be claimed: {' '.join(str(error).split())}")
        who = f"a worker of {self._claim.shard}, which is" if self._is_worker else "this is"
        _say(f"{who} the owner of the database now, with epoch {self._claim.epoch}")
        if self._crew is not None:
            self._crew.join()
        claims_of_shard.add(config.server.server_name, self._claim)
        # Not before: Synapse may go into the background first, and threads do not go along.
        reactor.callWhenRunning(self._up)  # type: ignore[attr-defined]

    def _up(self) -> None:
        from twisted.internet import reactor

        signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(self._down))  # type: ignore[attr-defined]
        threading.Thread(target=self._watch, name="fence", daemon=True).start()
        if self._crew is not None and self._crew.is_main:
            self._crew.publish(self._claim)
        # Of workers one tidies what they share; a process without media has no such option.
        tidies = getattr(self._hs.config.media, "media_instance_running_background_jobs", None) or "master"
        if tidies != self._hs.get_instance_name():
            return
        from .media_cache import Bounds, MediaCaches

        caches = MediaCaches(reactor, reactor.getThreadPool(), Bounds(), lambda _name: True)  # type: ignore[attr-defined]
        caches.watch(self._hs.hostname, self._hs)
        caches.start(_SWEEP_SECONDS)

    def _down(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        from twisted.internet import defer, reactor

        logger.info("Synapse finishes what is in flight, and ends")
        finishing = defer.ensureDeferred(self._finish())
        finishing.addErrback(lambda failure: logger.error("draining: %s", failure.getTraceback()))
        finishing.addBoth(lambda _: reactor.stop())  # type: ignore[attr-defined]

    async def _finish(self) -> None:
        """As a shard stops a tenant (docs/stops.md), but that Synapse ends with the process, and so cancels nothing."""
        from twisted.internet import reactor, threads

        from . import kept
        from .drain import drain
        from .waiting import Limit

        services = kept.hold_services(self._hs)
        if self._crew is None:
            await drain(self._hs, self._settings.drain_seconds, reactor)
        else:
            await self._drain_with_others(self._crew, reactor)
        queued = kept.collect(self._hs, services)
        if queued:
            await threads.deferToThread(kept.write, self._arguments, self._claim, queued, Limit(_KEEP_SECONDS))

    async def _drain_with_others(self, crew: Crew, reactor: Any) -> None:
        """Clients first: what a client asks of one process, that one may ask of another, so each is there until all have answered."""
        from twisted.internet import task

        from .drain import drain

        hs, end = self._hs, time.monotonic() + self._settings.drain_seconds
        between = [port for port in hs._listening_services if _is_between_processes(hs, port)]
        hs._listening_services[:] = [port for port in hs._listening_services if port not in between]

        async def others() -> None:
            crew.stop_serving()
            while crew.others_serve() and time.monotonic() < end:
                await task.deferLater(reactor, _CREW_STEP_SECONDS)
            await task.deferLater(reactor, _ROUTER_SECONDS)

        await drain(hs, self._settings.drain_seconds, reactor, others)
        hs._listening_services.extend(between)
        await drain(hs, _LAST_ASKED_SECONDS, reactor)

    def _watch(self) -> None:
        """Ends the process when the database has another owner: its claim ends this connection, too. And says now and then what it took."""
        from .fence import read_fence

        own_time = OwnTime(self._crew.directory, self._crew.name) if self._crew is not None and self._is_worker else None
        while not self._stopping:
            try:
                connection = psycopg2.connect(**self._arguments)
                try:
                    poll = select.poll()
                    poll.register(connection.fileno(), select.POLLIN)
                    while not self._stopping:
                        epoch, shard, instance = read_fence(connection)
                        if (epoch, instance) != (self._claim.epoch, self._claim.instance) and not self._stopping:
                            self._fenced(f"the database belongs to {shard or 'nobody'} with epoch {epoch} by now")
                        if own_time is not None:
                            own_time.write()
                        poll.poll(_WATCH_SECONDS * 1000)
                finally:
                    connection.close()
            except psycopg2.Error:
                time.sleep(_RECONNECT_SECONDS)

    def _fenced(self, sentence: str) -> NoReturn:
        if self._is_worker and not self._stopping:
            _begin_anew(sentence)
        _end(FENCED, sentence)

    def _release(self) -> None:
        from .fence import release_database
        from .waiting import Limit

        claim, self._claim = self._claim, None
        if claim is None or self._is_worker:
            return
        self._stopping = True
        if self._crew is not None and not _ends(self._crew.others_are_there, _WORKERS_END_SECONDS):
            # Who claims it shuts them out; what is released belongs to nobody, and they may still write.
            _say("workers have not ended; the database is not released")
            return
        try:
            # Its own restart must not depend on the revision, which a rollback lowers.
            release_database(self._arguments, claim, Limit(_RELEASE_SECONDS), heir=self._settings.owner)
        except psycopg2.Error as error:
            # The next owner waits for the handover time, and claims it then.
            _say(f"the database could not be released: {' '.join(str(error).split())}")


def _and_resume(start: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def start_and_resume(hs: Any, **options: Any) -> None:
        from .resume import resume

        await start(hs, **options)
        try:
            await resume(hs)
        except Exception:
            # Synapse comes to it in its own time.
            logger.exception("what the last process left in work is not taken up at once")

    return start_and_resume


def _say(sentence: str) -> None:
    # Past Synapse's logging, which may hold lines back, or write them elsewhere.
    os.write(2, f"multi_synapse.dedicated: {sentence}\n".encode())


def _end(code: int, sentence: str) -> NoReturn:
    """Ends the process at once, in any thread: nothing more may be answered or written."""
    _say(sentence)
    os._exit(code)


def _begin_anew(sentence: str) -> NoReturn:
    """In the place of this process, at once and in any thread; nothing of it is left. It waits for its main process then."""
    _say(f"{sentence}; beginning anew")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _ends(goes_on: Callable[[], bool], seconds: float) -> bool:
    """Whether it ends within the time. Blocks."""
    end = time.monotonic() + seconds
    while goes_on():
        if time.monotonic() > end:
            return False
        time.sleep(_CREW_STEP_SECONDS)
    return True


def _listen_without_ipv6(ipv6: Path) -> None:
    """A listener that names no address is at any of IPv6 and IPv4, and where the kernel has no IPv6 Synapse does not start for it."""
    if not ipv6.exists():
        addresses: list[str] = import_module("synapse.config.server").DEFAULT_BIND_ADDRESSES
        addresses[:] = [address for address in addresses if ":" not in address]


def _is_between_processes(hs: Any, port: Any) -> bool:
    """Whether a listening port is for other processes of this Synapse."""
    listeners = hs.config.worker.worker_listeners if hs.config.worker.worker_app else hs.config.server.listeners
    between = {
        getattr(listener, "port", None)
        for listener in listeners
        if listener.http_options is not None and any("replication" in resource.names for resource in listener.http_options.resources)
    }
    return getattr(port.getHost(), "port", None) in between


def _revision(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _LARGEST_REVISION:
        raise argparse.ArgumentTypeError(f"the revision is {number}, allowed is 0 to {_LARGEST_REVISION}")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{number:g} seconds, allowed is 0 to 3600")
    return number


def main() -> int:
    # The first process of a container gets no signal that it does not ask for. Ends what is under way, by an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings, rest = parse_arguments(sys.argv[1:])
    crew = Crew(settings.crew, settings.worker or MAIN) if settings.crew is not None else None
    if crew is not None and crew.is_main:
        crew.begin()
    try:
        warn(check_release(settings.allow_untested_releases), "multi_synapse.dedicated")
        return Dedicated(settings, crew).run(rest)
    except UnsupportedRelease as error:
        _say(str(error))
        return WRONG_CONFIGURATION
    finally:
        if crew is not None and crew.is_main:
            crew.end()


if __name__ == "__main__":
    sys.exit(main())
