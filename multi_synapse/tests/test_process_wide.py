"""What Synapse keeps once per process, of which a shard has one for many tenants."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .shard import Client, Shard
from .watching import threads_of

Assign = Callable[..., dict[str, Any]]

_PATCHED = "patched: kept apart for each tenant"
_PLATFORM = "the platform's: the option that decides it is refused, or the patch `logging` leaves it out"
_LABELLED = "has an entry for each HomeServer, which its shutdown removes"
_COUNTER = "numbers that need only be different"
_PROCESS = "of the process, and made once, for all"
_NOT_HERE = "for other programs than a shard"

#: By file and name, what functions of Synapse write into modules and classes, and why it does no harm here.
REVIEWED = {
    ("rest/__init__.py", "SERVLET_GROUPS"): _PATCHED,
    ("media/thumbnailer.py", "Image"): _PATCHED,
    ("config/cache.py", "_CACHES"): _PATCHED,
    ("config/cache.py", "properties"): _PATCHED,
    ("config/experimental.py", "KNOWN_ROOM_VERSIONS"): _PATCHED,
    ("app/homeserver.py", "events"): _PLATFORM,
    ("app/homeserver.py", "synapse"): _PLATFORM,
    ("app/_base.py", "synapse"): _PLATFORM,
    ("config/logger.py", "_already_performed_one_time_logging_setup"): _PLATFORM,
    ("logging/opentracing.py", "_homeserver_whitelist"): _PLATFORM,
    ("util/caches/lrucache.py", "USE_GLOBAL_LIST"): _PLATFORM,
    ("app/_base.py", "_instance_id_to_sighup_callbacks_map"): _LABELLED,
    ("app/_base.py", "_already_setup_sighup_handling"): _PROCESS,
    ("metrics/__init__.py", "all_later_gauges_to_clean_up_on_shutdown"): _LABELLED,
    ("util/batching_queue.py", "number_queued"): _LABELLED,
    ("util/batching_queue.py", "number_of_keys"): _LABELLED,
    ("util/ratelimitutils.py", "_rate_limiter_instances"): "held weakly, for a gauge that a shard does not export",
    ("logging/context.py", "_thread_local"): "of each thread",
    ("http/request_metrics.py", "_in_flight_requests"): "one for each request, which removes itself",
    ("metrics/background_process_metrics.py", "_background_processes_active_since_last_scrape"): "emptied by each scrape",
    ("metrics/background_process_metrics.py", "_background_process_counts"): _COUNTER,
    ("events/builder.py", "_event_id_counter"): _COUNTER,
    ("http/matrixfederationclient.py", "_next_id"): _COUNTER,
    ("http/site.py", "_next_request_seq"): _COUNTER,
    ("state/__init__.py", "_NEXT_STATE_ID"): _COUNTER,
    ("app/phone_stats_home.py", "_stats_process"): "processor time that is reported as one tenant's: a shard's tenants report none",
    ("app/phone_stats_home.py", "user_count_gauge"): "a gauge that a shard does not export",
    ("metrics/_reactor_metrics.py", "selectreactor"): _PROCESS,
    ("metrics/jemalloc.py", "_JEMALLOC_STATS"): _PROCESS,
    ("util/patch_inline_callbacks.py", "_already_patched"): _NOT_HERE,
    ("util/patch_inline_callbacks.py", "defer"): _NOT_HERE,
    ("util/daemonize.py", "sys"): _NOT_HERE,
    ("util/manhole.py", "sys"): _NOT_HERE,
}
_NOT_A_SHARD = ("_scripts/", "replication/", "storage/schema/", "app/admin_cmd.py", "app/complement", "app/generic_worker.py")
_CHANGES = {"append", "add", "update", "setdefault", "pop", "extend", "remove", "discard", "clear", "insert", "add_room_version"}


def _root_of(expression: ast.expr) -> str | None:
    while isinstance(expression, ast.Attribute | ast.Subscript):
        expression = expression.value
    return expression.id if isinstance(expression, ast.Name) else None


def _written(function: ast.AST, modules: set[str]) -> Iterator[ast.expr | str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Assign):
            yield from (target for target in node.targets if isinstance(target, ast.Attribute | ast.Subscript))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            # `os.remove` is none of a list's.
            yield from [node.func.value] if _root_of(node.func.value) not in modules else []


def _process_wide(root: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(root.rglob("*.py")):
        place = str(file.relative_to(root))
        if place.startswith(_NOT_A_SHARD):
            continue
        tree = ast.parse(file.read_text("utf-8"))
        names: set[str] = set()
        modules = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ClassDef):
                names.add(node.name)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                own = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
                own |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
                for written in _written(function, modules):
                    name = written if isinstance(written, str) else _root_of(written)
                    if name in names and (isinstance(written, str) or name not in own):
                        yield place, str(name)


@pytest.mark.smoke
def test_whatever_synapse_keeps_once_per_process_has_been_looked_at(python: Path) -> None:
    found = subprocess.run([python, "-c", "import synapse; print(synapse.__file__)"], capture_output=True, text=True, check=True)
    written = set(_process_wide(Path(found.stdout.strip()).parent))
    assert ("rest/__init__.py", "SERVLET_GROUPS") in written
    assert sorted(written - REVIEWED.keys()) == []


@pytest.mark.smoke
def test_a_tenant_without_media_runs_beside_others(own_shard: Shard, assign: Assign) -> None:
    with_media = Client(own_shard.expect_started("with", assign("with"))["address"]).register()
    without = assign("without", overrides="enable_media_repo: false")
    client = Client(own_shard.expect_started("without", without)["address"]).register()
    client.work()
    assert client.call("GET", "/_matrix/client/v1/media/config").status == 404
    assert with_media.call("GET", "/_matrix/client/v1/media/config").status == 200
    # And once more, as after any change of its configuration.
    assert own_shard.delete("without", 5).status == 200
    client.address = own_shard.expect_started("without", without)["address"]
    client.work()
    last = Client(own_shard.expect_started("last", assign("last"))["address"]).register()
    assert last.call("GET", "/_matrix/client/v1/media/config").status == 200


@pytest.mark.smoke
def test_tenants_share_the_threads_of_what_is_written_in_rust(own_shard: Shard, assign: Assign) -> None:
    assert own_shard.process is not None
    pid = own_shard.process.pid

    def threads() -> list[str]:
        return [name for name in threads_of(pid) if "tokio" in name]

    counts = []
    for name in ("a", "b", "c"):
        client = Client(own_shard.expect_started(name, assign(name))["address"])
        client.ok("GET", "/_matrix/client/versions")
        client.ok("GET", "/_matrix/client/versions")
        counts.append(len(threads()))
    # Two, or the four that older releases have for the process.
    assert counts[0] == counts[1] == counts[2] <= 4
    # It outlives each of them.
    assert own_shard.delete("a", 1).status == 200
    client.ok("GET", "/_matrix/client/versions")
