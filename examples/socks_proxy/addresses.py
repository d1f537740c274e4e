"""PURE. Addresses as SOCKS5 writes them (RFC 1928 section 5), in requests and in the tunnel's packets alike.

    type u8 | host | port u16        type 1: IPv4, 4 bytes; 3: a name after its length u8; 4: IPv6, 16 bytes

Rules of this file:

1. What was decoded is fit to be dialled: the host is an address, or a name in ASCII and lower case.
2. An address that is written as a name becomes an address, so that a name never hides one. Forms that
   only some resolvers take for an address (`127.1`) stay names: the policy looks at what they resolve to.
3. Nothing is read beyond the address.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeAlias

import idna

from .codes import Code

IPAddress: TypeAlias = IPv4Address | IPv6Address
Host: TypeAlias = IPAddress | str

_IPV4, _NAME, _IPV6 = 1, 3, 4
# RFC 1035 section 2.3.4, as text without the dot at its end.
_MAX_NAME = 253
# Letters, digits and hyphens (RFC 1123 section 2.1); the underscore is in use, for example in container names.
_VALID_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")


class BadAddress(ValueError):
    """This is no address; `code` says it to a SOCKS client."""

    def __init__(self, reason: str, code: Code) -> None:
        super().__init__(reason)
        self.code = code


class Address(NamedTuple):
    """A host and a port."""

    host: Host
    port: int

    def encode(self) -> bytes:
        host, port = self
        if isinstance(host, IPv4Address):
            return bytes((_IPV4,)) + host.packed + port.to_bytes(2, "big")
        if isinstance(host, IPv6Address):
            return bytes((_IPV6,)) + host.packed + port.to_bytes(2, "big")
        name = host.encode("ascii")
        return bytes((_NAME, len(name))) + name + port.to_bytes(2, "big")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if isinstance(self.host, IPv6Address) else f"{self.host}:{self.port}"


UNKNOWN = Address(IPv4Address(0), 0)
"""What is written where there is no address to tell."""


def read_address(data: bytes | bytearray, start: int = 0) -> tuple[Address, int] | None:
    """The address that begins at `start`, and where it ends; None if it has not come in full. Or `BadAddress`."""
    if len(data) <= start + 1:
        return None
    kind, first = data[start], start + 1
    if kind == _NAME:
        size, first = data[first], first + 1
    elif kind in (_IPV4, _IPV6):
        size = 4 if kind == _IPV4 else 16
    else:
        raise BadAddress(f"an address of the unknown type {kind}", Code.ADDRESS_TYPE_NOT_SUPPORTED)
    end = first + size + 2
    if len(data) < end:
        return None
    return Address(_read_host(kind, bytes(data[first : end - 2])), data[end - 2] << 8 | data[end - 1]), end


# The same ones come again and again; to read one takes 30 calls.
@lru_cache(maxsize=1024)
def _read_host(kind: int, raw: bytes) -> Host:
    return _read_name(raw) if kind == _NAME else IPv4Address(raw) if kind == _IPV4 else IPv6Address(raw)


def _read_name(raw: bytes) -> Host:
    if not raw:
        raise BadAddress("an empty host name", Code.BAD_REQUEST)
    if min(raw) <= 0x20 or 0x7F in raw:
        raise BadAddress(f"a host name with a space or control character: {raw!r}", Code.BAD_REQUEST)
    try:
        return parse_host(raw.decode())
    except UnicodeDecodeError:
        raise BadAddress(f"a host name that is neither ASCII nor UTF-8: {raw!r}", Code.NAME_NOT_FOUND) from None


def parse_host(text: str) -> Host:
    """A host as people write it: an address, or a name, of which an international one becomes ASCII (IDNA 2008)."""
    name = text.lower()
    if not text.isascii():
        try:
            name = idna.encode(text, uts46=True).decode("ascii")
        except UnicodeError as error:  # idna.IDNAError is one
            raise BadAddress(f"a host name that cannot be: {text!r} ({error})", Code.NAME_NOT_FOUND) from None
    # After IDNA: it makes ASCII digits of others.
    address = _literal(name.removesuffix("."))
    if address is not None:
        return address
    if len(name.removesuffix(".")) > _MAX_NAME or not _VALID_NAME.fullmatch(name):
        raise BadAddress(f"a host name that cannot be: {text!r}", Code.NAME_NOT_FOUND)
    return name


def _literal(text: str) -> IPAddress | None:
    # A zone says something about one machine only: it must not be sent to another.
    if "%" in text:
        return None
    try:
        return IPv6Address(text[1:-1]) if text[:1] == "[" and text[-1:] == "]" else ip_address(text)
    except ValueError:
        return None
