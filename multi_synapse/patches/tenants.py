"""State that Synapse keeps once per process although it is a tenant's."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any

import synapse.config.cache as cache_config
from synapse import rest
from synapse.config import ConfigError, experimental
from synapse.handlers.auth import AuthHandler
from synapse.logging.context import make_deferred_yieldable
from synapse.util import caches
from twisted.internet import defer

from .process import replace

#: Of the reactor's pool, which also encodes every response.
_BCRYPT_JOBS_PER_TENANT = 2


class TenantCaches:
    """Resizable caches and cache configuration by server name."""

    def __init__(self) -> None:
        self._callbacks: dict[str, dict[str, Callable[[], Callable[[float], None] | None]]] = {}
        self._configs: dict[str, Any] = {}

    def add_tenant(self, server_name: str, config: Any) -> None:
        self._configs[server_name] = config

    def remove_tenant(self, server_name: str) -> None:
        self._configs.pop(server_name, None)
        self._callbacks.pop(server_name, None)

    def add_cache(self, server_name: str, name: str, resize: Callable[[float], None]) -> None:
        name = cache_config._canonicalise_cache_name(name)
        # Weakly, as the cache belongs to a tenant that must be collectable.
        reference: Callable[[], Callable[[float], None] | None]
        reference = weakref.WeakMethod(resize) if hasattr(resize, "__self__") else (lambda: resize)  # type: ignore[arg-type]
        self._callbacks.setdefault(server_name, {})[name] = reference
        self._resize(server_name, name, resize)

    def resize_tenant(self, server_name: str) -> None:
        for name, reference in list(self._callbacks.get(server_name, {}).items()):
            resize = reference()
            if resize is not None:
                self._resize(server_name, name, resize)

    def _resize(self, server_name: str, name: str, resize: Callable[[float], None]) -> None:
        config = self._configs.get(server_name)
        if config is not None:
            resize(config.cache_factors.get(name, config.global_factor))


caches_of_tenants = TenantCaches()


def size_caches_per_tenant() -> None:
    def add_resizable_cache(cache_name: str, cache_resize_callback: Callable[[float], None]) -> None:
        # Called by caches.register_cache alone, which knows the server name and does not pass it on.
        server_name = sys._getframe(1).f_locals["server_name"]
        caches_of_tenants.add_cache(server_name, cache_name, cache_resize_callback)

    def resize_all_caches(self: Any) -> None:
        server_name = self.root.server.server_name
        caches_of_tenants.add_tenant(server_name, self)
        caches_of_tenants.resize_tenant(server_name)

    replace(caches, "add_resizable_cache", add_resizable_cache)
    replace(cache_config.CacheConfig, "resize_all_caches", resize_all_caches)


def limit_password_hashing() -> None:
    def limited(original: Any) -> Any:
        @functools.wraps(original)
        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            semaphore = getattr(self, "_shard_hashing", None)
            if semaphore is None:
                semaphore = self._shard_hashing = defer.DeferredSemaphore(_BCRYPT_JOBS_PER_TENANT)
            await make_deferred_yieldable(semaphore.acquire())
            try:
                return await original(self, *args, **kwargs)
            finally:
                semaphore.release()

        return method

    for name in ("hash", "validate_hash"):
        replace(AuthHandler, name, limited(getattr(AuthHandler, name)))


def register_media_servlets_per_tenant() -> None:
    original = rest.ClientRestResource.register_servlets

    def register_servlets(client_resource: Any, hs: Any, servlet_groups: Any = None) -> None:
        # The first tenant with media adds them to the list of all groups, which is the process's.
        groups = servlet_groups or [name for name in rest.SERVLET_GROUPS if name != "media" or hs.config.media.can_load_media_repo]
        original(client_resource, hs, groups)

    replace(rest.ClientRestResource, "register_servlets", staticmethod(register_servlets))


class _RoomVersions:
    """Stands in for the room versions that Synapse knows, where experimental features add to them."""

    def add_room_version(self, version: Any) -> None:
        raise ConfigError(
            f"the room version {version.identifier} would be known to all tenants of the process", path=("experimental_features",)
        )


def refuse_room_versions_for_all() -> None:
    replace(experimental, "KNOWN_ROOM_VERSIONS", _RoomVersions())
