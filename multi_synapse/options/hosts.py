"""Names in `Host` that lead to a tenant: its own, and what an operator allowed."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from ..errors import INVALID_CONFIG, OPTION_NOT_ALLOWED, OptionError

#: Each is a claim that every controller and gateway keeps.
MOST_HOSTS = 20
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_OPTION = "synapse_shards.hosts"


def host_of(server_name: str) -> str:
    """A server name without its port."""
    name = server_name.lower()
    if name.startswith("["):
        return name[: name.find("]") + 1]
    return name.partition(":")[0]


def host_of_url(url: Any) -> str | None:
    """None for what is no URL."""
    if not isinstance(url, str):
        return None
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    return host.lower() if host else None


def check_public_url(url: Any, server_name: str, of_platform: Any, allowed: tuple[str, ...]) -> None:
    """@raises OptionError OptionNotAllowed for a URL whose host is not the tenant's"""
    if url is None:
        return
    host = host_of_url(url)
    if host is None or "@" in str(url).split("/")[2]:
        message = "the option public_baseurl is not a URL of a host"
        raise OptionError(INVALID_CONFIG, message, "public_baseurl", "it is not a URL of a host")
    if host != host_of_url(of_platform) and not _is_own(host, server_name, allowed):
        raise _of_others("public_baseurl", host, server_name)


def further_hosts(options: dict[str, Any]) -> Any:
    """What a configuration has as further names, or None."""
    ours = options.get("synapse_shards")
    return ours.get("hosts") if isinstance(ours, dict) else None


def check_further_hosts(options: dict[str, Any], server_name: str, allowed: tuple[str, ...]) -> None:
    """@raises OptionError for further names that are none, or are not the tenant's"""
    hosts = further_hosts(options)
    if hosts is None:
        return
    if not isinstance(hosts, list) or len(hosts) > MOST_HOSTS:
        raise _invalid(f"is not a list of at most {MOST_HOSTS} names")
    for host in hosts:
        if not isinstance(host, str) or len(host) > 253 or not _NAME.fullmatch(host) or _is_address(host):
            raise _invalid(f"has {str(host)[:100]!r}, which is not the name of a host in lower case, without a port")
        if not _is_own(host, server_name, allowed):
            raise _of_others(_OPTION, host, server_name)


def hosts_of(server_name: str, public_url: Any, more: Any = None) -> list[str]:
    """The names that lead to a tenant. @param more: of its configuration, checked"""
    host = host_of_url(public_url)
    return list(dict.fromkeys([host_of(server_name), *([host] if host else []), *(more or [])]))


def _is_own(host: str, server_name: str, allowed: tuple[str, ...]) -> bool:
    own = host_of(server_name)
    if host == own or (host.endswith(f".{own}") and not _is_address(own)):
        return True
    return not _is_address(host) and any(_matches(host, pattern) for pattern in allowed)


def _of_others(option: str, host: str, server_name: str) -> OptionError:
    possible = f"allowed are {host_of(server_name)}, names below it, and those in the operator's allowedHosts"
    return OptionError(
        OPTION_NOT_ALLOWED, f"the option {option} may not lead to {host}: {possible}", option, f"it leads to {host}: {possible}"
    )


def _invalid(what: str) -> OptionError:
    return OptionError(INVALID_CONFIG, f"the option {_OPTION} {what}", _OPTION, f"it {what}")


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # All forms of an IPv4 address end in a number.
        return host.rpartition(".")[2].isdecimal() or host.rpartition(".")[2].startswith("0x")
    return True
