"""The shard's own configuration file (JSON), which the launcher writes."""

from __future__ import annotations

import ipaddress
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class SettingsError(Exception):
    """What is wrong in the file, where, and what is allowed."""


@dataclass(frozen=True)
class Settings:
    name: str
    state_dir: Path
    control_host: str
    control_port: int
    token_file: Path
    advertise_host: str = "127.0.0.1"
    #: Address the tenants listen on.
    listen_host: str = "127.0.0.1"
    #: What a former state directory of this shard held, kept elsewhere; for a state directory that is new.
    assignments_dir: Path | None = None
    ready_file: Path | None = None
    log_file: Path | None = None
    log_level: str = "INFO"
    #: 0o007 where the shards of a machine have a group in common, by which each can read what another one wrote of a tenant.
    umask: int = 0o077
    #: How long a database connection may be unused before it is closed.
    database_idle_seconds: float = 10.0
    #: How long a tenant is without requests before it is idle.
    tenant_idle_seconds: float = 30.0
    #: From one round of housekeeping of an idle tenant to the next.
    idle_round_seconds: float = 600.0
    #: How long until a tenant's start is given up.
    start_seconds: float = 30.0
    #: How long until a preparer that the controller does not ask about is ended. The controller asks every ten seconds.
    preparer_lease_seconds: float = 30.0
    #: Local copies of media that are in their tenants' buckets: of all tenants together.
    media_cache_bytes: int = 2 * 1024**3
    #: How long they may be unused.
    media_cache_seconds: float = 7 * 86400.0
    #: How often they are tidied.
    media_cache_sweep_seconds: float = 600.0
    #: Roles of PostgreSQL that may stay connected to a tenant's database though they may write to it, and never run a homeserver.
    database_roles_left_alone: frozenset[str] = field(default_factory=frozenset)
    #: How long a reactor may stand still before the process is ended; 0: forever.
    watchdog_seconds: float = 5.0
    #: Releases of Synapse that this shard may run though they were never tested.
    allow_untested_releases: frozenset[str] = field(default_factory=frozenset)


def load_settings(path: Path) -> Settings:
    """Reads and checks the file. @raises SettingsError"""
    try:
        raw = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: is not JSON: {error}") from error
    return parse_settings(raw, str(path))


def parse_settings(raw: Any, where: str) -> Settings:
    """Checks the file's content. @raises SettingsError"""
    reader = _Reader(raw, where)
    control = _Reader(reader.take("control", dict), f"{where}: control")
    control_host = control.take("host", str, "127.0.0.1")
    control_port = control.take("port", int, 0)
    control.finish()
    if not 0 <= control_port <= 65535:
        raise SettingsError(f"{where}: control.port is {control_port}, allowed is 0 (any free port) to 65535")
    advertise_host = reader.take("advertiseHost", str, "127.0.0.1")
    level = reader.take("logLevel", str, "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise SettingsError(f"{where}: logLevel is {level!r}, allowed are DEBUG, INFO, WARNING, ERROR")
    settings = Settings(
        name=reader.take("name", str),
        state_dir=Path(reader.take("stateDir", str)).absolute(),
        control_host=control_host,
        control_port=control_port,
        token_file=Path(reader.take("tokenFile", str)).absolute(),
        advertise_host=advertise_host,
        listen_host=reader.take("listenHost", str, _default_listen_host(advertise_host)),
        assignments_dir=reader.path("assignmentsDir"),
        ready_file=reader.path("readyFile"),
        log_file=reader.path("logFile"),
        log_level=level,
        umask=_umask(reader.take("umask", str, "077"), where),
        database_idle_seconds=float(reader.take("databaseIdleSeconds", (int, float), 10)),
        tenant_idle_seconds=float(reader.take("tenantIdleSeconds", (int, float), 30)),
        idle_round_seconds=float(reader.take("idleRoundSeconds", (int, float), 600)),
        start_seconds=float(reader.take("startSeconds", (int, float), 30)),
        preparer_lease_seconds=float(reader.take("preparerLeaseSeconds", (int, float), 30)),
        media_cache_bytes=reader.take("mediaCacheBytes", int, 2 * 1024**3),
        media_cache_seconds=float(reader.take("mediaCacheSeconds", (int, float), 7 * 86400)),
        media_cache_sweep_seconds=float(reader.take("mediaCacheSweepSeconds", (int, float), 600)),
        watchdog_seconds=float(reader.take("watchdogSeconds", (int, float), 5)),
        database_roles_left_alone=frozenset(reader.strings("databaseRolesLeftAlone")),
        allow_untested_releases=frozenset(reader.strings("allowUntestedReleases")),
    )
    reader.finish()
    if not settings.name:
        raise SettingsError(f"{where}: name is empty")
    seconds = {
        "databaseIdleSeconds": settings.database_idle_seconds,
        "tenantIdleSeconds": settings.tenant_idle_seconds,
        "idleRoundSeconds": settings.idle_round_seconds,
        "startSeconds": settings.start_seconds,
        "preparerLeaseSeconds": settings.preparer_lease_seconds,
        "mediaCacheSweepSeconds": settings.media_cache_sweep_seconds,
    }
    for key, value in seconds.items():
        if not 0.1 <= value <= 3600:
            raise SettingsError(f"{where}: {key} is {value}, allowed is 0.1 to 3600")
    if settings.watchdog_seconds != 0 and not 1 <= settings.watchdog_seconds <= 3600:
        raise SettingsError(f"{where}: watchdogSeconds is {settings.watchdog_seconds:g}, allowed is 0 (no watchdog) or 1 to 3600")
    if settings.media_cache_bytes < 0:
        raise SettingsError(f"{where}: mediaCacheBytes is {settings.media_cache_bytes}, allowed is 0 or more")
    if settings.media_cache_seconds < 600:
        raise SettingsError(f"{where}: mediaCacheSeconds is {settings.media_cache_seconds}, allowed is 600 or more")
    return settings


def _umask(text: str, where: str) -> int:
    if text not in ("077", "007"):
        raise SettingsError(f"{where}: umask is {text!r}, allowed are '077' and '007'")
    return int(text, 8)


def _default_listen_host(advertise_host: str) -> str:
    try:
        ipaddress.ip_address(advertise_host)
    except ValueError:
        return "0.0.0.0"  # noqa: S104
    return advertise_host


class _Reader:
    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise SettingsError(f"{where}: expected an object, found {_kind(raw)}")
        self._raw = dict(raw)
        self._where = where
        self._known: list[str] = []

    def take(self, key: str, kinds: Any, default: Any = None) -> Any:
        self._known.append(key)
        value = self._raw.pop(key, default)
        if value is None:
            raise SettingsError(f"{self._where}: {key} is missing")
        # bool is an int to Python, and never meant here.
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise SettingsError(f"{self._where}: {key} is {_kind(value)}, expected {_names(kinds)}")
        return value

    def path(self, key: str) -> Path | None:
        value = self.take(key, str, "")
        return Path(value).absolute() if value else None

    def strings(self, key: str) -> list[str]:
        value = self.take(key, list, [])
        if not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{self._where}: {key} is not a list of strings")
        return list(value)

    def finish(self) -> None:
        for key in self._raw:
            raise SettingsError(f"{self._where}: unknown key {key!r}, allowed are {', '.join(sorted(self._known))}")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}.get(
        type(value), "null"
    )


def _names(kinds: Any) -> str:
    first = kinds[0] if isinstance(kinds, tuple) else kinds
    return {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}[first]
