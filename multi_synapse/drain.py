"""Taking a tenant out of service so that no request in flight is lost.

Order matters: tell kept-alive clients to come back on a new connection, where only what other servers ask is still answered;
answer what waits for events; wait until nothing is open and nothing is in work; stop accepting without cutting open
connections; only then may the HomeServer be shut down.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer, task
from twisted.web import resource, server
from twisted.web.http import HTTPChannel

from . import work
from .patches.http import end_long_polls
from .pools import pools_of

logger = logging.getLogger(__name__)

_STEP_SECONDS = 0.01
#: Requests that were on their way when the drain began are still answered. Gateways send nothing more by then, so what
#: comes is in this machine's or network's buffers: it needs a moment, and a few turns of the reactor to be read, however
#: long these take on a busy machine.
_GRACE_SECONDS = 0.05
_GRACE_STEPS = 3
#: For what another server asked while everything else was finished: it is asked for again if there is no answer. And for connections
#: that came last, whose request may still be on its way: each is answered once, and closed then.
_LAST_SECONDS = 1.0

#: What other servers ask of a tenant while they answer it; docs/control-api.md. Reading alone: nothing new may begin.
_ANSWERED_WHILE_DRAINING = {
    b"GET": re.compile(
        rb"/_matrix/key/v2/.*|/\.well-known/matrix/server"
        rb"|/_matrix/federation/v1/(version|openid/userinfo|(event|event_auth|state|state_ids|backfill|query|user/devices)/.*)"
    ),
    b"POST": re.compile(rb"/_matrix/key/v2/query|/_matrix/federation/v1/(get_missing_events/.*|user/keys/query)"),
}


@dataclass
class Drained:
    long_polls: int = 0
    requests_left: int = 0
    seconds: float = 0.0
    #: Where the tenant's streams ended, as `/sync` gives positions; None if something was in work that may have moved them later.
    position: str | None = None
    #: The tenant's last Load; None where nothing ran.
    used: dict[str, Any] | None = None


class Misdirected(resource.Resource):
    """What a request gets that was meant for another tenant, or for where this one goes: no one acted on it, and it can be sent again."""

    isLeaf = True

    def render(self, request: server.Request) -> bytes:
        request.setResponseCode(421)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"x-synapse-shards", b"misdirected")
        return b'{"errcode":"M_UNKNOWN","error":"This homeserver is not here"}'


class Listeners:
    """A tenant's listening ports while they are being closed by hand."""

    def __init__(self, hs: Any) -> None:
        # Others, as a manhole's, have no requests.
        self._ports = [port for port in hs._listening_services if hasattr(_site(port), "connections")]
        # Closed here, not by shutdown().
        hs._listening_services.clear()
        self._before: set[HTTPChannel] = set()

    def answer_servers_only(self) -> None:
        """On connections that come from now on."""
        for port in self._ports:
            # Those that wait to be accepted belong to the ones before: their requests are on their way.
            port.doRead()
            site = _site(port)
            self._before.update(site.connections)
            _answer_servers_only(site, self._before)

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
        """On connections that were open before the drain."""
        return sum(1 for channel in self.channels() if channel.requests and channel in self._before)

    def has_late_connections(self) -> bool:
        """That came since the drain began, and have not been answered."""
        return any(channel not in self._before for channel in self.channels())


def _site(port: Any) -> Any:
    return getattr(port.factory, "wrappedFactory", port.factory)


def is_answered_while_draining(method: bytes, path: bytes) -> bool:
    pattern = _ANSWERED_WHILE_DRAINING.get(method)
    return pattern is not None and pattern.fullmatch(path) is not None


def _answer_servers_only(site: Any, before: set[HTTPChannel]) -> None:
    find = site.getResourceFor

    def draining(request: Any) -> Any:
        if request.channel in before:
            return find(request)
        # Else the next request would meet the end of this connection.
        request.channel.persistent = False
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return find(request) if is_answered_while_draining(request.method, request.path) else Misdirected()

    site.getResourceFor = draining


async def drain(hs: Any, seconds: float, reactor: Any, others: Callable[[], Awaitable[None]] | None = None) -> Drained:
    """Drains a tenant for up to `seconds`, then closes its connections. The caller shuts the HomeServer down.

    `others`: awaited when all is finished; until then whoever comes is told that it is not here.
    """
    begun = time.monotonic()
    result = Drained()
    listeners = Listeners(hs)
    listeners.answer_servers_only()
    for channel in listeners.channels():
        _close_after_answer(channel)
    if seconds > 0:
        result.long_polls += end_long_polls(hs)
        await _finish(hs, listeners, begun, begun + seconds, result, reactor)
    if others is not None:
        await others()
    await listeners.stop_accepting()
    end = time.monotonic() + min(seconds, _LAST_SECONDS)
    while listeners.has_late_connections() and time.monotonic() < end:
        await task.deferLater(reactor, _STEP_SECONDS)
    result.requests_left = listeners.open_requests()
    listeners.close_connections()
    if not result.requests_left and not _is_working(hs):
        result.position = await _position(hs)
    result.seconds = time.monotonic() - begun
    return result


async def _finish(hs: Any, listeners: Listeners, begun: float, end: float, result: Drained, reactor: Any) -> None:
    """Until no request is open and nothing is in work, or the end."""
    grace = min(end, begun + _GRACE_SECONDS)
    steps = 0
    #: Since when there is no request: work that began with one has its whole time.
    quiet = begun
    while (now := time.monotonic()) < end:
        if now < grace or steps < _GRACE_STEPS or listeners.open_requests():
            quiet = now
        elif not _is_working(hs, now - quiet):
            break
        steps += 1
        await task.deferLater(reactor, _STEP_SECONDS)
        # A request that came late may just have begun to wait.
        result.long_polls += end_long_polls(hs)
    left = work.waits_for(hs, 0)
    if left:
        logger.info("stopping, though there is something in work: %s", ", ".join(sorted(left)))


def _is_working(hs: Any, quiet: float = 0) -> bool:
    """`quiet`: for how long there has been no request."""
    return any(pool.is_working() for pool in pools_of(hs.hostname)) or bool(work.waits_for(hs, quiet))


async def _position(hs: Any) -> str | None:
    try:
        position: str = await hs.get_event_sources().get_current_token().to_string(hs.get_datastores().main)
        return position
    except Exception:
        # Only what clients may be spared depends on it; a stop does not.
        logger.exception("it is not known where the streams of %s ended", hs.hostname)
        return None


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
