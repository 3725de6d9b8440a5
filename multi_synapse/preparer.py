"""The preparer: slow database work in a short-lived process, so that no shard stalls on it.

Lines of JSON in and out; docs/control-api.md is the contract.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import psycopg2
from synapse.config.homeserver import HomeServerConfig
from synapse.storage.database import LoggingDatabaseConnection
from synapse.storage.engines import create_engine
from synapse.storage.prepare_database import prepare_database
from synapse.storage.schema import SCHEMA_COMPAT_VERSION, SCHEMA_VERSION
from synapse.util import SYNAPSE_VERSION
from twisted.internet import defer, task
from twisted.internet.interfaces import IProtocol
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from . import config as tenant_config
from . import errors
from .fence import Claim, claim_database, claims_of_shard
from .homeserver import close_homeserver, start_homeserver
from .memory import Memory
from .options.reading import parse_mapping
from .pools import threads_of_shard
from .state import Assignment, StateDirectory, is_tenant_name
from .waiting import Limit

logger = logging.getLogger(__name__)

_TEMPLATE_SERVER_NAME = "template.invalid"
_TEMPLATE_SECONDS = 300.0
_CLAIM_SECONDS = 30.0
_MIGRATION_SECONDS = 6 * 3600.0
_POLL_SECONDS = 0.2
#: Background updates may queue more of them: the table must stay empty for this long.
_QUIET_SECONDS = 1.0
#: Work that is unfinished this long after the end of input is given up.
_ABANDONED_SECONDS = 5.0
_LONGEST_LINE = 2 * 1024 * 1024


def _read_config(assignment: Assignment, name: str, directory: Path) -> HomeServerConfig:
    # Nothing here reads media, and where they are only the shard that has them may go. Synapse makes the directory it is given.
    assignment = dataclasses.replace(assignment, base={**assignment.base, "media_store_path": str(directory / "media")})
    tenant = tenant_config.read_options(assignment)
    files = StateDirectory(directory).write_tenant_files(name, assignment.overrides, assignment.signing_key)
    tenant_config.write_configuration(tenant, files, "127.0.0.1", 0)
    return tenant_config.load_homeserver_config(files, tenant.options)


def migrate(assignment: Assignment, name: str, shard: str, instance: str, directory: Path) -> tuple[int | None, int]:
    """Claims the tenant's database and brings its schema up to this release.

    Returns the schema version before (None: there was no schema) and after. Blocks.
    @raises errors.TenantError, psycopg2.Error, and what Synapse raises on a database it cannot take
    """
    config = _read_config(assignment, name, directory)
    claim = Claim(assignment.epoch, shard, instance)
    arguments = tenant_config.database_arguments(config)
    claim_database(arguments, claim, Limit(_CLAIM_SECONDS))
    claims_of_shard.add(assignment.server_name, claim)
    try:
        with Limit(_MIGRATION_SECONDS):
            return _prepare(config, arguments)
    finally:
        claims_of_shard.remove(assignment.server_name)


def _prepare(config: HomeServerConfig, arguments: dict[str, Any]) -> tuple[int | None, int]:
    database = config.database.databases[0]
    engine = create_engine(database.config)
    native = psycopg2.connect(**arguments)
    try:
        connection = LoggingDatabaseConnection(
            conn=native, engine=engine, default_txn_name="prepare", server_name=config.server.server_name
        )
        engine.on_new_connection(connection)
        engine.check_database(native)
        before = schema_version(native)
        prepare_database(connection, engine, config=config, databases=database.databases)
        return before, schema_version(native) or SCHEMA_VERSION
    finally:
        native.close()


def schema_version(connection: Any) -> int | None:
    """Of a database, or None where Synapse has made no schema."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute("SELECT version FROM schema_version")
        row = cursor.fetchone()
        return int(row[0]) if row else None


async def make_template(database: dict[str, Any], directory: Path, reactor: Any) -> None:
    """Makes a complete schema in an empty database, by running a HomeServer on it until no background update is left."""
    base = {
        "server_name": _TEMPLATE_SERVER_NAME,
        "database": {"name": "psycopg2", "args": database},
        "media_store_path": str(directory / "media"),
        "macaroon_secret_key": os.urandom(16).hex(),
        "report_stats": False,
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "background_updates": {"sleep_enabled": False, "sleep_duration_ms": 1, "default_batch_size": 1000},
    }
    key = f"ed25519 a_{os.urandom(3).hex()} {'A' * 43}\n"
    assignment = Assignment(_TEMPLATE_SERVER_NAME, 1, base, "", key)
    config = _read_config(assignment, "template", directory)
    claims_of_shard.skip(_TEMPLATE_SERVER_NAME)
    limit = Limit(_TEMPLATE_SECONDS)
    running = await start_homeserver(config, limit, reactor, Memory(reactor))
    try:
        await _wait_for_background_updates(database, limit, reactor)
    finally:
        await close_homeserver(running, reactor, gracefully=True)
    _forget_server(database)


