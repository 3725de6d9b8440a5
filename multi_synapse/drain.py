"""Taking a tenant out of service so that no request in flight is lost.

Order matters: stop accepting without cutting open connections; tell kept-alive clients to come back on a new connection;
answer what waits for events; wait until nothing is open; only then may the HomeServer be shut down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer, task
from twisted.web.http import HTTPChannel

from .patches.http import end_long_polls
from .pools import pools_of

_STEP_SECONDS = 0.01
#: Requests that were on their way when the drain began are still answered. Gateways send nothing more by then, so what
#: comes is in this machine's or network's buffers: it needs a moment, and a few turns of the reactor to be read, however
#: long these take on a busy machine.
_GRACE_SECONDS = 0.05
_GRACE_STEPS = 3


@dataclass
class Drained:
    long_polls: int = 0
    requests_left: int = 0
    seconds: float = 0.0


class Listeners:
    """A tenant's listening ports while they are being closed by hand."""

    def __init__(self, hs: Any) -> None:
        # Others, as a manhole's, have no requests.
        self._ports = [port for port in hs._listening_services if hasattr(_site(port), "connections")]
        # Closed here, not by shutdown().
        hs._listening_services.clear()

    async def stop_accepting(self) -> None:
        for port in self._ports:
            # Connections that wait to be accepted would be reset with the port, and their requests with them.
            port.doRead()
            # Stopping a port stops its factory, which cuts every connection; another start of the factory holds that off.
            port.factory.doStart()
            await defer.maybeDeferred(port.stopListening)

    def close_connections(self) -> None:
        for port in self._ports:
            port.factory.doStop()

    def channels(self) -> Iterator[HTTPChannel]:
        for port in self._ports:
            yield from list(_site(port).connections)

    def open_requests(self) -> int:
        return sum(1 for channel in self.channels() if channel.requests)


def _site(port: Any) -> Any:
    return getattr(port.factory, "wrappedFactory", port.factory)


async def drain(hs: Any, seconds: float, reactor: Any) -> Drained:
    """Drains a tenant for at most so long, then closes its connections. The caller shuts the HomeServer down."""
    begun = time.monotonic()
    result = Drained()
    listeners = Listeners(hs)
    await listeners.stop_accepting()
    for channel in listeners.channels():
        _close_after_answer(channel)
    if seconds > 0:
        result.long_polls += end_long_polls(hs)
        end = begun + seconds
        grace = min(end, begun + _GRACE_SECONDS)
        steps = 0
        while (now := time.monotonic()) < end and (now < grace or steps < _GRACE_STEPS or listeners.open_requests() or _database_works(hs)):
            steps += 1
            await task.deferLater(reactor, _STEP_SECONDS)
            # A request that came late may just have begun to wait.
            result.long_polls += end_long_polls(hs)
    result.requests_left = listeners.open_requests()
    listeners.close_connections()
    result.seconds = time.monotonic() - begun
    return result


def _database_works(hs: Any) -> bool:
    return any(pool.is_working() for pool in pools_of(hs.hostname))


def _close_after_answer(channel: HTTPChannel) -> None:
    def check_persistence(request: Any, _version: Any) -> bool:
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    channel.checkPersistence = check_persistence  # type: ignore[method-assign]
    # Only where the client can still be told: else its next request would meet a closed connection.
    for request in channel.requests[:1]:
        if not request.startedWriting:
            channel.persistent = False
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
