from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multi_synapse.media_cache import Bounds, Bucket, Cache, File, choose

from .media import S3Server, program
from .shard import Client, Shard
from .test_media import cached, download, s3, uploaded
from .watching import wait_for

DAY = 86400.0
NOW = 1_000 * DAY


def file(name: str, size: int, unused: float, tenant: str = "a") -> File:
    cache = Cache(tenant, Path("/m") / tenant, ("local_content",), Bucket(None, "b", "", {}))
    return File(cache, f"local_content/{name}", size, NOW - unused, NOW - unused - DAY)


def names(files: list[File]) -> list[str]:
    return [each.path.removeprefix("local_content/") for each in files]


def test_what_goes_first() -> None:
    # Guards against: files that are in use, or were just written, go before those that nobody looks at.
    files = [file("new", 50, 60), file("read", 30, DAY), file("forgotten", 10, 8 * DAY), file("lately", 40, 2 * DAY)]
    assert names(choose(files, set(), Bounds(1000, 7 * DAY), NOW)) == ["forgotten"]
    assert names(choose(files, set(), Bounds(100, 7 * DAY), NOW)) == ["forgotten", "lately"]
    assert names(choose(files, set(), Bounds(0, 7 * DAY), NOW)) == ["forgotten", "lately", "read"]
    assert names(choose(files, {"a"}, Bounds(1000, 7 * DAY), NOW)) == ["read", "forgotten", "lately"]
    written = File(file("x", 1, 0).cache, "local_content/written", 1, NOW - 9 * DAY, NOW - 1)
    assert choose([written], {"a"}, Bounds(0, DAY), NOW) == []


@pytest.fixture
def server(folder: Path) -> Iterator[S3Server]:
    made = S3Server(folder / "s3")
    yield made
    made.stop()


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    # The shard may have removed it.
    with contextlib.suppress(FileNotFoundError):
        os.utime(path, (then, then))


needs_server = pytest.mark.skipif(not program().exists(), reason="needs an S3 server: tests/kubernetes/images/build --binaries")


@needs_server
def test_only_what_is_in_the_bucket_is_removed_and_comes_back(
    server: S3Server, folder: Path, new_shard: Callable[..., Shard], assign: Callable[..., dict[str, Any]]
) -> None:
    # Guards against: a disk that fills up forever; and a tidying that takes somebody's only copy.
    pytest.importorskip("s3_storage_provider")
    shard = new_shard(mediaCacheSweepSeconds=0.5)
    server.create_bucket("a", "bucket-a")
    client = Client(shard.expect_started("a", assign("a", overrides=s3("a", server.port)))["address"]).register()
    plain = Client(shard.expect_started("plain", assign("plain"))["address"]).register()
    lazy_config = s3("a", server.port).replace("store_synchronous: true", "store_synchronous: false")
    lazy = Client(shard.expect_started("lazy", assign("lazy", overrides=lazy_config))["address"]).register()
    contents = [secrets.token_bytes(10_000) for _ in range(3)]
    old, young, altered = (uploaded(client, content) for content in contents)
    others = {"plain": uploaded(plain, b"only here"), "lazy": uploaded(lazy, b"perhaps only here")}
    directory = folder / "media" / "a"

    def local(media: str, name: str = "a") -> Path:
        return next(path for path in cached(folder, name) if "".join(path.parts[-3:]) == media.split("/")[1])

    never_stored = directory / "local_content" / "no" / "tb" / "efore"
    never_stored.parent.mkdir(parents=True)
    never_stored.write_bytes(b"from before there was a bucket")
    preview = directory / "url_cache" / "2026" / "x"
    preview.parent.mkdir(parents=True)
    preview.write_bytes(b"not in the bucket by design")
    local(altered).write_bytes(b"another length than in the bucket")
    kept = [never_stored, preview, local(altered), *(local(media, name) for name, media in others.items())]
    gone = local(old)
    for path in (gone, *kept):
        age(path, 30 * DAY)
    wait_for(lambda: not gone.parent.exists())
    time.sleep(2)
    assert all(path.exists() for path in kept)
    assert local(young).exists()
    wait_for(lambda: not (directory / ".removed").exists())
    assert download(client, old).body == contents[0]
    messages = [json.loads(line)["message"] for line in shard.logged.splitlines()]
    assert sum(message.startswith("media cache: 1 files with 10000 bytes removed") for message in messages) == 1


@needs_server
def test_a_bound_on_size_holds_and_a_dead_server_costs_no_file(
    server: S3Server, folder: Path, new_shard: Callable[..., Shard], assign: Callable[..., dict[str, Any]]
) -> None:
    # Guards against: a cache that grows by many files of this week; files that go while nobody can say whether the bucket has them.
    pytest.importorskip("s3_storage_provider")
    shard = new_shard(mediaCacheSweepSeconds=0.5, mediaCacheBytes=25_000)
    server.create_bucket("a", "bucket-a")
    client = Client(shard.expect_started("a", assign("a", overrides=s3("a", server.port)))["address"]).register()
    contents = [secrets.token_bytes(10_000) for _ in range(4)]
    media = [uploaded(client, content) for content in contents]
    server.stop()

    def identifiers() -> set[str]:
        return {"".join(path.parts[-3:]) for path in cached(folder, "a")}

    for path in cached(folder, "a"):
        age(path, 7200 - 60 * [each.split("/")[1] for each in media].index("".join(path.parts[-3:])))
    wait_for(lambda: "cannot be found out" in shard.logged)
    assert identifiers() == {each.split("/")[1] for each in media}
    server.start()
    wait_for(lambda: identifiers() == {each.split("/")[1] for each in media[2:]}, identifiers)
    assert [download(client, each).body for each in media] == contents
    # What a tenant leaves behind goes as well, when it is not young.
    shard.delete("a")
    for path in cached(folder, "a"):
        age(path, 3600)
    wait_for(lambda: not cached(folder, "a"))
    # Nor is the tenant itself held for that.
    wait_for(lambda: shard.stats()["liveHomeServers"] == 0)
