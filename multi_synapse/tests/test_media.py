from __future__ import annotations

import functools
import http.client
import json
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .dedicated import Dedicated
from .media import S3Server, Wire, program
from .shard import Answer, Client, Shard, request
from .watching import files_under, wait_for

pytest.importorskip("s3_storage_provider")
pytestmark = pytest.mark.skipif(not program().exists(), reason="needs an S3 server: tests/kubernetes/images/build --binaries")

Assign = Callable[..., dict[str, Any]]
#: Far less than what clients wait, and than a gateway's patience.
ANSWERED_WITHIN_SECONDS = 45


@pytest.fixture
def server(folder: Path) -> Iterator[S3Server]:
    made = S3Server(folder / "s3")
    yield made
    made.stop()


@pytest.fixture
def wire(server: S3Server) -> Iterator[Wire]:
    made = Wire(server.port)
    yield made
    made.close()


def s3(name: str, port: int, secret: str | None = None, bucket: str | None = None, more: str = "") -> str:
    key = secret or f"secret-of-{name}"
    return f"""
max_upload_size: 100M
media_storage_providers:
  - module: s3_storage_provider.S3StorageProviderBackend
    store_local: true
    store_remote: true
    store_synchronous: true
    config:
      bucket: {bucket or f"bucket-{name}"}
      endpoint_url: "http://127.0.0.1:{port}"
      region_name: us-east-1
      access_key_id: {name}
      secret_access_key: {key}
{more}"""


def upload(client: Client, content: bytes) -> Answer:
    headers = {"authorization": f"Bearer {client.token}", "content-type": "application/octet-stream"}
    path = "/_matrix/media/v3/upload?filename=f"
    return request(client.address, "POST", path, None, headers, ANSWERED_WITHIN_SECONDS, content)


def uploaded(client: Client, content: bytes) -> str:
    answer = upload(client, content)
    assert answer.status == 200, answer.body
    return str(answer.json["content_uri"]).removeprefix("mxc://")


def download(client: Client, media: str) -> Answer:
    headers = {"authorization": f"Bearer {client.token}"}
    return request(client.address, "GET", f"/_matrix/client/v1/media/download/{media}", None, headers, ANSWERED_WITHIN_SECONDS)


def cached(folder: Path, name: str) -> list[Path]:
    return files_under(folder / "media" / name)


def forget_cache(folder: Path, name: str) -> None:
    for path in cached(folder, name):
        path.unlink(missing_ok=True)


def expect_matrix_error(answer: Answer, status: int, word: str) -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert answer.json["errcode"] == "M_UNKNOWN"
    assert word in answer.json["error"]


def start_with_bucket(shard: Shard, server: S3Server, assign: Assign, name: str, overrides: str) -> Client:
    if not (server.folder / "buckets" / f"bucket-{name}").exists():
        server.create_bucket(name, f"bucket-{name}")
    return Client(shard.expect_started(name, assign(name, overrides=overrides))["address"]).register()


@pytest.fixture
def start(shard: Shard, server: S3Server, assign: Assign) -> Callable[..., Client]:
    return functools.partial(start_with_bucket, shard, server, assign)


def test_a_dead_s3_server_is_an_error_and_no_hang(server: S3Server, folder: Path, start: Callable[..., Client]) -> None:
    # Guards against: a download that never ends as the provider forgets whom it was for; an upload that is answered as done and is nowhere.
    client, neighbour = start("a", s3("a", server.port)), start("b", "")
    content = secrets.token_bytes(100_000)
    media, theirs = uploaded(client, content), uploaded(neighbour, content)
    forget_cache(folder, "a")
    server.stop()
    expect_matrix_error(upload(client, b"new"), 503, "cannot be reached")
    assert cached(folder, "a") == []
    expect_matrix_error(download(client, media), 503, "cannot be reached")
    assert download(neighbour, theirs).body == content
    server.start()
    assert download(client, media).body == content
    assert download(client, uploaded(client, b"later")).body == b"later"


