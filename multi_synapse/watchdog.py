"""Notices that the reactor stands still, from outside of it, and ends the process: its other tenants are started again within seconds.

One tenant's code can hold the reactor, and Python's lock with it: a pattern that backtracks, a module that waits. Nothing in the
process can notice that, so a small process beside it does. It sees a number in shared memory that the reactor counts up, and the
name of the tenant whose code runs; it asks the process for its stack (which the interpreter gives without its lock), writes down
what it saw, and kills the process. docs/control-api.md, *Stalls*, is the contract. Imports nothing that is not needed: it is forked
from the shard's process before that is large.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import re
import secrets
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from . import lifetime

#: In the state directory: what was seen, the newest last.
STALLS_FILE = "stalls.json"
_MOST_STALLS = 20
_STACK_FILE = ".stack"
_LOOK_SECONDS = 0.25
#: The watchdog was itself held up, with the machine: what it sees says nothing.
_OWN_GAP_SECONDS = 1.0
#: For the interpreter to write the stack.
_STACK_SECONDS = 1.0
_DEEPEST_STACK = 30
_HEAD_BYTES = 16
_NAME_BYTES = 256
#: Of a process's whole life; memory that is not written is not there.
_MOST_NAMES = 4096
_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>\S+)')


@dataclass(frozen=True)
class Stall:
    #: Seconds since the epoch.
    at: float
    #: How long the reactor had stood still.
    seconds: float
    #: Of the tenant whose code ran, or None.
    server_name: str | None
    #: Innermost call first: `synapse/handlers/sync.py:812 generate_sync_result`.
    stack: list[str]
    #: Of the stall; and whether a shard that came up since knows it.
    id: str
    known: bool = False

    def described(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": self.at,
            "seconds": self.seconds,
            "serverName": self.server_name,
            "stack": self.stack,
            "known": self.known,
        }


class Beat:
    """The shared memory: how often the reactor has ticked, which server's code runs, and the servers' names.

    Which it is changes some hundred times in a request, so it is one number.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD_BYTES + _MOST_NAMES * _NAME_BYTES)
        #: Ticks, and the number of the server at work.
        self.numbers = memoryview(self._memory).cast("Q")
        self._names: dict[str, int] = {}
        self._finished = False

    def tick(self) -> None:
        if not self._finished:
            self.numbers[0] += 1

    def finish(self) -> None:
        """From now on nothing is watched: the process ends."""
        self._finished = True
        self.numbers[0] = 0

    def number_of(self, server_name: str) -> int:
        """From 1; 0, which is no tenant, once there is no room for more names."""
        number = self._names.get(server_name)
        if number is None:
            number = self._names[server_name] = len(self._names) + 1 if len(self._names) < _MOST_NAMES else 0
            if number:
                place = _HEAD_BYTES + (number - 1) * _NAME_BYTES
                self._memory[place : place + _NAME_BYTES] = server_name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        return number

    @property
    def count(self) -> int:
        """0 before the first tick and after the last."""
        return int(self.numbers[0])

    @property
    def server_name(self) -> str | None:
        number = int(self.numbers[1])
        place = _HEAD_BYTES + (number - 1) * _NAME_BYTES
        return self._memory[place : place + _NAME_BYTES].rstrip(b"\0").decode("utf-8", "replace") if number else None


def start(seconds: float, directory: Path) -> Beat:
    """Forks the watchdog of this process. To be called before any thread exists."""
    beat = Beat()
    directory.mkdir(parents=True, exist_ok=True)
    stack = (directory / _STACK_FILE).open("w+", encoding="utf-8")
    # Of the thread that gets the signal: by default the main thread, which is the reactor's.
    faulthandler.register(signal.SIGUSR2, file=stack, all_threads=False)
    watched = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        try:
            # The process is asked to end; the watchdog ends with it.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            lifetime.end_with(watched)
            _watch(watched, beat, seconds, directory, stack)
        finally:
            os._exit(0)
    return beat


def _watch(watched: int, beat: Beat, seconds: float, directory: Path, stack: TextIO) -> None:
    count, since, starved, looked = 0, 0.0, 0.0, time.monotonic()
    while True:
        time.sleep(_LOOK_SECONDS)
        if os.getppid() != watched:
            return
        now = time.monotonic()
        was_held_up = now - looked > _LOOK_SECONDS + _OWN_GAP_SECONDS
        looked = now
        if beat.count != count or beat.count == 0 or was_held_up or _is_stopped(watched):
            count, since, starved = beat.count, now, _starved_seconds(watched)
            continue
        # A machine with more work than processors keeps a thread waiting that does nothing wrong.
        still = now - since - (_starved_seconds(watched) - starved)
        if still > seconds:
            _report(watched, beat, now - since, directory, stack)
            os.kill(watched, signal.SIGKILL)
            return


def _is_stopped(pid: int) -> bool:
    """By a signal or a debugger, which is intended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")


def _starved_seconds(pid: int) -> float:
    """How long the main thread has been ready to run and was not let."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def _report(watched: int, beat: Beat, seconds: float, directory: Path, stack: TextIO) -> None:
    server_name = beat.server_name
    stall = Stall(time.time(), round(seconds, 3), server_name, _stack_of(watched, stack), secrets.token_hex(8))
    write_stalls(directory, [*read_stalls(directory), stall])
    # A line of its own in the process's output.
    os.write(2, f"multi_synapse: STALLED {json.dumps(stall.described())}\n".encode())


def _stack_of(watched: int, stack: TextIO) -> list[str]:
    os.kill(watched, signal.SIGUSR2)
    end = time.monotonic() + _STACK_SECONDS
    text = ""
    while time.monotonic() < end:
        time.sleep(0.05)
        stack.seek(0)
        before, text = text, stack.read()
        if text and text == before:
            break
    return [f"{_short(found['file'])}:{found['line']} {found['function']}" for found in _FRAME.finditer(text)][:_DEEPEST_STACK]


def _short(file: str) -> str:
    """Without where packages are on this machine."""
    for part in ("site-packages", r"python3\.\d+"):
        *_, rest = re.split(f"/{part}/", file)
        if rest != file:
            return rest
    return "/".join(Path(file).parts[-2:])


def read_stalls(directory: Path) -> list[Stall]:
    """An empty list if the file is missing or cannot be read."""
    try:
        found = json.loads((directory / STALLS_FILE).read_text("utf-8"))
        return [
            Stall(item["at"], item["seconds"], item["serverName"], list(item["stack"]), item["id"], bool(item["known"])) for item in found
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def take_news(directory: Path) -> list[Stall]:
    """Stalls that no process has asked for yet; from now on they are known."""
    stalls = read_stalls(directory)
    news = [stall for stall in stalls if not stall.known]
    if news:
        write_stalls(directory, [replace(stall, known=True) for stall in stalls])
    return news


def write_stalls(directory: Path, stalls: list[Stall]) -> None:
    temporary = directory / f".{STALLS_FILE}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump([stall.described() for stall in stalls[-_MOST_STALLS:]], file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / STALLS_FILE)
