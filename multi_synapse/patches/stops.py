"""What a stop must know of the work that Synapse has in memory: see `work.py` and `kept.py`."""

from __future__ import annotations

import functools
import logging
from typing import Any

from synapse.appservice.scheduler import _TransactionController
from synapse.federation.sender import FederationSender
from synapse.federation.sender.per_destination_queue import PerDestinationQueue
from synapse.federation.sender.transaction_manager import TransactionManager
from synapse.server import HomeServer
from twisted.internet import defer

from .. import kept
from .process import replace

logger = logging.getLogger(__name__)


def note_background_processes() -> None:
    original = HomeServer.run_as_background_process

    @functools.wraps(original)
    def run_as_background_process(self: Any, desc: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        process: defer.Deferred[Any] = original(self, desc, func, *args, **kwargs)
        if not process.called:
            running = self.__dict__.setdefault("_shard_processes", {})
            running[process] = desc

            def ended(result: Any) -> Any:
                running.pop(process, None)
                return result

            process.addBoth(ended)
        return process

    replace(HomeServer, "run_as_background_process", run_as_background_process)


def note_transactions_to_services() -> None:
    original = _TransactionController.send

    @functools.wraps(original)
    async def send(self: Any, service: Any, events: Any, *args: Any, **kwargs: Any) -> None:
        sending = self.__dict__.setdefault("_shard_sending", {})
        sending[service.id] = (events, *args, *kwargs.values())
        try:
            await original(self, service, events, *args, **kwargs)
        finally:
            sending.pop(service.id, None)

    replace(_TransactionController, "send", send)


def note_transactions_to_servers() -> None:
    original = TransactionManager.send_new_transaction

    @functools.wraps(original)
    async def send_new_transaction(self: Any, destination: str, pdus: Any, edus: Any) -> None:
        sending = self.__dict__.setdefault("_shard_sending", {})
        sending[destination] = edus
        try:
            await original(self, destination, pdus, edus)
        finally:
            sending.pop(destination, None)

    replace(TransactionManager, "send_new_transaction", send_new_transaction)


def take_up_queues_of_servers() -> None:
    wake = FederationSender._wake_destinations_needing_catchup
    attempt = PerDestinationQueue.attempt_new_transaction

    @functools.wraps(wake)
    async def wake_destinations(self: Any) -> None:
        # Runs first when a tenant starts.
        if not self.__dict__.setdefault("_shard_filled", False):
            self._shard_filled = True
            try:
                await kept.fill_server_queues(self)
            except Exception:
                logger.exception("what was on its way to other servers is not taken up")
            self._transaction_manager._shard_may_send = True
            for queue in list(self._per_destination_queues.values()):
                if queue._new_data_to_send:
                    queue.attempt_new_transaction()
        await wake(self)

    @functools.wraps(attempt)
    def attempt_new_transaction(self: Any) -> None:
        # A queue that begins before it is filled catches up: it sends the newest event of a room before the older ones.
        if getattr(self._transaction_manager, "_shard_may_send", False):
            attempt(self)
        else:
            self.mark_new_data()

    replace(FederationSender, "_wake_destinations_needing_catchup", wake_destinations)
    replace(PerDestinationQueue, "attempt_new_transaction", attempt_new_transaction)
