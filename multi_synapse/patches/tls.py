"""TLS contexts for connections to other servers, made once for all tenants.

Each tenant makes three contexts, of which two hold every certificate authority of the platform: 1.7 MiB, more than all of its
Python objects, and 20 ms of the reactor's time. Nothing of a tenant is in them: no certificate, no key, no session cache; the name
to be verified belongs to the connection. Authorities of a tenant's own (`federation_custom_ca_list`) stay in that tenant's contexts.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from synapse.config.homeserver import HomeServerConfig
from synapse.crypto import context_factory

from .process import replace


class _SharedContext(SSL.Context):
    _callback: Callable[..., Any] | None = None

    def set_info_callback(self, callback: Callable[..., Any]) -> None:
        """Once: a connection keeps the pointer that it was made with, and setting the callback again would free that."""
        if self._callback is None:
            self._callback = callback
            super().set_info_callback(callback)
        elif self._callback is not callback:
            raise RuntimeError("two callbacks for one shared TLS context")


class SharedContexts:
    """Contexts by what they were made with, as long as the platform's certificate authorities stay what they are."""

    def __init__(self, original: type[Any], platform_trust: type[Any]) -> None:
        self._original = original
        self._platform_trust = platform_trust
        self._made: dict[tuple[tuple[str, Any], ...], Any] = {}
        self._authorities: object = None

    def options(self, **arguments: Any) -> Any:
        """Stands in for `CertificateOptions`, whose context is all that Synapse takes of it."""
        trust = arguments.get("trustRoot")
        if trust is not None and type(trust) is not self._platform_trust:
            return self._original(**arguments)
        authorities = _authorities()
        if authorities != self._authorities:
            # Tenants that run keep what they have.
            self._made.clear()
            self._authorities = authorities
        key = tuple(sorted({**arguments, "trustRoot": trust is not None}.items(), key=lambda item: item[0]))
        options = self._made.get(key)
        if options is None:
            options = self._original(**arguments)
            options._contextFactory = _SharedContext
            self._made[key] = options
        return options


def share_tls_contexts() -> None:
    # A private name of Twisted's: what it makes must be recognized.
    shared = SharedContexts(context_factory.CertificateOptions, type(context_factory.platformTrust()))
    if not hasattr(context_factory.CertificateOptions, "_contextFactory"):
        raise AttributeError("twisted.internet.ssl.CertificateOptions has no _contextFactory")
    replace(context_factory, "CertificateOptions", shared.options)


def make_contexts(config: HomeServerConfig) -> None:
    """Those of most tenants, before the shard serves anybody."""
    context_factory.RegularPolicyForHTTPS()
    context_factory.FederationPolicyForHTTPS(config)


def _authorities() -> tuple[tuple[str, int, int], ...]:
    """Files and directories that the platform's certificate authorities may be in, with what changes when they do."""
    ours = ssl.get_default_verify_paths()
    places = [ours.cafile, ours.capath, os.environ.get(ours.openssl_cafile_env), os.environ.get(ours.openssl_capath_env)]
    places += SSL._CERTIFICATE_FILE_LOCATIONS + SSL._CERTIFICATE_PATH_LOCATIONS
    found = []
    for place in sorted({place for place in places if place}):
        try:
            status = os.stat(place)
        except OSError:
            continue
        found.append((place, status.st_mtime_ns, status.st_ino))
    return tuple(found)
