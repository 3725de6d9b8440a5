"""
Shards that share memory: `python -m multi_synapse.fork_server`, started by the launcher, forks a shard's process for each request.

Before a shard knows its tenants, it has nine tenths of its memory, and has taken nine tenths of its start: for the code of 1,400
modules. Processes that are forked with all of it in place share each page until one of them writes to it. Each shard is in a session
of its own and outlives this process, which ends when the launcher does.

`--stream` is the descriptor of a stream to the launcher. A line of JSON says that this process is ready, `{"ready": true}`. Then each
request (see `Request`) is answered by `{"pid": 123}` or `{"error": "…"}`, and the end of each process is told, `{"ended": 123, "code":
-9}`; the code is negative where a signal ended it. As no other process has the stream, no other can have a process started that is
not confined.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, TypedDict

from . import confine, pinned, preload
from .release import UnsupportedRelease

#: A process's command line takes the place of this one's, which so has to be as long.
_ROOM = 8192
_MOST_OF_REQUEST = 1024 * 1024


class Request(TypedDict, total=False):
    #: Arguments of `python -m multi_synapse`.
    arguments: list[str]
    #: All of the new process's environment.
    environment: dict[str, str]
    directory: str
    #: A file for stdout and stderr. It is opened before the process is confined.
    output: str
    #: See confine.py; absent: the process may do what this one may.
    confine: confine.Spec


def main() -> int:
    parser = argparse.ArgumentParser(prog="multi_synapse.fork_server", description="Starts shards that share memory.")
    parser.add_argument(
        "--allow-untested", action="append", default=[], metavar="RELEASE", help="a release to run though it was never tested"
    )
    parser.add_argument("--room", default="", help=f"{_ROOM} characters, in whose place the command lines of shards are written")
    parser.add_argument("--stream", type=int, required=True, help="the descriptor of a socket")
    arguments = parser.parse_args()
    launcher = socket.socket(fileno=arguments.stream)
    try:
        preload.load(arguments.allow_untested)
    except Exception as error:
        _tell(launcher, {"error": _in_words(error)})
        return 2 if isinstance(error, UnsupportedRelease) else 1
    _say_command_line([sys.executable, "-m", "multi_synapse.fork_server"])
    pinned.pin()
    _tell(launcher, {"ready": True})
    with launcher, _Ends() as ends:
        for request in _requests(launcher, ends):
            try:
                pid, confined = _fork()
            except OSError as error:
                _tell(launcher, {"error": _in_words(error)})
                continue
            if pid == 0:
                break
            with os.fdopen(confined, "rb") as said:
                is_confined = said.read(1) != b""
            _tell(launcher, {"pid": pid} if is_confined else {"error": f"a process could not be confined; {request['output']} says why"})
        else:
            return 0
    return _become_shard(request, confined)


class _Ends:
    """The ends of processes that this one has forked: a descriptor to wait at, and what they ended with."""

    def __enter__(self) -> _Ends:
        self.descriptor, self._signalled = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._signalled, False)
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._signalled)

    def take(self) -> Iterator[dict[str, int]]:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                yield {"ended": ended[0], "code": os.waitstatus_to_exitcode(ended[1])}


def _fork() -> tuple[int, int]:
    """The pid, and a pipe by which the new process, where the pid is 0, says that it is confined."""
    # A lock that another thread holds is never released in the new process.
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise OSError(f"the fork server has {threads} threads, of which a process gets one")
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    os.close(write if pid else read)
    return pid, read if pid else write


def _become_shard(request: Request, confined: int) -> int:
    """In the new process. @returns its exit code"""
    os.setsid()
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # As Python does when it starts; the first is what this package is in.
    more = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in sys.path]
    sys.path[1:1] = more
    tempfile.tempdir = None
    _renew_reactor()
    command = [sys.executable, "-m", "multi_synapse", *request["arguments"]]
    _say_command_line(command)
    if "confine" in request:
        confine.confine(request["confine"])
        confine.leave_privileges()
    os.write(confined, b"\n")
    os.close(confined)
    sys.argv = command[2:]
    return int(importlib.import_module("multi_synapse.__main__").main())


def _renew_reactor() -> None:
    """The reactor that modules have imported stays the same object, with descriptors of its own instead of shared ones."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is None:
        return
    reactor._poller.close()
    for descriptor in (reactor.waker.i, reactor.waker.o):
        os.close(descriptor)
    reactor.__init__()


def _say_command_line(command: list[str]) -> None:
    """Writes what `ps` shows, by which the launcher knows a shard's process."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(") ")[2].split()
    # Fields 48 and 49 of proc(5); the first of `fields` is the third.
    begin, end = int(fields[45]), int(fields[46])
    text = b"\0".join(map(os.fsencode, command)) + b"\0"
    if len(text) > end - begin:
        raise ValueError(f"the command line has {len(text)} bytes, and there is room for {end - begin}")
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def _requests(launcher: socket.socket, ends: _Ends) -> Iterator[Request]:
    """Until the launcher has gone. Meanwhile it is told of processes that end."""
    received = b""
    while True:
        ready, _, _ = select.select([launcher.fileno(), ends.descriptor], [], [])
        for end in ends.take():
            _tell(launcher, end)
        if launcher.fileno() not in ready:
            continue
        data = launcher.recv(65536)
        if not data or len(received) > _MOST_OF_REQUEST:
            return
        *lines, received = (received + data).split(b"\n")
        yield from map(json.loads, lines)


def _tell(launcher: socket.socket, what: dict[str, Any]) -> None:
    launcher.sendall(json.dumps(what).encode() + b"\n")


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
