"""A Synapse module that serves /.well-known/matrix/ of a server name that is reached at another host.

Synapse itself says in `server` only that federation is at port 443 of the server name, and knows no `support`. In its configuration:
`modules: [{module: multi_synapse.well_known.WellKnown, config: {server: {…}, support: {…}}}]`; `client` stays Synapse's own.
"""

from __future__ import annotations

import json
from typing import Any

from synapse.http.server import set_cors_headers
from synapse.module_api import ModuleApi
from synapse.module_api.errors import ConfigError
from synapse.rest.well_known import ClientWellKnownResource
from twisted.web.resource import Resource
from twisted.web.server import Request

_FILES = ("server", "support")


class WellKnown:
    def __init__(self, config: dict[str, Any], api: ModuleApi) -> None:
        matrix = Resource()
        matrix.putChild(b"client", ClientWellKnownResource(api._hs))
        for name, content in config.items():
            matrix.putChild(name.encode(), _Document(content))
        # Takes the place of Synapse's, below which nothing can be exchanged.
        api.register_web_resource("/.well-known/matrix", matrix)

    @staticmethod
    def parse_config(config: Any) -> dict[str, Any]:
        """@raises ConfigError"""
        if not isinstance(config, dict):
            raise ConfigError("it is not a mapping of server and support to their contents")
        for name, content in config.items():
            if name not in _FILES or not isinstance(content, dict):
                raise ConfigError(f"{name} is not a mapping named {' or '.join(_FILES)}")
        return config


class _Document(Resource):
    isLeaf = True

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__()
        self._content = json.dumps(content).encode()

    def render_GET(self, request: Request) -> bytes:
        set_cors_headers(request)
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"Cache-Control", b"public, max-age=3600")
        return self._content
