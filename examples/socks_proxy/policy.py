"""PURE. Where the server connects to, and where not. It judges the resolved address that is really dialled.

A rule is `HOST`, `*.DOMAIN` (its subdomains), `ADDRESS`, `NETWORK` or `*`, each with `:PORT` or without. In this order:

1. A `--deny` rule that matches denies; except `*`, which comes last.
2. An `--allow` rule that matches allows. A special network (private, loopback, link-local, ...) it opens
   only if it means that network: by a name, or by a network that lies within it.
3. Special networks are denied, unless `--allow-private` is given.
4. `--allow *:PORT` allows, then `--deny *` or `--deny *:PORT` denies, then everything is allowed.

An IPv6 address that carries an IPv4 address is as special, and as denied, as what it carries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple, TypeAlias

from .addresses import BadAddress, Host, IPAddress, parse_host

IPNetwork: TypeAlias = IPv4Network | IPv6Network

ANY = "*"

# RFC 6890 and the IANA registries of special-purpose addresses. The narrower ones first: their reason is the better.
_SPECIAL_IPV4: list[tuple[IPNetwork, str]] = [
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/32", "the unspecified address"),
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "a private network"),
        ("100.100.100.200/32", "a cloud's metadata service"),
        ("100.64.0.0/10", "a carrier's private network (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        # Public by its number, and answered by the host machine.
        ("168.63.129.16/32", "a cloud's metadata service"),
        ("169.254.169.254/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "a private network"),
        ("192.0.0.0/24", "IETF protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "a private network"),
        ("198.18.0.0/15", "benchmarks"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
]
_SPECIAL_IPV6: list[tuple[IPNetwork, str]] = [
    (IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "the unspecified address"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discarded"),
        # With Teredo (2001::/32), which hides an IPv4 address of its client and one of its server.
        ("2001::/23", "IETF protocol assignments, with Teredo"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("fd00:ec2::254/128", "a cloud's metadata service"),
        ("fd20:ce::254/128", "a cloud's metadata service"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")
# Where in an address of this network an IPv4 address begins, in bits.
_CARRIERS = (
    (_NAT64, 96),
    (IPv6Network("64:ff9b:1::/48"), 96),
    (IPv6Network("::/96"), 96),
    (IPv6Network("::ffff:0:0:0/96"), 96),
    (IPv6Network("2002::/16"), 16),  # 6to4
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_EVERYTHING_ELSE = IPv6Network("::/0")

_RULE = re.compile(r"(?P<host>\[[^\]]*\](?:/[0-9]+)?|[^:\[\]]*)(?::(?P<port>[^:]*))?")
_PORT = re.compile(r"[0-9]{1,5}")


class BadRule(ValueError):
    """This is no rule; the text says why, for whoever has written it."""


class Rule(NamedTuple):
    """What a rule matches."""

    text: str
    target: IPNetwork | str
    """A network, a name, `*.domain` or `*`."""
    port: int | None

    def matches(self, host: Host, addresses: Iterable[IPAddress], port: int) -> bool:
        """Whether it is about this host, as asked for, or one of these addresses."""
        if self.port not in (None, port):
            return False
        if isinstance(self.target, str):
            return isinstance(host, str) and _names(self.target, host.removesuffix("."))
        return any(address in self.target for address in addresses)


def _names(target: str, host: str) -> bool:
    return host.endswith(target[1:]) if target.startswith("*.") else host == target


# --- rules from text ------------------------------------------------------------------------------


def parse_rule(text: str) -> Rule:
    """Read a rule as it is given on the command line; `BadRule` says what is wrong with it."""
    text = text.strip()
    # An IPv6 address without brackets has colons of its own, and so no port.
    bare = text.count(":") > 1 and "[" not in text
    parts = None if bare else _RULE.fullmatch(text)
    if parts is None and not bare:
        raise BadRule(f"{text!r} is no rule: it should be HOST, ADDRESS, NETWORK or *, each with :PORT or without")
    host, port = (text, None) if parts is None else (parts["host"], parts["port"])
    if not host:
        raise BadRule(f"{text!r} names no host; * means every host")
    return Rule(text, _parse_target(text, host), _parse_port(text, port))


def _parse_port(text: str, port: str | None) -> int | None:
    if port is None or port == ANY:
        return None
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise BadRule(f"{text!r} has the port {port!r}, which is no number from 1 to 65535")
    return int(port)


def _parse_target(text: str, host: str) -> IPNetwork | str:
    if host == ANY:
        return ANY
    if "/" in host:
        return _parse_network(text, host.replace("[", "").replace("]", ""))
    wildcard, name = (host[:2], host[2:]) if host.startswith("*.") else ("", host)
    try:
        found = parse_host(name)
    except BadAddress as error:
        raise BadRule(f"{text!r} is no rule: {error}") from None
    if isinstance(found, str):
        return wildcard + found.removesuffix(".")
    if wildcard:
        raise BadRule(f"{text!r} is no rule: an address has no subdomains")
    return ip_network(_dialled(found))


def _parse_network(text: str, network: str) -> IPNetwork:
    try:
        return _dialled_network(ip_network(network))
    except ValueError as error:
        try:
            meant = f": did you mean {ip_network(network, strict=False)}?"
        except ValueError:
            meant = ""
        raise BadRule(f"{text!r} is no network: {error}{meant}") from None


# --- decisions ------------------------------------------------------------------------------------


class Policy:
    """What is allowed; by default everything but special networks."""

    def __init__(self, *, allow: Iterable[Rule] = (), deny: Iterable[Rule] = (), allow_private: bool = False) -> None:
        allow, deny = list(allow), list(deny)
        self._allow = [rule for rule in allow if rule.target != ANY]
        self._allow_any = [rule for rule in allow if rule.target == ANY]
        self._deny = [rule for rule in deny if rule.target != ANY]
        self._deny_any = [rule for rule in deny if rule.target == ANY]
        self.allow_private = allow_private

    def refusal(self, host: Host, address: IPAddress, port: int) -> str | None:
        """Why not to connect to `address`, which `host` has been resolved to; None if nothing is against it.

        Dial exactly this address: a second look-up may give another.
        """
        address = _dialled(address)
        for rule in self._deny:
            if rule.matches(host, (one for one, _ in _carried(address)), port):
                return f"{_shown(host, address, port)} is denied by the rule {rule.text!r}"
        special = special_network(address)
        for rule in self._allow:
            if rule.matches(host, (address,), port) and _may_open(rule, special):
                return None
        if special is not None and not self.allow_private:
            network, reason = special
            opened_by = f"the server's --allow {_where(address, port)}, or --allow-private, opens it"
            return f"{_shown(host, address, port)} is denied: {reason} ({network}); {opened_by}"
        if any(rule.port in (None, port) for rule in self._allow_any):
            return None
        for rule in self._deny_any:
            if rule.port in (None, port):
                return f"{_shown(host, address, port)} is denied by the rule {rule.text!r}"
        return None


# Of a thousand destinations, each is looked up once.
@lru_cache(maxsize=1024)
def special_network(address: IPAddress) -> tuple[IPNetwork, str] | None:
    """The special network that the address belongs to, by itself or by what it carries, and what that is for."""
    address = _dialled(address)
    for one, start in _carried(address):
        for network, reason in _SPECIAL_IPV4 if one.version == 4 else _SPECIAL_IPV6:
            if one in network:
                # In terms of the whole address, so that a rule about it can be compared with it.
                scope = ip_network((address, start + network.prefixlen), strict=False)
                return scope, reason if one == address else f"it carries {one}, {reason}"
        if isinstance(one, IPv6Address) and one not in _GLOBAL_UNICAST and one not in _NAT64:
            return _EVERYTHING_ELSE, "no global unicast address"
    return None


def _dialled(address: IPAddress) -> IPAddress:
    """An IPv4-mapped address is dialled as the IPv4 address that it is."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _dialled_network(network: IPNetwork) -> IPNetwork:
    first = network.network_address
    mapped = first.ipv4_mapped if isinstance(first, IPv6Address) else None
    return network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))


def _carried(address: IPAddress) -> Iterator[tuple[IPAddress, int]]:
    """The address itself, and the IPv4 addresses that routers may find in it; each with where it begins, in bits."""
    yield address, 0
    for network, start in _CARRIERS:
        if address in network:
            yield IPv4Address(address.packed[start // 8 : start // 8 + 4]), start
    if isinstance(address, IPv6Address) and address.teredo:
        server, client = address.teredo
        yield from ((server, 32), (client, 96))


def _may_open(rule: Rule, special: tuple[IPNetwork, str] | None) -> bool:
    """Whether an allowing rule that matches means the special network, and not only much that is round it."""
    if special is None or isinstance(rule.target, str):
        return True
    return rule.target.prefixlen >= special[0].prefixlen


def _shown(host: Host, address: IPAddress, port: int) -> str:
    where = _where(address, port)
    return f"{host} ({where})" if isinstance(host, str) else where


def _where(address: IPAddress, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
