"""Where tenants may connect to: everywhere but to the platform's own networks, unless an operator allowed it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Loopback, private, link-local with the clouds' metadata, carrier-grade NAT, and all else that is no host on the Internet.
REFUSED_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "100::/64",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Destination:
    """`10.1.2.3`, `10.1.0.0/16`, either with `:port`; an IPv6 address with a port is in brackets."""

    network: Network
    port: int | None


def parse_network(text: str) -> Network:
    """@raises ValueError saying what is wrong"""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("which is not a network such as 10.1.0.0/16") from None


def parse_destination(text: str) -> Destination:
    """@raises ValueError saying what is wrong"""
    place, port = text, None
    if text.startswith("["):
        place, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            place = text
        rest = rest.removeprefix(":")
        if rest:
            port = _port(rest)
    elif text.count(":") == 1:
        place, _, rest = text.partition(":")
        port = _port(rest)
    try:
        return Destination(ipaddress.ip_network(place), port)
    except ValueError:
        raise ValueError("which is not an address or network, with or without a port, such as 10.1.0.0/16 or 10.1.2.3:9000") from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError("whose port is not a number from 1 to 65535")
    return int(text)


@dataclass(frozen=True)
class Networks:
    """The rule for one tenant."""

    allowed: tuple[Destination, ...] = ()
    refused: tuple[Network, ...] = REFUSED_NETWORKS

    @staticmethod
    def of(allowed: tuple[str, ...], refused: tuple[str, ...]) -> Networks:
        return Networks(tuple(map(parse_destination, allowed)), REFUSED_NETWORKS + tuple(map(parse_network, refused)))

    def refuses(self, host: str, port: int) -> bool:
        """Whether a connection to an address may not be made. What is no address is refused: it must be resolved first."""
        try:
            address = _plain(ipaddress.ip_address(host.split("%", 1)[0]))
        except ValueError:
            return True
        if any(rule.port in (None, port) and address in rule.network for rule in self.allowed):
            return False
        return any(address in network for network in self.refused)


def _plain(address: Address) -> Address:
    """The IPv4 address inside of an IPv6 one that leads to it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and int(address) >> 32 == 0 and int(address) > 1:
            inner = ipaddress.IPv4Address(int(address))
        return inner or address
    return address