def test_a_silent_s3_server_is_given_up(server: S3Server, wire: Wire, folder: Path, start: Callable[..., Client]) -> None:
    # Guards against: minutes of waiting for a server that accepts connections and says nothing; neighbours that wait along.
    client, neighbour = start("a", s3("a", wire.port)), start("b", s3("b", server.port))
    content = secrets.token_bytes(100_000)
    media, theirs = uploaded(client, content), uploaded(neighbour, content)
    forget_cache(folder, "a")
    forget_cache(folder, "b")
    wire.silent = True
    answers: list[Answer] = []
    waiting = [threading.Thread(target=lambda: answers.append(download(client, media))) for _ in range(30)]
    waiting.append(threading.Thread(target=lambda: answers.append(upload(client, b"new"))))
    for thread in waiting:
        thread.start()
    time.sleep(1)
    assert download(neighbour, theirs).body == content
    assert uploaded(neighbour, b"meanwhile")
    assert not answers, "the neighbour had to wait"
    for thread in waiting:
        thread.join(ANSWERED_WITHIN_SECONDS * 2)
    assert len(answers) == len(waiting)
    for answer in answers:
        expect_matrix_error(answer, 503, "cannot be reached")
    wire.silent = False
    wait_for(lambda: download(client, media).status == 200)
    assert download(client, media).body == content


def test_a_download_that_breaks_off_is_seen_by_the_client(wire: Wire, server: S3Server, folder: Path, start: Callable[..., Client]) -> None:
    # Guards against: half a file that the client takes for a whole one, or waits for the rest of, forever.
    client = start("a", s3("a", wire.port))
    content = secrets.token_bytes(3_000_000)
    media = uploaded(client, content)
    forget_cache(folder, "a")
    wire.cut_after = 1_000_000
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        download(client, media)
    wire.cut_after = None
    assert download(client, media).body == content


def noise_png(side: int) -> bytes:
    """An image that compresses to about three bytes a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + secrets.token_bytes(side * 3) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def test_half_a_file_never_stays_in_the_cache(wire: Wire, server: S3Server, folder: Path, start: Callable[..., Client]) -> None:
    # Guards against: what a broken connection brought into the cache, for a thumbnail, is served as the whole file from then on.
    client = start("a", s3("a", wire.port, more="dynamic_thumbnails: true"))
    image = noise_png(400)
    media = uploaded(client, image)
    forget_cache(folder, "a")
    path = f"/_matrix/client/v1/media/thumbnail/{media}?width=77&height=77&method=scale"
    wire.cut_after = 200_000
    assert client.call("GET", path).status >= 400
    assert not [file for file in cached(folder, "a") if "local_content" in file.parts]
    wire.cut_after = None
    assert client.call("GET", path).status == 200
    assert download(client, media).body == image


def test_wrong_credentials_and_a_missing_bucket_say_so(server: S3Server, folder: Path, start: Callable[..., Client], shard: Shard) -> None:
    # Guards against: an upload that is lost without a word; a reason that only a packet trace would tell the operator.
    wrong = start("a", s3("a", server.port, secret="not-the-secret"))
    missing = start("b", s3("b", server.port, bucket="no-such-bucket"))
    expect_matrix_error(upload(wrong, b"x"), 502, "refuses")
    expect_matrix_error(upload(missing, b"x"), 502, "NoSuchBucket")
    assert cached(folder, "a") == cached(folder, "b") == []
    log = shard.logged
    lines = [json.loads(line) for line in log.splitlines() if "bucket no-such-bucket" in line]
    assert lines and "not-the-secret" not in log
    server.admin("create-bucket", "--owner", "b", "--bucket", "no-such-bucket")
    assert download(missing, uploaded(missing, b"x")).body == b"x"


def test_a_synapse_of_its_own_knows_the_same_errors(python: Path, server: S3Server, folder: Path, assign: Assign) -> None:
    # Guards against: a tenant that outgrew its shard gets the hangs of the bare provider back.
    server.create_bucket("a", "bucket-a")
    assignment = assign("a")
    assignment["base"].update(yaml.safe_load(s3("a", server.port)))
    dedicated = Dedicated(python, folder / "dedicated", assignment).start()
    try:
        client = Client(dedicated.expect_healthy().address).register()
        media = uploaded(client, b"content")
        forget_cache(folder, "a")
        server.stop()
        expect_matrix_error(download(client, media), 503, "cannot be reached")
        server.start()
        assert download(client, media).body == b"content"
    finally:
        dedicated.kill()


def test_a_large_file_is_not_held_in_memory(own_shard: Shard, server: S3Server, folder: Path, assign: Assign) -> None:
    # Guards against: a shard that dies of one tenant's videos.
    client = start_with_bucket(own_shard, server, assign, "a", s3("a", server.port))
    media = uploaded(client, b"first, so that what is imported is there")
    forget_cache(folder, "a")
    download(client, media)
    content = secrets.token_bytes(64 * 1024 * 1024)
    before = own_shard.own_memory()
    media = uploaded(client, content)
    forget_cache(folder, "a")
    assert download(client, media).body == content
    assert own_shard.own_memory() - before < 40 * 1024 * 1024
