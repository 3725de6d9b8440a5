"""Every connection that a tenant has made for it goes through the platform's rule, at the moment at which it is made.

Synapse looks at addresses in some of its clients (`ip_range_blacklist`) and not in others: application services, identity servers, OpenID
Connect, CAS, reCAPTCHA, modules and mail go anywhere. All of them connect with the reactor that their HomeServer was given, so each tenant
is given one that looks at the address. What does not use it, a client in Rust and the S3 library, is made to ask as well.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from synapse.api.auth import mas
from synapse.api.errors import HttpResponseException
from synapse.http.client import BaseHttpClient, SimpleHttpClient, read_body_with_max_size
from synapse.logging.context import make_deferred_yieldable
from twisted.internet.error import ConnectError
from zope.interface import directlyProvides, providedBy

from ..options.network import Networks
from .process import replace

logger = logging.getLogger(__name__)

_by_server_name: dict[str, Networks] = {}


class DestinationRefused(ConnectError):
    """A tenant may not connect to an address; to Synapse it is as any that cannot be reached."""


def set_networks(server_name: str, networks: Networks) -> None:
    _by_server_name[server_name] = networks


def forget_networks(server_name: str) -> None:
    _by_server_name.pop(server_name, None)


def networks_of(server_name: str) -> Networks:
    return _by_server_name.get(server_name, Networks())


#: Where releases before 1.163 keep the one tokio runtime of a process.
_TOKIO_RUNTIME = "__synapse_rust_tokio_runtime"


class TenantReactor:
    """The process's reactor, as a tenant may use it."""

    def __init__(self, reactor: Any, server_name: str, networks: Networks) -> None:
        self._reactor = reactor
        self._server_name = server_name
        self._networks = networks
        # What is used most, without a detour.
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.callFromThread = reactor.callFromThread
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        # What changes, like the name resolver, must be what it is now.
        return getattr(self._reactor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == _TOKIO_RUNTIME:
            setattr(self._reactor, name, value)
        else:
            object.__setattr__(self, name, value)

    def connectTCP(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        self._check(host, port)
        return self._reactor.connectTCP(host, port, *args, **kwargs)

    def connectSSL(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        self._check(host, port)
        return self._reactor.connectSSL(host, port, *args, **kwargs)

    def connectUNIX(self, address: Any, *_args: Any, **_kwargs: Any) -> Any:
        raise self._refused("a socket of the machine")

    def spawnProcess(self, *_args: Any, **_kwargs: Any) -> Any:
        raise self._refused("a process of the machine")

    def _check(self, host: str, port: int) -> None:
        if self._networks.refuses(host, int(port)):
            raise self._refused(f"{host} port {port}")

    def _refused(self, what: str) -> DestinationRefused:
        logger.warning("%s: a connection to %s is refused; an operator can allow it by allowedDestinations", self._server_name, what)
        return DestinationRefused(string=f"connections to {what} are refused by the platform")


class _MasClient:
    """In place of a client in Rust, which resolves and connects on its own."""

    def __init__(self, client: SimpleHttpClient) -> None:
        self._client = client

    async def post(self, url: str, response_limit: int, headers: dict[str, str], request_body: str) -> bytes:
        from io import BytesIO

        from twisted.web.http_headers import Headers

        sent = Headers({name: [value] for name, value in {"User-Agent": self._client.user_agent.decode(), **headers}.items()})
        response = await self._client.request("POST", url, data=request_body.encode(), headers=sent)
        body = BytesIO()
        await make_deferred_yieldable(read_body_with_max_size(response, body, response_limit))
        if not 200 <= response.code < 300:
            raise HttpResponseException(response.code, response.phrase.decode("ascii", "replace"), body.getvalue())
        return body.getvalue()


def use_tenants_client_for_delegated_authentication() -> None:
    assert hasattr(BaseHttpClient, "request")
    auth = mas.MasDelegatedAuth
    original = auth.__init__

    def init(self: Any, hs: Any) -> None:
        original(self, hs)
        self._rust_http_client = _MasClient(self._http_client)

    replace(auth, "__init__", init)
    replace(mas, "HttpClient", lambda **_kwargs: None)


_asking = threading.local()


def screen_s3(provider: Any) -> None:
    """@param provider: the module of the S3 storage provider"""
    import botocore.awsrequest
    import botocore.exceptions

    backend = provider.S3StorageProviderBackend
    init, get_client = backend.__init__, backend._get_s3_client

    def remember(self: Any, hs: Any, config: Any) -> None:
        self._shard_networks = networks_of(hs.hostname)
        init(self, hs, config)

    def make_client(self: Any) -> Any:
        _asking.networks = self._shard_networks
        return get_client(self)

    replace(backend, "__init__", remember)
    replace(backend, "_get_s3_client", make_client)
    for kind in (botocore.awsrequest.AWSHTTPConnection, botocore.awsrequest.AWSHTTPSConnection):
        replace(kind, "_new_conn", _screened(kind._new_conn, botocore.exceptions.EndpointConnectionError))


def screen_session(session: Any) -> None:
    """@param session: botocore's, of the tenant whose client is being made in this thread"""
    networks = getattr(_asking, "networks", Networks())

    def before_send(**_event: Any) -> None:
        _asking.networks = networks

    session.register("before-send.s3", before_send)


def _screened(connect: Any, refusal: Any) -> Any:
    def _new_conn(self: Any) -> Any:
        connection = connect(self)
        networks = getattr(_asking, "networks", Networks())
        host, port = connection.getpeername()[:2]
        if networks.refuses(host, port):
            # Nothing has been sent yet.
            connection.close()
            logger.warning(
                "a connection to the S3 server at %s port %d is refused; an operator can allow it by allowedDestinations", host, port
            )
            raise refusal(endpoint_url=f"{self.host}:{self.port}", error="connections to it are refused by the platform")
        return connection

    return _new_conn
