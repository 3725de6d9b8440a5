"""Thumbnails of all tenants, made in processes beside the shard (`image_worker.py`).

A tenant has one image at work at a time and a shard has two, so that forty uploads at once take their turns, and hold no
more than two threads of the pool that also hashes passwords. A process that takes too long is killed; the upload then
stands without thumbnails.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

from synapse.logging.context import defer_to_thread, make_deferred_yieldable
from synapse.media.thumbnailer import Thumbnailer, ThumbnailError
from twisted.internet import defer

from .holdings import work_of_tenants
from .image_worker import receive, receive_content, send

logger = logging.getLogger(__name__)

#: Each takes a core while it works, and up to 0.7 GiB (image_worker.MEMORY_BYTES).
MOST_WORKERS = 2
#: For one operation on one image; honest photographs of 33 million pixels take one or two on a slow core.
OPERATION_SECONDS = 20.0
#: For all operations on one image: an animation has one for each size.
IMAGE_SECONDS = 60.0
#: Importing Synapse and the codecs on a busy machine.
START_SECONDS = 60.0
#: A process that has had nothing to do for this long is ended; it is 70 MiB.
IDLE_SECONDS = 30.0


class Worker:
    """One process. Its calls block, and are made in threads."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        # The checkout or image that has this package, and nothing else of the shard's environment.
        environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "multi_synapse.image_worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment,
            )
        self._stream = ours
        self.dead = False
        self._answer(START_SECONDS)

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, message: dict[str, Any], file: int | None = None, seconds: float = OPERATION_SECONDS) -> tuple[dict[str, Any], bytes]:
        """@raises ThumbnailError if the image is refused or broken, or the process dies or takes too long"""
        if self.dead:
            raise ThumbnailError("its process has ended")
        try:
            send(self._stream, message, file)
        except OSError as error:
            self.kill()
            raise ThumbnailError("its process has ended") from error
        return self._answer(seconds)

    def _answer(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()
        try:
            answer, _file = receive(self._stream)
            if answer is None:
                raise OSError("the process has ended")
            content = receive_content(self._stream, answer.get("bytes", 0))
        except (OSError, ValueError) as error:
            self.kill()
            raise ThumbnailError(f"its process ended, or took longer than {seconds:g} s") from error
        finally:
            timer.cancel()
        if "error" in answer:
            raise ThumbnailError(answer["error"])
        return answer, content

    def kill(self) -> None:
        self.dead = True
        with contextlib.suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        """Blocks for a moment."""
        self.kill()
        self._stream.close()
        self._process.wait()


class Workers:
    """Those of one shard: started on use, ended when idle."""

    def __init__(self) -> None:
        self._idle: list[tuple[Worker, float]] = []
        self._lock = threading.Lock()

    def take(self) -> Worker:
        """Blocks while one is started. @raises ThumbnailError"""
        with self._lock:
            if self._idle:
                return self._idle.pop()[0]
        return Worker()

    def give_back(self, worker: Worker) -> None:
        """Blocks for a moment where it is dead."""
        if worker.dead:
            worker.end()
            return
        with self._lock:
            self._idle.append((worker, time.monotonic()))

    def end_idle(self, seconds: float = IDLE_SECONDS) -> int:
        """Ends those that have been idle for that long. @returns the number that are left"""
        now = time.monotonic()
        with self._lock:
            over = [worker for worker, since in self._idle if now - since >= seconds]
            self._idle = [(worker, since) for worker, since in self._idle if now - since < seconds]
            left = len(self._idle)
        for worker in over:
            worker.end()
        return left


class RemoteImage:
    """Looks like Synapse's `Thumbnailer`; what it does to the image is done in a worker. Its methods block, as the original's do."""

    def __init__(self, worker: Worker, path: str, pixels: int) -> None:
        self._worker = worker
        self._end = time.monotonic() + IMAGE_SECONDS
        with open(path, "rb") as file:
            self._take_in(self._call({"do": "open", "pixels": pixels}, file.fileno())[0])

    def _take_in(self, facts: dict[str, Any]) -> None:
        self.width, self.height = facts["width"], facts["height"]
        self.transpose_method = facts["transpose"]
        self.is_animated = facts["animated"]

    def _call(self, message: dict[str, Any], file: int | None = None) -> tuple[dict[str, Any], bytes]:
        left = self._end - time.monotonic()
        if left <= 0:
            raise ThumbnailError(f"the image takes longer than {IMAGE_SECONDS:g} s")
        return self._worker.call(message, file, min(left, OPERATION_SECONDS))

    def transpose(self) -> tuple[int, int]:
        self._take_in(self._call({"do": "transpose"})[0])
        return self.width, self.height

    @property
    def has_transparency(self) -> bool:
        return bool(self._call({"do": "transparency"})[0]["transparent"])

    def scale(self, width: int, height: int, output_type: str, animated: bool = False) -> BytesIO:
        return self._make("scale", width, height, output_type, animated)

    def crop(self, width: int, height: int, output_type: str, animated: bool = False) -> BytesIO:
        return self._make("crop", width, height, output_type, animated)

    #: Arithmetic on `width` and `height` alone.
    aspect = Thumbnailer.aspect

    def _make(self, do: str, width: int, height: int, output_type: str, animated: bool) -> BytesIO:
        facts, content = self._call({"do": do, "width": width, "height": height, "type": output_type, "animated": animated})
        self._take_in(facts)
        return BytesIO(content)

    def __enter__(self) -> RemoteImage:
        return self

    def __exit__(self, *_error: object) -> None:
        """The caller gives the worker back."""


workers_of_shard = Workers()
_places = defer.DeferredSemaphore(MOST_WORKERS)
_timer: Any = None


@contextlib.asynccontextmanager
async def image_of(repository: Any, path: str) -> AsyncIterator[RemoteImage]:
    """The image at `path` for a tenant's media repository, when its turn has come. @raises ThumbnailError"""
    reactor = repository.hs.get_reactor()
    own = getattr(repository, "_shard_image_turns", None)
    if own is None:
        own = repository._shard_image_turns = defer.DeferredSemaphore(1)
    # One's own turn first: who waits for the shard's keeps nobody else from it.
    for turns in (own, _places):
        await make_deferred_yieldable(turns.acquire())
    worker: Worker | None = None
    begun = time.monotonic()
    try:
        worker = await defer_to_thread(reactor, workers_of_shard.take)
        yield await defer_to_thread(reactor, RemoteImage, worker, path, repository.max_image_pixels)
    finally:
        work_of_tenants.of(repository.hs.hostname).image_seconds += time.monotonic() - begun
        try:
            if worker is not None:
                await defer_to_thread(reactor, workers_of_shard.give_back, worker)
                _end_idle_later(reactor)
        finally:
            _places.release()
            own.release()


def _end_idle_later(reactor: Any) -> None:
    global _timer
    if _timer is not None and _timer.active():
        return

    def end_idle() -> None:
        if workers_of_shard.end_idle() > 0:
            _end_idle_later(reactor)

    _timer = reactor.callLater(IDLE_SECONDS, lambda: reactor.callInThread(end_idle) if reactor.running else None)
