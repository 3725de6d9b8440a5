"""Keeps what a shard has of its tenants' media on disk within bounds, where the bucket has it too.

Synapse never removes a local copy. Here copies that were unused for long are removed, and the longest unused ones while all of
them together are too large. A file is removed only when the bucket says that it has a file of the same name and size: a file whose
upload is under way or failed, or that is older than the tenant's bucket, is never lost. Previews of URLs are not in buckets, and
Synapse expires them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import defer, task, threads

logger = logging.getLogger(__name__)

#: Younger ones may be about to be used, or written still.
_YOUNGEST_SECONDS = 600.0
#: Renamed in one go on the reactor, 20 µs each.
_AT_ONCE = 50
#: In a cache's own directory, so that a file gets there by its name alone.
_REMOVED = ".removed"
_OF_LOCAL = ("local_content", "local_thumbnails")
_OF_REMOTE = ("remote_content", "remote_thumbnail")


@dataclass(frozen=True)
class Bounds:
    #: Of all tenants' files together.
    most_bytes: int = 2 * 1024**3
    #: Longest time a copy may be unused.
    oldest_seconds: float = 7 * 86400.0


@dataclass(frozen=True)
class Bucket:
    """Asks whether a file is in a bucket. Knows nothing of the homeserver, which may be gone."""

    client: Any
    name: str
    prefix: str
    extra: dict[str, str]

    def has(self, path: str, size: int) -> bool:
        """@raises Exception if it cannot be said"""
        from botocore.exceptions import ClientError

        try:
            answer = self.client.head_object(Bucket=self.name, Key=self.prefix + path, **self.extra)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
                return False
            raise
        return int(answer["ContentLength"]) == size


@dataclass(frozen=True)
class Cache:
    """A tenant's local files that are in its bucket too."""

    tenant: str
    root: Path
    folders: tuple[str, ...]
    bucket: Bucket


@dataclass(frozen=True)
class File:
    cache: Cache
    path: str
    size: int
    used_at: float
    written_at: float


def choose(files: Iterable[File], departed: set[str], bounds: Bounds, now: float) -> list[File]:
    """What is to go: by age first, then by size, the longest unused first. Of tenants that have left all that is not young."""
    chosen: list[File] = []
    left: list[File] = []
    for file in files:
        unused = now - max(file.used_at, file.written_at)
        limit = _YOUNGEST_SECONDS if file.cache.tenant in departed else max(bounds.oldest_seconds, _YOUNGEST_SECONDS)
        (chosen if unused > limit else left).append(file)
    size = sum(file.size for file in left)
    for file in sorted(left, key=lambda file: max(file.used_at, file.written_at)):
        if size <= bounds.most_bytes or now - max(file.used_at, file.written_at) <= _YOUNGEST_SECONDS:
            break
        chosen.append(file)
        size -= file.size
    return chosen


def cache_of(tenant: str, hs: Any) -> Cache | None:
    """A tenant's cache, or None where its local files may be the only ones."""
    if not hs.config.media.can_load_media_repo:
        return None
    storage = hs.get_media_repository().media_storage
    # None in a tenant that keeps nothing at all locally.
    root = getattr(storage, "local_media_directory", None)
    for provider in storage.storage_providers:
        backend: Any = getattr(provider, "backend", None)
        if root is None or not hasattr(backend, "_get_s3_client") or not provider.store_synchronous:
            continue
        folders = (_OF_LOCAL if provider.store_local else ()) + (_OF_REMOTE if provider.store_remote else ())
        keys = ("SSECustomerKey", "SSECustomerAlgorithm")
        extra = {key: backend.extra_args[key] for key in keys if key in backend.extra_args}
        return Cache(tenant, Path(root), folders, Bucket(backend._get_s3_client(), backend.bucket, backend.prefix, extra))
    return None


