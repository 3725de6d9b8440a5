"""Metrics of tenants that are not exported are not kept: they are most of what Synapse counts, a fifth of a tenant's objects.

A shard exports few families (`multi_synapse.metrics`), and a tenant has no metrics listener; so the others' children per tenant
(a lock, a number and a dictionary each) would only fill memory, and be looked for at each stop. Of families that are only summed
up for a tenant's load, one child is kept instead of one for each kind of work. An operator may ask for further families of a
tenant, whose children are then kept, up to a number. A tenant that has stopped counts nothing: work of it that ends later would
bring its series back, for good.
"""

from __future__ import annotations

import functools
from typing import Any

from prometheus_client.context_managers import ExceptionCounter, InprogressTracker, Timer
from prometheus_client.metrics import MetricWrapperBase

from .process import replace

_SERVER_NAME = "server_name"


class _Unread:
    """A child of any kind of metric, without memory. It must not keep functions given to it either: they hold their tenant."""

    __slots__ = ()

    def ignore(self, *_: Any, **__: Any) -> None:
        pass

    inc = dec = set = observe = set_function = set_to_current_time = info = state = reset = ignore

    def time(self) -> Timer:
        return Timer(self, "ignore")  # type: ignore[no-untyped-call]

    def track_inprogress(self) -> InprogressTracker:
        return InprogressTracker(self)  # type: ignore[arg-type, no-untyped-call]

    def count_exceptions(self, exception: Any = Exception) -> ExceptionCounter:
        return ExceptionCounter(self, exception)  # type: ignore[arg-type]


UNREAD = _Unread()


def keep_read_families_only() -> None:
    from ..metrics import READ_FAMILIES, SUMMED_FAMILIES, has_series, is_asked_for, takes_child

    original = MetricWrapperBase.labels

    @functools.wraps(original)
    def labels(self: Any, *values: Any, **named: Any) -> Any:
        if _SERVER_NAME not in self._labelnames:
            return original(self, *values, **named)
        server_name = values[self._labelnames.index(_SERVER_NAME)] if values else named[_SERVER_NAME]
        family = self._name
        is_asked = is_asked_for(server_name, family)
        if not is_asked and (family not in READ_FAMILIES or not has_series(server_name)):
            return UNREAD
        if family in SUMMED_FAMILIES and not is_asked:
            key = tuple("" if name != _SERVER_NAME else server_name for name in self._labelnames)
        else:
            key = tuple(map(str, values or [named[name] for name in self._labelnames]))
        child = self._metrics.get(key)
        if child is None:
            return original(self, *key) if takes_child(self, server_name, key) else UNREAD
        return child

    replace(MetricWrapperBase, "labels", labels)
