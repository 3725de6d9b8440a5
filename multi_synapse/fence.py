"""The fence: the row in a tenant's own database that says which shard owns it, and the proof each connection asks for.

Why it holds: a connection that read the old row existed before the claim was committed, so the claim's termination sees
and ends it; any later one reads the new row and refuses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import psycopg2

from .errors import DATABASE_UNSUITABLE, DatabaseTimeout, Fenced, TenantError
from .waiting import Limit

logger = logging.getLogger(__name__)

_TERMINATE_SECONDS = 10.0
_POLL_SECONDS = 0.01

_CREATE = """
    CREATE SCHEMA IF NOT EXISTS synapse_shards;
    CREATE TABLE IF NOT EXISTS synapse_shards.fence (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        epoch bigint NOT NULL, shard text NOT NULL, instance text NOT NULL
    );
    INSERT INTO synapse_shards.fence (epoch, shard, instance)
        SELECT 0, '', '' WHERE NOT EXISTS (SELECT 1 FROM synapse_shards.fence)
"""
_CLAIM = """
    UPDATE synapse_shards.fence SET epoch = %(epoch)s, shard = %(shard)s, instance = %(instance)s
    WHERE epoch < %(epoch)s OR (epoch = %(epoch)s AND shard = %(shard)s)
"""
_READ = "SELECT epoch, shard, instance FROM synapse_shards.fence"
_RELEASE = "UPDATE synapse_shards.fence SET shard = '', instance = %(heir)s WHERE epoch = %(epoch)s AND instance = %(instance)s"
# usesysid is null for the server's own processes, such as autovacuum. Who can write neither the fence nor events is no homeserver.
_OTHERS = """
    SELECT a.pid, a.usename, a.application_name, r.rolsuper, pg_has_role(current_user, a.usesysid, 'MEMBER'),
      has_table_privilege(a.usesysid, 'synapse_shards.fence', 'INSERT, UPDATE, DELETE')
        OR coalesce(has_table_privilege(a.usesysid, to_regclass('events'), 'INSERT, UPDATE, DELETE'), false)
    FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
      AND coalesce(a.backend_type, 'client backend') = 'client backend'
"""


@dataclass(frozen=True)
class Claim:
    """Who this process is to a tenant's database."""

    epoch: int
    shard: str
    instance: str


def claim_database(arguments: dict[str, Any], claim: Claim, limit: Limit, left_alone: Collection[str] = ()) -> None:
    """Takes the tenant's database: writes our row, ends every other connection, clears what dead owners left.

    Blocks; call it in a thread. `arguments` are psycopg2's; `left_alone` are roles whose connections may stay.
    @raises Fenced, TenantError, psycopg2.Error
    """
    with limit:
        connection = psycopg2.connect(**arguments)
        try:
            ensure_fence(connection)
            with connection, connection.cursor() as cursor:
                # First, so that a refused start leaves the database with its owner.
                _backends_of_others(cursor, left_alone)
                cursor.execute(_CLAIM, claim.__dict__)
                if cursor.rowcount != 1:
                    cursor.execute(_READ)
                    raise Fenced(_who_has_it(cursor.fetchone(), claim))
            _end_other_connections(connection, limit, left_alone)
            _clear_stale_locks(connection)
        finally:
            connection.close()


def release_database(arguments: dict[str, Any], claim: Claim, limit: Limit, heir: str = "") -> bool:
    """Says in the fence that its owner has let go; only after the owner's last connection was closed. Blocks.

    `heir`: the owner that may claim it next with any revision.

    The epoch stays, and is spent: a claim needs a higher one, or the same and the name of the owner, which is gone. So an
    order that was delayed cannot bring the tenant back. Returns whether it was still ours. @raises psycopg2.Error
    """
    with limit:
        connection = psycopg2.connect(**arguments)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(_RELEASE, {**claim.__dict__, "heir": heir})
                return bool(cursor.rowcount == 1)
        finally:
            connection.close()


def read_fence(connection: Any) -> tuple[int, str, str]:
    """Epoch, shard and instance in the row, which is made if there is none. Blocks. @raises psycopg2.Error"""
    ensure_fence(connection)
    with connection, connection.cursor() as cursor:
        cursor.execute(_READ)
        row: tuple[int, str, str] = cursor.fetchone()
        return row


