"""What each tenant makes the process hold, by what can be measured for nothing: Python knows no owner of its memory.

Rows that its database gave, bytes of its answers (which Synapse counts, see metrics.py), entries of its caches, and time of its images in
their workers. None of them is memory in bytes; together they tell who made a shard grow (docs/isolation.md, *Memory*).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from synapse.util import caches

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Work:
    """Totals since a tenant's start. Threads of one tenant count at once: a number that is lost does not matter."""

    __slots__ = ("database_rows", "image_seconds")

    def __init__(self) -> None:
        self.database_rows = 0
        self.image_seconds = 0.0


class WorkOfTenants:
    def __init__(self) -> None:
        self._by_server_name: dict[str, Work] = {}

    def of(self, server_name: str) -> Work:
        work = self._by_server_name.get(server_name)
        if work is None:
            work = self._by_server_name[server_name] = Work()
        return work

    def forget(self, server_name: str) -> None:
        self._by_server_name.pop(server_name, None)


work_of_tenants = WorkOfTenants()


def cache_entries(server_name: str) -> int:
    """Of all caches of a tenant, also those that Synapse does not resize: a tenth of a millisecond."""
    # Each hook is a method of what counts one cache.
    hooks = caches.CACHE_METRIC_REGISTRY._server_name_to_pre_update_hooks.get(server_name, {})
    metrics: list[Any] = [getattr(hook, "__self__", None) for hook in list(hooks.values())]
    return sum(len(metric._cache) for metric in metrics if metric is not None)


def memory() -> dict[str, int | None]:
    """Bytes that the process has of what is limited, and the limit; of two limits that which is nearer, None without any."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = [int(number) for number in file.read().split()]
    resident, data = pages[1] * _PAGE, pages[5] * _PAGE
    limits = []
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        limits.append((data, soft))
    of_group = _limit_of_group()
    if of_group is not None:
        limits.append((resident, of_group))
    if not limits:
        return {"bytes": resident, "limitBytes": None}
    used, limit = max(limits, key=lambda pair: pair[0] / pair[1])
    return {"bytes": used, "limitBytes": limit}


def _limit_of_group() -> int | None:
    """Of the container that the process is alone in, if it is in one."""
    try:
        return int(_CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None  # Also "max".
