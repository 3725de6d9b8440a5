"""Tells other servers that a tenant is back that was away without having stopped.

A server that found it away backs off for ten minutes, and for up to days after some failures. To Synapse, any signed request of the tenant
says that it is back: it forgets its back-off, and sends what it kept. A transaction without content is the cheapest of all.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from typing import Any

from synapse.logging.context import LoggingContext, PreserveLoggingContext, run_in_background
from twisted.internet import defer

logger = logging.getLogger(__name__)

#: Servers beyond that hear of the tenant with its next event. Those with the most rooms in common come first.
_MOST_SERVERS = 200
#: One that does not answer is really away, or slow; its own back-off is its own affair.
_ANSWER_MILLISECONDS = 10_000
#: Greetings under way at once, of all tenants: each may take a TLS handshake.
_at_once = defer.DeferredSemaphore(16)

_SERVERS = """
    SELECT substring(state_key FROM ':(.*)$') AS server, count(DISTINCT room_id) AS rooms FROM current_state_events
    WHERE type = 'm.room.member' AND membership = 'join' GROUP BY server ORDER BY rooms DESC, server
"""


class Greeting:
    """Of one tenant, to all servers that it shares rooms with. Ends with the tenant's stop."""

    def __init__(self, hs: Any, reactor: Any) -> None:
        self._hs = hs
        self._reactor = reactor
        self._waiting: list[Any] = []
        self._under_way: set[defer.Deferred[None]] = set()
        self._greeted = self._servers = 0
        self._closed = False

    async def begin(self, spread_seconds: float) -> int:
        """How many servers it greets, spread over that time: tenants that were away together share servers.

        @raises Exception if the database does not answer
        """
        if not self._hs.config.worker.send_federation:
            return 0
        servers = await self._read()
        if self._closed:
            return 0
        if len(servers) > _MOST_SERVERS:
            logger.info("%s: %d of %d servers are greeted", self._hs.hostname, _MOST_SERVERS, len(servers))
        for server in servers[:_MOST_SERVERS]:
            self._waiting.append(self._reactor.callLater(random.uniform(0, spread_seconds), self._greet, server))  # noqa: S311
        self._servers = len(self._waiting)
        return self._servers

    def is_under_way(self) -> bool:
        return bool(self._under_way) or any(call.active() for call in self._waiting)

    def close(self) -> None:
        self._closed = True
        for call in self._waiting:
            if call.active():
                call.cancel()
        for greeting in list(self._under_way):
            greeting.cancel()

    async def _read(self) -> list[str]:
        def query(transaction: Any) -> list[str]:
            transaction.execute(_SERVERS)
            return [server for server, _ in transaction.fetchall() if server and server != self._hs.hostname]

        with PreserveLoggingContext(LoggingContext(name="shard_greeting", server_name=self._hs.hostname)):
            reading: defer.Deferred[list[str]] = run_in_background(
                self._hs.get_datastores().main.db_pool.runInteraction, "shard_greeting", query
            )
        found: list[str] = await reading
        return found

    def _greet(self, server: str) -> None:
        with PreserveLoggingContext(LoggingContext(name="shard_greeting", server_name=self._hs.hostname)):
            greeting: defer.Deferred[None] = _at_once.run(lambda: run_in_background(self._send, server))
        self._under_way.add(greeting)
        greeting.addErrback(lambda failure: logger.debug("%s: %s is not greeted: %s", self._hs.hostname, server, failure.value))
        greeting.addBoth(lambda _: self._done(greeting))

    async def _send(self, server: str) -> None:
        origin = self._hs.hostname
        # Whom this tenant itself has found away is left alone until its own next attempt.
        await self._hs.get_federation_http_client().put_json(
            server,
            path=f"/_matrix/federation/v1/send/greeting-{secrets.token_hex(8)}",
            data={"origin": origin, "origin_server_ts": int(time.time() * 1000), "pdus": []},
            timeout=_ANSWER_MILLISECONDS,
        )
        self._greeted += 1

    def _done(self, greeting: defer.Deferred[None]) -> None:
        self._under_way.discard(greeting)
        if not self._closed and not self.is_under_way():
            logger.info("%s: %d of %d servers heard that it is back", self._hs.hostname, self._greeted, self._servers)
