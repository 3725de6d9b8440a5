"""A hostile owner beside a neighbor: whatever its configuration says, the neighbor is served, and nothing of it is seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..shard import Client, Shard, request
from ..test_cases import ALIAS_BOMB, SLOW_PATTERN

Assign = Callable[..., dict[str, Any]]


def attacks(victim: Path) -> dict[str, str]:
    loop = "".join(f"{{% for v{i} in range(900) %}}" for i in range(4)) + "x" + "{% endfor %}" * 4
    return {
        "alias bomb": ALIAS_BOMB,
        "brackets": "[" * 200_000,
        "slow pattern": SLOW_PATTERN,
        "slow pattern of an application service": yaml.safe_dump(
            {
                "synapse_shards": {
                    "app_services": [
                        {
                            "id": "a",
                            "url": None,
                            "as_token": "a",
                            "hs_token": "b",
                            "sender_localpart": "x",
                            "namespaces": {"users": [{"regex": "@((([a-z])+)*)+[A-Z]$", "exclusive": True}]},
                        }
                    ]
                }
            }
        ),
        "signing key of the neighbor": f"signing_key_path: {victim}/signing.key",
        "template of the neighbor": f"templates: {{custom_template_directory: {victim}}}",
        "media of the neighbor": f"media_store_path: {victim}",
        "bridge from a file": f"app_service_config_files: [{victim}/overrides.yaml]",
        "secret from a file": f"turn_shared_secret_path: {victim}/overrides.yaml",
        "endless template": yaml.safe_dump({"synapse_shards": {"templates": {"sso_auth_success.html": loop}}}),
        "template that escapes": yaml.safe_dump(
            {"synapse_shards": {"templates": {"sso_auth_success.html": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}}}
        ),
        "template under another name": yaml.safe_dump({"synapse_shards": {"templates": {"../../../x": "x"}}}),
        "code": "modules: [{module: os.system, config: id}]",
        "expensive passwords": "bcrypt_rounds: 31",
        "many threads": "database: {name: psycopg2, args: {host: 127.0.0.1, dbname: x, cp_max: 10000}}",
        "metrics of all": "enable_metrics: true\nmetrics_port: 9000",
        "logging of all": f"log_config: {victim}/x",
        "all memory": "caches: {global_factor: 1e9}",
    }


def test_a_neighbour_is_served_whatever_a_configuration_says(shard: Shard, assign: Assign) -> None:
    neighbour = Client(shard.expect_started("neighbor", assign("neighbor"))["address"]).register()
    neighbour.create_room()
    for name, overrides in attacks(shard.folder / "state" / "tenants" / "neighbor").items():
        shard.stats(collect=False)
        begun = time.monotonic()
        answer = shard.put("hostile", assign("hostile", overrides=overrides))
        assert answer.status in (200, 422), (name, answer.body)
        if answer.status == 200:
            state = answer.json
            request(state["address"], "GET", "/_matrix/client/versions")
            assert "secret" not in json.dumps(state)
            shard.delete("hostile")
        else:
            assert answer.code in ("InvalidConfig", "OptionNotAllowed", "StartFailed"), (name, answer.body)
        neighbour.send("still here")
        # Bounds for a busy machine: what these once took was minutes, or the process.
        assert time.monotonic() - begun < 60, name
        assert shard.stats(collect=False)["reactorLag"]["maxSeconds"] < 5, name
    neighbour.work()
    assert set(shard.tenants()) == {"neighbor"}


def test_a_check_that_takes_too_long_is_killed_and_holds_up_nobody(shard: Shard, assign: Assign) -> None:
    slow = shard.folder / "slow"
    slow.mkdir()
    (slow / "slow_module.py").write_text(
        "import time\n\n\nclass Slow:\n    @staticmethod\n    def parse_config(config):\n        time.sleep(3600)\n"
    )
    # An operator's mistake: a module whose configuration never ends to be read.
    policy = {"allowedModules": ["slow_module.Slow"]}
    again = Shard(shard.python, shard.folder / "again", "test-1").start(extra_path=slow)
    try:
        neighbour = Client(again.expect_started("neighbor", assign("neighbor"))["address"]).register()
        begun = time.monotonic()
        body = assign("slow", overrides="modules: [{module: slow_module.Slow}]", policy=policy)
        answer = again.call("POST", "/v1/tenants/slow/check", body, timeout=120)
        assert answer.code == "InvalidConfig" and "could not be checked within" in answer.message
        assert time.monotonic() - begun < 100
        neighbour.work()
        good = again.call("POST", "/v1/tenants/good/check", assign("good", overrides="enable_search: false"), timeout=120)
        assert good.status == 200, good.body
    finally:
        again.kill()
