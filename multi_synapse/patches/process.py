"""Things of which a process has one: logging, systemd, name resolution."""

from __future__ import annotations

import inspect
import socket
from typing import Any

from synapse.app import _base
from synapse.config import logger as synapse_logger
from synapse.http.federation import srv_resolver
from synapse.util.gai_resolver import GAIResolver

from ..pools import PoolFacade, threads_of_shard


def replace(owner: Any, name: str, value: Any) -> Any:
    """Replaces an attribute that must exist, and returns what it was."""
    old = getattr(owner, name)
    if inspect.isfunction(old) and inspect.isfunction(value) and getattr(old, "__wrapped__", None) is not value:
        # Who looks at its parameters afterwards (signatures.py) sees those of the original.
        vars(value).setdefault("__wrapped__", old)
    setattr(owner, name, value)
    return old


def own_logging() -> None:
    replace(synapse_logger, "_setup_stdlib_logging", lambda _config, _path: None)
    replace(synapse_logger, "_reload_logging_config", lambda _path: None)


def no_systemd_notices() -> None:
    replace(_base, "setup_sdnotify", lambda _hs: None)
    replace(_base, "sdnotify_sockaddr", None)


def share_resolver() -> None:
    from twisted.internet import reactor

    pool = threads_of_shard.resolver
    resolver = GAIResolver(reactor, getThreadPool=lambda: pool, getaddrinfo=_getaddrinfo)  # type: ignore[arg-type]
    replace(_base, "ThreadPool", lambda *_args, **_kwargs: PoolFacade(pool))
    # The same object every time, so that installing it again changes nothing.
    replace(_base, "GAIResolver", lambda *_args, **_kwargs: resolver)


def answer_localhost_srv() -> None:
    original = srv_resolver.SrvResolver.resolve_service

    async def resolve_service(self: Any, service_name: bytes) -> Any:
        if is_localhost(service_name.decode("ascii", "replace")):
            return []
        return await original(self, service_name)

    replace(srv_resolver.SrvResolver, "resolve_service", resolve_service)


def is_localhost(name: str) -> bool:
    name = name.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def _getaddrinfo(host: Any, port: Any, family: int = 0, kind: int = 0, *rest: Any) -> Any:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if isinstance(name, str) and is_localhost(name):
        if family == socket.AF_INET6:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    return socket.getaddrinfo(host, port, family, kind, *rest)
