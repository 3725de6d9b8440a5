"""synapse-s3-storage-provider when its server is dead, silent or refuses: an error for the client, a reason for the operator, no hang.

As it is, anything but an answer of the server (no connection, a time-out) leaves a download waiting forever; a download that
breaks off leaves its client waiting for the rest; and botocore waits up to five minutes for a server that says nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import types
from collections.abc import AsyncIterator, Callable
from typing import Any

from synapse.api.errors import SynapseError
from synapse.media.media_storage import MediaStorage
from twisted.internet import reactor
from twisted.python.failure import Failure

from .process import replace

logger = logging.getLogger(__name__)

#: An upload or download to a silent server ends after twice the longer one, before clients and proxies give up on us (a minute and more).
_CONNECT_SECONDS = 5
_READ_SECONDS = 15
_ATTEMPTS = 2
#: After a time-out, requests that waited behind it, and those that come within this time, are answered at once.
_PAUSE_SECONDS = 5.0


class Patience:
    """Of one tenant with its server: requests that would only time out one after another are not made."""

    def __init__(self) -> None:
        self._until = 0.0

    def watch(self, session: Any) -> None:
        """@param session: botocore's"""
        session.register("before-call.s3", self._before)
        session.register("after-call-error.s3", self._after)

    def _before(self, **_event: Any) -> None:
        from botocore.exceptions import ConnectionError

        if time.monotonic() < self._until:
            raise ConnectionError(error="the last request was not answered in time")

    def _after(self, exception: Any, **_event: Any) -> None:
        from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

        if isinstance(exception, ConnectTimeoutError | ReadTimeoutError):
            self._until = time.monotonic() + _PAUSE_SECONDS


def _is_one_for_all(_session: Any) -> None:
    """Nothing to share."""


#: Given each new session of botocore's, one per tenant.
prepare_sessions: Callable[[Any], None] = _is_one_for_all


def apply() -> None:
    """Changes the provider's module; once per process."""
    import boto3
    import botocore.session
    import s3_storage_provider as provider
    from botocore.config import Config

    backend, responder = provider.S3StorageProviderBackend, provider._S3Responder
    download = provider.s3_download_task
    store, fetch = backend.store_file, backend.fetch
    error = responder._error

    def s3_download_task(client: Any, bucket: str, key: str, extra_args: Any, deferred: Any) -> None:
        try:
            download(client, bucket, key, extra_args, deferred)
        except BaseException:
            reactor.callFromThread(_fail, deferred, Failure())  # type: ignore[attr-defined]

    async def store_file(self: Any, path: str, file_info: Any) -> Any:
        try:
            return await store(self, path, file_info)
        except Exception as problem:
            raise _explained(problem, self.bucket, f"{path} cannot be stored") from None

    async def fetch_file(self: Any, path: str, file_info: Any) -> Any:
        try:
            return await fetch(self, path, file_info)
        except Exception as problem:
            raise _explained(problem, self.bucket, f"{path} cannot be read") from None

    def break_off(self: Any, failure: Failure) -> None:
        # First: afterwards the request is over, and knows nothing of its connection.
        _cut_connection(getattr(self.consumer, "wrapped_consumer", self.consumer))
        error(self, failure)

    def new_session() -> Any:
        session = botocore.session.Session()
        retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
        # What the provider sets itself goes before these.
        session.set_default_client_config(Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries=retries))
        Patience().watch(session)
        prepare_sessions(session)
        return boto3.session.Session(botocore_session=session)

    replace(provider, "boto3", types.SimpleNamespace(session=types.SimpleNamespace(Session=new_session)))
    replace(provider, "s3_download_task", s3_download_task)
    replace(backend, "store_file", store_file)
    replace(backend, "fetch", fetch_file)
    replace(responder, "_error", break_off)
    _never_keep_half_a_file()


def _fail(deferred: Any, failure: Failure) -> None:
    if not deferred.called:
        deferred.errback(failure)


def _cut_connection(request: Any) -> None:
    """Its length was announced, so that only the end of the connection tells the client that the rest does not come."""
    channel = getattr(request, "channel", None)
    if channel is not None:
        channel.forceAbortClient()


def _explained(problem: Exception, bucket: str, what: str) -> Exception:
    """What a client may know; the log has the rest."""
    import boto3.exceptions
    import botocore.exceptions

    is_answer = isinstance(problem, botocore.exceptions.ClientError | boto3.exceptions.Boto3Error)
    if not is_answer and not isinstance(problem, botocore.exceptions.BotoCoreError):
        return problem
    logger.warning("media storage, bucket %s: %s: %s", bucket, what, problem)
    error: Exception = SynapseError(503, "The media storage of this homeserver cannot be reached; try again later")
    if is_answer:
        error = SynapseError(502, f"The media storage of this homeserver refuses it{_code_of(problem)}")
    return error


def _code_of(problem: Exception) -> str:
    """In brackets: S3's own word, such as NoSuchBucket. An upload's exception has it in its cause, and in its text."""
    response = getattr(problem, "response", None) or getattr(problem.__context__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return f" ({code})" if code else ""


def _never_keep_half_a_file() -> None:
    """A file that could not be brought into the cache as a whole would be taken for the whole one later."""
    original = MediaStorage.ensure_media_is_in_local_cache

    @contextlib.asynccontextmanager
    async def ensure_media_is_in_local_cache(self: Any, file_info: Any) -> AsyncIterator[str]:
        directory = getattr(self, "local_media_directory", None)
        path = os.path.join(directory, self._file_info_to_path(file_info)) if directory else ""
        was_there = not path or os.path.exists(path)
        is_whole = False
        try:
            async with original(self, file_info) as local:
                is_whole = True
                yield local
        finally:
            if not was_there and not is_whole:
                with contextlib.suppress(OSError):
                    os.remove(path)

    replace(MediaStorage, "ensure_media_is_in_local_cache", ensure_media_is_in_local_cache)
