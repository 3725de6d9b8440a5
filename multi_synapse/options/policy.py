"""What an operator allows beyond the table, for one tenant or all: a part of the assignment (docs/control-api.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import INVALID_CONFIG, TenantError
from .families import Families, parse_pattern
from .network import Networks, parse_destination, parse_network
from .quotas import Quotas, parse_quotas

_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_MOST = 1000


@dataclass(frozen=True)
class Policy:
    #: Paths of options as in docs/configuration.md. What is named, and all below it, passes as it is.
    allowed_options: frozenset[str] = frozenset()
    #: A layer of homeserver.yaml between the platform's and the tenant's.
    tenant_defaults: dict[str, Any] = field(default_factory=dict)
    #: Python modules (dotted, with the class) that tenants may name; they are installed in the releases' environments.
    allowed_modules: frozenset[str] = frozenset()
    #: Names that tenants may have beside those below their own server name; `*.name` for all below one.
    allowed_hosts: tuple[str, ...] = ()
    #: Networks and hosts that tenants may connect to although they are refused: see network.py.
    allowed_destinations: tuple[str, ...] = ()
    #: Further networks that they may not connect to.
    refused_networks: tuple[str, ...] = ()
    #: Families of metrics that are exported of it, besides those of each tenant.
    metrics: tuple[str, ...] = ()
    #: What it may have at most.
    quotas: Quotas = field(default_factory=Quotas)

    def networks(self) -> Networks:
        return Networks.of(self.allowed_destinations, self.refused_networks)

    def families(self) -> Families:
        return Families(self.metrics)

    def to_json(self) -> dict[str, Any]:
        return {
            "allowedOptions": sorted(self.allowed_options),
            "tenantDefaults": self.tenant_defaults,
            "allowedModules": sorted(self.allowed_modules),
            "allowedHosts": list(self.allowed_hosts),
            "allowedDestinations": list(self.allowed_destinations),
            "refusedNetworks": list(self.refused_networks),
            "metrics": list(self.metrics),
            "quotas": self.quotas.to_json(),
        }


def parse_policy(raw: Any) -> Policy:
    """@raises TenantError InvalidConfig naming the field"""

    def wrong(what: str) -> TenantError:
        return TenantError(INVALID_CONFIG, f"the assignment is not valid: policy.{what}")

    if not isinstance(raw, dict):
        raise TenantError(INVALID_CONFIG, "the assignment is not valid: policy is not an object")
    known = set(Policy().to_json())
    for key in raw:
        if key not in known:
            raise wrong(f"{key} is unknown, allowed are {', '.join(sorted(known))}")
    lists: dict[str, tuple[str, ...]] = {}
    for key in known - {"tenantDefaults", "quotas"}:
        value = raw.get(key, [])
        if not isinstance(value, list) or len(value) > _MOST or not all(isinstance(item, str) and item for item in value):
            raise wrong(f"{key} is not a list of at most {_MOST} strings")
        lists[key] = tuple(value)
    defaults = raw.get("tenantDefaults", {})
    if not isinstance(defaults, dict):
        raise wrong("tenantDefaults is not an object")
    try:
        quotas = parse_quotas(raw.get("quotas", {}))
    except ValueError as error:
        raise wrong(str(error)) from None
    for host in lists["allowedHosts"]:
        if not _HOST.fullmatch(host):
            raise wrong(f"allowedHosts has {host!r}, which is neither a name such as matrix.example nor *.matrix.example")
    for key, parse in (("allowedDestinations", parse_destination), ("refusedNetworks", parse_network), ("metrics", parse_pattern)):
        for item in lists[key]:
            try:
                parse(item)
            except ValueError as error:
                raise wrong(f"{key} has {item!r}, {error}") from None
    return Policy(
        frozenset(lists["allowedOptions"]),
        defaults,
        frozenset(lists["allowedModules"]),
        lists["allowedHosts"],
        lists["allowedDestinations"],
        lists["refusedNetworks"],
        lists["metrics"],
        quotas,
    )
