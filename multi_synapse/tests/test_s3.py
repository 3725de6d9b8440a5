from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .shard import Client, Shard, expect_no_stall
from .watching import wait_for

pytest.importorskip("s3_storage_provider")


def test_the_s3_provider_does_not_leak(own_shard: Shard, assign: Callable[..., dict[str, Any]]) -> None:
    # Guards against: each start of a tenant with media in S3 leaves five threads and a trigger; its first upload stalls everybody.
    overrides = """
media_storage_providers:
  - module: s3_storage_provider.S3StorageProviderBackend
    store_local: true
    store_synchronous: false
    config: {bucket: media, endpoint_url: "http://127.0.0.1:9", region_name: r, access_key_id: k, secret_access_key: s}
"""
    assignment = assign("media", overrides=overrides)
    client: Client | None = None
    before: dict[str, Any] = {}
    for cycle in range(6):
        address = own_shard.expect_started("media", assignment)["address"]
        client = client or Client(address).register()
        client.address = address
        own_shard.stats(collect=False)
        assert "content_uri" in client.ok("POST", "/_matrix/media/v3/upload?filename=x", {"some": "bytes"})
        expect_no_stall(own_shard)
        own_shard.delete("media")
        if cycle == 2:
            before = {**own_shard.stats(), "threads": own_shard.fewest_threads()}
    # The last upload is still being tried, in a thread.
    wait_for(lambda: own_shard.stats()["liveHomeServers"] == 0)
    assert own_shard.fewest_threads() <= before["threads"]
    assert own_shard.stats()["triggers"] == before["triggers"]
