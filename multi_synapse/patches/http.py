"""Requests that wait for something to happen."""

from __future__ import annotations

from typing import Any

from synapse.app import _base
from synapse.http.site import SynapseSite
from synapse.logging.context import PreserveLoggingContext
from synapse.notifier import Notifier
from synapse.types import StreamToken

from .process import replace


def make_long_polls_drainable() -> None:
    original = Notifier.wait_for_events

    async def wait_for_events(
        self: Any, user_id: Any, timeout: int, callback: Any, room_ids: Any = None, from_token: Any = StreamToken.START
    ) -> Any:
        is_last = False

        async def answer(before: Any, after: Any) -> Any:
            nonlocal is_last
            if getattr(self, "_shard_draining", False):
                # Synapse gives the position of when something last happened to this user. Where the streams are now shows that nothing
                # was missed, also to the code that answers the next request.
                after = self.event_sources.get_current_token()
                is_last = True
            return await callback(before, after)

        if getattr(self, "_shard_draining", False):
            timeout = 0
        result = await original(self, user_id, timeout, answer, room_ids, from_token)
        if not result and getattr(self, "_shard_draining", False) and not is_last:
            # It was woken for nothing just before the drain, and has waited again since.
            result = await answer(from_token, None)
        return result

    replace(Notifier, "wait_for_events", wait_for_events)


def note_ports_of_workers() -> None:
    """For a process that is a worker: the main process notes them itself."""
    original = _base.listen_http

    def listen_http(hs: Any, *args: Any, **kwargs: Any) -> Any:
        ports = original(hs, *args, **kwargs)
        hs._listening_services.extend(ports)
        return ports

    replace(_base, "listen_http", listen_http)


def no_log_dates() -> None:
    # For twisted's own access log, which SynapseSite leaves out.
    replace(SynapseSite, "_updateLogDateTime", lambda _self: None)


def end_long_polls(hs: Any) -> int:
    """Makes every waiting request of a tenant answer now with what it has; returns how many there were.

    `wait_for_events` takes a cancelled listener for the end of its waiting and answers as if the time were over.
    """
    notifier = hs.get_notifier()
    notifier._shard_draining = True
    ended = 0
    for stream in set(notifier.user_to_user_stream.values()):
        for listener in list(stream.listeners):
            with PreserveLoggingContext():
                listener.cancel()
            ended += 1
    return ended
