"""What a start takes up at once of the last process's work: Synapse would wait for the next event, or for its next round."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from synapse.types import DeviceListUpdates
from synapse.util.duration import Duration

from . import kept

logger = logging.getLogger(__name__)

#: Synapse's own interval for a look at events of other servers that are in work.
_STAGED_ROUND = Duration(minutes=1)
#: To whom messages to devices, or changes of devices, are to be sent; more are found as they are written to.
_MOST_SERVERS = 1000

#: Application services with transactions that they did not take are asked again; a crash leaves some without saying so.
_UNSENT = """
    INSERT INTO application_services_state (as_id, state) SELECT DISTINCT as_id, 'down' FROM application_services_txns
    ON CONFLICT (as_id) DO UPDATE SET state = 'down'
"""
_SERVERS = f"""
    (SELECT DISTINCT destination FROM device_federation_outbox LIMIT {_MOST_SERVERS})
    UNION (SELECT DISTINCT destination FROM device_lists_outbound_pokes WHERE NOT sent LIMIT {_MOST_SERVERS})
"""
_STAGED = "SELECT EXISTS (SELECT 1 FROM federation_inbound_events_staging)"


@dataclass(frozen=True)
class Found:
    staged: bool
    servers: list[str]
    for_services: list[tuple[str, dict[str, Any]]]


def _look(transaction: Any, has_services: bool) -> Found:
    transaction.execute(_STAGED)
    ((staged,),) = transaction.fetchall()
    transaction.execute(_SERVERS)
    servers = [row[0] for row in transaction.fetchall()]
    for_services: list[tuple[str, dict[str, Any]]] = []
    if has_services:
        transaction.execute(_UNSENT)
        for_services = kept.take(transaction, kept.SERVICE)
    return Found(staged, servers, for_services)


async def resume(hs: Any) -> None:
    """Takes up what the last process left. To be awaited before the tenant gets requests, so that nothing new comes first."""
    store = hs.get_datastores().main
    services = store.get_app_services()
    # With workers, each does what is its own.
    notifies = bool(services) and hs.config.worker.should_notify_appservices
    found = await store.db_pool.runInteraction("shard_resume", _look, notifies)
    newest = store.get_room_max_token()
    if notifies:
        await _resume_services(hs, found.for_services)
        hs.get_application_service_handler().notify_interested_services(newest)
    if hs.should_send_federation():
        sender = hs.get_federation_sender()
        sender.notify_new_events(newest)
        for server in found.servers:
            if not kept.sends_to(sender, server):
                continue
            queue = sender._get_per_destination_queue(server)
            if queue is not None:
                queue.mark_new_data()
                # One after the other, as they may be many.
                sender._destination_wakeup_queue.add_to_queue(server)
    if found.staged and hs.config.worker.worker_app is None:
        _resume_staged_events(hs)


def _resume_staged_events(hs: Any) -> None:
    """As Synapse does at the next transaction of anybody."""
    federation = hs.get_federation_server()
    if not federation._started_handling_of_staged_events:
        federation._started_handling_of_staged_events = True
        federation._handle_old_staged_events()
        hs.get_clock().looping_call(federation._handle_old_staged_events, _STAGED_ROUND)


async def _resume_services(hs: Any, for_services: list[tuple[str, dict[str, Any]]]) -> None:
    scheduler = hs.get_application_service_scheduler()
    controller = scheduler.txn_ctrl
    handler = hs.get_application_service_handler()
    later: dict[str, kept.ForService] = {}
    for service_id, content in for_services:
        devices = DeviceListUpdates(changed=set(content.get("changed", ())), left=set(content.get("left", ())))
        later.setdefault(service_id, kept.ForService()).add((), content.get("ephemeral"), content.get("toDevice"), devices)
    # A service gets these after the transactions that it did not take: until then Synapse would drop them.
    scheduler._shard_later = later
    recovered = controller.on_recovered

    async def on_recovered(recoverer: Any) -> None:
        await recovered(recoverer)
        _enqueue(scheduler, recoverer.service, later.pop(recoverer.service.id, None))

    controller.on_recovered = on_recovered
    if not handler.started_scheduler:
        handler.started_scheduler = True
        await scheduler.start()
    for service in hs.get_datastores().main.get_app_services():
        if service.id in controller.recoverers:
            controller.force_retry(service)
        else:
            _enqueue(scheduler, service, later.pop(service.id, None))


def _enqueue(scheduler: Any, service: Any, what: kept.ForService | None) -> None:
    if what is not None:
        devices = DeviceListUpdates(changed=what.changed, left=what.left)
        scheduler.enqueue_for_appservice(service, ephemeral=what.ephemeral, to_device_messages=what.to_device, device_list_summary=devices)
