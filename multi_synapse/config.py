"""A tenant's configuration: the platform's part, the operator's defaults and the tenant's part, made into one that Synapse reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from signedjson.key import read_signing_keys
from synapse.config.homeserver import HomeServerConfig

from .errors import OPTION_NOT_ALLOWED, SIGNING_KEY_INVALID, TenantError, config_problem
from .options.check import Checked, check_options
from .options.inline import write_files
from .options.network import REFUSED_NETWORKS
from .options.quotas import bounded
from .options.reading import parse_mapping
from .state import Assignment, write_atomically

_FENCE = "the fence that keeps two shards off one database covers exactly one PostgreSQL database"
_SECRET_WORDS = ("secret", "password", "passwd", "token", "key", "dsn", "credential")
_NOT_SECRET = ("path", "file", "interval", "server", "lifetime", "_enabled")


@dataclass(frozen=True)
class TenantOptions:
    """The tenant's part, checked; what no option of the table allows is not in it."""

    assignment: Assignment
    options: dict[str, Any]
    #: What the tenant should know of its part, one sentence each.
    warnings: tuple[str, ...]
    #: Strings of it, and of the platform's part, that must not get into a message.
    secrets: frozenset[str]
    #: Python modules that it names.
    modules: frozenset[str]


def read_options(assignment: Assignment) -> TenantOptions:
    """Reads and checks the tenant's part, in time linear in its size. @raises TenantError"""
    given = parse_mapping(assignment.overrides)
    checked = check_options(given, assignment.server_name, assignment.base, assignment.policy)
    check_signing_key(assignment.signing_key, checked.options)
    return _tenant_options(assignment, checked)


def _tenant_options(assignment: Assignment, checked: Checked) -> TenantOptions:
    secrets = secret_values(assignment.base, assignment.policy.tenant_defaults, checked.options)
    secrets |= set(assignment.signing_key.split()[2:])
    parts = [checked.options, assignment.policy.tenant_defaults, assignment.base]
    modules = frozenset(module for _, module in module_names(parts))
    return TenantOptions(assignment, checked.options, tuple(checked.warnings), frozenset(secrets), modules)


def known_secrets(assignment: Assignment) -> set[str]:
    """Those of the platform's part, for messages about a part of the tenant's that could not be read."""
    return secret_values(assignment.base, assignment.policy.tenant_defaults) | set(assignment.signing_key.split()[2:])


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


def check_signing_key(signing_key: str, options: dict[str, Any]) -> None:
    """@raises TenantError SigningKeyInvalid"""
    origin, text = "the signing key", signing_key
    if options.get("signing_key") is not None:
        origin, text = "the option signing_key", str(options["signing_key"])
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


def write_configuration(tenant: TenantOptions, directory: Path, listen_host: str, port: int) -> None:
    """Writes homeserver.yaml and the files that it names into the tenant's directory. @raises TenantError"""
    assignment = tenant.assignment
    platform = {**assignment.base, **assignment.policy.tenant_defaults}
    options = write_files({**_shared(platform), **tenant.options}, assignment.base, directory)
    whole = {**platform, **options, **_forced(assignment, options, directory, listen_host, port)}
    whole |= bounded(whole, assignment.policy.quotas)
    _add_networks(whole, assignment)
    text = yaml.dump(whole, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    write_atomically(directory / "homeserver.yaml", text)


def _shared(platform: dict[str, Any]) -> dict[str, Any]:
    """What an operator gives inline to all tenants; a tenant's own takes its place."""
    return {"synapse_shards": platform.pop("synapse_shards")} if "synapse_shards" in platform else {}


def _forced(assignment: Assignment, options: dict[str, Any], directory: Path, listen_host: str, port: int) -> dict[str, Any]:
    """What only the runtime knows, and no other part may say."""
    # `consent` is served only where it is listed, and fails to start where consent is not configured.
    resources = ["client", "federation"] + (["consent"] if options.get("user_consent") else [])
    listener = {
        "port": port,
        "type": "http",
        "tls": False,
        "bind_addresses": [listen_host],
        "x_forwarded": True,
        "resources": [{"names": resources, "compress": False}],
    }
    return {
        "server_name": assignment.server_name,
        "signing_key_path": str(directory / "signing.key"),
        "listeners": [listener],
        "pid_file": str(directory / "unused.pid"),
        "enable_metrics": False,
    }


def _add_networks(whole: dict[str, Any], assignment: Assignment) -> None:
    """What Synapse itself refuses to connect to agrees with the platform's rule, which is enforced below it."""
    allowed = [item.network.compressed for item in assignment.policy.networks().allowed]
    for kind in ("", "url_preview_"):
        whole.setdefault(f"{kind}ip_range_blacklist", [network.compressed for network in REFUSED_NETWORKS])
        whole[f"{kind}ip_range_whitelist"] = [*(whole.get(f"{kind}ip_range_whitelist") or []), *allowed]


def load_homeserver_config(directory: Path, options: dict[str, Any]) -> HomeServerConfig:
    """Parses what was written as Synapse does; takes 15 to 90 ms of CPU, so call it off the reactor.

    @raises TenantError, synapse.config.ConfigError
    """
    try:
        config = HomeServerConfig.load_config("multi_synapse", ["-c", str(directory / "homeserver.yaml")])
    except BaseException as error:
        raise config_problem(error, options) from None
    check_databases(config)
    return config


def check_databases(config: HomeServerConfig) -> None:
    """@raises TenantError OptionNotAllowed unless the tenant has exactly one PostgreSQL database"""
    databases = config.database.databases
    if len(databases) != 1 or databases[0].config.get("name") != "psycopg2":
        raise TenantError(OPTION_NOT_ALLOWED, f"the option database may not be set for a tenant: {_FENCE}")


def database_arguments(config: HomeServerConfig) -> dict[str, Any]:
    """Arguments of psycopg2.connect for the tenant's database."""
    args = config.database.databases[0].config.get("args", {})
    return {key: value for key, value in args.items() if not key.startswith("cp_")}
