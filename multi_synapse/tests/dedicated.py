"""A dedicated Synapse under test: the process, its configuration, and what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .shard import CHECKOUT, UNTESTED, request
from .watching import PATIENCE_SECONDS, wait_for


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Dedicated:
    """Runs the tenant of an assignment in a dedicated Synapse."""

    def __init__(self, python: Path, folder: Path, assignment: dict[str, Any], *options: str, worker: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        allowed = [f"--allow-untested-release={release}" for release in UNTESTED]
        self.python, self.folder, self.options = python, folder, (*options, *allowed)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        (folder / "signing.key").write_text(assignment["signingKey"])
        listener = {
            "port": self.port,
            "type": "http",
            "bind_addresses": ["127.0.0.1"],
            "x_forwarded": True,
            "resources": [{"names": ["client", "federation"]}],
        }
        (folder / "base.yaml").write_text(yaml.safe_dump(assignment["base"]))
        self._own: dict[str, Any] = {"signing_key_path": str(folder / "signing.key"), "pid_file": str(folder / "pid")}
        self._listeners = [listener]
        self._key = "listeners"
        if worker is not None:
            self._own |= {"worker_app": "synapse.app.generic_worker", "worker_name": worker}
            self._key = "worker_listeners"
        self.process: subprocess.Popen[bytes] | None = None

    def add_config(self, options: dict[str, Any]) -> None:
        self._own |= options

    def add_listener(self, listener: dict[str, Any]) -> None:
        self._listeners.append(listener)

    def start(self) -> Dedicated:
        (self.folder / "own.yaml").write_text(yaml.safe_dump({**self._own, self._key: self._listeners}))
        configs = [part for name in ("base.yaml", "own.yaml") for part in ("--config-path", str(self.folder / name))]
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [self.python, "-m", "multi_synapse.dedicated", *self.options, *configs],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdout=stderr,
                stderr=stderr,
            )
        return self

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    def is_healthy(self) -> bool:
        try:
            return request(self.address, "GET", "/health", timeout=2).status == 200
        except OSError:
            return False

    def expect_healthy(self) -> Dedicated:
        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.said[-3000:]
            return self.is_healthy()

        wait_for(answers, lambda: self.said[-3000:])
        return self

    def expect_said(self, text: str) -> None:
        wait_for(lambda: text in self.said, lambda: self.said[-3000:])

    def expect_end(self, code: int, seconds: float = PATIENCE_SECONDS) -> None:
        assert self.process is not None
        assert self.process.wait(seconds) == code, self.said[-3000:]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