class MediaCaches:
    """Of all tenants of the shard, and of those that have left it."""

    def __init__(self, reactor: Any, pool: Any, bounds: Bounds, is_here: Callable[[str], bool]) -> None:
        self._reactor = reactor
        self._pool = pool
        self._bounds = bounds
        self._is_here = is_here
        self._caches: dict[str, Cache] = {}
        self._loop = task.LoopingCall(self._sweep_safely)

    def start(self, seconds: float) -> None:
        self._loop.start(seconds, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def watch(self, tenant: str, hs: Any) -> None:
        """From now on the tenant's cache is kept within bounds, if it has one."""
        cache = cache_of(tenant, hs)
        if cache is None:
            self._caches.pop(tenant, None)
        else:
            self._caches[tenant] = cache

    def _sweep_safely(self) -> defer.Deferred[None]:
        work = defer.ensureDeferred(self.sweep())
        work.addErrback(lambda failure: logger.error("the media cache could not be tidied: %s", failure.getTraceback()))
        return work

    async def sweep(self) -> None:
        caches = list(self._caches.values())
        departed = {cache.tenant for cache in caches if not self._is_here(cache.tenant)}
        files = await self._in_thread(lambda: [file for cache in caches for file in _files_of(cache)])
        chosen = choose(files, departed, self._bounds, time.time())
        removed: list[File] = []
        for cache in caches:
            own = [file for file in chosen if file.cache is cache]
            if own:
                removed += await self._remove(cache, own)
            elif cache.tenant in departed and not any(file.cache is cache for file in files):
                self._forget(cache)
        if removed:
            size, total = sum(file.size for file in removed), sum(file.size for file in files)
            what = "media cache: %d files with %d bytes removed, which the buckets have; %d bytes are left"
            logger.info(what, len(removed), size, total - size)

    def _forget(self, cache: Cache) -> None:
        if self._caches.get(cache.tenant) is cache and not self._is_here(cache.tenant):
            del self._caches[cache.tenant]

    async def _remove(self, cache: Cache, files: list[File]) -> list[File]:
        stored = await self._in_thread(lambda: _stored_of(cache, files))
        bin_ = cache.root / _REMOVED
        await self._in_thread(lambda: bin_.mkdir(mode=0o700, exist_ok=True))
        removed = []
        for first in range(0, len(stored), _AT_ONCE):
            # On the reactor: nothing there is between looking for a file and opening it, or between making a directory and using it.
            removed += [file for number, file in enumerate(stored[first : first + _AT_ONCE], first) if _take_out(file, bin_ / str(number))]
            await task.deferLater(self._reactor, 0)
        await self._in_thread(lambda: shutil.rmtree(bin_, ignore_errors=True))
        return removed

    def _in_thread(self, function: Callable[[], Any]) -> defer.Deferred[Any]:
        return threads.deferToThreadPool(self._reactor, self._pool, function)


def _files_of(cache: Cache) -> list[File]:
    found = []
    for folder in cache.folders:
        for directory, _, names in os.walk(cache.root / folder):
            for name in names:
                path = Path(directory, name)
                with contextlib.suppress(OSError):
                    facts = path.stat(follow_symlinks=False)
                    relative = str(path.relative_to(cache.root))
                    found.append(File(cache, relative, facts.st_size, facts.st_atime, facts.st_mtime))
    return found


def _stored_of(cache: Cache, files: list[File]) -> list[File]:
    """Those that are in the bucket; as many as it told of."""
    stored = []
    try:
        for file in files:
            if cache.bucket.has(file.path, file.size):
                stored.append(file)
    except Exception as error:
        logger.warning("tenant %s: what is in its bucket cannot be found out, so its files stay: %s", cache.tenant, error)
    return stored


def _take_out(file: File, to: Path) -> bool:
    """Removes a file from where Synapse looks for it, and the directories that are empty then. Leaves a file that changed meanwhile."""
    root = file.cache.root
    path = root / file.path
    try:
        facts = path.stat(follow_symlinks=False)
        if (facts.st_size, facts.st_mtime) != (file.size, file.written_at):
            return False
        path.rename(to)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        for parent in path.parents:
            if parent.parent == root:
                break
            parent.rmdir()
    return True
