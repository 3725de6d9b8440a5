"""Between a tenant's listener and the gateways: who is answered, and what gateways are told."""

from __future__ import annotations

import logging
from typing import Any

import psycopg2
from synapse.http import server
from synapse.http.site import SynapseRequest
from twisted.enterprise.adbapi import ConnectionLost
from twisted.python.failure import Failure

from ..database_trouble import DATABASE_FULL, DATABASE_OVERLOADED, DATABASE_READ_ONLY, trouble_of
from ..errors import Fenced
from ..gateway_secret import HEADER, of_shard
from .process import replace

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 2
#: Of PostgreSQL: connections that break (08), a server that stops, crashes or comes up (57P01 to 57P03).
_AWAY = ("08", "57P01", "57P02", "57P03")
#: It answers, and does not write: that lasts, and what only reads goes on.
_NO_WRITES = (DATABASE_FULL, DATABASE_READ_ONLY)


def answer_gateways_only() -> None:
    """Checked when the head has come, before any of the body: what is refused costs next to nothing, and gets no answer."""
    got_length = SynapseRequest.gotLength
    request_received = SynapseRequest.requestReceived
    handle_content_chunk = SynapseRequest.handleContentChunk

    def gotLength(self: Any, length: int | None) -> None:
        if of_shard.accepts(self.requestHeaders.getRawHeaders(HEADER, [None])[0]):
            # Nobody else needs to know.
            self.requestHeaders.removeHeader(HEADER)
            got_length(self, length)
            return
        self._is_refused = True
        # "100 Continue" would be an answer.
        self.requestHeaders.removeHeader(b"expect")
        self.channel.loseConnection()

    def requestReceived(self: Any, command: bytes, path: bytes, version: bytes) -> None:
        if not self._is_refused:
            request_received(self, command, path, version)

    def handleContentChunk(self: Any, data: bytes) -> None:
        if not self._is_refused:
            handle_content_chunk(self, data)

    SynapseRequest._is_refused = False  # type: ignore[attr-defined]
    replace(SynapseRequest, "gotLength", gotLength)
    replace(SynapseRequest, "requestReceived", requestReceived)
    replace(SynapseRequest, "handleContentChunk", handleContentChunk)


def is_database_away(error: BaseException | None) -> bool:
    """Whether the database cannot be had at present, rather than that it refuses a statement."""
    if (trouble := trouble_of(error)) is not None:
        return trouble[0] == DATABASE_OVERLOADED
    # adbapi's own word, when it cannot roll back either; and a database that another owner has by now.
    if isinstance(error, psycopg2.InterfaceError | ConnectionLost | Fenced):
        return True
    if not isinstance(error, psycopg2.DatabaseError):
        return False
    # The bare class is psycopg2's own word: a connection that ended while an answer was read.
    if not isinstance(error, psycopg2.OperationalError) and type(error) is not psycopg2.DatabaseError:
        return False
    # Without a code it is libpq's word: there is no connection, or none any more.
    return error.pgcode is None or error.pgcode.startswith(_AWAY)


def tell_when_the_database_is_away() -> None:
    json_error = server.return_json_error
    html_error = server.return_html_error

    def return_json_error(f: Failure, request: Any, config: Any) -> None:
        if not _answer_away(f, request):
            json_error(f, request, config)

    def return_html_error(f: Failure, request: Any, *args: Any) -> None:
        if not _answer_away(f, request):
            html_error(f, request, *args)

    replace(server, "return_json_error", return_json_error)
    replace(server, "return_html_error", return_html_error)


def _answer_away(f: Failure, request: Any) -> bool:
    if request.startedWriting:
        return False
    trouble = trouble_of(f.value)
    if trouble is not None and trouble[0] in _NO_WRITES:
        sentence = "The homeserver's database takes no writes at present"
    elif is_database_away(f.value):
        sentence = "The homeserver's database does not answer at present"
        # Gateways hold what can be asked again until it is back.
        request.setHeader(b"x-synapse-shards", b"database-away")
    else:
        return False
    logger.warning("%s: %s: %s", request, sentence, str(f.value).strip().partition("\n")[0])
    request.setHeader(b"retry-after", str(_RETRY_SECONDS).encode())
    body = {
        "errcode": "M_LIMIT_EXCEEDED",
        "error": sentence,
        "retry_after_ms": _RETRY_SECONDS * 1000,
    }
    server.respond_with_json(request, 503, body, send_cors=True)
    return True
