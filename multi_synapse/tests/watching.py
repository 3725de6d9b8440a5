"""Looking at what changes meanwhile: a shard's files, processes and threads come and go during a look."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: For how long tests wait before they give up. It says nothing of how fast things are: the machine may be busy with other work.
PATIENCE_SECONDS = 120.0


def wait_for(look: Callable[[], T | None], what: Callable[[], Any] = lambda: "it did not happen", seconds: float = PATIENCE_SECONDS) -> T:
    """Looks until there is something. @returns what was seen."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, what()
        time.sleep(0.05)
    return seen


def files_under(folder: Path) -> list[Path]:
    """All files at any depth. Unlike `Path.rglob`, `os.walk` passes over directories that are removed meanwhile."""
    return [Path(directory, name) for directory, _, names in os.walk(folder) for name in names]


def command_of(pid: int) -> list[str]:
    """The process's arguments, none if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    return []


def children_of(pid: int) -> list[int]:
    """Processes that any of its threads has started, and that it has not waited for."""
    return [int(child) for task in _tasks(pid) for child in _read(task / "children").split()]


def threads_of(pid: int) -> list[str]:
    """The names of its threads."""
    return [name for task in _tasks(pid) if (name := _read(task / "comm").strip())]


def is_gone(pid: int) -> bool:
    """It has ended, also if nobody has waited for it yet."""
    status = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return not status or status[0] in "ZX"


def _tasks(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(f"/proc/{pid}/task")]
    return []


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
