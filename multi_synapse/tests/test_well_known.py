from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from .shard import Shard, request

pytestmark = pytest.mark.shared_shard


@pytest.mark.smoke
def test_a_server_name_points_clients_and_servers_to_another_host(shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: clients and servers that know only the server name do not find a homeserver that is at another host.
    content = {"server": {"m.server": "matrix.pointed.example:443"}, "support": {"support_page": "https://help.example"}}
    overrides = {
        "public_baseurl": "https://matrix.pointed.example/",
        "extra_well_known_client_content": {"org.example": {"a": 1}},
        "modules": [{"module": "multi_synapse.well_known.WellKnown", "config": content}],
    }
    policy = {"allowedHosts": ["matrix.pointed.example"]}
    address = shard.expect_started("pointed", assign("pointed", overrides=yaml.safe_dump(overrides), policy=policy))["address"]

    def get(name: str) -> Any:
        answer = request(address, "GET", f"/.well-known/matrix/{name}")
        assert answer.status == 200, answer.body
        return answer.json

    assert get("server") == content["server"]
    assert get("support") == content["support"]
    assert get("client") == {"m.homeserver": {"base_url": "https://matrix.pointed.example/"}, "org.example": {"a": 1}}
    # Everything else is served as before.
    assert request(address, "GET", "/_matrix/client/versions").status == 200
    # Another one of the same shard serves its own, and a stopped one nothing.
    plain = shard.expect_started("plain", assign("plain"))["address"]
    assert request(plain, "GET", "/.well-known/matrix/server").status == 404
    shard.delete("pointed")
    again = shard.expect_started("pointed", assign("pointed", epoch=2, overrides=yaml.safe_dump(overrides), policy=policy))["address"]
    assert request(again, "GET", "/.well-known/matrix/server").json == content["server"]


def test_a_wrong_delegation_is_refused_with_the_module_named(shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: a slip of the pen in the delegation is found out by other people's servers.
    module = {"module": "multi_synapse.well_known.WellKnown", "config": {"srever": {}}}
    answer = shard.put("wrong", assign("wrong", overrides=yaml.safe_dump({"modules": [module]})))
    assert answer.status == 422
    assert answer.code == "ModuleFailed"
    assert "multi_synapse.well_known.WellKnown" in answer.message
