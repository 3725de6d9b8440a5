"""Names in `Host` that lead to a tenant: its own, and what an operator allowed."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from ..errors import INVALID_CONFIG, OPTION_NOT_ALLOWED, OptionError


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
    own = host_of(server_name)
    if host in (own, host_of_url(of_platform)) or (host.endswith(f".{own}") and not _is_address(own)):
        return
    if not _is_address(host) and any(_matches(host, pattern) for pattern in allowed):
        return
    possible = f"allowed are {own}, names below it, and those in the operator's allowedHosts"
    message = f"the option public_baseurl may not lead to {host}: {possible}"
    raise OptionError(OPTION_NOT_ALLOWED, message, "public_baseurl", f"it leads to {host}: {possible}")


def hosts_of(server_name: str, public_url: Any) -> list[str]:
    """The names that lead to a tenant."""
    host = host_of_url(public_url)
    return list(dict.fromkeys([host_of(server_name), *([host] if host else [])]))


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # All forms of an IPv4 address end in a number.
        return host.rpartition(".")[2].isdecimal() or host.rpartition(".")[2].startswith("0x")
    return True
