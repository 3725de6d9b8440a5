"""When something in an idle tenant's database is due that only a loop looks for."""

from __future__ import annotations

from typing import Any

from synapse.logging.context import LoggingContext, PreserveLoggingContext, run_in_background
from twisted.internet import defer

#: Milliseconds since the epoch; 0: now. Scheduled tasks, destinations that missed something and whose back-off ends, and events of
#: other servers that a process received and did not handle before it died.
NEXT_DUE = """
    SELECT min(at) FROM (
        SELECT min("timestamp") AS at FROM scheduled_tasks WHERE status IN ('scheduled', 'active')
        UNION ALL
        SELECT min(COALESCE(retry_last_ts + retry_interval, 0)) FROM destination_rooms LEFT JOIN destinations USING (destination)
            WHERE destination_rooms.stream_ordering > COALESCE(last_successful_stream_ordering, 0)
        UNION ALL
        SELECT min(COALESCE(retry_last_ts + retry_interval, 0)) FROM device_federation_outbox LEFT JOIN destinations USING (destination)
        UNION ALL
        (SELECT 0 FROM federation_inbound_events_staging LIMIT 1)
    ) AS due
"""


def next_due(hs: Any) -> defer.Deferred[float | None]:
    """Seconds since the epoch, or None if nothing is. Fails if the database does."""

    def query(transaction: Any) -> float | None:
        transaction.execute(NEXT_DUE)
        ((at,),) = transaction.fetchall()
        return None if at is None else at / 1000

    with PreserveLoggingContext(LoggingContext(name="next_due", server_name=hs.hostname)):
        found: defer.Deferred[float | None] = run_in_background(hs.get_datastores().main.db_pool.runInteraction, "shard_next_due", query)
    return found
