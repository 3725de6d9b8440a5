"""Prometheus' text of what is exported: of all tenants, or of one alone.

Only what is exported is read: a collector that counts when it is asked (caches, queues, blocks) does so for the tenants that it is
asked for, and its neighbours pay for nothing. What is much is rendered in a thread, as Synapse's own metrics listener does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from synapse.metrics import InFlightGauge, LaterGauge
from synapse.util.caches import CACHE_METRIC_REGISTRY

from .metrics import EXPORTED_FAMILIES, EXPORTED_NAMES, SERVER_NAME, asking, server_name_of

#: Dictionaries of Synapse's that grow while a thread reads them.
_ATTEMPTS = 3
_OF_ALL = frozenset(EXPORTED_FAMILIES)


def is_much() -> bool:
    """Whether rendering takes longer than a reactor should stand still."""
    return bool(asking())


def render(only: str | None = None) -> bytes:
    """`count_running_work` comes before it, in the reactor's thread.

    @param only the server name of the one tenant of which it is: nothing of the process, which works for its neighbours too
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return generate_latest(_Exported(only))  # type: ignore[arg-type]
        except RuntimeError:
            continue
    return generate_latest(_Exported(only))  # type: ignore[arg-type]


class _Exported:
    """What `generate_latest` needs of a registry."""

    def __init__(self, only: str | None) -> None:
        self._only = only
        self._asking = {name: more for name, more in asking().items() if only is None or name == only}

    def collect(self) -> Iterable[Metric]:
        for collector, names in list(REGISTRY._collector_to_names.items()):
            if collector is CACHE_METRIC_REGISTRY:
                yield from self._of_caches()
            elif any(name in EXPORTED_NAMES or name in _OF_ALL or self._is_asked_for(name) for name in names):
                yield from self._of(collector)

    def _of_caches(self) -> Iterator[Metric]:
        """Its own `collect` would first count the caches of all tenants."""
        if not any(self._is_asked_for(name) for name in REGISTRY._collector_to_names[CACHE_METRIC_REGISTRY]):
            return
        for name in self._asking:
            for count in list(CACHE_METRIC_REGISTRY._server_name_to_pre_update_hooks.get(name, {}).values()):
                count()
        for collector in list(CACHE_METRIC_REGISTRY._collector_to_names):
            yield from self._of(collector)

    def _of(self, collector: Any) -> Iterator[Metric]:
        if isinstance(collector, MetricWrapperBase) and SERVER_NAME in collector._labelnames:
            metrics: Iterable[Metric] = [self._of_tenants(collector)]
        elif isinstance(collector, LaterGauge):
            metrics = self._of_hooks(collector)
        elif isinstance(collector, InFlightGauge) and SERVER_NAME in collector.labels:
            metrics = self._of_blocks(collector)
        else:
            metrics = collector.collect()
        for metric in metrics:
            samples = [sample for sample in metric.samples if self._is_exported(metric.name, sample)]
            if samples or (self._only is None and metric.name in EXPORTED_NAMES):
                metric.samples = samples
                yield metric

    def _of_tenants(self, family: Any) -> Metric:
        """What the family's own `collect` gives, without tenants that are not asked for: it makes samples for all of them first."""
        metric: Metric = family._get_metric()
        position = family._labelnames.index(SERVER_NAME)
        for labels, child in list(family._metrics.items()):
            if not self._is_of(metric.name, labels[position]):
                continue
            own = dict(zip(family._labelnames, labels, strict=True))
            metric.samples += [sample._replace(name=family._name + sample.name, labels=own | sample.labels) for sample in child._samples()]
        return metric

    def _of_hooks(self, gauge: Any) -> Iterable[Metric]:
        """Asks the hooks of these tenants alone, and those of the process, which count for all."""
        asked = copy.copy(gauge)
        asked._instance_id_to_hook_map = {
            instance_id: hook
            for instance_id, hook in list(gauge._instance_id_to_hook_map.items())
            if (server_name := server_name_of(instance_id)) is None or self._is_of(gauge.name, server_name)
        }
        metrics: Iterable[Metric] = asked.collect()
        return metrics

    def _of_blocks(self, gauge: Any) -> Iterable[Metric]:
        """Asks the blocks of these tenants alone that are at work."""
        asked = copy.copy(gauge)
        position = gauge.labels.index(SERVER_NAME)
        with gauge._lock:
            asked._registrations = {key: set(callbacks) for key, callbacks in gauge._registrations.items() if key[position] in self._asking}
        metrics: Iterable[Metric] = asked.collect()
        return metrics

    def _is_exported(self, family: str, sample: Any) -> bool:
        server_name = sample.labels.get(SERVER_NAME)
        if server_name is not None:
            return self._is_of(family, server_name)
        return self._only is None and (sample.name in _OF_ALL or self._is_asked_for(family))

    def _is_of(self, family: str, server_name: str) -> bool:
        if self._only is not None and server_name != self._only:
            return False
        return family in EXPORTED_NAMES or family in self._asking.get(server_name, ())

    def _is_asked_for(self, family: str) -> bool:
        return any(family in more for more in self._asking.values())
