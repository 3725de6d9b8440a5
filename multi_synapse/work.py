"""What a tenant has in work besides requests: Synapse's background processes, and which of them a stop waits for.

A stop may be a move, so it must not take long; and it must lose nothing that was acknowledged. So each kind of process is in one of
two tables: a stop waits, for a bounded time, for those that hold something which exists nowhere else, and leaves the others, which the next
start takes up from the database. What waiting alone cannot keep is written down by `kept.py`. docs/stops.md is the picture of it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: For work that needs the tenant's own database only, or that another server holds up. While a stop waits, nobody can use the tenant.
_LOCAL_SECONDS = 5.0
#: For a bridge to answer a transaction. It gets the transaction again, under the same number, if it does not answer in time.
_BRIDGE_SECONDS = 5.0
#: For servers that get the same again otherwise, and recognize it.
_REMOTE_SECONDS = 1.0


@dataclass(frozen=True)
class Waited:
    why: str
    seconds: float = _LOCAL_SECONDS


_EVENTS = Waited("writes events that a client waits for, or that another server was told are accepted")
_KEYS = Waited("fetches keys of another server, for an event that is in work")
_PUSH = Waited("sends what people are notified of; cut off, a notification may come twice", _REMOTE_SECONDS)
_STREAM = Waited("reads on in a stream, from a position in the database")
_DELAYED = Waited("sends delayed events; cut off between sending one and saying so, that one is sent twice")

#: By the name of the process.
WAITED: dict[str, Waited] = {
    "persist_events": _EVENTS,
    "_process_incoming_pdus_in_room_inner": _EVENTS,
    "handle_queued_pdus": Waited("handles events that came while their room was being joined; they are in memory only"),
    "fetch_events": Waited("reads events from the database, for any of these"),
    "redact_related_events": Waited("redacts what relates to an event; it is in memory only"),
    "retry_make_join": Waited("joins a room for a user whose invitations are accepted automatically; it is in memory only"),
    "keyring_server": _KEYS,
    "StoreKeyFetcher": _KEYS,
    "PerspectivesKeyFetcher": _KEYS,
    "ServerKeyFetcher": _KEYS,
    "as-sender": Waited("sends a transaction to an application service, whose answer says that it must not come again", _BRIDGE_SECONDS),
    "notify_interested_services": Waited("hands events to application services, and writes how far it came"),
    "notify_interested_services_ephemeral": Waited("hands receipts and the like to application services, and writes how far it came"),
    "process_event_queue_for_federation": Waited("notes which servers are to get an event"),
    "federation_transaction_transmission_loop": Waited("sends to another server, which else gets the same again", _REMOTE_SECONDS),
    "_send_changes_in_typing_to_remotes": Waited("tells other servers who types", _REMOTE_SECONDS),
    "typing._push_remote": Waited("tells other servers who types", _REMOTE_SECONDS),
    "httppush.process": _PUSH,
    "emailpush.process": _PUSH,
    "on_new_notifications": _PUSH,
    "http_pusher.on_new_receipts": _PUSH,
    "send_renewals": _PUSH,
    "_send_events": _DELAYED,
    "_send_on_timeout": _DELAYED,
    "_schedule_db_events": _DELAYED,
    "_schedule_next_expiry": Waited("plans when the next event expires"),
    "_expire_event": Waited("removes an event whose time is over"),
    "delayed_events.notify_new_event": _DELAYED,
    "_handle_new_device_update_async": Waited("notes which servers are to get a change of a user's devices"),
    "presence.notify_new_event": _STREAM,
    "stats.notify_new_event": _STREAM,
    "user_directory.notify_new_event": _STREAM,
    "room_forgetter.notify_new_event": _STREAM,
    "bump_presence_active_time": Waited("notes that a user is active"),
    "persist_presence_changes": Waited("writes who is online"),
    "PresenceHandler._on_shutdown": Waited("writes who is online"),
    "LockStore._on_shutdown": Waited("gives back locks"),
    "update_client_ips": Waited("writes addresses of clients"),
    "update_recently_accessed_media": Waited("writes when media were read, by which they are kept or deleted"),
    "store_retry_timings": Waited("writes whether another server can be reached"),
}

_LOOP = "a loop: its next turn does what this one does not"
_RESUMED = "is taken up at the next start, from where the database says it came"
_ASKED_AGAIN = "improves what the database knows of other servers; it is asked for again when it is needed"

#: Processes that a stop does not wait for, and why nothing is lost with them.
LEFT: dict[str, str] = {
    "background_updates": _RESUMED,
    "resume_sync_partial_state_room": _RESUMED,
    "sync_partial_state_room": _RESUMED,
    "user_parter_loop": _RESUMED,
    "start_pushers": _RESUMED,
    "as_scheduler": _RESUMED,
    "as-recoverer": "sends an application service again what it did not take; it stays in the database until it is taken",
    "retry": "sends an application service again what it did not take; it stays in the database until it is taken",
    "wake_destinations_needing_catchup": _RESUMED,
    "_handle_old_staged_events": _RESUMED,
    "_DestinationWakeupQueue.handle": "wakes queues of other servers one after the other; what is in these is kept",
    "user_directory.refresh_remote_profiles": _RESUMED,
    "user_directory.refresh_remote_profiles_for_remote_server": _RESUMED,
    "launch_scheduled_tasks": _RESUMED,
    "_maybe_retry_device_resync": _RESUMED,
    "resync_device_due_to_pdu": _RESUMED,
    "_maybe_backfill_inner_anyway_with_max_depth": _ASKED_AGAIN,
    "maybe_backfill_in_the_background": _ASKED_AGAIN,
    "_process_new_pulled_events_with_failed_pull_attempts": _ASKED_AGAIN,
    "preload_oidc_metadata": _ASKED_AGAIN,
    "Lock._renew": _LOOP,
    "LruCache._expire_old_entries": _LOOP,
    "PresenceHandler._mark_stale_presence_as_offline": _LOOP,
    "WorkerPresenceHandler._on_shutdown": "of workers, which a shard has none of",
    "process-replication-data": "of processes that have others beside them: hears what these have written, which is in the database",
    "replication_notifier": "of processes that have others beside them: says where streams are, which is in the database",
    "send-cmd": "of processes that have others beside them: says where streams are, which is in the database",
    "subscribe-replication": "of processes that have others beside them",
    "redis_ping": "of processes that have others beside them",
    "_censor_redactions": _LOOP,
    "_cleanup_locks": _LOOP,
    "_cleanup_old_transaction_ids": _LOOP,
    "_clear_old_push_actions_staging": _LOOP,
    "_count_known_servers": _LOOP,
    "_delete_state_groups_loop": _LOOP,
    "_get_stats_for_federation_staging": _LOOP,
    "_reap_stale_read_write_locks": _LOOP,
    "_report_device_list_conversion_lag": _LOOP,
    "account_validity_set_expiration_dates": _LOOP,
    "apply_media_retention_rules": _LOOP,
    "clean_scheduled_tasks": _LOOP,
    "clean_up_old_cache_invalidations": _LOOP,
    "cleanup_transactions": _LOOP,
    "common_usage_metrics_update_gauges": _LOOP,
    "cull_expired_threepid_validation_tokens": _LOOP,
    "delete_expired_login_tokens": _LOOP,
    "delete_expired_sessions": _LOOP,
    "delete_expired_sticky_events": _LOOP,
    "delete_old_forward_extrem_cache": _LOOP,
    "delete_old_sliding_sync_connections": _LOOP,
    "delete_stale_devices": _LOOP,
    "_delete_old_federation_inbox_rows": _LOOP,
    "event_push_action_stream_orderings": _LOOP,
    "expire_old_sessions": _LOOP,
    "expire_url_cache_data": _LOOP,
    "generate_monthly_active_users": _LOOP,
    "generate_total_users": _LOOP,
    "generate_user_daily_visits": _LOOP,
    "handle_presence_timeouts": _LOOP,
    "phone_stats_home": _LOOP,
    "prune_cache": _LOOP,
    "quotas": "looks how much there is of what is bounded (quotas.py)",
    "prune_device_lists_changes_in_room": _LOOP,
    "prune_old_outbound_device_pokes": _LOOP,
    "prune_old_user_ips": _LOOP,
    "purge_history_for_rooms_in_range": _LOOP,
    "read_forward_extremities": _LOOP,
    "reap_monthly_active_users": _LOOP,
    "rotate_notifs": _LOOP,
    "send_dummy_events_to_fill_extremities": _LOOP,
    "typing._handle_timeouts": _LOOP,
    "upsert_safety_check": _LOOP,
}
#: Of scheduled tasks, whose state is in the database: `task-purge_history` and others.
_TASK_PREFIX = "task-"

#: A module's, or of a newer Synapse: it may hold anything.
_UNKNOWN = Waited("is not known", _LOCAL_SECONDS)


def rule_of(name: str) -> Waited | None:
    """None for a process that a stop does not wait for."""
    if name in LEFT or name.startswith(_TASK_PREFIX):
        return None
    return WAITED.get(name, _UNKNOWN)


def processes_of(hs: Any) -> Iterator[str]:
    """Names of the background processes that have not ended; noted by the patch `processes`."""
    yield from getattr(hs, "_shard_processes", {}).values()


def waits_for(hs: Any, seconds: float) -> set[str]:
    """Names of the processes that a stop still waits for, `seconds` after it began to."""
    found = {name: rule_of(name) for name in processes_of(hs)}
    return {name for name, rule in found.items() if rule is not None and seconds < rule.seconds}
