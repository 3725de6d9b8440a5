"""The processes of a dedicated Synapse with workers. They are of one pod, and share a directory of it.

The main process owns the tenant's database as one without workers does. It writes its claim into the directory once the schema is there;
a worker proves that same claim with each of its connections, so that who shuts out the main process shuts out all of them. Which of them
still serves, and which is still there, is said by locks on files: the kernel gives back those of a process that ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2

if TYPE_CHECKING:
    from .fence import Claim

MAIN = "main"
#: There while the main process has ended in an orderly way: the router and Redis, which the others need until then, end after it.
ENDED = "ended"
_CLAIM = "claim.json"
_READY, _SERVING, _THERE = "ready", "serving", "there"
#: For workers that are slow, or that fail: nobody is to wait for these alone.
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.1
#: A database that is away is asked less often.
_AWAY_SECONDS = 1.0


class Crew:
    """One process's part in it."""

    def __init__(self, directory: Path, name: str = MAIN) -> None:
        self.directory = directory
        self.name = name
        self._locks: dict[str, int] = {}

    @property
    def is_main(self) -> bool:
        return self.name == MAIN

    def begin(self) -> None:
        """Of the main process: nobody is to join the claim of the last one."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for name in (_CLAIM, ENDED):
            (self.directory / name).unlink(missing_ok=True)

    def await_workers(self, names: Collection[str], say: Callable[[str], None]) -> None:
        """Of the main process, before it is ready for a database that another has: nobody is to wait while workers begin. Blocks."""
        end = time.monotonic() + _READY_SECONDS
        while missing := sorted(name for name in names if not _is_locked(self._path(name, _READY))):
            if time.monotonic() > end:
                say(f"going on without workers that are not ready: {', '.join(missing)}")
                return
            time.sleep(_POLL_SECONDS)

    def publish(self, claim: Claim) -> None:
        """Of the main process, once the schema is there: workers may join."""
        new = self.directory / f"{_CLAIM}.new"
        new.write_text(json.dumps(asdict(claim)), "utf-8")
        new.replace(self.directory / _CLAIM)

    def end(self) -> None:
        """Of the main process, at last."""
        (self.directory / ENDED).touch()

    def await_claim(self, arguments: dict[str, Any], say: Callable[[str], None]) -> Claim:
        """Of a worker: waits until the main process owns the database. Blocks without an end: a worker has nothing to do without it."""
        self._take(_READY)
        said = ""
        while True:
            seconds, now = _POLL_SECONDS, "waiting for the main process to own the database"
            if (claim := self._published()) is not None:
                try:
                    if _is_in_effect(arguments, claim):
                        return claim
                except psycopg2.Error as error:
                    seconds, now = _AWAY_SECONDS, f"waiting for the database: {' '.join(str(error).split())}"
            if now != said:
                say(now)
                said = now
            time.sleep(seconds)

    def join(self) -> None:
        """From now on it serves, and has connections to the database."""
        for state in (_SERVING, _THERE):
            self._take(state)

    def _take(self, state: str) -> None:
        descriptor = os.open(self._path(self.name, state), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._locks[state] = descriptor

    def _path(self, name: str, state: str) -> Path:
        return self.directory / f"{name}.{state}"

    def stop_serving(self) -> None:
        """It has answered its clients, and still does what other processes ask."""
        os.close(self._locks.pop(_SERVING))

    def others_serve(self) -> bool:
        return self._others(_SERVING)

    def others_are_there(self) -> bool:
        return self._others(_THERE)

    def _others(self, state: str) -> bool:
        own = self._path(self.name, state)
        return any(_is_locked(path) for path in self.directory.glob(f"*.{state}") if path != own)

    def _published(self) -> Claim | None:
        from .fence import Claim

        try:
            return Claim(**json.loads((self.directory / _CLAIM).read_text("utf-8")))
        except FileNotFoundError:
            return None


def _is_in_effect(arguments: dict[str, Any], claim: Claim) -> bool:
    """Blocks. @raises psycopg2.Error"""
    from .fence import read_fence

    connection = psycopg2.connect(**arguments)
    try:
        epoch, _, instance = read_fence(connection)
        return (epoch, instance) == (claim.epoch, claim.instance)
    finally:
        connection.close()


def _is_locked(path: Path) -> bool:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Shared: those who look do not keep a process from taking it that is just beginning.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
