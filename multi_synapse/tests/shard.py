"""Runs real shards in tests, and speaks to them and their tenants."""

from __future__ import annotations

import functools
import hashlib
import hmac
import http.client
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from multi_synapse.gateway_secret import HEADER, GatewaySecrets

from .forks import Forked, ForkServer
from .watching import PATIENCE_SECONDS, wait_for

TOKEN = "token-of-the-test-shards"
SHARED_SECRET = "registration-secret-of-the-tests"
CHECKOUT = Path(__file__).resolve().parents[2]
#: Releases that were never tested, and are to be tried: separated by commas.
UNTESTED = [item for item in os.environ.get("MULTI_SYNAPSE_UNTESTED", "").split(",") if item]


@functools.cache
def release_of(python: Path) -> str:
    program = "from importlib.metadata import version; print(version('matrix-synapse'))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def gateway_headers(token: str = TOKEN) -> dict[str, str]:
    """What makes a tenant's listener answer."""
    return {HEADER.decode(): GatewaySecrets(token).tell()}


class Answer:
    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status = status
        self.body = body
        #: Names in lower case.
        self.headers = headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


def request(
    address: str,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout: float = PATIENCE_SECONDS,
    raw: bytes | None = None,
) -> Answer:
    """One HTTP request on a connection of its own. `address` is host:port."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
        connection.request(method, path, data, {"content-type": "application/json", **gateway_headers(), **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.read(), {name.lower(): value for name, value in response.getheaders()})
    finally:
        connection.close()


class Shard:
    """A shard process."""

    def __init__(self, python: Path, folder: Path, name: str = "test-0", server: ForkServer | None = None, **settings: Any) -> None:
        """`server` makes its process, in a tenth of the time; without it, Python is started."""
        self.python = python
        self.server = server
        self.folder = folder
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(TOKEN)
        self.config = folder / "shard.json"
        self.ready = folder / "ready.json"
        self.log = folder / "shard.log"
        self.config.write_text(
            json.dumps(
                {
                    "name": name,
                    "stateDir": str(folder / "state"),
                    "control": {"host": "127.0.0.1", "port": 0},
                    "tokenFile": str(folder / "token"),
                    "advertiseHost": "127.0.0.1",
                    "readyFile": str(self.ready),
                    "logFile": str(self.log),
                    "logLevel": "INFO",
                    **({"allowUntestedReleases": UNTESTED} if UNTESTED else {}),
                    **settings,
                }
            )
        )
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.address = ""
        self.instance = ""
        self._log_mark = 0

    def start(self, extra_path: Path | None = None) -> Shard:
        self.ready.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in (CHECKOUT, extra_path) if path)}
        if self.server is not None and extra_path is None:
            self.process = self.server.fork(
                {
                    "arguments": ["--config", str(self.config)],
                    "environment": environment,
                    "directory": str(self.folder),
                    "output": str(self.folder / "stderr"),
                }
            )
        else:
            with (self.folder / "stderr").open("ab") as stderr:
                command = [str(self.python), "-m", "multi_synapse", "--config", str(self.config)]
                self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=stderr, stderr=stderr)
        wait_for(self._is_ready, lambda: f"the shard did not come up: {self.said}")
        ready = json.loads(self.ready.read_text())
        self.address = ready["address"].removeprefix("http://")
        self.instance = ready["instance"]
        return self

    def mark_log(self) -> None:
        self._log_mark = self.log.stat().st_size

    @property
    def logged(self) -> str:
        """Since the mark, or all."""
        return self.log.read_bytes()[self._log_mark :].decode()

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def _is_ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, f"the shard has ended: {self.said}"
        return self.ready.exists()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        timeout: float = PATIENCE_SECONDS,
        token: str | None = TOKEN,
        raw: bytes | None = None,
    ) -> Answer:
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return request(self.address, method, path, body, headers, timeout, raw)

    def put(self, name: str, assignment: dict[str, Any]) -> Answer:
        return self.call("PUT", f"/v1/tenants/{name}", assignment)

    def delete(self, name: str, drain_seconds: float = 0) -> Answer:
        return self.call("DELETE", f"/v1/tenants/{name}?drainSeconds={drain_seconds:g}")

    def expect_started(self, name: str, assignment: dict[str, Any]) -> dict[str, Any]:
        answer = self.put(name, assignment)
        assert answer.status == 200, answer.body
        state: dict[str, Any] = answer.json
        assert state["phase"] == "running"
        return state

    def tenants(self) -> dict[str, dict[str, Any]]:
        return {tenant["name"]: tenant for tenant in self.call("GET", "/v1/shard").json["tenants"]}

    def expect_phase(self, name: str, phase: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        def state() -> dict[str, Any]:
            return self.tenants().get(name, {})

        def in_phase() -> dict[str, Any] | None:
            seen = state()
            return seen if seen.get("phase") == phase else None

        return wait_for(in_phase, lambda: f"{name} is not {phase} but {state()}", seconds)

    def stats(self, collect: bool = True) -> dict[str, Any]:
        stats: dict[str, Any] = self.call("GET", f"/v1/stats?collect={int(collect)}").json
        return stats

    def fewest_threads(self, seconds: float = 3) -> int:
        """The least number of threads seen within a while: those that are at work for somebody come and go, leaked ones stay."""
        end = time.monotonic() + seconds
        fewest = self.stats()["threads"]
        while time.monotonic() < end:
            time.sleep(0.1)
            fewest = min(fewest, self.stats()["threads"])
        return int(fewest)

    def own_memory(self) -> int:
        """Bytes of memory that is the process's alone. Not PSS: that falls and rises with other shards that share its libraries."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        return code

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self.process = None


