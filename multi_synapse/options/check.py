"""Goes through a tenant's configuration by the table: what is not in it does not reach Synapse."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any

from ..errors import INVALID_CONFIG, OPTION_NOT_ALLOWED, OptionError
from . import TABLE
from .hosts import check_further_hosts, check_public_url
from .kinds import ANY, MODULE, kind_of
from .option import EACH, ITEM, REFUSED, TENANT, Option
from .policy import Policy

S3 = "s3_storage_provider.S3StorageProviderBackend"
#: Code that a tenant may name, by where. Anything else must be in the operator's `allowedModules`: it runs in the process of all tenants.
KNOWN_MODULES: dict[str, frozenset[str]] = {
    "modules[].module": frozenset({"multi_synapse.well_known.WellKnown"}),
    "media_storage_providers[].module": frozenset({S3}),
    "oidc_providers[].user_mapping_provider.module": frozenset({"synapse.handlers.oidc.JinjaOidcMappingProvider"}),
    "oidc_config.user_mapping_provider.module": frozenset({"synapse.handlers.oidc.JinjaOidcMappingProvider"}),
}
_S3_OPTIONS = frozenset(
    {
        "bucket",
        "region_name",
        "endpoint_url",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "storage_class",
        "prefix",
        "sse_customer_key",
        "sse_customer_algo",
        "threadpool_size",
    }
)
_MOST_WARNINGS = 50


@dataclass
class Checked:
    """A configuration that may be used."""

    #: What of it Synapse may read.
    options: dict[str, Any]
    #: One sentence each.
    warnings: list[str] = field(default_factory=list)


def check_options(given: dict[str, Any], server_name: str, base: dict[str, Any], policy: Policy) -> Checked:
    """@param base: the platform's part, whose values a tenant may have too
    @raises TenantError OptionNotAllowed, InvalidConfig naming the option"""
    walk = _Walk(server_name, policy)
    options = walk.mapping(TABLE, given, "", "", {**base, **policy.tenant_defaults})
    if "database" not in policy.allowed_options:
        _check_database(options)
    if "public_baseurl" not in policy.allowed_options:
        check_public_url(options.get("public_baseurl"), server_name, base.get("public_baseurl"), policy.allowed_hosts)
    # Whatever an operator lets through as it is: what leads to a tenant has to be names.
    check_further_hosts(options, server_name, policy.allowed_hosts)
    return Checked(options, walk.warnings)


class _Walk:
    def __init__(self, server_name: str, policy: Policy) -> None:
        self._server_name = server_name
        self._allowed = policy.allowed_options
        self._modules = policy.allowed_modules
        self.warnings: list[str] = []

    def mapping(self, node: Option, value: dict[Any, Any], path: str, pattern: str, ceiling: Any) -> dict[str, Any]:
        """@param path: for messages; @param pattern: the same as the table writes it"""
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name = str(key)
            here = f"{path}.{name}" if path else name
            part = f"<{name}>" if "." in name else name
            option = node.keys.get(name)
            if option is None and EACH in node.keys:
                option, part = node.keys[EACH], EACH
            at = f"{pattern}.{part}" if pattern else part
            if at in self._allowed or here in self._allowed:
                kept[name] = item
            elif option is None:
                self._unknown(node, here, name, top=not path)
            elif option.owner == TENANT:
                kept[name] = self.value(option, item, here, at, ceiling.get(name) if isinstance(ceiling, dict) else None)
            elif not self._is_off(option, name, item):
                raise not_allowed(here, option.why, option.owner)
        return kept

    def value(self, option: Option, value: Any, path: str, pattern: str, ceiling: Any) -> Any:
        if value is None:
            return None
        if option.kind is MODULE:
            self._module(value, path, pattern)
        elif option.kind is not ANY and (problem := option.kind.check(value, ceiling)) is not None:
            if problem.refused:
                raise not_allowed(path, f"it {problem.text}")
            if problem.unreadable or option.keys:
                # A value of another shape would not be looked into.
                raise _invalid(path, problem.text)
            self._warn(f"the option {path} {problem.text}")
        if pattern == "media_storage_providers[]" and isinstance(value, dict) and value.get("module") == S3:
            _check_s3(value.get("config"), path)
        if not option.keys:
            return value
        if ITEM in option.keys:
            if not isinstance(value, list):
                raise _invalid(path, f"is {kind_of(value)}, expected a list")
            below = option.keys[ITEM]
            return [self.value(below, item, f"{path}[{index}]", f"{pattern}{ITEM}", None) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            raise _invalid(path, f"is {kind_of(value)}, expected a mapping")
        return self.mapping(option, value, path, pattern, ceiling)

    def _module(self, value: Any, path: str, pattern: str) -> None:
        if isinstance(value, str) and (value in KNOWN_MODULES.get(pattern, frozenset()) or value in self._modules):
            return
        name = f"the module {value}" if isinstance(value, str) and len(value) < 200 else "it"
        raise not_allowed(path, f"{name} would run in the process of all tenants, and is not in the operator's allowedModules")

    def _is_off(self, option: Option, name: str, value: Any) -> bool:
        """Says that an option is not used, as many a homeserver.yaml does, and so changes nothing."""
        if not value:
            return True
        if isinstance(value, dict) and value.get("enabled") is False:
            return True
        if any(value is known or (isinstance(known, str) and value == known) for known in option.off):
            return True
        return name == "server_name" and value == self._server_name

    def _unknown(self, node: Option, path: str, name: str, top: bool) -> None:
        # For what YAML's anchors are put into, as with Docker's Compose.
        if top and name.startswith(("x-", "x_")):
            return
        near = difflib.get_close_matches(name, [key for key in node.keys if key not in (EACH, ITEM)], n=1, cutoff=0.75)
        hint = f"; did you mean {near[0]}?" if near else ""
        self._warn(f"the option {path} is unknown and has no effect{hint}")

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(text if len(text) < 400 else text[:399] + "…")


def not_allowed(option: str, why: str, owner: str = REFUSED) -> OptionError:
    return OptionError(OPTION_NOT_ALLOWED, f"the option {option} may not be set for a tenant: {why}", option, why, owner)


def _invalid(option: str, what: str) -> OptionError:
    return OptionError(INVALID_CONFIG, f"the option {option} {what}", option, f"it {what}")


def _check_database(options: dict[str, Any]) -> None:
    database = options.get("database")
    if database is None:
        options.pop("database", None)
        return
    if database.get("name") != "psycopg2":
        raise not_allowed("database.name", "only psycopg2 is possible, for a tenant has exactly one PostgreSQL database")
    arguments = database.get("args") or {}
    if not arguments.get("host"):
        raise _invalid("database.args.host", "is missing; without it a socket of the machine would be used")
    for key in ("dbname", "database"):
        text = str(arguments.get(key, ""))
        # libpq takes such a name for a whole connection string.
        if "=" in text or "://" in text:
            raise not_allowed(f"database.args.{key}", "it is a connection string, expected the name of a database")


def _check_s3(config: Any, path: str) -> None:
    if not isinstance(config, dict):
        raise _invalid(f"{path}.config", f"is {kind_of(config)}, expected a mapping")
    for key, value in config.items():
        if key not in _S3_OPTIONS:
            raise not_allowed(f"{path}.config.{key}", f"allowed are {', '.join(sorted(_S3_OPTIONS))}")
        if not isinstance(value, str | int) or (key == "endpoint_url" and not str(value).startswith(("http://", "https://"))):
            raise _invalid(f"{path}.config.{key}", "is not a URL" if key == "endpoint_url" else f"is {kind_of(value)}, expected text")
    for key in ("bucket", "access_key_id", "secret_access_key"):
        if not config.get(key):
            # The S3 library would look for keys in the machine's own files, environment and metadata.
            raise _invalid(f"{path}.config.{key}", "is missing")