async def _wait_for_background_updates(database: dict[str, Any], limit: Limit, reactor: Any) -> None:
    connection = psycopg2.connect(**database)
    connection.autocommit = True
    quiet_since: float | None = None
    try:
        with connection.cursor() as cursor:
            while True:
                limit.check()
                cursor.execute("SELECT count(*) FROM background_updates")
                now = time.monotonic()
                if cursor.fetchone()[0]:
                    quiet_since = None
                elif quiet_since is None:
                    quiet_since = now
                elif now - quiet_since > _QUIET_SECONDS:
                    return
                await task.deferLater(reactor, _POLL_SECONDS)
    finally:
        connection.close()


def _forget_server(database: dict[str, Any]) -> None:
    """What the template's own HomeServer left of itself must not be copied into tenants."""
    connection = psycopg2.connect(**database)
    try:
        with connection, connection.cursor() as cursor:
            for table in ("worker_read_write_locks", "worker_locks", "scheduled_tasks", "server_keys_json", "server_signature_keys"):
                cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
                if cursor.fetchone()[0]:
                    cursor.execute(f"DELETE FROM {table}")
    finally:
        connection.close()


async def run_command(line: bytes, reactor: Any) -> dict[str, Any]:
    """Carries out one line of input; returns the event to print. Never raises."""
    begun = time.monotonic()
    secrets: set[str] = set()
    try:
        command = json.loads(line)
        if not isinstance(command, dict):
            raise errors.TenantError(errors.INVALID_CONFIG, "the command is not an object")
        secrets = tenant_config.secret_values(command)
        with tempfile.TemporaryDirectory(prefix="multi-synapse-prepare-") as scratch:
            match command.get("command"):
                case "template":
                    database = command.get("database")
                    if not isinstance(database, dict):
                        raise errors.TenantError(errors.INVALID_CONFIG, "database is missing or not an object")
                    await make_template(database, Path(scratch), reactor)
                    return {"event": "done", "seconds": _since(begun), "from": None, "to": SCHEMA_VERSION}
                case "migrate":
                    assignment = Assignment.parse(command.get("assignment"))
                    secrets |= tenant_config.known_secrets(assignment)
                    secrets |= tenant_config.secret_values(parse_mapping(assignment.overrides))
                    name, shard, instance = (_text(command, key) for key in ("name", "shard", "instance"))
                    if not is_tenant_name(name):
                        raise errors.TenantError(errors.INVALID_CONFIG, "name is not a DNS label")
                    before, after = migrate(assignment, name, shard, instance, Path(scratch))
                    return {"event": "done", "seconds": _since(begun), "from": before, "to": after}
        raise errors.TenantError(errors.INVALID_CONFIG, "unknown command, allowed are template and migrate")
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            return {"event": "error", "code": errors.INVALID_CONFIG, "message": "the line is not JSON"}
        return _error_event(error, secrets)
    except BaseException as error:
        return _error_event(error, secrets)


def _error_event(error: BaseException, secrets: set[str]) -> dict[str, Any]:
    problem = errors.describe(error, secrets)
    if problem.code == errors.START_FAILED:
        logger.error("the command failed: %s", errors.trace_of(error, secrets))
    return {"event": "error", "code": problem.code, "message": problem.message}


def _text(command: dict[str, Any], key: str) -> str:
    value = command.get(key)
    if not isinstance(value, str) or not value:
        raise errors.TenantError(errors.INVALID_CONFIG, f"{key} is missing or not a string")
    return value


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)


@implementer(IProtocol)
class _Commands(LineReceiver):
    """Carries out one line after the other."""

    delimiter = b"\n"
    MAX_LENGTH = _LONGEST_LINE

    def __init__(self, reactor: Any, out: Any) -> None:
        self._reactor = reactor
        self._out = out
        self._last: defer.Deferred[None] = defer.succeed(None)

    def emit(self, event: dict[str, Any]) -> None:
        self._out.write(json.dumps(event) + "\n")
        self._out.flush()

    def lineReceived(self, line: bytes) -> None:
        async def run() -> None:
            self.emit(await run_command(line, self._reactor))

        if line.strip():
            self._last.addCallback(lambda _: defer.ensureDeferred(run()))

    def connectionLost(self, reason: object = None) -> None:
        self._last.addBoth(lambda _: self._reactor.stop())
        # No one hears of the work under way, and the next preparer begins it again: it must not go on forever.
        self._reactor.callLater(_ABANDONED_SECONDS, os._exit, 1)


def main(allowed_releases: Collection[str] = ()) -> int:
    from twisted.internet import reactor as imported_reactor
    from twisted.internet import stdio

    from . import log, patches

    reactor: Any = imported_reactor
    os.environ.pop("NOTIFY_SOCKET", None)
    os.umask(0o077)
    # Only events may go to stdout, whatever Synapse prints.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    log.set_up_logging("WARNING", None)
    patches.allow(allowed_releases)
    patches.apply_all()

    def up() -> None:
        threads_of_shard.start_all(reactor)
        commands = _Commands(reactor, out)
        ready = {
            "event": "ready",
            "release": SYNAPSE_VERSION,
            "schemaVersion": SCHEMA_VERSION,
            "schemaCompatVersion": SCHEMA_COMPAT_VERSION,
        }
        try:
            commands.emit(ready)
        except OSError:
            # Its starter went away while it imported Synapse, and nothing else would end it.
            reactor.stop()
            return
        stdio.StandardIO(commands, stdout=os.open(os.devnull, os.O_WRONLY))

    reactor.callWhenRunning(up)
    reactor.run()
    return 0
