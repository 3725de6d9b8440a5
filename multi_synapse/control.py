"""The control API over HTTP; docs/control-api.md is the contract."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.internet import defer, threads
from twisted.web import http, resource, server

from . import app_services, errors, exposition, holdings, probe, users
from .errors import Refused
from .gateway_secret import of_shard
from .memory import Memory
from .metrics import count_running_work
from .pools import open_connections, threads_of_shard
from .preparers import MOST_PREPARERS, READY, STATES, Preparer, Preparers
from .probe import Probe
from .runtime import Shard
from .state import Assignment, is_tenant_name

logger = logging.getLogger(__name__)

_LARGEST_BODY = 1024 * 1024
_LONGEST_DRAIN_SECONDS = 600.0
#: Below the lease of a preparer, which every question renews.
_LONGEST_WAIT_SECONDS = 10.0
_LONGEST_SPREAD_SECONDS = 600.0
_JSON = b"application/json"

T = TypeVar("T")


#: Name, type, key in `Shard.load`, and meaning.
_FAMILIES_OF_TENANTS = (
    ("multi_synapse_tenant_cpu_seconds_total", "counter", "cpuSeconds", "Processor time that a tenant took since its start."),
    ("multi_synapse_tenant_response_bytes_total", "counter", "responseBytes", "Bytes of a tenant's answers since its start."),
    ("multi_synapse_tenant_database_rows_total", "counter", "databaseRows", "Rows that a tenant read and wrote since its start."),
    ("multi_synapse_tenant_image_seconds_total", "counter", "imageSeconds", "Time that workers spent with a tenant's images."),
    ("multi_synapse_tenant_held_back_seconds_total", "counter", "heldBackSeconds", "Time that a throttled tenant's jobs had to wait."),
    ("multi_synapse_tenant_cache_entries", "gauge", "cacheEntries", "Entries of a tenant's caches."),
)


class ControlRequest(server.Request):
    """Bounds the body: Twisted would take any amount."""

    def gotLength(self, length: int | None) -> None:
        if length is not None and length > _LARGEST_BODY:
            self._refuse_body()
            return
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        if self.content is not None and self.content.tell() + len(data) > _LARGEST_BODY:
            self._refuse_body()
            return
        super().handleContentChunk(data)

    def _refuse_body(self) -> None:
        channel = self.channel
        if channel is None:
            return
        body = _error_body("BodyTooLarge", f"the request's body is larger than {_LARGEST_BODY} bytes")
        head = b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        channel.transport.write(head + body)
        channel.loseConnection()


class ControlResource(resource.Resource):
    isLeaf = True

    def __init__(self, shard: Shard, preparers: Preparers, token: str, probe_of_process: Probe, memory: Memory, reactor: Any) -> None:
        super().__init__()
        self._preparers = preparers
        self._shard = shard
        self._token = token.encode()
        self._probe = probe_of_process
        self._memory = memory
        self._reactor = reactor

    def render(self, request: server.Request) -> Any:
        defer.ensureDeferred(self._answer(request))
        return server.NOT_DONE_YET

    async def _answer(self, request: server.Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            status, kind, body = 200, _JSON, await self._route(request)
            if isinstance(body, bytes):
                kind, encoded = b"text/plain; version=0.0.4; charset=utf-8", body
            else:
                encoded = json.dumps(body).encode()
        except (Refused, errors.TenantError) as error:
            status, kind, encoded = error.status, _JSON, _error_body(error.code, error.message)
        except Exception:
            logger.exception("%s %s", request.method.decode("ascii", "replace"), request.path.decode("ascii", "replace"))
            status, kind, encoded = 500, _JSON, _error_body("Internal", "the shard failed to answer; its log has the details")
        if gone:
            return
        request.setResponseCode(status)
        request.setHeader(b"content-type", kind)
        request.setHeader(b"content-length", str(len(encoded)).encode())
        if request.method != b"HEAD":
            request.write(encoded)
        request.finish()

    async def _route(self, request: server.Request) -> Any:
        method = request.method.decode("ascii", "replace")
        parts = [part.decode("utf-8", "replace") for part in request.postpath or [] if part]
        if parts == ["healthz"]:
            _allow(method, "GET")
            return {"ok": True}
        if parts == ["metrics"]:
            # Names and numbers, nothing secret; and who collects them cannot have each shard's token.
            _allow(method, "GET")
            return self._own_metrics() + await self._exposition()
        self._check_token(request)
        match parts:
            case ["v1", "shard"]:
                _allow(method, "GET")
                return {**self._shard.describe(), "gatewaySecret": of_shard.secrets.tell() if of_shard.secrets else None}
            case ["v1", "load"]:
                _allow(method, "GET")
                uptime = time.time() - self._shard.started_at
                return {"tenants": self._shard.load(), "process": self._process(uptime)}
            case ["v1", "stats"]:
                _allow(method, "GET")
                return await self._stats(_argument(request, "collect") == "1")
            case ["v1", "tenants", name]:
                _allow_for(name, method, "PUT", "DELETE")
                return await self._put(name, request) if method == "PUT" else await self._delete(name, request)
            case ["v1", "tenants", name, "check"]:
                _allow_for(name, method, "POST")
                return await self._shard.check(name, _assignment_in(request))
            case ["v1", "tenants", name, "idle"]:
                _allow_for(name, method, "GET")
                return _if_running(name, await self._shard.idle_state(name))
            case ["v1", "tenants", name, "greet"]:
                _allow_for(name, method, "POST")
                servers = await self._shard.greet(name, _seconds_in(request, "spreadSeconds", _LONGEST_SPREAD_SECONDS))
                return {"servers": _if_running(name, servers)}
            case ["v1", "tenants", name, "users"]:
                _allow_for(name, method, "POST")
                user_id = await self._shard.change_user(name, users.Change.parse(_json_in(request)))
                return {"userId": _if_running(name, user_id)}
            case ["v1", "tenants", name, "sessions"]:
                _allow_for(name, method, "POST")
                return _if_running(name, await self._shard.open_session(name, users.Session.parse(_json_in(request))))
            case ["v1", "tenants", name, "sessions", "end"]:
                _allow_for(name, method, "POST")
                ended = await self._shard.end_sessions(name, users.Opened.parse_all(_json_in(request)))
                return {"ended": _if_running(name, ended)}
            case ["v1", "tenants", name, "metrics"]:
                _allow_for(name, method, "GET")
                return await self._metrics_of(name)
            case ["v1", "tenants", name, "app-service-ping"]:
                _allow_for(name, method, "POST")
                return _if_running(name, await self._shard.ping_app_service(name, app_services.id_in(_json_in(request))))
            case ["v1", "preparers"]:
                _allow(method, "POST")
                return self._create_preparer()
            case ["v1", "preparers", name]:
                _allow(method, "GET", "POST", "DELETE")
                return await self._preparer(method, name, request)
        raise Refused(404, "NotFound", "there is nothing at this path")

    def _process(self, uptime: float) -> dict[str, Any]:
        return {
            "cpuSeconds": probe.cpu_seconds(),
            "uptimeSeconds": uptime,
            "starvedSeconds": probe.starved_seconds(),
            "memory": holdings.memory(),
        }

    def _check_token(self, request: server.Request) -> None:
        given = (request.getHeader(b"authorization") or b"").strip()
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise Refused(401, "Unauthorized", "the Authorization header does not hold the shard's bearer token")

    def _put(self, name: str, request: server.Request) -> Awaitable[Any]:
        self._refuse_when_shutting_down()
        return self._shard.start(name, _assignment_in(request))

    def _delete(self, name: str, request: server.Request) -> Awaitable[Any]:
        seconds = _seconds_in(request, "drainSeconds", _LONGEST_DRAIN_SECONDS)
        release = _argument(request, "release") or "false"
        if release not in ("true", "false"):
            raise Refused(400, "InvalidArgument", "release is neither true nor false")
        return self._shard.stop(name, seconds, release == "true")

    def _create_preparer(self) -> dict[str, str]:
        self._refuse_when_shutting_down()
        if self._preparers.is_full():
            raise Refused(429, "TooManyPreparers", f"{MOST_PREPARERS} preparers are at work here already")
        return {"id": self._preparers.create()}

    async def _preparer(self, method: str, name: str, request: server.Request) -> dict[str, Any]:
        if method == "DELETE":
            self._preparers.remove(name)
            return {"ok": True}
        preparer = self._preparers.get(name)
        if preparer is None:
            raise Refused(404, "NotFound", "there is no such preparer here (any more)")
        if method == "POST":
            command = _json_in(request)
            if not isinstance(command, dict):
                raise Refused(400, "InvalidJson", "the request's body is not an object")
            if preparer.state != READY:
                raise Refused(409, "NotReady", f"the preparer is {preparer.state}, not {READY}")
            preparer.command(command)
        else:
            await _wait_for(preparer, request)
        return {"state": preparer.state, "event": preparer.event}

    def _refuse_when_shutting_down(self) -> None:
        if self._shard.shutting_down:
            raise Refused(503, "ShuttingDown", "the shard is shutting down")

    async def _stats(self, collect: bool) -> dict[str, Any]:
        # Before the collection, which itself is a stall.
        lag = self._probe.take_longest_lag()
        if collect:
            await self._memory.collect()
            threads_of_shard.trim(self._reactor)
            self._probe.take_longest_lag()
        rss, pss = probe.memory()
        return {
            "threads": probe.thread_count(),
            "databaseConnections": open_connections(),
            "liveHomeServers": self._memory.live_homeservers(),
            "triggers": probe.trigger_count(self._reactor),
            "fileDescriptors": probe.descriptor_count(),
            "rssBytes": rss,
            "pssBytes": pss,
            "reactorLag": {"maxSeconds": lag},
        }

    def _own_metrics(self) -> bytes:
        phases = self._shard.phases()
        lines = ["# HELP multi_synapse_tenants Tenants on this shard by phase.", "# TYPE multi_synapse_tenants gauge"]
        lines += [f'multi_synapse_tenants{{phase="{phase}"}} {phases.count(phase)}' for phase in sorted({"running", *phases})]
        lines += _lines_of(self._shard.load())
        lines += ["# HELP multi_synapse_database_connections Open database connections.", "# TYPE multi_synapse_database_connections gauge"]
        lines += [f"multi_synapse_database_connections {open_connections()}"]
        return ("\n".join(lines) + "\n").encode()

    async def _metrics_of(self, name: str) -> bytes:
        server_name = _if_running(name, self._shard.server_name_of(name))
        lines = _lines_of({name: self._shard.load()[name]})
        return ("\n".join(lines) + "\n").encode() + await self._exposition(server_name)

    async def _exposition(self, only: str | None = None) -> bytes:
        # Here, since the reactor's thread adds to the same counters.
        count_running_work()
        if not exposition.is_much():
            return exposition.render(only)
        text: bytes = await threads.deferToThreadPool(self._reactor, threads_of_shard.start, exposition.render, only)
        return text


class ControlSite(server.Site):
    requestFactory = ControlRequest

    def log(self, request: http.Request) -> None:
        """No access log: the controller asks every second."""


def _lines_of(loads: dict[str, Any]) -> list[str]:
    lines = []
    for family, kind, key, meaning in _FAMILIES_OF_TENANTS:
        lines += [f"# HELP {family} {meaning}", f"# TYPE {family} {kind}"]
        lines += [f'{family}{{tenant="{name}"}} {round(load[key], 3)}' for name, load in sorted(loads.items())]
    return lines


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise Refused(405, "MethodNotAllowed", f"{method} is not possible here, only {' and '.join(allowed)}")


def _allow_for(name: str, method: str, *allowed: str) -> None:
    """As `_allow`, for what is about a tenant."""
    _allow(method, *allowed)
    if not is_tenant_name(name):
        raise Refused(400, "InvalidName", "the tenant's name is not a DNS label (1 to 63 of a-z, 0-9 and -)")


def _if_running(name: str, answer: T | None) -> T:
    """The shard's answer about a tenant; it has none about one that does not run here."""
    if answer is None:
        raise Refused(404, "NotFound", f"no tenant {name} runs here")
    return answer


async def _wait_for(preparer: Preparer, request: server.Request) -> None:
    not_state = _argument(request, "not") or ""
    seconds = _seconds_in(request, "waitSeconds", _LONGEST_WAIT_SECONDS)
    if not_state and not_state not in STATES:
        raise Refused(400, "InvalidArgument", f"not is no state of a preparer, allowed are {', '.join(sorted(STATES))}")
    await preparer.changed(not_state, seconds)


def _assignment_in(request: server.Request) -> Assignment:
    return Assignment.parse(_json_in(request))


def _json_in(request: server.Request) -> Any:
    assert request.content is not None
    try:
        return json.loads(request.content.read())
    except (ValueError, RecursionError):
        raise Refused(400, "InvalidJson", "the request's body is not JSON") from None


def _argument(request: server.Request, name: str) -> str | None:
    values = (request.args or {}).get(name.encode(), [])
    return values[-1].decode("utf-8", "replace") if values else None


def _seconds_in(request: server.Request, name: str, most: float) -> float:
    try:
        seconds = float(_argument(request, name) or "0")
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= most:
        raise Refused(400, "InvalidArgument", f"{name} is not a number from 0 to {most:g}")
    return seconds


def _error_body(code: str, message: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}).encode()
