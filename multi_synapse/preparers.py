"""Preparers (preparer.py) as processes beside the shard's, for a controller that cannot run Python where it is.

Bounded in number, and leased: a preparer that was not asked about for a while is ended, as its controller is gone.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
from collections.abc import Iterable
from typing import Any

from twisted.internet import defer, error, protocol
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

logger = logging.getLogger(__name__)

#: Each is a Python that imports Synapse, a good hundred megabytes, and takes a core while it works.
MOST_PREPARERS = 2
#: How long it may take to end before it is killed.
_END_SECONDS = 6.0
_LONGEST_LINE = 1024 * 1024

STARTING, READY, WORKING, ENDED = "starting", "ready", "working", "ended"
STATES = frozenset({STARTING, READY, WORKING, ENDED})


class Preparer(protocol.ProcessProtocol):
    """One process, and what it said last. Nothing of its input is kept or logged: secrets are in it."""

    def __init__(self, reactor: Any, lease_seconds: float) -> None:
        self.state = STARTING
        self.event: dict[str, Any] | None = None
        self._reactor = reactor
        self._lease_seconds = lease_seconds
        self._lines = _Lines(self._said)
        self._waiting: list[defer.Deferred[None]] = []
        self._lease: Any = None
        self._killing: Any = None
        self.renew()

    def renew(self) -> None:
        if self._lease is not None and self._lease.active():
            self._lease.cancel()
        if self.state != ENDED:
            self._lease = self._reactor.callLater(self._lease_seconds, self._lease_over)

    def command(self, command: dict[str, Any]) -> None:
        """Only for a preparer that is ready."""
        assert self.state == READY
        self.event = None
        self._become(WORKING)
        self.transport.write(json.dumps(command).encode() + b"\n")

    async def changed(self, not_state: str, seconds: float) -> None:
        """Waits up to `seconds` until it is in another state than `not_state`."""
        if self.state != not_state or seconds <= 0:
            return
        change: defer.Deferred[None] = defer.Deferred()
        self._waiting.append(change)
        change.addTimeout(seconds, self._reactor, onTimeoutCancel=lambda _result, _seconds: None)
        await change

    def end(self) -> None:
        """By closing its input; by force if that does not help."""
        if self.state == ENDED or self._killing is not None:
            return
        self.transport.closeStdin()
        self._killing = self._reactor.callLater(_END_SECONDS, self.kill)

    def kill(self) -> None:
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            pass

    def outReceived(self, data: bytes) -> None:
        self._lines.dataReceived(data)

    def errReceived(self, data: bytes) -> None:
        # Its log, in lines of JSON like ours.
        sys.stderr.write(data.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        for timer in (self._lease, self._killing):
            if timer is not None and timer.active():
                timer.cancel()
        if self.event is None or self.event.get("event") != "error":
            code = getattr(reason.value, "exitCode", None)
            how = f"with exit code {code}" if code is not None else f"by signal {getattr(reason.value, 'signal', '?')}"
            self.event = {"event": "error", "code": "PreparerEnded", "message": f"the preparer ended {how}"}
        self._become(ENDED)

    def _said(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            logger.error("a preparer wrote a line that is none of its events")
            self.kill()
            return
        self.event = event
        # A release that cannot be hosted is an error in place of "ready"; the process ends then.
        if not (self.state == STARTING and event.get("event") == "error"):
            self._become(READY)

    def _become(self, state: str) -> None:
        self.state = state
        waiting, self._waiting = self._waiting, []
        for change in waiting:
            if not change.called:
                change.callback(None)

    def _lease_over(self) -> None:
        logger.warning("a preparer is ended, as it was not asked about for %g s", self._lease_seconds)
        self.end()


class _Lines(LineReceiver):
    delimiter = b"\n"
    MAX_LENGTH = _LONGEST_LINE

    def __init__(self, said: Any) -> None:
        self.lineReceived = said


class Preparers:
    """Those of this shard, by id."""

    def __init__(self, reactor: Any, lease_seconds: float, allow_untested_releases: Iterable[str] = ()) -> None:
        self._reactor = reactor
        self._lease_seconds = lease_seconds
        self._allowed = [f"--allow-untested-release={release}" for release in allow_untested_releases]
        self._preparers: dict[str, Preparer] = {}

    def is_full(self) -> bool:
        self._forget_ended()
        return len(self._preparers) >= MOST_PREPARERS

    def create(self) -> str:
        """Starts one; it is ready when it has imported Synapse."""
        preparer, name = Preparer(self._reactor, self._lease_seconds), secrets.token_hex(8)
        passed = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "PGSSLROOTCERT")
        env = {key: os.environ[key] for key in passed if key in os.environ}
        self._reactor.spawnProcess(preparer, sys.executable, [sys.executable, "-m", "multi_synapse.prepare", *self._allowed], env=env)
        self._preparers[name] = preparer
        return name

    def get(self, name: str) -> Preparer | None:
        """Finds one, and renews its lease."""
        preparer = self._preparers.get(name)
        if preparer is not None:
            preparer.renew()
        return preparer

    def remove(self, name: str) -> None:
        preparer = self._preparers.pop(name, None)
        if preparer is not None:
            preparer.end()

    def close(self) -> None:
        for preparer in self._preparers.values():
            preparer.kill()
        self._preparers.clear()

    def _forget_ended(self) -> None:
        """What they said last is kept until the place is needed."""
        for name in [name for name, preparer in self._preparers.items() if preparer.state == ENDED]:
            del self._preparers[name]
