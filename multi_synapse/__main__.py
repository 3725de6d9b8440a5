"""`python -m multi_synapse --config shard.json`: runs a shard in the foreground. Exit code 2: the configuration is wrong."""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from . import preload, watchdog
from .init import become_child_of_init
from .release import UnsupportedRelease, check_release, warn
from .settings import Settings, SettingsError, load_settings

#: After a clean stop of all tenants, threads that hang in a dead database must not keep the process.
_EXIT_SECONDS = 3.0
_SHUTDOWN_SECONDS = 30.0
#: For the process before this one to end.
_LOCK_SECONDS = 10.0
_REACTOR_THREADS = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="multi_synapse", description="Runs many Synapse homeservers in one process.")
    parser.add_argument("--config", required=True, type=Path, help="the shard's configuration, a JSON file")
    try:
        settings = load_settings(parser.parse_args().config)
        warning = check_release(settings.allow_untested_releases)
        warn(warning, "multi_synapse")
        token = _read_token(settings.token_file)
    except (SettingsError, UnsupportedRelease) as error:
        print(f"multi_synapse: {error}", file=sys.stderr)
        return 2
    # Tenants must not tell systemd that this process is ready or gone.
    os.environ.pop("NOTIFY_SOCKET", None)
    os.umask(settings.umask)
    _raise_file_limit()
    become_child_of_init()
    beat = watchdog.start(settings.watchdog_seconds, settings.state_dir) if settings.watchdog_seconds else watchdog.Beat()
    return _run(settings, token, warning, beat)


def _run(settings: Settings, token: str, warning: str | None, beat: watchdog.Beat) -> int:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    try:
        preload.load(settings.allow_untested_releases, settings.state_dir)
    except (UnsupportedRelease, AttributeError) as error:
        print(f"multi_synapse: {error}", file=sys.stderr)
        return 2
    from twisted.internet import error as net_error
    from twisted.internet import reactor as imported_reactor

    from . import gateway_secret, log, patches
    from .control import ControlResource, ControlSite
    from .memory import Memory
    from .pace import SWITCH_SECONDS
    from .pools import threads_of_shard
    from .preparers import Preparers
    from .probe import Probe
    from .runtime import Shard
    from .state import StateDirectory, StateInUse, write_atomically

    reactor: Any = imported_reactor
    log.set_up_logging(settings.log_level, settings.log_file)
    logger = logging.getLogger("multi_synapse")
    state = StateDirectory(settings.state_dir)
    try:
        state.lock(_LOCK_SECONDS)
    except StateInUse as error:
        print(f"multi_synapse: {error}", file=sys.stderr)
        return 2
    if settings.assignments_dir is not None:
        for name in state.seed(settings.assignments_dir):
            logger.info("tenant %s is taken over from this shard's former state directory", name)
    if warning is not None:
        logger.warning("%s", warning)
    patches.watch.beat = beat if settings.watchdog_seconds else None
    gateway_secret.of_shard.secrets = gateway_secret.GatewaySecrets(token)
    patches.apply_all(patches.IN_SHARD)
    memory = Memory(reactor)
    shard = Shard(settings, state, reactor, memory)
    probe = Probe(reactor, shard.check_owners, beat.tick)
    preparers = Preparers(reactor, settings.preparer_lease_seconds, settings.allow_untested_releases)
    site = ControlSite(ControlResource(shard, preparers, token, probe, memory, reactor))
    exit_code = 0

    def up() -> None:
        nonlocal exit_code
        try:
            port = _listen(reactor, site, settings, state.remembered_control_port(), net_error.CannotListenError)
        except net_error.CannotListenError as error:
            print(f"multi_synapse: the control API cannot listen: {error}", file=sys.stderr)
            exit_code = 2
            reactor.stop()
            return
        state.remember_control_port(port)
        threads_of_shard.start_all(reactor)
        sys.setswitchinterval(SWITCH_SECONDS)
        memory.start()
        # Passwords and JSON of all tenants.
        reactor.suggestThreadPoolSize(_REACTOR_THREADS)
        probe.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: reactor.callFromThread(down))
        shard.run()
        address = f"http://{_bracketed(settings.control_host)}:{port}"
        if settings.ready_file is not None:
            ready = {"pid": os.getpid(), "instance": shard.instance, "address": address, "startedAt": shard.started_at}
            write_atomically(settings.ready_file, json.dumps(ready))
        logger.info("shard %s (instance %s) is controlled at %s", settings.name, shard.instance, address)

    def down() -> None:
        if shard.shutting_down:
            return
        from twisted.internet import defer

        logger.info("shard %s stops its tenants and ends", settings.name)
        preparers.close()
        stopping = defer.ensureDeferred(shard.shut_down())
        stopping.addTimeout(_SHUTDOWN_SECONDS, reactor)
        stopping.addErrback(lambda failure: logger.error("not every tenant stopped: %s", failure.getErrorMessage()))
        stopping.addBoth(lambda _: _end(reactor, beat))

    reactor.callWhenRunning(up)
    reactor.run()
    return exit_code


def _end(reactor: Any, beat: watchdog.Beat) -> None:
    # What follows is bounded below.
    beat.finish()

    def give_up() -> None:
        time.sleep(_EXIT_SECONDS)
        logging.shutdown()
        os._exit(0)

    threading.Thread(target=give_up, daemon=True).start()
    reactor.stop()


def _listen(reactor: Any, site: Any, settings: Settings, remembered: int, cannot: type[Exception]) -> int:
    if settings.control_port == 0 and remembered:
        try:
            return int(reactor.listenTCP(remembered, site, interface=settings.control_host).getHost().port)
        except cannot:
            pass
    return int(reactor.listenTCP(settings.control_port, site, interface=settings.control_host).getHost().port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _read_token(path: Path) -> str:
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: the token cannot be read: {type(error).__name__}") from error
    if len(token) < 16:
        raise SettingsError(f"{path}: the token is shorter than 16 characters")
    return token


def _raise_file_limit() -> None:
    """Each tenant needs a handful of descriptors; the usual soft limit of 1024 ends at a hundred tenants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
