"""Which of Synapse's loops may wait in an idle tenant for its next round of housekeeping, and why. See `housekeeping.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    why: str
    #: Asked with the loop's owner: whether something in memory waits for this loop, so that it must go on.
    needed: Callable[[Any], bool] | None = None


def name_of(loop: Any) -> str:
    """`module:function` without `synapse.`, or `process:description` for a loop that only begins a background process."""
    cached: str | None = getattr(loop, "_shard_name", None)
    if cached is None:
        cached = loop._shard_name = _name_of(loop)
    return cached


def _name_of(loop: Any) -> str:
    function = _function_of(loop)
    last = str(getattr(function, "__qualname__", repr(function))).rpartition(".")[2]
    if last == "run_as_background_process":
        return f"process:{loop.kw.get('desc') or next((item for item in loop.a if isinstance(item, str)), '')}"
    return f"{getattr(function, '__module__', '')}:{last}".removeprefix("synapse.")


def owner_of(loop: Any) -> Any:
    return getattr(_function_of(loop), "__self__", None)


def _function_of(loop: Any) -> Any:
    function = loop.f
    # Not further than to the bound method: it knows its owner.
    while not hasattr(function, "__self__") and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _somebody_types(handler: Any) -> bool:
    return bool(handler._member_typing_until)


def _somebody_is_online(handler: Any) -> bool:
    return any(state.state != "offline" for state in handler.user_to_current_state.values())


def _presence_is_unsaved(handler: Any) -> bool:
    return bool(handler.unpersisted_users_changes)


_MEMORY = Rule("drops what has expired from memory; a reader looks at the time, or gets what a cache may have kept a round longer")
_GAUGE = Rule("sets a gauge, which cannot change while nothing happens")
_OLD_ROWS = Rule("deletes rows that are no longer read")
_DUE = Rule("does what is due by a time in the database; `due.py` looks when that is, and the next round comes then")
_SCHEDULE = Rule("runs in intervals of minutes to days, which a round does not lengthen by more than its own")

RULES: dict[str, Rule] = {
    "api.ratelimiting:_prune_message_counts": _MEMORY,
    "util.caches.response_cache:_prune_inflight_entries": _MEMORY,
    "util.caches.expiringcache:f": _MEMORY,
    "util.caches.lrucache:_expire_old_entries": _MEMORY,
    "rest.client.transactions:_cleanup": _MEMORY,
    "federation.federation_client:_clear_tried_cache": _MEMORY,
    "federation.send_queue:_clear_queue": _MEMORY,
    "handlers.worker_lock:_cleanup_locks": _MEMORY,
    "handlers.typing:_prune_old_typing": _MEMORY,
    "handlers.presence:_clear_queue": _MEMORY,
    "handlers.presence:_sweep_last_sent_presence": _MEMORY,
    "notifier:remove_expired_streams": _MEMORY,
    "storage.databases.main.events_worker:_cleanup_old_transaction_ids": _OLD_ROWS,
    "handlers.typing:_handle_timeouts": Rule("ends and repeats typing notices, of which there are none", _somebody_types),
    "handlers.presence:_handle_timeouts": Rule("has people time out, all of whom are offline", _somebody_is_online),
    "handlers.presence:_persist_unpersisted_changes": Rule("saves changes, of which there are none", _presence_is_unsaved),
    "storage.databases.main.client_ips:_update_client_ips_batch": Rule("saves addresses of clients; it ran after the last request"),
    "media.media_repository:_start_update_recently_accessed": Rule("saves when media was read; it ran after the last request"),
    "storage.database:loop": _GAUGE,
    "state:_report_metrics": _GAUGE,
    "handlers.device:_report_device_list_conversion_lag": _GAUGE,
    "storage.databases.main.event_federation:_get_stats_for_federation_staging": _GAUGE,
    "storage.databases.main.metrics:_read_forward_extremities": _GAUGE,
    "storage.databases.main.roommember:_count_known_servers": _GAUGE,
    "app.phone_stats_home:generate_monthly_active_users": _GAUGE,
    "app.phone_stats_home:generate_non_deactivated_user_count": _GAUGE,
    "process:common_usage_metrics_update_gauges": _GAUGE,
    "storage.databases.main.lock:_reap_stale_read_write_locks": Rule(
        "frees locks whose holder died; an idle tenant wants none, and a start of the tenant has freed those of its last process"
    ),
    "storage.databases.main.event_push_actions:_rotate_notifs": Rule("sums up notifications; it ran after the last event"),
    "storage.databases.main.event_push_actions:_find_stream_orderings_for_times": Rule("prepares the deletion of old notifications"),
    "storage.databases.main.event_push_actions:_clear_old_push_actions_staging": _OLD_ROWS,
    "storage.databases.main.client_ips:_prune_old_user_ips": _OLD_ROWS,
    "storage.databases.main.session:_delete_expired_sessions": _OLD_ROWS,
    "storage.databases.main.transactions:_cleanup_transactions": _OLD_ROWS,
    "storage.databases.main.registration:_delete_expired_login_tokens": _OLD_ROWS,
    "storage.databases.main.registration:cull_expired_threepid_validation_tokens": _OLD_ROWS,
    "storage.databases.main.sliding_sync:delete_old_sliding_sync_connections": _OLD_ROWS,
    "storage.databases.main.sticky_events:_run_background_cleanup": _OLD_ROWS,
    "storage.databases.main.devices:_prune_old_outbound_device_pokes": _OLD_ROWS,
    "storage.databases.main.devices:_prune_device_lists_changes_in_room": _OLD_ROWS,
    "storage.databases.main.event_federation:_delete_old_forward_extrem_cache": _OLD_ROWS,
    "storage.databases.main.censor_events:_censor_redactions": _SCHEDULE,
    "storage.controllers.purge_events:_delete_state_groups_loop": _OLD_ROWS,
    "process:_delete_old_federation_inbox_rows": _OLD_ROWS,
    "process:expire_old_sessions": _OLD_ROWS,
    "util.task_scheduler:_launch_scheduled_tasks": _DUE,
    "util.task_scheduler:_clean_scheduled_tasks": _OLD_ROWS,
    "process:wake_destinations_needing_catchup": _DUE,
    "federation.federation_server:_handle_old_staged_events": _DUE,
    "process:_maybe_retry_device_resync": Rule(
        "asks other servers again for their people's devices; they are needed only by a user who writes to them, which wakes the tenant"
    ),
    "handlers.message:<lambda>": Rule("joins forks of a room's history, for the speed of later messages"),
    "storage.databases.main.metrics:generate_user_daily_visits": Rule("counts visitors by when they were seen"),
    "storage.databases.main.monthly_active_users:reap_monthly_active_users": _SCHEDULE,
    "handlers.account_validity:_send_renewal_emails": _SCHEDULE,
    "media.media_repository:_start_apply_media_retention_rules": _SCHEDULE,
    "media.url_previewer:_start_expire_url_cache_data": _OLD_ROWS,
    "process:purge_history_for_rooms_in_range": _SCHEDULE,
    "process:delete_stale_devices": _SCHEDULE,
    "app.phone_stats_home:phone_stats_home": _SCHEDULE,
}
