from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from synapse.metrics import InFlightGauge, LaterGauge, all_later_gauges_to_clean_up_on_shutdown

from multi_synapse import exposition, metrics
from multi_synapse.errors import TenantError
from multi_synapse.options.families import Families
from multi_synapse.options.policy import parse_policy

from .shard import Client, Shard

pytestmark = pytest.mark.shared_shard

Assign = Callable[..., dict[str, Any]]


def series(text: str, family: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(rf"{family}(_total|_count|_bucket|_sum)?[{{ ]", line)]


def test_families_are_named_as_prometheus_or_synapse_names_them() -> None:
    few = Families(["synapse_pushers", "synapse_http_client_requests_total", "synapse_util_*"])
    assert "synapse_pushers" in few
    assert "synapse_http_client_requests" in few
    assert "synapse_util_caches_cache" in few
    assert "synapse_pushers_more" not in few
    assert "anything" in Families(["all"])
    assert not Families()
    assert "" not in Families()


@pytest.mark.parametrize("given", ["*", "", "a b", "a*b", "synapse_{x}", "1up", "all,few"])
def test_what_is_no_name_of_a_family_is_refused(given: str) -> None:
    with pytest.raises(TenantError, match=r"policy\.metrics"):
        parse_policy({"metrics": [given]})


def test_a_scrape_asks_nothing_of_neighbours() -> None:
    # Guards against: a customer's Prometheus has the shard count in its neighbours' data, in a thread beside their own work.
    asked: list[str] = []
    gauge = LaterGauge(name="test_queue", desc="of each tenant", labelnames=["server_name"])
    blocks: Any = InFlightGauge("test_block", "of each tenant", labels=["server_name"], sub_metrics=["real"])

    def hook_of(name: str) -> Callable[[], dict[tuple[str, ...], float]]:
        return lambda: asked.append(name) or {(name,): 1}  # type: ignore[func-returns-value]

    try:
        for name in ("a", "b"):
            metrics.begin_series(name, Families(["test_*"]))
            metrics.name_instance(f"instance of {name}", name)
            gauge.register_hook(homeserver_instance_id=f"instance of {name}", hook=hook_of(name))
            blocks.register((name,), lambda _, name=name: asked.append(f"block of {name}"))
        text = exposition.render("a").decode()
        assert asked == ["a", "block of a"]
        assert 'test_queue{server_name="a"} 1.0' in text
        assert 'test_block_total{server_name="a"} 1.0' in text
        asked.clear()
        assert len(series(exposition.render().decode(), "test_queue")) == 2
        assert asked == ["a", "b", "block of a", "block of b"]
    finally:
        for collector in (gauge, blocks):
            REGISTRY.unregister(collector)
        del all_later_gauges_to_clean_up_on_shutdown["test_queue"]
        for name in ("a", "b"):
            metrics.drop_series(name)


def test_one_tenant_has_all_families_and_its_neighbour_the_few(shard: Shard, assign: Assign) -> None:
    # Guards against: looking into one tenant costs the series of all; or its series stay after it.
    seen = assign("seen", policy={"metrics": ["all"]})
    other = assign("other")
    clients = {name: Client(shard.put(name, given).json["address"]).register() for name, given in (("seen", seen), ("other", other))}
    for client in clients.values():
        client.work()
    text = shard.call("GET", "/metrics").body.decode()
    for family in (
        "synapse_storage_transaction_time_count",
        "synapse_http_server_response_time_seconds",
        "synapse_util_caches_cache_size",
        "synapse_util_metrics_block_count",
        "synapse_background_process_start_count",
        "synapse_event_persisted_position",
        "synapse_server_name_info",
    ):
        lines = series(text, family)
        assert lines, family
        assert all('server_name="seen.localhost"' in line for line in lines), family
    # What each tenant has is there for both, and of the process, what it has.
    assert {re.search(r'server_name="(\w+)', line).group(1) for line in series(text, "synapse_storage_events_persisted_events")} == {  # type: ignore[union-attr]
        "seen",
        "other",
    }
    assert series(text, "python_twisted_reactor_tick_time")
    # Loads are the same sums, whatever is exported.
    loads = shard.call("GET", "/v1/load").json["tenants"]
    assert loads["seen"]["responseBytes"] > 1000
    assert loads["other"]["responseBytes"] > 1000

    own = shard.call("GET", "/v1/tenants/seen/metrics").body.decode()
    assert series(own, "synapse_storage_transaction_time_count")
    assert series(own, "multi_synapse_tenant_cpu_seconds")
    for line in own.splitlines():
        assert line.startswith("#") or 'server_name="seen.localhost"' in line or 'tenant="seen"' in line, line
    assert "other.localhost" not in own
    of_other = shard.call("GET", "/v1/tenants/other/metrics").body.decode()
    assert series(of_other, "synapse_storage_events_persisted_events")
    assert not series(of_other, "synapse_storage_transaction_time_count")
    assert "seen.localhost" not in of_other
    assert shard.call("GET", "/v1/tenants/seen/metrics", token=None).status == 401

    shard.delete("seen", 5)
    assert shard.call("GET", "/v1/tenants/seen/metrics").status == 404
    assert "seen.localhost" not in shard.call("GET", "/metrics").body.decode()
    shard.delete("other", 5)


def test_families_by_name_are_those_alone(shard: Shard, assign: Assign) -> None:
    given = assign("some", policy={"metrics": ["synapse_util_caches_*", "synapse_http_server_response_size"]})
    Client(shard.put("some", given).json["address"]).register().work()
    text = shard.call("GET", "/metrics").body.decode()
    assert series(text, "synapse_util_caches_cache_hits")
    # Of a family that is only summed up for the load, a series for each kind of request.
    assert any('servlet="' in line and 'servlet=""' not in line for line in series(text, "synapse_http_server_response_size"))
    assert not series(text, "synapse_storage_transaction_time_count")
    assert shard.call("GET", "/v1/load").json["tenants"]["some"]["responseBytes"] > 1000
    shard.delete("some", 5)
