"""An application service, as a bridge is one: takes its time, and remembers what it got."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


class Service:
    def __init__(self, seconds: float = 0.0) -> None:
        #: How long it takes for each transaction that has events.
        self.seconds = seconds
        #: Of each request: path, and the transaction.
        self.transactions: list[tuple[str, dict[str, Any]]] = []
        self.answered: set[str] = set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                transaction = json.loads(self.rfile.read(int(self.headers["content-length"])))
                path = urlsplit(self.path).path
                service.transactions.append((path, transaction))
                if transaction.get("events"):
                    time.sleep(service.seconds)
                self._answer(b"{}")
                service.answered.add(path)

            def do_GET(self) -> None:
                self._answer(b"{}")

            do_POST = do_GET

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def registration(self, folder: Path) -> str:
        """Path of a file that registers it for everything."""
        everything = [{"exclusive": False, "regex": ".*"}]
        file = folder / f"service-{secrets.token_hex(3)}.yaml"
        content = {
            "id": "bridge",
            "url": self.url,
            "as_token": secrets.token_hex(16),
            "hs_token": secrets.token_hex(16),
            "sender_localpart": "bridge",
            "rate_limited": False,
            "receive_ephemeral": True,
            "namespaces": {"users": everything, "rooms": everything, "aliases": []},
        }
        file.write_text(yaml.safe_dump(content))
        return str(file)

    def bodies(self) -> list[str]:
        """Of the messages that it got, in their order; those of a repeated transaction once, as services recognize it."""
        paths: set[str] = set()
        found = []
        for path, transaction in self.transactions:
            if path not in paths:
                paths.add(path)
                found += [event["content"]["body"] for event in transaction.get("events", []) if event["type"] == "m.room.message"]
        return found

    def ephemeral(self, kind: str) -> list[dict[str, Any]]:
        events = [event for _, transaction in self.transactions for event in transaction.get("ephemeral", [])]
        return [event for event in events if event["type"] == kind]


@contextmanager
def running_service(seconds: float = 0.0) -> Iterator[Service]:
    service = Service(seconds)
    try:
        yield service
    finally:
        service.close()
