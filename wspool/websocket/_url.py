"""PURE. WebSocket and proxy URLs (RFC 6455 section 3, RFC 3986), taken apart and checked.

No error here, nor the context of one, holds a user name or a password, and none is shown by `repr`.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote_to_bytes

import idna

from ._errors import InvalidURL

# RFC 6455 section 3.
_WEBSOCKET_PORTS = {"ws": 80, "wss": 443}
_PROXY_PORTS = {"http": 80}
# RFC 1035 section 2.3.4, as text without the dot at its end.
_MAX_NAME = 253

# RFC 3986 appendix B, with the parts that a scheme allows.
_URL = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/?#]*))?"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_AUTHORITY = re.compile(r"(?:(?P<userinfo>[^@]*)@)?(?P<host>\[[^\]@]*\]|[^:@\[\]]*)(?::(?P<port>[^:@]*))?", re.DOTALL)
# Greedy: a password with an unescaped / or ? in it is hidden as well. Anchored: else a search goes on from each place.
_SECRET = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://)?).*@", re.DOTALL)
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
# No UTF-8 has them.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Letters, digits and hyphens (RFC 1123 section 2.1); the underscore is in use, for example in container names.
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class WebSocketURL:
    """What a `ws` or `wss` URL says, ready for use."""

    secure: bool
    """Whether it is `wss`: over TLS."""
    host: str
    """In ASCII and lower case; an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query: what the request line asks for."""
    authorization: bytes | None = field(default=None, repr=False)
    """The value of an Authorization header, from the URL's user name and password (RFC 7617)."""

    @property
    def address(self) -> str:
        """`host:port`, for messages and for a proxy."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the Host header: without the port if that is the default (RFC 6455 section 4.1)."""
        default = _WEBSOCKET_PORTS["wss" if self.secure else "ws"]
        return _bracketed(self.host) if self.port == default else self.address


@dataclass(frozen=True, slots=True)
class ProxyURL:
    """What the URL of an HTTP proxy says."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)
    """The value of a Proxy-Authorization header."""

    @property
    def address(self) -> str:
        """`host:port`, for messages."""
        return f"{_bracketed(self.host)}:{self.port}"


def parse_websocket_url(url: str) -> WebSocketURL:
    """Take a `ws://` or `wss://` URL apart.

    International host names become ASCII (IDNA 2008 with UTS 46, as in anyio's resolver). Whatever
    is wrong with it is an `InvalidURL` that says how to mend it; what is no string, a `TypeError`.
    """
    scheme, path, query, authority = _split(url, _WEBSOCKET_PORTS, "a websocket URL")
    if _UNPRINTABLE.search(path + (query or "")):
        _refuse(url, "its path or query holds a space, a control or a non-ASCII character: percent-encode it")
    host, port, authorization = _authority(url, authority, _WEBSOCKET_PORTS[scheme])
    target = (path or "/") + ("" if query is None else f"?{query}")
    parsed = WebSocketURL(scheme == "wss", host, port, target, authorization)
    if not _fits_in_a_host_header(parsed.authority):
        _refuse(url, "its host name is too long together with the port: use a shorter name or the address")
    return parsed


def parse_proxy_url(url: str) -> ProxyURL:
    """Take an `http://user:password@host:port` URL of a proxy apart, as `parse_websocket_url` does."""
    scheme, path, query, authority = _split(url, _PROXY_PORTS, "a proxy's URL")
    if path not in ("", "/") or query is not None:
        _refuse(url, "a proxy's URL has neither path nor query: end it after the port")
    return ProxyURL(*_authority(url, authority, _PROXY_PORTS[scheme]))


def shown(url: str) -> str:
    """The URL without user name and password, quoted: fit for a message."""
    return repr(_SECRET.sub(r"\1***@", url, count=1))


def _refuse(url: str, why: str) -> NoReturn:
    raise InvalidURL(f"{shown(url)} cannot be connected to: {why}")


def _split(url: str, ports: dict[str, int], what: str) -> tuple[str, str, str | None, str]:
    """The scheme, the path, the query and the authority."""
    # Type checkers are not always listened to, and a URL object of some other library is a likely mistake.
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{what} must be a string, got {type(url).__name__}")
    parts = _URL.fullmatch(url)
    assert parts is not None, "every string matches the pattern of RFC 3986"
    schemes = " or ".join(f"{name}://" for name in ports)
    scheme = (parts["scheme"] or "").lower()
    if scheme not in ports:
        hint = {"http": "; use ws:// instead of http://", "https": "; use wss:// instead of https://"}
        _refuse(url, f"{what} begins with {schemes}{hint.get(scheme, '') if 'ws' in ports else ''}")
    if parts["authority"] is None:
        _refuse(url, f"{what} has two slashes and a host after its scheme")
    if parts["fragment"] is not None:
        _refuse(url, f"{what} has no fragment: remove it, or write # as %23")
    return scheme, parts["path"], parts["query"], parts["authority"]


def _authority(url: str, authority: str, default_port: int) -> tuple[str, int, bytes | None]:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        why = "between // and the path belongs [user:password@]host[:port]"
        _refuse(url, f"{why}; percent-encode @ and : in user name and password, put [ ] round an IPv6 address")
    return _host(url, parts["host"]), _port(url, parts["port"], default_port), _basic(url, parts["userinfo"])


def check_host(server_hostname: str) -> str:
    """A host name in ASCII, or an IP address, without brackets; ValueError or TypeError if it is neither."""
    # Callers without a type checker.
    if not isinstance(server_hostname, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"server_hostname must be a string, got {server_hostname!r}")
    host = _ipv6(server_hostname) or _name(server_hostname)
    if host is None:
        raise ValueError(f"server_hostname must be a host name or an IP address, got {server_hostname!r}")
    return host


def _host(url: str, host: str) -> str:
    if not host:
        _refuse(url, "it names no host")
    if host.startswith("["):
        return _ipv6(host[1:-1]) or _refuse(
            url, "there is no IPv6 address between its brackets; a zone (%) is not supported"
        )
    return _name(host) or _refuse(
        url, "its host is neither a host name (labels of up to 63 letters, digits or -) nor an IP address"
    )


def _name(host: str) -> str | None:
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            return None
    host = host.lower()
    return host if len(host.rstrip(".")) <= _MAX_NAME and _NAME.fullmatch(host) else None


def _ipv6(address: str) -> str | None:
    # Zones are for the local machine only and must not reach a Host header (RFC 6874 section 1).
    if "%" in address:
        return None
    try:
        return ipaddress.IPv6Address(address).compressed
    except ValueError:
        return None


def _port(url: str, port: str | None, default: int) -> int:
    if not port:  # absent or empty (RFC 3986 section 3.2.3)
        return default
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        _refuse(url, "its port is no number from 1 to 65535")
    return int(port)


def _basic(url: str, userinfo: str | None) -> bytes | None:
    if not userinfo:
        return None
    if _SURROGATE.search(userinfo):
        _refuse(url, "its user name or password holds a lone surrogate, half of a character: percent-encode its bytes")
    user, _, password = userinfo.partition(":")
    credentials = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    if b":" in unquote_to_bytes(user):
        _refuse(url, "a user name cannot hold a colon (RFC 7617 section 2)")
    if any(byte < 0x20 or byte == 0x7F for byte in credentials):
        _refuse(url, "user name and password cannot hold control characters (RFC 7617 section 2)")
    return b"Basic " + base64.b64encode(credentials)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _fits_in_a_host_header(authority: str) -> bool:
    # wsproto passes the header through this codec, which takes the port for a part of the last label.
    try:
        authority.encode("idna")
    except UnicodeError:
        return False
    return True