def read_owner(arguments: dict[str, Any], limit: Limit) -> tuple[int, str] | None:
    """Epoch and instance in the row, through a connection of its own. Blocks. @raises psycopg2.Error"""
    with limit:
        connection = psycopg2.connect(**arguments)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(_READ)
                row = cursor.fetchone()
                return (row[0], row[2]) if row else None
        finally:
            connection.close()


def ensure_fence(connection: Any) -> None:
    """Makes schema, table and row where they are missing. Blocks. @raises psycopg2.Error"""
    for attempt in (1, 2):
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass('synapse_shards.fence') IS NOT NULL")
                if not cursor.fetchone()[0]:
                    cursor.execute(_CREATE)
                    return
                cursor.execute("SELECT count(*) FROM synapse_shards.fence")
                if cursor.fetchone()[0] == 0:
                    cursor.execute("INSERT INTO synapse_shards.fence (epoch, shard, instance) VALUES (0, '', '')")
                return
        except psycopg2.IntegrityError:
            # Another shard made it at the same moment.
            if attempt == 2:
                raise


def _who_has_it(row: tuple[int, str, str] | None, claim: Claim) -> str:
    if row is None:
        return "the fence of the database has no row"
    return f"the database belongs to shard {row[1]} with epoch {row[0]}, and this is shard {claim.shard} with epoch {claim.epoch}"


def _backends_of_others(cursor: Any, left_alone: Collection[str]) -> list[int]:
    """Backends to end. @raises TenantError for one that we may not end and that could be another homeserver's"""
    cursor.execute(_OTHERS)
    pids = []
    for pid, role, program, is_superuser, ours, writes in cursor.fetchall():
        if ours:
            pids.append(pid)
        elif is_superuser or not writes or role in left_alone:
            # A person's, a backup's or an exporter's: no homeserver logs in like that.
            logger.info("a connection of the role %s to the tenant's database is left alone", role)
        else:
            raise TenantError(
                DATABASE_UNSUITABLE,
                f"the role {role} ({program or 'a program without a name'}, backend {pid}) is connected to the tenant's database "
                "and may write to it, so it could be another homeserver, and the tenant's role may not end that connection. "
                f"End it, or revoke the role's right to write. If the role ran this tenant before, GRANT {role} TO the tenant's role; "
                "if it never runs a homeserver, name it in databaseRolesLeftAlone",
            )
    return pids


def _end_other_connections(connection: Any, limit: Limit, left_alone: Collection[str]) -> None:
    connection.autocommit = True
    with connection.cursor() as cursor:
        pids = _backends_of_others(cursor, left_alone)
        if not pids:
            return
        cursor.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", (pids,))
        end = time.monotonic() + _TERMINATE_SECONDS
        while True:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND datname = current_database()", (pids,))
            if cursor.fetchone()[0] == 0:
                return
            limit.check()
            if time.monotonic() > end:
                raise DatabaseTimeout(f"connections of the former owner did not end within {_TERMINATE_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)


def _clear_stale_locks(connection: Any) -> None:
    """Locks of a dead owner would hold up the new one for two minutes; with every other connection ended, none is alive."""
    with connection.cursor() as cursor:
        for table in ("worker_read_write_locks", "worker_locks"):
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
            if cursor.fetchone()[0]:
                cursor.execute(f"DELETE FROM {table}")


class Claims:
    """The claims of this process's tenants, by server name: asked by every new database connection."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._unfenced: set[str] = set()
        #: Called in any thread with the server name of a tenant that was found fenced.
        self.on_fenced: Callable[[str], None] = lambda _server_name: None

    def add(self, server_name: str, claim: Claim) -> None:
        self._claims[server_name] = claim

    def remove(self, server_name: str) -> None:
        self._claims.pop(server_name, None)

    def skip(self, server_name: str) -> None:
        """For a database without an owner: the template of tenants' databases."""
        self._unfenced.add(server_name)

    def check_connection(self, server_name: str, connection: Any) -> None:
        """Refuses a new connection whose database is not ours. @raises Fenced, after closing the connection"""
        if server_name in self._unfenced:
            return
        claim = self._claims.get(server_name)
        # Without a claim nothing may be written: the tenant is gone, or never was.
        row = None
        if claim is not None:
            with connection.cursor() as cursor:
                cursor.execute(_READ)
                row = cursor.fetchone()
            connection.rollback()
        if claim is None or row is None or (row[0], row[2]) != (claim.epoch, claim.instance):
            connection.close()
            self.on_fenced(server_name)
            raise Fenced(_who_has_it(row, claim) if claim else "this shard does not own the database")


claims_of_shard = Claims()
