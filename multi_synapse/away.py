"""Application services that do not take what they are owed: for how long they have been away, and when their tenant tries again.

Synapse's own back-off is in memory, and begins again with each start. Of a tenant that sleeps in between, the time since when a service has
been away is kept in its database: woken, it tries once, and sleeps again for about as long as the service has been away.
"""

from __future__ import annotations

import time
from typing import Any

#: Between two attempts of a tenant that sleeps.
_SHORTEST_SECONDS = 900.0
_LONGEST_SECONDS = 3600.0
#: Synapse waits 2 ** n s after n attempts; from here on a service has been away for minutes.
_AWAY_BACKOFF = 7
#: One that was away before, and has not answered since the start either.
_STILL_AWAY_BACKOFF = 2

_OWED = """
    SELECT DISTINCT as_id, COALESCE(state, 'up') FROM application_services_txns LEFT JOIN application_services_state USING (as_id)
"""
_EXISTS = "SELECT to_regclass('synapse_shards.services_away') IS NOT NULL"
_CREATE = "CREATE TABLE IF NOT EXISTS synapse_shards.services_away (as_id text PRIMARY KEY, since double precision NOT NULL)"
_KNOWN = "SELECT as_id, since FROM synapse_shards.services_away"
_NOTE = "INSERT INTO synapse_shards.services_away (as_id, since) VALUES (?, ?) ON CONFLICT (as_id) DO NOTHING"
_FORGET = "DELETE FROM synapse_shards.services_away WHERE as_id = ?"


def read(transaction: Any, hs: Any) -> tuple[list[str], list[tuple[float, str]]]:
    """What keeps the tenant awake, and when it is to try again (seconds since the epoch) for what."""
    now = time.time()
    transaction.execute(_EXISTS)
    ((is_kept,),) = transaction.fetchall()
    known: dict[str, float] = {}
    if is_kept:
        transaction.execute(_KNOWN)
        known = dict(transaction.fetchall())
    transaction.execute(_OWED)
    owed = dict(transaction.fetchall())
    keeps_awake: list[str] = []
    due: list[tuple[float, str]] = []
    for service, state in owed.items():
        if state != "down":
            keeps_awake.append(f"a transaction for the application service {service}")
        elif _attempts(hs, service) >= (_STILL_AWAY_BACKOFF if service in known else _AWAY_BACKOFF):
            if service not in known:
                transaction.execute(_CREATE)
                transaction.execute(_NOTE, (service, now))
            wait = min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, now - known.get(service, now)))
            due.append((now + wait, f"a transaction for the application service {service}, which is away"))
        else:
            keeps_awake.append(f"the application service {service} is asked again whether it takes a transaction")
    for service in known.keys() - {service for service, state in owed.items() if state == "down"}:
        transaction.execute(_FORGET, (service,))
    return keeps_awake, due


def _attempts(hs: Any, service: str) -> int:
    recoverer = hs.get_application_service_scheduler().txn_ctrl.recoverers.get(service)
    return 0 if recoverer is None else int(recoverer.backoff_counter)
