"""Images are decoded beside the shard, in processes with bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .shard import CHECKOUT, Client, Shard, request
from .watching import children_of, command_of, is_gone, wait_for

#: Run by the release's Python, which has Pillow: the tests' own need not have it.
MAKE_IMAGE = """
import sys
from PIL import Image
width, height, kind, noisy = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "noisy"
Image.MAX_IMAGE_PIXELS = None
image = Image.effect_noise((width, height), 80).convert("RGB") if noisy else Image.new("RGB", (width, height), (200, 30, 30))
image.save(sys.stdout.buffer, kind)
"""


def image(python: Path, width: int, height: int, kind: str = "PNG", look: str = "plain") -> bytes:
    return subprocess.run([python, "-c", MAKE_IMAGE, str(width), str(height), kind, look], check=True, capture_output=True).stdout


def upload(client: Client, content: bytes, kind: str = "image/png") -> str:
    headers = {"authorization": f"Bearer {client.token}", "content-type": kind}
    answer = request(client.address, "POST", "/_matrix/media/v3/upload", headers=headers, timeout=240, raw=content)
    assert answer.status == 200, answer.body
    return str(answer.json["content_uri"]).removeprefix("mxc://")


def thumbnail(client: Client, media: str, size: int = 96) -> Any:
    return client.call("GET", f"/_matrix/client/v1/media/thumbnail/{media}?width={size}&height={size}&method=crop")


def pid_of(shard: Shard) -> int:
    assert shard.process is not None
    return shard.process.pid


def workers(shard: Shard) -> list[int]:
    """The processes that decode images for it."""
    return [pid for pid in children_of(pid_of(shard)) if "multi_synapse.image_worker" in command_of(pid)]


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def tenant(shard: Shard, assign: Callable[..., dict[str, Any]]) -> Callable[..., Client]:
    def start(name: str, overrides: str = "") -> Client:
        return Client(shard.expect_started(name, assign(name, overrides=overrides))["address"]).register()

    return start


@pytest.mark.smoke
def test_thumbnails_are_those_of_the_release(shard: Shard, tenant: Callable[..., Client], python: Path) -> None:
    client = tenant("photos")
    media = upload(client, image(python, 800, 600, "JPEG", "noisy"), "image/jpeg")
    answer = thumbnail(client, media)
    assert answer.status == 200
    assert answer.body.startswith(b"\xff\xd8")
    assert len(workers(shard)) == 1


def test_each_tenant_has_its_own_pixel_limit(tenant: Callable[..., Client], python: Path) -> None:
    """The case pixel-limit: the last tenant's limit must not hold for its neighbours."""
    large = image(python, 6000, 6000)
    neighbour = tenant("neighbour")
    strict = tenant("strict", "max_image_pixels: 10K\n")
    assert thumbnail(neighbour, upload(neighbour, large)).status == 400
    assert thumbnail(strict, upload(strict, image(python, 200, 200))).status == 400
    assert thumbnail(neighbour, upload(neighbour, image(python, 200, 200))).status == 200


def test_forty_large_images_at_once_do_not_grow_the_shard(shard: Shard, tenant: Callable[..., Client], python: Path) -> None:
    # One size, so that the test takes seconds: an image costs its memory once, whatever is made of it.
    hostile = tenant("hostile", "thumbnail_sizes: [{width: 32, height: 32, method: crop}]\n")
    neighbour = tenant("neighbour")
    content = image(python, 5700, 5700, "JPEG")
    upload(hostile, content, "image/jpeg")
    before = resident(pid_of(shard))
    peak = before
    statuses: list[int] = []
    threads = [threading.Thread(target=upload, args=(hostile, content, "image/jpeg")) for _ in range(40)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        statuses.append(neighbour.call("GET", "/_matrix/client/v3/account/whoami").status)
        peak = max(peak, resident(pid_of(shard)))
        assert len(workers(shard)) <= 2
        time.sleep(0.05)
    assert set(statuses) == {200}
    assert peak - before < 100 * 1024 * 1024, f"{(peak - before) / 2**20:.0f} MiB"


def test_an_upload_stands_when_its_images_process_is_killed(shard: Shard, tenant: Callable[..., Client], python: Path) -> None:
    client = tenant("photos")
    upload(client, image(python, 100, 100))
    (worker,) = workers(shard)
    os.kill(worker, signal.SIGSTOP)
    result: list[str] = []
    content = image(python, 100, 100)
    thread = threading.Thread(target=lambda: result.append(upload(client, content)))
    thread.start()
    time.sleep(0.5)
    os.kill(worker, signal.SIGKILL)
    thread.join(60)
    assert result
    assert client.call("GET", f"/_matrix/client/v1/media/download/{result[0]}").status == 200
    # The next one has a process again.
    assert thumbnail(client, upload(client, image(python, 100, 100))).status == 200


def test_what_is_no_image_is_uploaded_without_thumbnails(tenant: Callable[..., Client]) -> None:
    client = tenant("photos")
    assert thumbnail(client, upload(client, b"\x89PNG\r\n\x1a\n" + b"nonsense" * 100)).status == 400


def test_the_process_gives_way_to_the_shard_and_ends_with_it(shard: Shard, tenant: Callable[..., Client], python: Path) -> None:
    upload(tenant("photos"), image(python, 100, 100))
    (worker,) = workers(shard)
    # Tenants' requests go before images.
    assert os.getpriority(os.PRIO_PROCESS, worker) >= 10
    shard.kill()
    wait_for(lambda: is_gone(worker))


def test_an_image_that_needs_more_memory_than_a_process_has_is_refused(python: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(CHECKOUT)!r})
import tempfile
from PIL import Image
from synapse.media.thumbnailer import ThumbnailError
from multi_synapse.images import Worker, RemoteImage
Image.MAX_IMAGE_PIXELS = None
with tempfile.NamedTemporaryFile() as file:
    Image.new("L", (16000, 16000)).save(file, "PNG"); file.flush()
    worker = Worker()
    image = RemoteImage(worker, file.name, 10**9)
    try:
        image.scale(10, 10, "image/png")
    except ThumbnailError as error:
        print("refused", error)
    finally:
        worker.end()
"""
    result = subprocess.run([python, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("refused"), result
