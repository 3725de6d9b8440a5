from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from synapse.util.caches.lrucache import LruCache
from synapse.util.caches.response_cache import ResponseCache
from synapse.util.clock import Clock
from synapse.util.duration import Duration
from twisted.internet import defer
from twisted.internet.testing import MemoryReactorClock

from multi_synapse.homeserver import forget_cached_responses
from multi_synapse.patches.tenants import caches_of_tenants, size_caches_per_tenant

from .postgres import Postgres
from .shard import Client, Shard, expect_no_stall
from .watching import wait_for

CYCLES = 200


def test_starting_and_stopping_leaves_nothing(own_shard: Shard, assign: Callable[..., dict[str, Any]], postgres: Postgres) -> None:
    # Guards against: a shard that moves tenants about grows until it dies.
    neighbours = [Client(own_shard.expect_started(name, assign(name))["address"]).register() for name in ("x", "y")]
    assignment = assign("cycled")
    database = assignment["base"]["database"]["args"]["dbname"]
    client: Client | None = None
    before: dict[str, Any] = {}
    memory: dict[int, int] = {}
    for cycle in range(CYCLES + 1):
        address = own_shard.expect_started("cycled", assignment)["address"]
        if client is None:
            client = Client(address).register()
        client.address = address
        if cycle % 10 == 0:
            client.work()
            for neighbour in neighbours:
                neighbour.work()
        assert own_shard.delete("cycled", 2 if cycle % 10 == 0 else 0).status == 200
        if cycle == 0:
            before = {**own_shard.stats(), "threads": own_shard.fewest_threads()}
        if cycle in (CYCLES // 2, CYCLES):
            own_shard.stats()
            memory[cycle] = own_shard.own_memory()
    after = own_shard.stats()
    assert after["liveHomeServers"] == before["liveHomeServers"] == 2
    assert after["triggers"] == before["triggers"]
    assert own_shard.fewest_threads() <= before["threads"]
    assert after["fileDescriptors"] - after["databaseConnections"] <= before["fileDescriptors"] - before["databaseConnections"]
    assert postgres.connections_to(database) == 0
    # Level, but for what allocation leaves in between.
    assert memory[CYCLES] - memory[CYCLES // 2] < 8 * 1024 * 1024, memory
    expect_no_stall(own_shard)


def test_idle_tenants_give_their_connections_back(new_shard: Callable[..., Shard], assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: each idle tenant keeps five connections, of which PostgreSQL pays more than the tenant does.
    shard = new_shard(databaseIdleSeconds=1)
    for name in ("a", "b", "c"):
        Client(shard.expect_started(name, assign(name))["address"]).register().work()
    wait_for(lambda: shard.stats(collect=False)["databaseConnections"] <= 3)


def test_cache_sizes_do_not_mix() -> None:
    # Guards against: the cache settings of the tenant that started last apply to all.
    size_caches_per_tenant()
    clocks = {name: Clock(MemoryReactorClock(), name) for name in ("small", "large", "gone")}

    def config(factor: float, **per_cache: float) -> Any:
        return SimpleNamespace(global_factor=factor, cache_factors={"some_cache": per_cache["some_cache"]} if per_cache else {})

    def cache(server_name: str) -> Any:
        return LruCache(max_size=1000, server_name=server_name, cache_name="*some_cache*", clock=clocks[server_name])

    caches_of_tenants.add_tenant("small", config(0.5))
    caches_of_tenants.add_tenant("large", config(10))
    sizes = {name: cache(name) for name in ("small", "large")}
    assert {name: made.max_size for name, made in sizes.items()} == {"small": 500, "large": 10000}
    caches_of_tenants.add_tenant("small", config(1, some_cache=2))
    caches_of_tenants.resize_tenant("small")
    assert {name: made.max_size for name, made in sizes.items()} == {"small": 500, "large": 10000} | {"small": 2000}
    caches_of_tenants.remove_tenant("small")
    caches_of_tenants.remove_tenant("large")


def test_a_stopped_tenants_answers_are_forgotten() -> None:
    # Guards against: what each client was answered stays in memory for two minutes after its tenant has moved away.
    reactor = MemoryReactorClock()
    caches = {}
    for name in ("stopped", "running"):
        clock = Clock(reactor, name)
        cache = caches[name] = ResponseCache(clock=clock, name=f"sync_{name}", server_name=name, timeout=Duration(minutes=2))
        clock.looping_call(lambda: None, Duration(seconds=1))
        done: defer.Deferred[str] = defer.ensureDeferred(cache.wrap("key", answer))
        assert done.result == "answered"
    before = len(reactor.getDelayedCalls())
    forget_cached_responses(caches["stopped"].clock, reactor)
    assert len(reactor.getDelayedCalls()) == before - 1
    assert "key" in caches["running"]._result_cache
    reactor.advance(121)
    assert "key" not in caches["running"]._result_cache


async def answer() -> str:
    return "answered"
