"""A tenant's configuration: the platform's base, the user's overrides, and what of them would reach the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from signedjson.key import read_signing_keys
from synapse.config.homeserver import HomeServerConfig

from .errors import INVALID_CONFIG, OPTION_NOT_ALLOWED, SIGNING_KEY_INVALID, TenantError, config_problem
from .state import Assignment

_LISTEN = "the shard gives every tenant its own listener"
_LOGGING = "logging belongs to the shard and would change for all its tenants"
_GC = "garbage collection is of the whole process"
_METRICS = "metrics of the process hold those of all tenants; the shard serves them"
_WORKERS = "a tenant is one Synapse without workers"
_PROCESS = "it is about the process, which is the shard's"
_FENCE = "the fence that keeps two shards off one database covers exactly one PostgreSQL database"
_GLOBAL_SCOPE = "it is kept once per process, so the last tenant to start would decide for all"

#: Options that a tenant may not set, with the reason. Everything else in homeserver.yaml is the tenant's.
REFUSED_OPTIONS: dict[str, str] = {
    "server_name": "it is the tenant's identity and is given when the tenant is created",
    "listeners": _LISTEN,
    "bind_port": _LISTEN,
    "bind_host": _LISTEN,
    "unsecure_port": _LISTEN,
    "no_tls": _LISTEN,
    "gzip_responses": _LISTEN,
    "log_config": _LOGGING,
    "log_file": _LOGGING,
    "no_redirect_stdio": _LOGGING,
    "gc_thresholds": _GC,
    "gc_min_interval": _GC,
    "use_frozen_dicts": _GLOBAL_SCOPE,
    "daemonize": _PROCESS,
    "pid_file": _PROCESS,
    "print_pidfile": _PROCESS,
    "soft_file_limit": _PROCESS,
    "manhole": "it gives a Python prompt in the process, with every tenant in reach",
    "manhole_settings": "it gives a Python prompt in the process, with every tenant in reach",
    "enable_metrics": _METRICS,
    "metrics_port": _METRICS,
    "metrics_bind_host": _METRICS,
    "sentry": _GLOBAL_SCOPE,
    "opentracing": _GLOBAL_SCOPE,
    "replication_torture_level": _WORKERS,
    "redis": _WORKERS,
    "instance_map": _WORKERS,
    "stream_writers": _WORKERS,
    "run_background_tasks_on": _WORKERS,
    "start_pushers": _WORKERS,
    "pusher_instances": _WORKERS,
    "send_federation": _WORKERS,
    "federation_sender_instances": _WORKERS,
    "media_instance_running_background_jobs": _WORKERS,
    "notify_appservices_from_worker": _WORKERS,
    "update_user_directory_from_worker": _WORKERS,
    "outbound_federation_restricted_to": _WORKERS,
    "databases": _FENCE,
    "database_path": _FENCE,
}

#: The same below `caches`; its other options are kept apart for each tenant.
REFUSED_CACHE_OPTIONS: dict[str, str] = {
    "expire_caches": "cache entries of all tenants are expired from one list",
    "cache_entry_ttl": "cache entries of all tenants are expired from one list",
    "expiry_time": "cache entries of all tenants are expired from one list",
    "cache_autotuning": "it goes by the memory of the whole process",
    "track_memory_usage": _GLOBAL_SCOPE,
}

#: Code a tenant may name. Anything else runs in the process of all tenants, and is let in by the shard's `allowedModules` only.
_KNOWN_MODULES = frozenset({"file_system", "s3_storage_provider.S3StorageProviderBackend", "multi_synapse.well_known.WellKnown"})

_SECRET_WORDS = ("secret", "password", "passwd", "token", "key", "dsn", "credential")
_NOT_SECRET = ("path", "file", "interval", "server", "lifetime", "_enabled")


def parse_overrides(text: str) -> dict[str, Any]:
    """The user's part as a mapping. @raises TenantError InvalidConfig with the line"""
    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.MarkedYAMLError as error:
        # Not str(error): that quotes the lines around it, and a secret may be in them.
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown line"
        raise TenantError(INVALID_CONFIG, f"the configuration is not YAML, at {where}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TenantError(INVALID_CONFIG, f"the configuration is not YAML: {type(error).__name__}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a string" if isinstance(value, str) else "a single value"
        raise TenantError(INVALID_CONFIG, f"the configuration is {kind} (line 1), expected a mapping of options to values")
    for key in value:
        if not isinstance(key, str):
            raise TenantError(INVALID_CONFIG, f"the configuration has the key {key!r}, which is not a string")
    return value


def check_overrides(overrides: dict[str, Any], allowed_modules: frozenset[str] = frozenset()) -> None:
    """@raises TenantError OptionNotAllowed naming the first option that would reach the whole process"""
    for key in overrides:
        if key.startswith("worker_"):
            raise _not_allowed(key, _WORKERS)
        if key in REFUSED_OPTIONS:
            raise _not_allowed(key, REFUSED_OPTIONS[key])
    caches = overrides.get("caches")
    if isinstance(caches, dict):
        for key in caches:
            if key in REFUSED_CACHE_OPTIONS:
                raise _not_allowed(f"caches.{key}", REFUSED_CACHE_OPTIONS[key])
    for path, module in module_names(overrides):
        if module not in _KNOWN_MODULES and not module.startswith("synapse.") and module not in allowed_modules:
            raise _not_allowed(
                path, f"the module {module} would run in the process of all tenants, and is not in the shard's allowedModules"
            )
    _check_database(overrides)


def _not_allowed(option: str, why: str) -> TenantError:
    return TenantError(OPTION_NOT_ALLOWED, f"the option {option} may not be set for a tenant: {why}")


def _check_database(overrides: dict[str, Any]) -> None:
    if "database" not in overrides:
        return
    database = overrides["database"]
    if not isinstance(database, dict) or not isinstance(database.get("args", {}), dict):
        raise TenantError(INVALID_CONFIG, "database is not a mapping with the keys name and args")
    if database.get("name") != "psycopg2":
        raise _not_allowed("database.name", f"only psycopg2 is possible, for {_FENCE}")
    if "data_stores" in database:
        raise _not_allowed("database.data_stores", _FENCE)


def module_names(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every `module: NAME` anywhere in a configuration, as (path, NAME)."""
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}.{key}" if path else str(key)
            if key == "module" and isinstance(item, str):
                yield here, item
            else:
                yield from module_names(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from module_names(item, f"{path}[{index}]")


def secret_values(*configs: Any) -> set[str]:
    """Strings in configurations that must not get into a message: values of keys that sound like secrets."""
    found: set[str] = set()

    def walk(value: Any, secret: bool) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                name = str(key).lower()
                sounds = any(word in name for word in _SECRET_WORDS) and not any(word in name for word in _NOT_SECRET)
                walk(item, secret or sounds)
        elif isinstance(value, list):
            for item in value:
                walk(item, secret)
        elif secret and isinstance(value, str | int) and not isinstance(value, bool):
            found.add(str(value))

    for config in configs:
        walk(config, False)
    return found


def check_signing_key(signing_key: str, overrides: dict[str, Any]) -> None:
    """@raises TenantError SigningKeyInvalid"""
    origin, text = "the signing key", signing_key
    if "signing_key" in overrides:
        origin, text = "the option signing_key", str(overrides["signing_key"])
    elif overrides.get("signing_key_path") is not None:
        origin = f"the signing key file {overrides['signing_key_path']}"
        try:
            text = Path(str(overrides["signing_key_path"])).read_text("utf-8")
        except FileNotFoundError:
            raise TenantError(SIGNING_KEY_INVALID, f"{origin} does not exist") from None
        except (OSError, ValueError) as error:
            raise TenantError(SIGNING_KEY_INVALID, f"{origin} cannot be read: {type(error).__name__}") from None
    lines = text.splitlines()
    if not any(line.strip() for line in lines):
        raise TenantError(SIGNING_KEY_INVALID, f"{origin} is empty")
    try:
        keys = read_signing_keys(lines)
    except Exception:
        # The exception's text may quote the key.
        keys = []
    if not keys:
        raise TenantError(SIGNING_KEY_INVALID, f"{origin} is not of the form `ed25519 NAME BASE64`")


def effective_base(assignment: Assignment, overrides: dict[str, Any], directory: Path, listen_host: str, port: int) -> dict[str, Any]:
    """The platform's part with what only the runtime knows. Overrides cannot name these options."""
    # `consent` is served only where it is listed, and fails to start where consent is not configured.
    resources = ["client", "federation"] + (["consent"] if overrides.get("user_consent") else [])
    listener = {
        "port": port,
        "type": "http",
        "tls": False,
        "bind_addresses": [listen_host],
        "x_forwarded": True,
        "resources": [{"names": resources, "compress": False}],
    }
    return {
        **assignment.base,
        "server_name": assignment.server_name,
        "signing_key_path": str(directory / "signing.key"),
        "listeners": [listener],
        "pid_file": str(directory / "unused.pid"),
        "enable_metrics": False,
    }


def load_homeserver_config(directory: Path, overrides: dict[str, Any]) -> HomeServerConfig:
    """Parses the files as Synapse does; takes 15 to 90 ms of CPU, so call it off the reactor.

    @raises TenantError, synapse.config.ConfigError
    """
    arguments = ["-c", str(directory / "base.yaml")]
    # An empty file is "ignored" by Synapse with a line on stdout.
    if overrides:
        arguments += ["-c", str(directory / "overrides.yaml")]
    try:
        config = HomeServerConfig.load_config("multi_synapse", arguments)
    except BaseException as error:
        raise config_problem(error, overrides) from None
    check_databases(config)
    return config


def check_databases(config: HomeServerConfig) -> None:
    """@raises TenantError OptionNotAllowed unless the tenant has exactly one PostgreSQL database"""
    databases = config.database.databases
    if len(databases) != 1 or databases[0].config.get("name") != "psycopg2":
        raise _not_allowed("database", _FENCE)


def database_arguments(config: HomeServerConfig) -> dict[str, Any]:
    """Arguments of psycopg2.connect for the tenant's database."""
    args = config.database.databases[0].config.get("args", {})
    return {key: value for key, value in args.items() if not key.startswith("cp_")}
