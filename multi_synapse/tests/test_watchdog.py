"""A reactor that stands still: it is noticed, put down to a tenant, and ended."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multi_synapse import watchdog

from .shard import Client, Shard, request
from .watching import children_of, command_of, is_gone, wait_for

Assign = Callable[..., dict[str, Any]]

MODULE = """
import re

from twisted.web.resource import Resource


class Slow(Resource):
    isLeaf = True

    def render_GET(self, request):
        # Holds Python's lock for hours.
        re.match("(a+)+$", "a" * 60 + "b")
        return b""


class Module:
    def __init__(self, config, api):
        api.register_web_resource("/_synapse/client/slow", Slow())
"""
OVERRIDES = "modules: [{module: slow_module.Module}]"


@pytest.fixture
def watched(new_shard: Callable[..., Shard], folder: Path) -> Shard:
    (folder / "slow_module.py").write_text(MODULE)
    shard = new_shard(watchdogSeconds=2)
    # Again, as only this way it finds the module.
    shard.kill()
    return shard.start(folder)


def test_a_tenant_whose_code_holds_up_the_shard_is_named_and_costs_its_neighbours_seconds(
    watched: Shard, assign: Assign, folder: Path
) -> None:
    shard = watched
    culprit_assignment = assign("culprit", overrides=OVERRIDES, policy={"allowedModules": ["slow_module.Module"]})
    neighbour = Client(shard.expect_started("neighbour", assign("neighbour"))["address"]).register()
    culprit = shard.expect_started("culprit", culprit_assignment)["address"]

    def hold_up() -> None:
        try:
            request(culprit, "GET", "/_synapse/client/slow")
        except OSError:
            pass

    threading.Thread(target=hold_up, daemon=True).start()
    begun = time.monotonic()
    assert shard.wait() == -signal.SIGKILL
    assert time.monotonic() - begun >= 2
    (stall,) = json.loads((shard.folder / "state" / watchdog.STALLS_FILE).read_text())
    assert stall["serverName"] == "culprit.localhost"
    assert any("slow_module.py" in frame and "render_GET" in frame for frame in stall["stack"]), stall
    assert f"multi_synapse: STALLED {json.dumps(stall)}" in (shard.folder / "stderr").read_text()
    # The shard that comes up again serves the neighbour at once, and says what it knows.
    shard.start(folder)
    neighbour.address = shard.expect_phase("neighbour", "running")["address"]
    neighbour.work()
    state = shard.tenants()["culprit"]
    assert (state["phase"], state["error"]["code"]) == ("failed", "Stalled")
    assert "slow_module.py" in state["error"]["message"] or "re/__init__.py" in state["error"]["message"]
    (told,) = shard.call("GET", "/v1/shard").json["stalls"]
    assert (told["id"], told["tenant"]) == (stall["id"], "culprit")
    # A higher epoch says that it is to run here all the same.
    culprit_assignment["epoch"] += 1
    shard.expect_started("culprit", culprit_assignment)
    # And the next process does not hold it back for what was known before.
    shard.kill()
    shard.start(folder)
    shard.expect_phase("culprit", "running")


def test_a_process_that_somebody_stopped_is_left(new_shard: Callable[..., Shard], assign: Assign) -> None:
    shard = new_shard(watchdogSeconds=1)
    client = Client(shard.expect_started("a", assign("a"))["address"]).register()
    shard.signal(signal.SIGSTOP)
    time.sleep(4)
    shard.signal(signal.SIGCONT)
    client.work()
    assert shard.call("GET", "/v1/shard").json["stalls"] == []


def watchdogs_of(pid: int) -> list[int]:
    return [child for child in children_of(pid) if " ".join(command_of(child)).endswith("shard.json")]


def test_the_watchdog_ends_with_its_process(new_shard: Callable[..., Shard]) -> None:
    shard = new_shard()
    assert shard.process is not None
    (watchdog_process,) = watchdogs_of(shard.process.pid)
    # It would not notice anything by itself.
    os.kill(watchdog_process, signal.SIGSTOP)
    shard.process.kill()
    shard.process.wait()
    wait_for(lambda: is_gone(watchdog_process))


def test_frames_say_where_without_this_machines_paths() -> None:
    assert watchdog._short("/opt/x/lib/python3.11/site-packages/synapse/handlers/sync.py") == "synapse/handlers/sync.py"
    assert watchdog._short("/usr/lib/python3.11/re/__init__.py") == "re/__init__.py"
    assert watchdog._short("/somewhere/else/module.py") == "else/module.py"


def test_a_file_of_stalls_that_cannot_be_read_is_as_none(tmp_path: Path) -> None:
    assert watchdog.read_stalls(tmp_path) == []
    (tmp_path / watchdog.STALLS_FILE).write_text('{"half": ')
    assert watchdog.read_stalls(tmp_path) == []
    stalls = [watchdog.Stall(number, 5.0, "a.example", ["x.py:1 f"], str(number)) for number in range(30)]
    watchdog.write_stalls(tmp_path, stalls)
    assert watchdog.read_stalls(tmp_path) == stalls[-20:]
    assert watchdog.take_news(tmp_path) == stalls[-20:]
    assert watchdog.take_news(tmp_path) == []


def test_a_shard_without_a_watchdog_has_no_process_beside_it(new_shard: Callable[..., Shard]) -> None:
    shard = new_shard(watchdogSeconds=0)
    assert shard.process is not None
    assert watchdogs_of(shard.process.pid) == []
