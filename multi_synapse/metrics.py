"""What a shard tells of its tenants: load totals, a short list of Synapse's metric families, and no series of stopped tenants.

Rendering all that Synapse records takes seconds at 100 tenants; so only the families named here are exported, and of single tenants
those that an operator asks for (`policy.metrics` of the assignment). exposition.py renders them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import synapse.metrics.background_process_metrics as background_metrics
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from synapse.http import request_metrics

from .options.families import Families

logger = logging.getLogger(__name__)

SERVER_NAME = "server_name"

#: Synapse's family → the total it counts towards.
_LOAD_FAMILIES = {
    "synapse_http_server_response_count": "requests",
    "synapse_http_server_response_size": "responseBytes",
    "synapse_http_server_in_flight_requests_ru_utime_seconds": "cpuSeconds",
    "synapse_http_server_in_flight_requests_ru_stime_seconds": "cpuSeconds",
    "synapse_background_process_ru_utime_seconds": "cpuSeconds",
    "synapse_background_process_ru_stime_seconds": "cpuSeconds",
    "synapse_http_server_in_flight_requests_db_txn_duration_seconds": "databaseSeconds",
    "synapse_background_process_db_txn_duration_seconds": "databaseSeconds",
    "synapse_storage_events_persisted_events": "events",
}

#: Families of GET /metrics, as Prometheus knows them.
EXPORTED_FAMILIES = (
    "synapse_http_server_response_count_total",
    "synapse_http_server_in_flight_requests_count",
    "synapse_storage_events_persisted_events_total",
    "synapse_federation_client_sent_transactions_total",
    "synapse_federation_server_received_pdus_total",
    "synapse_background_update_status",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "python_gc_time_bucket",
)

EXPORTED_NAMES = frozenset(name.removesuffix("_total") for name in EXPORTED_FAMILIES)
#: Families as prometheus_client names them: children of no other are kept for a tenant (patches/series.py).
READ_FAMILIES = EXPORTED_NAMES | _LOAD_FAMILIES.keys()
#: Read only as the sum of a tenant's children, so one child is enough.
SUMMED_FAMILIES = READ_FAMILIES - EXPORTED_NAMES


#: Children of one family that are kept of one tenant: clients name some labels as they like (the `app_id` of `synapse_pushers`).
#: A tenant with all families that did a little of everything has 2,000 in all.
MOST_CHILDREN = 1_000
#: In characters. Synapse's own labels are names in its code.
LONGEST_LABEL = 200


class _Kept:
    """What is known of the children of one tenant."""

    __slots__ = ("counts", "refused")

    def __init__(self) -> None:
        #: By family, how many were made: no fewer than there are, but for threads that made one at the same moment.
        self.counts: dict[str, int] = {}
        self.refused: set[str] = set()


#: Each tenant that is served.
_served: dict[str, _Kept] = {}
#: What is exported besides `EXPORTED_FAMILIES` of tenants that have more.
_asking: dict[str, Families] = {}
#: Synapse's id of an instance → the tenant.
_instances: dict[str, str] = {}


def begin_series(server_name: str, more: Families | None = None) -> None:
    """A tenant starts: what is counted of it is kept until `drop_series`; of further families, those that are asked for."""
    _served[server_name] = _Kept()
    _asking.pop(server_name, None)
    if more:
        _asking[server_name] = more


def name_instance(instance_id: str, server_name: str) -> None:
    """Says whose hooks are those that Synapse has under an id."""
    _instances[instance_id] = server_name


def server_name_of(instance_id: str | None) -> str | None:
    """None for what is of the process."""
    return None if instance_id is None else _instances.get(instance_id)


def has_series(server_name: str) -> bool:
    return server_name in _served


def is_asked_for(server_name: str, family: str) -> bool:
    """Whether a family is exported of this tenant that is not of each. @param family as prometheus_client names it"""
    more = _asking.get(server_name)
    return more is not None and family in more


def takes_child(family: Any, server_name: str, labels: tuple[str, ...]) -> bool:
    """Whether one more child is kept of a tenant, which counts it. @param labels that the family has no child for"""
    kept = _served.get(server_name)
    if kept is None:
        return False
    count = kept.counts.get(family._name, 0)
    if count >= MOST_CHILDREN:
        # Synapse itself clears some families from time to time.
        position = family._labelnames.index(SERVER_NAME)
        count = sum(present[position] == server_name for present in list(family._metrics))
    if count < MOST_CHILDREN and all(len(label) <= LONGEST_LABEL for label in labels):
        kept.counts[family._name] = count + 1
        return True
    if family._name not in kept.refused:
        kept.refused.add(family._name)
        logger.warning(
            "%s: of %s, series beyond %d, and labels beyond %d characters, are left out",
            server_name,
            family._name,
            MOST_CHILDREN,
            LONGEST_LABEL,
        )
    return False


def empty_load() -> dict[str, float]:
    return {"cpuSeconds": 0.0, "databaseSeconds": 0.0, "requests": 0, "events": 0, "responseBytes": 0}


def load_by_server_name(only: str | None = None) -> dict[str, dict[str, float]]:
    """Totals of each tenant, or of one only, since its start, by server name; without rendering the registry (8 ms at 25 tenants)."""
    count_running_work()
    totals: dict[str, dict[str, float]] = {}
    for family in _families():
        total = _LOAD_FAMILIES.get(family._name)
        if total is None:
            continue
        position = family._labelnames.index(SERVER_NAME)
        for labels, child in list(family._metrics.items()):
            if only is not None and labels[position] != only:
                continue
            value = child._sum.get() if hasattr(child, "_sum") else child._value.get()
            load = totals.setdefault(labels[position], empty_load())
            load[total] += value
    return totals


def drop_series(server_name: str) -> int:
    """Removes every series of a stopped tenant: Synapse keeps them forever. What still ends of it afterwards brings none back
    (patches/series.py). Returns how many there were."""
    _served.pop(server_name, None)
    _asking.pop(server_name, None)
    for instance_id in [of for of, name in _instances.items() if name == server_name]:
        del _instances[instance_id]
    dropped = 0
    for family in _families():
        position = family._labelnames.index(SERVER_NAME)
        with family._lock:
            for labels in [labels for labels in family._metrics if labels[position] == server_name]:
                del family._metrics[labels]
                dropped += 1
    return dropped


def asking() -> dict[str, Families]:
    """Tenants of which further families are exported."""
    return dict(_asking)


def count_running_work() -> None:
    """Requests and background processes add to their counters when they end; long ones should count while they run."""
    with request_metrics._in_flight_requests_lock:
        requests = set(request_metrics._in_flight_requests)
    for request in requests:
        request.update_metrics()
    with background_metrics._bg_metrics_lock:
        processes = background_metrics._background_processes_active_since_last_scrape
        background_metrics._background_processes_active_since_last_scrape = set()
    for process in processes:
        process.update_metrics()


_known_families: list[Any] = []
_known_for = (0, 0)


def _families() -> list[Any]:
    """Every metric with a server_name label, also those that Synapse keeps outside the registry.

    Looked for again only when there are more modules or collectors than before: the search takes milliseconds of the reactor's
    time, and a shard that shuts down would pay them for each of its tenants.
    """
    global _known_for
    present = (len(sys.modules), len(REGISTRY._collector_to_names))
    if present != _known_for:
        found = {id(value): value for holder in _holders() for value in list(vars(holder).values()) if isinstance(value, MetricWrapperBase)}
        _known_families[:] = [value for value in found.values() if SERVER_NAME in value._labelnames]
        _known_for = present
    return _known_families


def _holders() -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if name.startswith("synapse.") and module is not None:
            yield module
    # LaterGauge and the like: collectors of Synapse's own with metrics inside.
    for collector in list(REGISTRY._collector_to_names):
        if type(collector).__module__.startswith("synapse.") and hasattr(collector, "__dict__"):
            yield collector
