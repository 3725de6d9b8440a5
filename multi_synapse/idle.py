"""Whether a tenant may sleep: what it owes to anybody now, and when it must run again though nobody asks.

docs/stops.md has the table of all that a tenant keeps in memory. A stop loses nothing of it; but what a stop writes down is taken up by the
next start, and a tenant that sleeps has none for hours. So it stays awake for what somebody waits for, and is woken for what has a time.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from synapse.logging.context import LoggingContext, PreserveLoggingContext, run_in_background
from twisted.internet import defer

from . import away, work
from .pools import pools_of

#: A tenant's housekeeping, every loop of it, is done once in this time at least, whether it sleeps or not.
_HOUSEKEEPING_SECONDS = 86_400.0
#: Tenants that fell asleep together are not woken together.
_EARLIEST = 0.8
#: Reasons of one kind that are named; the rest is counted.
_MOST_NAMED = 3

#: A client that waits for news. It says itself, by what it returns, whether it was any use.
_POLL = re.compile(rb"/_matrix/client/(?:(?:r0|v3|unstable)/sync|unstable/org\.matrix\.simplified_msc3575/sync|v4/sync)")
#: Asked by machines that look whether it lives.
_NO_USE = re.compile(rb"/health|/_synapse/metrics.*|/_matrix/client/versions|/_matrix/federation/v1/version")

#: Background processes that a stop does not wait for, as the next start takes them up, but that are worth staying awake for.
_AT_WORK = frozenset(
    {
        "background_updates",
        "resume_sync_partial_state_room",
        "sync_partial_state_room",
        "user_parter_loop",
        "as_scheduler",
        "wake_destinations_needing_catchup",
        "_handle_old_staged_events",
        "_DestinationWakeupQueue.handle",
        "resync_device_due_to_pdu",
    }
)

#: Seconds since the epoch, and for what; 0: now. A table that the release does not have is left out.
_DUE = {
    "scheduled_tasks": """
        SELECT min("timestamp") / 1000.0, 'a scheduled task' FROM scheduled_tasks WHERE status IN ('scheduled', 'active')
    """,
    "destination_rooms": """
        SELECT min(COALESCE(retry_last_ts + retry_interval, 0)) / 1000.0, 'events for other servers'
            FROM destination_rooms LEFT JOIN destinations USING (destination)
            WHERE destination_rooms.stream_ordering > COALESCE(last_successful_stream_ordering, 0)
    """,
    "device_federation_outbox": """
        SELECT min(COALESCE(retry_last_ts + retry_interval, 0)) / 1000.0, 'messages to devices of other servers'
            FROM device_federation_outbox LEFT JOIN destinations USING (destination)
    """,
    "device_lists_outbound_pokes": """
        SELECT min(COALESCE(retry_last_ts + retry_interval, 0)) / 1000.0, 'changes of devices for other servers'
            FROM device_lists_outbound_pokes LEFT JOIN destinations USING (destination) WHERE NOT sent
    """,
    "federation_inbound_events_staging": """
        SELECT 0, 'events of other servers' WHERE EXISTS (SELECT 1 FROM federation_inbound_events_staging)
    """,
    "delayed_events": "SELECT min(send_ts) / 1000.0, 'a delayed event' FROM delayed_events WHERE NOT is_processed",
    "event_expiry": "SELECT min(expiry_ts) / 1000.0, 'an event that expires' FROM event_expiry",
}
#: What is there, it stays awake for.
_PRESENT = {
    "background_updates": "SELECT count(*), 'background updates of its database' FROM background_updates",
}
_CREATE = "CREATE TABLE IF NOT EXISTS synapse_shards.housekeeping (done_at double precision NOT NULL)"
_HOUSEKEPT = "SELECT max(done_at) FROM synapse_shards.housekeeping"


def is_poll(path: bytes) -> bool:
    return _POLL.fullmatch(path.rstrip(b"/")) is not None


@dataclass
class Use:
    """When a tenant was last used; since its start, if nobody has used it."""

    last: float = field(default_factory=time.time)

    def note(self) -> None:
        self.last = time.time()

    def seconds(self) -> float:
        return max(0.0, time.time() - self.last)

    def note_request(self, request: Any) -> None:
        """Of one that begins; its end counts too, as an upload may take long."""
        path = request.path
        if is_poll(path) or _NO_USE.fullmatch(path):
            return
        self.note()
        request.notifyFinish().addBoth(lambda _: self.note())

    def watch_polls(self, hs: Any) -> None:
        """A poll that returned something was a use, and one that returned nothing was none."""
        for handler in (hs.get_sync_handler(), hs.get_sliding_sync_handler()):
            _watch(handler, self)


def _watch(handler: Any, use: Use) -> None:
    wait = handler.wait_for_sync_for_user

    async def wait_for_sync_for_user(*args: Any, **kwargs: Any) -> Any:
        found = await wait(*args, **kwargs)
        result = found[0] if isinstance(found, tuple) else found
        if result:
            use.note()
        return found

    handler.wait_for_sync_for_user = wait_for_sync_for_user


def open_requests(hs: Any) -> int:
    """Requests that are open; polls wait for others, and are none."""
    count = 0
    for port in hs._listening_services:
        site = getattr(port.factory, "wrappedFactory", port.factory)
        for channel in getattr(site, "connections", ()):
            count += sum(1 for request in channel.requests if not is_poll(getattr(request, "path", None) or b""))
    return count


@dataclass(frozen=True)
class Due:
    at: float
    reason: str

    def describe(self) -> dict[str, Any]:
        return {"at": self.at, "reason": self.reason}


@dataclass
class Look:
    """What a look into the database and the memory of a tenant found."""

    keeps_awake: list[str] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)
    #: When every loop last ran, seconds since the epoch; None: never.
    housekept_at: float | None = None


async def look(hs: Any) -> Look:
    """@raises Exception if the database does not answer: then nobody may sleep"""
    found = Look()
    found.keeps_awake += _in_memory(hs)
    with PreserveLoggingContext(LoggingContext(name="shard_idle", server_name=hs.hostname)):
        reading: defer.Deferred[None] = run_in_background(
            hs.get_datastores().main.db_pool.runInteraction, "shard_idle", lambda transaction: _read(transaction, hs, found)
        )
    await reading
    found.due += _timers(hs)
    now = time.time()
    for due in found.due:
        if due.at <= now:
            found.keeps_awake.append(f"{due.reason} {'are' if due.reason.endswith('s') else 'is'} due")
    return found


def next_due(found: Look) -> Due:
    """The earliest that is yet to come; at most a day after the last housekeeping."""
    now = time.time()
    kept = now if found.housekept_at is None else found.housekept_at
    housekeeping = Due(kept + _HOUSEKEEPING_SECONDS * random.uniform(_EARLIEST, 1.0), "its daily housekeeping")  # noqa: S311
    return min([housekeeping, *(due for due in found.due if due.at > now)], key=lambda due: due.at)


def is_housekeeping_due(found: Look) -> bool:
    """In good time: one that falls asleep just before it would be woken for it."""
    return found.housekept_at is not None and time.time() - found.housekept_at > _HOUSEKEEPING_SECONDS / 2


async def note_housekeeping(hs: Any) -> None:
    def write(transaction: Any) -> None:
        transaction.execute(_CREATE)
        transaction.execute("DELETE FROM synapse_shards.housekeeping")
        transaction.execute("INSERT INTO synapse_shards.housekeeping (done_at) VALUES (?)", (time.time(),))

    with PreserveLoggingContext(LoggingContext(name="shard_housekeeping", server_name=hs.hostname)):
        writing: defer.Deferred[None] = run_in_background(hs.get_datastores().main.db_pool.runInteraction, "shard_housekeeping", write)
    await writing


def _read(transaction: Any, hs: Any, found: Look) -> None:
    for table, statement in {**_DUE, **_PRESENT}.items():
        if not _exists(transaction, table):
            continue
        transaction.execute(statement)
        for value, reason in transaction.fetchall():
            if table in _PRESENT:
                if value:
                    found.keeps_awake.append(reason)
            elif value is not None:
                found.due.append(Due(float(value), reason))
    keeps_awake, due = away.read(transaction, hs)
    found.keeps_awake += keeps_awake
    found.due += [Due(at, reason) for at, reason in due]
    if hs.config.account_validity.account_validity_enabled:
        renew_at = getattr(hs.config.account_validity, "account_validity_renew_at", None) or 0
        transaction.execute("SELECT min(expiration_ts_ms - ?) / 1000.0 FROM account_validity WHERE NOT email_sent", (renew_at,))
        for (at,) in transaction.fetchall():
            # Sent in rounds of half an hour.
            if at is not None:
                found.due.append(Due(max(float(at), time.time() + 1800), "a mail about an account that expires"))
    if _exists(transaction, "synapse_shards.housekeeping"):
        transaction.execute(_HOUSEKEPT)
        ((found.housekept_at,),) = transaction.fetchall()


def _exists(transaction: Any, table: str) -> bool:
    transaction.execute("SELECT to_regclass(?) IS NOT NULL", (table,))
    return bool(transaction.fetchone()[0])


def _in_memory(hs: Any) -> list[str]:
    reasons = list(_processes(hs))
    if any(pool.is_working() for pool in pools_of(hs.hostname)):
        reasons.append("statements run in its database")
    if getattr(hs.get_typing_handler(), "_member_typing_until", None):
        reasons.append("somebody is typing")
    if hs.config.worker.send_federation:
        reasons += _named("events for", sorted(_servers_waited_for(hs.get_federation_sender())))
    return reasons


def _processes(hs: Any) -> Iterator[str]:
    seen = set()
    for name in work.processes_of(hs):
        if name in seen:
            continue
        seen.add(name)
        rule = work.rule_of(name)
        if rule is not None:
            yield f"it {rule.why} ({name})" if rule.why != "is not known" else f"{name} is at work"
        elif name in _AT_WORK or name.startswith("task-"):
            yield f"{name} is at work"


def _servers_waited_for(sender: Any) -> Iterator[str]:
    """Presence is not waited for: it is sent again when it changes."""
    for destination, queue in sender._per_destination_queues.items():
        if queue._catching_up and queue._last_successful_stream_ordering is not None:
            # What it missed is in the database, and due by its back-off.
            continue
        if queue.transmission_loop_running or queue._pending_pdus or queue._pending_edus or queue._pending_receipt_edus:
            yield destination


def _named(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = len(names) - _MOST_NAMED
    return [f"{what} {', '.join(names[:_MOST_NAMED])}" + (f" and {more} others" if more > 0 else "")]


def _timers(hs: Any) -> list[Due]:
    """Notifications that wait for their time: mails that are held back, and what a push gateway did not take."""
    found = []
    reactor = hs.get_reactor()
    for pushers in hs.get_pusherpool().pushers.values():
        for pusher in pushers.values():
            call = getattr(pusher, "timed_call", None)
            if call is not None and call.active():
                kind = "a mail about messages" if type(pusher).__name__ == "EmailPusher" else "a notification for a push gateway"
                found.append(Due(time.time() + call.getTime() - reactor.seconds(), kind))
    return found
