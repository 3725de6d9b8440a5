"""Another homeserver, as far as tests need one: it joins rooms, sends and receives transactions, and can be slow with each answer."""

from __future__ import annotations

import datetime
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from signedjson.key import encode_verify_key_base64, generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from synapse.api.room_versions import RoomVersions
from synapse.crypto.event_signing import add_hashes_and_signatures
from synapse.events import make_event_from_dict

from .shard import Answer, request
from .watching import PATIENCE_SECONDS

#: Of the tests' rooms: one whose events are simple to make.
ROOM_VERSION = RoomVersions.V10


class Peer:
    def __init__(self, folder: Path) -> None:
        self.keys = [generate_signing_key("first"), generate_signing_key("second")]
        #: How many of them it tells. Who asked before does not know the second.
        self.published = 1
        #: Answers to paths that match wait until the event is set.
        self.held: dict[str, threading.Event] = {}
        #: Answers by a pattern of the path, before all others.
        self.answers: dict[str, Callable[[Any], tuple[int, Any]]] = {}
        #: Paths asked for, and the transactions received.
        self.asked: list[str] = []
        self.authorizations: list[str] = []
        self.transactions: list[dict[str, Any]] = []
        #: By room: what the other server said when this one joined.
        self.rooms: dict[str, dict[str, Any]] = {}
        self.tenant = ""
        self._answered = 0
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                path = unquote(urlsplit(self.path).path)
                peer.asked.append(path)
                peer.authorizations.append(self.headers.get("authorization") or "")
                for pattern, event in list(peer.held.items()):
                    if re.search(pattern, path):
                        event.wait(PATIENCE_SECONDS)
                status, answer = peer._answer(path, body)
                encoded = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(encoded)))
                self.end_headers()
                peer._answered += "/federation/v1/send/" in path
                self.wfile.write(encoded)

            do_GET = do_PUT = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Of connections that a stop cuts off."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.name = f"127.0.0.1:{self._server.server_port}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_certificate(folder / f"peer-{self._server.server_port}.pem"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        for event in self.held.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()

    def hold(self, pattern: str) -> threading.Event:
        event = self.held[pattern] = threading.Event()
        return event

    def user(self, localpart: str = "someone") -> str:
        return f"@{localpart}:{self.name}"

    # What it answers

    def _answer(self, path: str, body: Any) -> tuple[int, Any]:
        for pattern, answer in self.answers.items():
            if re.search(pattern, path):
                return answer(body)
        if path == "/_matrix/key/v2/server":
            return 200, self._signed_keys()
        if path.startswith("/_matrix/federation/v1/send/"):
            self.transactions.append(body)
            return 200, {"pdus": {}}
        if path == "/_matrix/federation/v1/version":
            return 200, {"server": {"name": "peer", "version": "1"}}
        return 404, {"errcode": "M_UNRECOGNIZED", "error": path}

    def _signed_keys(self) -> dict[str, Any]:
        keys = {f"{key.alg}:{key.version}": {"key": encode_verify_key_base64(get_verify_key(key))} for key in self.keys[: self.published]}
        valid_until = int((time.time() + 86400) * 1000)
        content = {"server_name": self.name, "verify_keys": keys, "old_verify_keys": {}, "valid_until_ts": valid_until}
        for key in self.keys[: self.published]:
            content = sign_json(content, self.name, key)
        return content

    def bodies(self) -> list[str]:
        """Of messages received, in their order, each once: they may be sent again, and are known by their hash then."""
        found = {}
        for transaction in self.transactions:
            for pdu in transaction["pdus"]:
                if pdu["type"] == "m.room.message":
                    found[pdu["hashes"]["sha256"]] = pdu["content"]["body"]
        return list(found.values())

    def sends(self) -> int:
        """How many transactions were begun."""
        return len([path for path in self.asked if "/federation/v1/send/" in path])

    def answered(self) -> int:
        """How many transactions were answered, or would have been if the other server had waited."""
        return self._answered

    def edus(self, kind: str) -> list[dict[str, Any]]:
        return [edu["content"] for transaction in self.transactions for edu in transaction.get("edus", []) if edu["edu_type"] == kind]

    # What it asks

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Of the tenant that listens at `tenant` and is called like its host."""
        destination = self.tenant_name
        content = {"method": method, "uri": path, "origin": self.name, "destination": destination}
        if body is not None:
            content["content"] = body
        signature = sign_json(content, self.name, self.keys[0])["signatures"][self.name]["ed25519:first"]
        authorization = f'X-Matrix origin="{self.name}",destination="{destination}",key="ed25519:first",sig="{signature}"'
        return request(self.tenant, method, path, body, {"authorization": authorization})

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.call(method, path, body)
        assert answer.status == 200, (method, path, answer.status, answer.body)
        return answer.json

    def join(self, tenant_name: str, address: str, room: str) -> None:
        self.tenant_name, self.tenant = tenant_name, address
        path = f"/_matrix/federation/v1/make_join/{quote(room)}/{quote(self.user())}?ver={ROOM_VERSION.identifier}"
        event = self.ok("GET", path)["event"]
        event = self._finished({**event, "origin_server_ts": _now(), "content": {"membership": "join"}})
        event_id = self.id_of(event)
        self.rooms[room] = self.ok("PUT", f"/_matrix/federation/v2/send_join/{quote(room)}/{quote(event_id)}", event)
        self.rooms[room]["state"].append(event)

    def message(self, room: str, body: str, prev: list[str], depth: int = 100, key: int = 0) -> dict[str, Any]:
        """An event of this server's user; `key`: the one that signs it."""
        wanted = {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", self.user())}
        auth = [self.id_of(event) for event in self.rooms[room]["state"] if (event["type"], event.get("state_key")) in wanted]
        event = {
            "type": "m.room.message",
            "room_id": room,
            "sender": self.user(),
            "content": {"msgtype": "m.text", "body": body},
            "prev_events": prev,
            "auth_events": auth,
            "depth": depth,
            "origin_server_ts": _now(),
        }
        return self._finished(event, key)

    def send(self, *events: dict[str, Any]) -> dict[str, Any]:
        transaction = {"origin": self.name, "origin_server_ts": _now(), "pdus": list(events), "edus": []}
        answer: dict[str, Any] = self.ok("PUT", f"/_matrix/federation/v1/send/{time.monotonic_ns()}", transaction)
        return answer

    def _finished(self, event: dict[str, Any], key: int = 0) -> dict[str, Any]:
        add_hashes_and_signatures(ROOM_VERSION, event, self.name, self.keys[key])
        return event

    @staticmethod
    def id_of(event: dict[str, Any]) -> str:
        return str(make_event_from_dict(event, ROOM_VERSION).event_id)


def _now() -> int:
    return int(time.time() * 1000)


def _certificate(file: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return str(file)
