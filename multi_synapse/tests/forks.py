"""Shards forked from a process that has everything imported, as the launcher of one machine has them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any


class Forked:
    """What tests use of a `subprocess.Popen`, for a process that another one has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def end(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


class ForkServer:
    """The process `multi_synapse.fork_server`."""

    def __init__(self, python: Path, checkout: Path, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        command = [str(python), "-m", "multi_synapse.fork_server", f"--stream={theirs.fileno()}", f"--room={'-' * 8192}"]
        self.python = python
        self._stream = ours
        self._process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        theirs.close()
        self._lines = ours.makefile("r", encoding="utf-8")
        self._answers: list[dict[str, Any]] = []
        self._processes: dict[int, Forked] = {}
        self._early_ends: dict[int, int] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.ready = self._answer()

    def fork(self, request: dict[str, Any]) -> Forked:
        with self._changed:
            self._stream.sendall(json.dumps(request).encode() + b"\n")
        answer = self._answer()
        assert "pid" in answer, answer
        with self._changed:
            process = self._processes[answer["pid"]] = Forked(answer["pid"])
            if process.pid in self._early_ends:
                process.end(self._early_ends.pop(process.pid))
        return process

    def close(self) -> int:
        """Goes away, as the launcher does when it ends. @returns the server's exit code"""
        self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        return self._process.wait(30)

    def _answer(self) -> dict[str, Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: self._answers, 60), "the fork server does not answer"
            return self._answers.pop(0)

    def _read(self) -> None:
        for line in self._lines:
            said = json.loads(line)
            with self._changed:
                if "ended" not in said:
                    self._answers.append(said)
                elif (process := self._processes.pop(said["ended"], None)) is not None:
                    process.end(said["code"])
                else:
                    self._early_ends[said["ended"]] = said["code"]
                self._changed.notify_all()
        with self._changed:
            self._answers.append({"error": "the fork server has ended"})
            self._changed.notify_all()
