"""What a configuration means to the platform, as Synapse itself has read it (docs/control-api.md, *Meaning*)."""

from __future__ import annotations

from typing import Any

from .check import S3
from .hosts import further_hosts, hosts_of


def meaning_of(config: Any, options: dict[str, Any]) -> dict[str, Any]:
    """@param config: Synapse's `HomeServerConfig`; @param options: the tenant's own"""
    return {
        "database": _database(config) if options.get("database") is not None else None,
        "hosts": hosts_of(config.server.server_name, config.server.public_baseurl, further_hosts(options)),
        "publicBaseUrl": str(config.server.public_baseurl),
        "bucket": _bucket(config),
        "authenticationService": bool(getattr(getattr(config, "mas", None), "enabled", False)),
    }


def _database(config: Any) -> dict[str, Any]:
    arguments = config.database.databases[0].config.get("args", {})
    return {
        "host": str(arguments.get("host", "")),
        "port": int(arguments.get("port") or 5432),
        "name": str(arguments.get("dbname") or arguments.get("database") or ""),
        "user": str(arguments.get("user", "")),
    }


def _bucket(config: Any) -> str | None:
    for provider, settings, _ in getattr(config.media, "media_storage_providers", []):
        if f"{provider.__module__}.{provider.__qualname__}" == S3:
            return str(settings.get("bucket", ""))
    return None
