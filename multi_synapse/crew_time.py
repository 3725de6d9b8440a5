"""What processor time the workers of a dedicated Synapse have taken, as the metrics of their main process tell it.

Who counts what a tenant takes asks the main process alone. Each worker writes what it took into the directory of the crew, since nobody
sees the processes of another container.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

FAMILY = "multi_synapse_workers_cpu_seconds"
_HELP = "Processor time that the workers of this homeserver took since its main process began."
_SUFFIX = ".time"


@dataclass(frozen=True)
class _Taken:
    #: Tells those apart that had a worker's name one after the other.
    process: str
    #: What those before it took, and what it took; seconds.
    before: float
    seconds: float


class WorkersTime(Collector):
    """Of the main process: what workers took since this was made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._before = _total(directory)

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(FAMILY, _HELP, max(0.0, _total(self._directory) - self._before))


class OwnTime:
    """Of a worker."""

    def __init__(self, directory: Path, name: str, process: str | None = None) -> None:
        self._path = directory / f"{name}{_SUFFIX}"
        self._process = process or _own_start()
        last = _read(self._path)
        # The kernel goes on counting for a process that restarted in place.
        self._before = 0.0 if last is None else last.before + (last.seconds if last.process != self._process else 0.0)

    def write(self, seconds: float | None = None) -> None:
        """`seconds`: what it has taken, where that is not this process's. Where there is no room for it, the next time tells."""
        taken = _Taken(self._process, self._before, time.process_time() if seconds is None else seconds)
        new = self._path.with_suffix(f"{_SUFFIX}.new")
        # The thread that asks looks at the fence, and must not end.
        with suppress(OSError):
            new.write_text(json.dumps(asdict(taken)), "utf-8")
            new.replace(self._path)


def _own_start() -> str:
    """Ticks from the machine's start to this process's; its number says nothing, as a container's first process always has the same."""
    # The name of the program, which is in brackets, may have spaces.
    return Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()[19]


def _total(directory: Path) -> float:
    found = [_read(path) for path in directory.glob(f"*{_SUFFIX}")]
    return sum(taken.before + taken.seconds for taken in found if taken is not None)


def _read(path: Path) -> _Taken | None:
    with suppress(OSError, ValueError, TypeError):
        return _Taken(**json.loads(path.read_text("utf-8")))
    return None