class Noise:
    """How long this machine keeps a thread from running that wants to: what a stall on it may be without anybody's fault."""

    def __init__(self) -> None:
        self._longest = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            begun = time.monotonic()
            time.sleep(0.005)
            self._longest = max(self._longest, time.monotonic() - begun - 0.005)

    def take(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest


NOISE = Noise()
#: The issue's bound.
LONGEST_STALL_SECONDS = 0.1


def expect_no_stall(shard: Shard) -> None:
    """The reactor stood still for no more than the bound since the last asking."""
    stall = shard.stats(collect=False)["reactorLag"]["maxSeconds"]
    # On a machine with more work than cores the same work takes that much longer.
    crowding = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert stall < LONGEST_STALL_SECONDS * crowding + NOISE.take()


class Client:
    """A Matrix client of one tenant: just enough to make it work."""

    def __init__(self, address: str, user: str | None = None) -> None:
        self.address = address
        self.user = user or f"u{uuid.uuid4().hex[:8]}"
        self.token = ""
        self.room = ""

    def call(self, method: str, path: str, body: Any = None, timeout: float = PATIENCE_SECONDS) -> Answer:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        return request(self.address, method, path, body, headers, timeout)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.call(method, path, body)
        assert answer.status == 200, (method, path, answer.status, answer.body)
        return answer.json

    def register(self) -> Client:
        nonce = self.ok("GET", "/_synapse/admin/v1/register")["nonce"]
        mac = hmac.new(SHARED_SECRET.encode(), "\0".join([nonce, self.user, "password", "notadmin"]).encode(), hashlib.sha1)
        body = {"nonce": nonce, "username": self.user, "password": "password", "admin": False, "mac": mac.hexdigest()}
        self.token = self.ok("POST", "/_synapse/admin/v1/register", body)["access_token"]
        return self

    def create_room(self) -> str:
        self.room = self.ok("POST", "/_matrix/client/v3/createRoom", {})["room_id"]
        return self.room

    def send(self, text: str) -> str:
        path = f"/_matrix/client/v3/rooms/{self.room}/send/m.room.message/{uuid.uuid4().hex}"
        return str(self.ok("PUT", path, {"msgtype": "m.text", "body": text})["event_id"])

    def sync(self, since: str = "", timeout_ms: int = 0) -> Any:
        query = f"?timeout={timeout_ms}" + (f"&since={since}" if since else "")
        return self.ok("GET", f"/_matrix/client/v3/sync{query}")

    def work(self) -> None:
        """A little of everything."""
        if not self.room:
            self.create_room()
        self.send("hello")
        self.sync()
