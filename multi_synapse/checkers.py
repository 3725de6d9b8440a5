"""The process that checks configurations for this shard: made when it is needed, killed when a check takes too long."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

from . import errors

logger = logging.getLogger(__name__)

#: Importing Synapse takes two to five seconds, on a busy machine a multiple of it.
_START_SECONDS = 60.0
_CHECK_SECONDS = 15.0
_PASSED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")


class _Gone(Exception):
    """The process has ended, as it does when it was not needed for a while."""


class CheckTimeout(Exception):
    """The check took too long, and was killed."""


class Checker:
    """One check at a time; call it in a thread."""

    def __init__(self, check_seconds: float = _CHECK_SECONDS) -> None:
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def check(self, assignment: dict[str, Any]) -> dict[str, Any]:
        """The answer of `checker.check`. @raises TenantError, CheckTimeout"""
        line = json.dumps(assignment).encode() + b"\n"
        with self._lock:
            try:
                answer = self._ask(line)
            except _Gone:
                answer = self._ask_new(line)
        if "error" in answer:
            raise errors.TenantError(answer["error"]["code"], answer["error"]["message"])
        return answer

    def close(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _ask_new(self, line: bytes) -> dict[str, Any]:
        try:
            return self._ask(line)
        except _Gone:
            raise errors.TenantError(
                errors.INVALID_CONFIG,
                "the configuration cannot be checked: the process that reads it ended, for example as it needs too much memory",
            ) from None

    def _ask(self, line: bytes) -> dict[str, Any]:
        process = self._process if self._process is not None and self._process.poll() is None else self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except OSError:
            self._kill()
            raise _Gone from None
        return self._read(process, self._check_seconds)

    def _start(self) -> subprocess.Popen[bytes]:
        self._kill()
        env = {key: os.environ[key] for key in _PASSED if key in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "multi_synapse.checker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )
        self._unread = b""
        self._read(self._process, _START_SECONDS)
        return self._process

    def _read(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        assert process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._unread:
            if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                self._kill()
                logger.warning("a check of a configuration was killed after %g s", seconds)
                raise CheckTimeout(f"the configuration could not be checked within {seconds:g} seconds")
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                self._kill()
                raise _Gone
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass
