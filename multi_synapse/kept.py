"""What Synapse has queued in memory when a tenant stops: written into the tenant's database, and taken up again by its next start.

Events for application services go where Synapse itself puts those that a service did not take. The rest, for which Synapse has no
place, is in a table of ours beside the fence: receipts and messages to devices for application services, and what was on its way to
other servers. docs/stops.md is the picture of it all.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extras
from synapse.api.constants import EduTypes
from synapse.federation.units import Edu
from synapse.types import DeviceListUpdates
from synapse.util.json import json_encoder

from .fence import Claim
from .waiting import Limit

logger = logging.getLogger(__name__)

#: As many as Synapse puts into one transaction.
_EVENTS_PER_TRANSACTION = 100
#: To other servers, of all together. Beyond it they get the newest event of each room, as after a crash, and fetch the others.
_MOST_PDUS = 5000
_MOST_EDUS = 5000
#: In the database anyway, or out of date when the tenant is back.
_NOT_KEPT = frozenset(
    {
        EduTypes.DIRECT_TO_DEVICE,
        EduTypes.DEVICE_LIST_UPDATE,
        EduTypes.SIGNING_KEY_UPDATE,
        EduTypes.UNSTABLE_SIGNING_KEY_UPDATE,
        EduTypes.TYPING,
        EduTypes.PRESENCE,
    }
)

SERVICE, SERVER = "application service", "server"

_CREATE = """
    CREATE TABLE IF NOT EXISTS synapse_shards.kept (kind text NOT NULL, name text NOT NULL, content text NOT NULL)
"""
_EXISTS = "SELECT to_regclass('synapse_shards.kept') IS NOT NULL"


@dataclass
class ForService:
    """What an application service did not get."""

    events: list[Any] = field(default_factory=list)
    ephemeral: list[Any] = field(default_factory=list)
    to_device: list[Any] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def add(self, events: Any = None, ephemeral: Any = None, to_device: Any = None, devices: Any = None) -> None:
        self.events += events or ()
        self.ephemeral += ephemeral or ()
        self.to_device += to_device or ()
        if devices:
            self.changed = (self.changed - devices.left) | devices.changed
            self.left = (self.left - devices.changed) | devices.left

    def content(self) -> dict[str, Any]:
        """Of all but the events."""
        lists = {"ephemeral": self.ephemeral, "toDevice": self.to_device, "changed": sorted(self.changed), "left": sorted(self.left)}
        return {key: value for key, value in lists.items() if value}


@dataclass
class Kept:
    #: Events by application service, with their place in the stream; and for each the transaction that a stop cut off.
    events: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    cut: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.events or self.cut or self.rows)


class ServicesHeld:
    """Stands between Synapse and the queues of application services while a tenant drains: nothing new is sent."""

    def __init__(self, scheduler: Any) -> None:
        self.by_service: dict[str, ForService] = {}
        queuer = scheduler.queuer
        for service_id, for_service in getattr(scheduler, "_shard_later", {}).items():
            self._of(service_id).add(for_service.events, for_service.ephemeral, for_service.to_device, _devices(for_service))
        for queued, part in (
            (queuer.queued_events, "events"),
            (queuer.queued_ephemeral, "ephemeral"),
            (queuer.queued_to_device_messages, "to_device"),
        ):
            for service_id, items in queued.items():
                self._of(service_id).add(**{part: items})
            queued.clear()
        for service_id, summaries in queuer.queued_device_list_summaries.items():
            for summary in summaries:
                self._of(service_id).add(devices=summary)
        queuer.queued_device_list_summaries.clear()
        self._sending = scheduler.txn_ctrl.__dict__.setdefault("_shard_sending", {})
        scheduler.enqueue_for_appservice = self._enqueue

    def cut(self) -> dict[str, ForService]:
        """What is in transactions that have not been answered."""
        found: dict[str, ForService] = {}
        for service_id, (events, *rest) in self._sending.items():
            ephemeral, to_device, _counts, _fallback, devices = (*rest, *[None] * 5)[:5]
            found[service_id] = ForService()
            found[service_id].add(events, ephemeral, to_device, devices)
        return found

    def _enqueue(
        self,
        appservice: Any,
        events: Any = None,
        ephemeral: Any = None,
        to_device_messages: Any = None,
        device_list_summary: Any = None,
    ) -> None:
        self._of(appservice.id).add(events, ephemeral, to_device_messages, device_list_summary)

    def _of(self, service_id: str) -> ForService:
        return self.by_service.setdefault(service_id, ForService())


def hold_services(hs: Any) -> ServicesHeld | None:
    """From now on application services get nothing but the answer to what is on its way. None where none gets anything from here."""
    if not hs.config.worker.should_notify_appservices or not hs.get_datastores().main.get_app_services():
        return None
    return ServicesHeld(hs.get_application_service_scheduler())


def collect(hs: Any, held: ServicesHeld | None) -> Kept:
    """What is in memory only. Of a tenant whose database takes no more statements of Synapse's, so that nothing of it changes."""
    kept = Kept()
    if held is not None:
        cut = held.cut()
        for service_id in sorted({*held.by_service, *cut}):
            waiting, sent = held.by_service.get(service_id, ForService()), cut.get(service_id, ForService())
            if waiting.events:
                kept.events[service_id] = _places(waiting.events)
            if sent.events:
                kept.cut[service_id] = _places(sent.events)
            both = ForService()
            both.add(None, sent.ephemeral, sent.to_device, _devices(sent))
            both.add(None, waiting.ephemeral, waiting.to_device, _devices(waiting))
            if content := both.content():
                kept.rows.append((SERVICE, service_id, json_encoder.encode(content)))
    if hs.config.worker.send_federation:
        kept.rows += _on_the_way_to_servers(hs.get_federation_sender())
    return kept


def _devices(of: ForService) -> DeviceListUpdates:
    return DeviceListUpdates(changed=set(of.changed), left=set(of.left))


def _places(events: list[Any]) -> list[tuple[str, int]]:
    return [(event.event_id, event.internal_metadata.stream_ordering or 0) for event in events]


def _on_the_way_to_servers(sender: Any) -> list[tuple[str, str, str]]:
    rows = []
    pdus = edus = 0
    sending = getattr(sender._transaction_manager, "_shard_sending", {})
    for destination, queue in sender._per_destination_queues.items():
        events = [] if queue._catching_up and queue._last_successful_stream_ordering is not None else list(_values(queue._pending_pdus))
        others = [*sending.get(destination, ()), *queue._pending_edus, *queue._pending_edus_keyed.values()]
        lists = {
            "pdus": [event.event_id for event in events],
            "receipts": [*queue._pending_receipt_edus],
            "edus": [{"type": edu.edu_type, "content": edu.content} for edu in others if edu.edu_type not in _NOT_KEPT],
        }
        if pdus + len(lists["pdus"]) > _MOST_PDUS:
            logger.warning("%s gets the newest events alone, as too many wait for other servers", destination)
            lists["pdus"] = []
        if edus + len(lists["receipts"]) + len(lists["edus"]) > _MOST_EDUS:
            logger.warning("%s gets no receipts of the last seconds, as too many wait for other servers", destination)
            lists["receipts"] = lists["edus"] = []
        pdus += len(lists["pdus"])
        edus += len(lists["receipts"]) + len(lists["edus"])
        content = {key: value for key, value in lists.items() if value}
        if content:
            rows.append((SERVER, destination, json_encoder.encode(content)))
    return rows


def _values(pending: Any) -> Any:
    """A list in older releases."""
    return pending.values() if hasattr(pending, "values") else pending


def write(arguments: dict[str, Any], claim: Claim, kept: Kept, limit: Limit) -> None:
    """Writes it, if the database is still ours. Blocks. @raises psycopg2.Error"""
    with limit:
        connection = psycopg2.connect(**arguments)
        try:
            with connection, connection.cursor() as cursor:
                # A claim of another shard waits for this, or this finds it.
                cursor.execute("SELECT epoch, instance FROM synapse_shards.fence FOR SHARE")
                if cursor.fetchone() != (claim.epoch, claim.instance):
                    logger.warning("the database has another owner: what its tenant had queued is not written")
                    return
                _write_transactions(cursor, kept)
                if kept.rows:
                    cursor.execute(_CREATE)
                    psycopg2.extras.execute_values(cursor, "INSERT INTO synapse_shards.kept (kind, name, content) VALUES %s", kept.rows)
        finally:
            connection.close()


def _write_transactions(cursor: Any, kept: Kept) -> None:
    if not kept.events and not kept.cut:
        return
    # What came after this position is found again by Synapse itself.
    cursor.execute("SELECT stream_ordering FROM appservice_stream_position")
    (position,) = cursor.fetchone()
    for service_id in sorted({*kept.events, *kept.cut}):
        cut = kept.cut.get(service_id, [])
        ids = [event_id for event_id, _ in cut]
        cursor.execute("SELECT event_ids FROM application_services_txns WHERE as_id = %s", (service_id,))
        # Synapse writes a transaction down before it sends it, but it may not have come to that.
        if ids and ids not in [json.loads(row[0]) for row in cursor.fetchall()]:
            _write_transaction(cursor, service_id, ids)
        known = {event_id for event_id, _ in cut}
        ids = [event_id for event_id, place in kept.events.get(service_id, []) if place <= position and event_id not in known]
        for begin in range(0, len(ids), _EVENTS_PER_TRANSACTION):
            _write_transaction(cursor, service_id, ids[begin : begin + _EVENTS_PER_TRANSACTION])


def _write_transaction(cursor: Any, service_id: str, event_ids: list[str]) -> None:
    cursor.execute(
        "INSERT INTO application_services_txns (as_id, txn_id, event_ids) VALUES (%s, nextval('application_services_txn_id_seq'), %s)",
        (service_id, json.dumps(event_ids)),
    )


def take(transaction: Any, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Takes rows of a kind out of the table; `transaction` is one of Synapse's."""
    transaction.execute(_EXISTS)
    if not transaction.fetchone()[0]:
        return []
    transaction.execute("DELETE FROM synapse_shards.kept WHERE kind = ? RETURNING name, content", (kind,))
    return [(name, json.loads(content)) for name, content in transaction.fetchall()]


def _read_for_servers(transaction: Any) -> list[tuple[str, dict[str, Any]]]:
    transaction.execute(_EXISTS)
    if not transaction.fetchone()[0]:
        return []
    transaction.execute("SELECT name, content FROM synapse_shards.kept WHERE kind = ?", (SERVER,))
    return [(name, json.loads(content)) for name, content in transaction.fetchall()]


def _forget_for_servers(transaction: Any, names: list[str]) -> None:
    transaction.execute("DELETE FROM synapse_shards.kept WHERE kind = ? AND name = ANY(?)", (SERVER, names))


def sends_to(sender: Any, destination: str) -> bool:
    """Whether it is this process, of several, that sends to a server."""
    return bool(sender._federation_shard_config.should_handle(sender._instance_name, destination))


async def fill_server_queues(sender: Any) -> None:
    """Puts back what was on its way to other servers. To be called before anything is sent to them (`patches/stops.py`)."""
    store = sender.store
    found = await store.db_pool.runInteraction("shard_read_kept", _read_for_servers)
    rows = [(destination, content) for destination, content in found if sends_to(sender, destination)]
    for destination, content in rows:
        queue = sender._get_per_destination_queue(destination)
        if queue is None:
            continue
        events = await store.get_events_as_list(content.get("pdus", []))
        if events:
            # All older ones were sent, or are among these: the queue need not catch up, which would skip some.
            queue._catching_up = False
            _put_first(queue, events)
        queue._pending_receipt_edus += content.get("receipts", [])
        queue._pending_edus += [
            Edu(edu_type=edu["type"], content=edu["content"], origin=sender.server_name, destination=destination)
            for edu in content.get("edus", [])
        ]
        queue.mark_new_data()
    if rows:
        # Not before they are in the queues, which the next stop writes down.
        await store.db_pool.runInteraction("shard_forget_kept", _forget_for_servers, [destination for destination, _ in rows])
        logger.info("sending on what was on its way to %d servers when the tenant stopped", len(rows))


def _put_first(queue: Any, events: list[Any]) -> None:
    """Before what the tenant sent since it started."""
    ids = {event.event_id for event in events}
    newer = [event for event in _values(queue._pending_pdus) if event.event_id not in ids]
    pending = queue._pending_pdus
    pending.clear()
    for event in (*events, *newer):
        if hasattr(pending, "append"):
            pending.append(event)
        else:
            pending[event.event_id] = event
