"""synapse-s3-storage-provider: a thread pool, a trigger and 15 MiB of botocore data per tenant, made one per shard.

Applied when the first tenant names the provider: importing botocore costs 20 MiB that a shard without S3 need not pay.
"""

from __future__ import annotations

import threading
import types
from typing import Any

from synapse.logging.context import make_deferred_yieldable
from twisted.internet import threads

from ..pools import S3_JOBS_OF_TENANT, ShareOfPool, threads_of_shard
from . import network, s3_faults
from .process import replace

MODULE = "s3_storage_provider.S3StorageProviderBackend"

_lock = threading.Lock()
_applied = False


def ensure_applied() -> None:
    """Imports and patches the provider once; call it in a thread, as the import takes half a second."""
    global _applied
    with _lock:
        if not _applied:
            from . import apply

            apply("s3")
            apply("s3-faults")
            _applied = True


def share_between_tenants() -> None:
    import botocore.session
    import s3_storage_provider
    from twisted.internet import reactor

    first = botocore.session.Session()
    loader = first.get_component("data_loader")
    resolver = first._get_internal_component("endpoint_resolver")

    def share_descriptions(session: Any) -> None:
        # Nothing else: credentials never mix.
        session.register_component("data_loader", loader)
        session._register_endpoint_resolver()
        session._internal_components.register_component("endpoint_resolver", resolver)
        network.screen_session(session)

    replace(s3_storage_provider, "ThreadPool", lambda *_args, **_kwargs: ShareOfPool(threads_of_shard.s3, S3_JOBS_OF_TENANT))
    # The provider's shutdown trigger would outlive its tenant.
    quiet = types.SimpleNamespace(callFromThread=reactor.callFromThread, addSystemEventTrigger=lambda *_a, **_k: None)  # type: ignore[attr-defined]
    replace(s3_storage_provider, "reactor", quiet)
    network.screen_s3(s3_storage_provider)
    s3_faults.prepare_sessions = share_descriptions


async def make_clients(hs: Any) -> None:
    """Makes a tenant's S3 clients in a thread; the provider would make them on the reactor at the first upload (85 ms)."""
    if not _applied or not hs.config.media.can_load_media_repo:
        return
    for provider in hs.get_media_repository().media_storage.storage_providers:
        backend = getattr(provider, "backend", provider)
        if hasattr(backend, "_get_s3_client"):
            await make_deferred_yieldable(threads.deferToThread(backend._get_s3_client))
