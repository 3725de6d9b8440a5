"""Database threads, the fence on every connection, and connecting during a start."""

from __future__ import annotations

from typing import Any

import synapse.storage.database as synapse_database
import synapse.storage.databases as synapse_databases
from synapse.storage.databases.state.deletion import StateDeletionDataStore
from synapse.storage.engines.postgres import PostgresEngine
from synapse.util.caches.deferred_cache import CacheMultipleEntries
from twisted.enterprise import adbapi

from ..fence import claims_of_shard
from ..holdings import work_of_tenants
from ..pools import TenantPool, threads_of_shard
from ..waiting import CONNECT_SECONDS, Limit, current_fiber, in_thread
from .process import replace


class _Adbapi:
    """What `synapse.storage.database` knows as the module `adbapi`."""

    ConnectionPool = TenantPool
    Connection = adbapi.Connection


def share_database_threads() -> None:
    replace(synapse_database, "adbapi", _Adbapi)
    original = synapse_database.make_pool

    def make_pool(**kwargs: Any) -> Any:
        pool = original(**kwargs)
        # A start that fails half-way leaves a pool that its HomeServer does not know yet; we find it by this.
        pool.server_name = kwargs["server_name"]
        return pool

    replace(synapse_database, "make_pool", make_pool)


def check_fence_on_connect() -> None:
    original = PostgresEngine.on_new_connection

    def on_new_connection(self: Any, db_conn: Any) -> None:
        # adbapi's wrapper, or the bare connection during set-up.
        native = db_conn.conn
        native = getattr(native, "_connection", native)
        claims_of_shard.check_connection(db_conn.server_name, native)
        original(self, db_conn)

    replace(PostgresEngine, "on_new_connection", on_new_connection)


def count_rows() -> None:
    """Of each statement, read or written: what a tenant makes the process hold at once (holdings.py)."""
    original = synapse_database.LoggingTransaction._do_execute
    of = work_of_tenants.of

    def _do_execute(self: Any, func: Any, sql: str, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, func, sql, *args, **kwargs)
        rows = self.txn.rowcount
        # -1: not known, as after a statement without rows.
        if rows > 0:
            of(self.server_name).database_rows += rows
        return answer

    replace(synapse_database.LoggingTransaction, "_do_execute", _do_execute)


def connect_off_the_reactor() -> None:
    original = synapse_databases.make_conn

    def make_conn(*args: Any, **kwargs: Any) -> Any:
        fiber = current_fiber()
        if fiber is None:
            return original(*args, **kwargs)

        # Looking up the database's host and greeting it happen in libpq, out of reach of the wait callback.
        def connect() -> Any:
            with Limit(min(CONNECT_SECONDS, fiber.limit.remaining())) as limit:
                limit.aborted = fiber.limit.aborted
                return original(*args, **kwargs)

        connection = in_thread(threads_of_shard.start, connect)
        # Synapse closes it only when set-up succeeds.
        fiber.opened.append(connection)
        return connection

    replace(synapse_databases, "make_conn", make_conn)


def persist_again_after_a_failure() -> None:
    """A row says which state groups are being persisted; once the database ended in the middle, it is in the way of the next attempt."""
    original = StateDeletionDataStore._mark_state_groups_as_persisting_txn
    if "simple_upsert_many_txn" in original.__code__.co_names:
        # Newer releases take the row over.
        return

    def mark(self: Any, txn: Any, state_groups: Any) -> None:
        # Nobody else's: events of a room are persisted one after another, and a state group is of one room.
        self.db_pool.simple_delete_many_txn(
            txn,
            table="state_groups_persisting",
            column="state_group",
            values=state_groups,
            keyvalues={"instance_name": self._instance_name},
        )
        original(self, txn, state_groups)

    replace(StateDeletionDataStore, "_mark_state_groups_as_persisting_txn", mark)


def fail_lists_with_their_lookup() -> None:
    """Who asks a cache for many keys at once is told that their lookup failed, like who asks for one."""
    original = CacheMultipleEntries.error_bulk

    def error_bulk(self: Any, cache: Any, keys: Any, failure: Any) -> None:
        original(self, cache, keys, failure)
        # Its only caller is an errback, which swallows the failure by returning.
        failure.raiseException()

    replace(CacheMultipleEntries, "error_bulk", error_bulk)
