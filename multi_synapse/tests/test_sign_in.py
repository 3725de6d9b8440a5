"""What Synapse's optional packages are for works in a shard: OpenID Connect, JSON Web Tokens, previews of pages."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import yaml
from authlib.jose import JsonWebKey, jwt

from .shard import Client, Shard, gateway_headers, request
from .watching import PATIENCE_SECONDS

pytestmark = pytest.mark.shared_shard

Assign = Callable[..., dict[str, Any]]
PAGE = b"<html><head><title>t</title><meta property='og:title' content='A page to preview'></head><body>text</body></html>"


class Provider:
    """An OpenID provider of one user, with keys of its own, and a page beside it."""

    def __init__(self) -> None:
        self._key = JsonWebKey.generate_key("RSA", 2048, {"kid": "k"}, is_private=True)
        self._nonces: dict[str, str] = {}
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
                if path == "/authorize":
                    provider._nonces["code"] = query["nonce"][0]
                    self.send_response(302)
                    self.send_header("location", query["redirect_uri"][0] + "?" + urlencode({"code": "code", "state": query["state"][0]}))
                    self.end_headers()
                elif path == "/page":
                    self._send("text/html", PAGE)
                else:
                    self._send("application/json", json.dumps(provider.document(path)).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self._send("application/json", json.dumps(provider.tokens()).encode())

            def _send(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Not into the tests' output."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def document(self, path: str) -> dict[str, Any]:
        if path == "/jwks":
            return {"keys": [self._key.as_dict(is_private=False)]}
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def tokens(self) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "alice-at-the-provider",
            "aud": "client",
            "iat": now,
            "exp": now + 60,
            "nonce": self._nonces["code"],
        }
        token = jwt.encode({"alg": "RS256", "kid": "k"}, {**claims, "preferred_username": "Alice A."}, self._key)
        return {"access_token": "a", "token_type": "Bearer", "id_token": token.decode()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


def get(address: str, path: str, cookies: str = "") -> tuple[int, dict[str, list[str]], str]:
    """One GET that follows nothing."""
    connection = HTTPConnection(address, timeout=PATIENCE_SECONDS)
    # As browsers have it: Synapse sends others to the tenant's public URL first.
    headers_sent = {"host": "oidc.localhost:8008", **gateway_headers(), **({"cookie": cookies} if cookies else {})}
    connection.request("GET", path, headers=headers_sent)
    response = connection.getresponse()
    headers: dict[str, list[str]] = {}
    for name, value in response.getheaders():
        headers.setdefault(name.lower(), []).append(value)
    body = response.read().decode()
    connection.close()
    return response.status, headers, body


@pytest.mark.smoke
def test_a_user_signs_in_with_openid_connect(shard: Shard, assign: Assign, provider: Provider) -> None:
    overrides = {
        "oidc_providers": [
            {
                "idp_id": "own",
                "idp_name": "Own",
                "issuer": provider.url,
                "client_id": "client",
                "client_secret": "secret",
                "scopes": ["openid"],
                "user_profile_method": "auto",
                "user_mapping_provider": {"config": {"localpart_template": "{{ user.preferred_username.split(' ')[0] | lower }}"}},
            }
        ]
    }
    address = shard.expect_started("oidc", assign("oidc", overrides=yaml.safe_dump(overrides)))["address"]
    status, headers, _ = get(address, "/_matrix/client/v3/login/sso/redirect/oidc-own?redirectUrl=https://client.example/")
    assert status == 302, headers
    cookies = "; ".join(cookie.split(";")[0] for cookie in headers["set-cookie"])
    at_provider = urlsplit(headers["location"][0])
    status, headers, _ = get(at_provider.netloc, f"{at_provider.path}?{at_provider.query}")
    back = urlsplit(headers["location"][0])
    status, headers, page = get(address, f"{back.path}?{back.query}", cookies)
    assert status == 200, page
    token = re.search(r"loginToken=([^\"&]+)", page)
    assert token is not None, page
    login = request(address, "POST", "/_matrix/client/v3/login", {"type": "m.login.token", "token": token[1]})
    assert login.json["user_id"] == "@alice:oidc.localhost"


def test_a_user_signs_in_with_a_json_web_token(shard: Shard, assign: Assign) -> None:
    overrides = yaml.safe_dump({"jwt_config": {"enabled": True, "secret": "shared-secret-of-the-tests-0123456789", "algorithm": "HS256"}})
    address = shard.expect_started("jwt", assign("jwt", overrides=overrides))["address"]
    token = jwt.encode({"alg": "HS256"}, {"sub": "bob"}, "shared-secret-of-the-tests-0123456789").decode()
    login = request(address, "POST", "/_matrix/client/v3/login", {"type": "org.matrix.login.jwt", "token": token})
    assert login.json.get("user_id") == "@bob:jwt.localhost", login.body


@pytest.mark.smoke
def test_a_page_is_previewed(shard: Shard, assign: Assign, provider: Provider) -> None:
    state = shard.expect_started("preview", assign("preview", overrides="url_preview_enabled: true"))
    client = Client(state["address"]).register()
    assert client.ok("GET", f"/_matrix/client/v1/media/preview_url?url={provider.url}/page")["og:title"] == "A page to preview"
