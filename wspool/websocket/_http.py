"""PURE. The HTTP/1.1 that both ends of the opening handshake share, and a proxy's CONNECT.

h11 reads and writes the messages. Where a head ends is decided here, so that what follows it is
never lost, and so that its size is known before it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias, cast

import h11

from ._errors import ConnectFailed
from ._url import ProxyURL

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]]
"""Headers as the caller may give them: in pairs or as a mapping, as ASCII text or bytes."""

# h11's own limit for what is incomplete; Node.js and IIS 16 KiB, Apache 8 KiB for a line.
HEAD_LIMIT = 16 * 1024
# Go's net/http gives up after five.
MAX_INFORMATIONAL = 5

# h11's idea of where a head ends, which must be ours.
_BLANK_LINE = re.compile(rb"\n\r?\n")
_START = b"HTTP/1."
# RFC 9110 section 5.6.2.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9110 section 5.5 without the obsolete bytes above ASCII, which our server refuses too.
_VALUE = re.compile(rb"[\t\x20-\x7e]*")
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class HeadTooLarge(Exception):
    """The head has not ended within `HEAD_LIMIT` bytes. It leaves no file of the handshake."""


class BadAnswer(Exception):
    """What came is no HTTP answer; the text says why. It leaves no file of the handshake."""


class HeadBuffer:
    """Collects a head up to and with its blank line; what follows it stays."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """More bytes have come."""
        self._data += data

    def start(self, count: int) -> bytes:
        """The first bytes of it, as far as they have come."""
        return bytes(self._data[:count])

    def take_head(self) -> bytes | None:
        """The head, once it is complete. `HeadTooLarge` as soon as it cannot become so within the limit."""
        found = _BLANK_LINE.search(self._data, max(0, self._searched - 2))
        end = found.end() if found else len(self._data) + 1
        if end > HEAD_LIMIT:
            raise HeadTooLarge
        if not found:
            self._searched = len(self._data)
            return None
        self._searched = 0
        head = bytes(self._data[:end])
        del self._data[:end]
        return head

    def take_rest(self) -> bytes:
        """What has followed."""
        rest = bytes(self._data)
        self._data.clear()
        return rest


class AnswerReader:
    """Reads the head of an answer, past the informational ones before it (RFC 9110 section 15.2)."""

    def __init__(self, http: h11.Connection) -> None:
        """`http` is a client whose request has been sent."""
        self._http = http
        self._buffer = HeadBuffer()
        self._informational = 0

    def feed(self, data: bytes) -> tuple[bytes, h11.Response | h11.InformationalResponse] | None:
        """The head and what it says, once it is complete: a 101, or a final answer. Or else `BadAnswer`."""
        self._buffer.feed(data)
        while True:
            head = self._take_head()
            if head is None:
                return None
            event = self._parse(head)
            if isinstance(event, h11.Response) or event.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                return head, event
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise BadAnswer(f"more than {MAX_INFORMATIONAL} informational (1xx) answers came before a final one")

    def take_rest(self) -> bytes:
        """What has followed the head."""
        return self._buffer.take_rest()

    def why_unfinished(self) -> str:
        """What to say when nothing more comes."""
        start = self._buffer.start(1)
        return "in the middle of its answer" if start else "without an answer"

    def _take_head(self) -> bytes | None:
        start = self._buffer.start(len(_START))
        if not _START.startswith(start):
            # A TLS alert or handshake record (RFC 8446 section 5.1).
            hint = "; it looks like TLS" if start[0] in (0x15, 0x16) else ""
            raise BadAnswer(f"the answer is no HTTP/1.1: it begins with {self._buffer.start(40)!r}{hint}")
        try:
            return self._buffer.take_head()
        except HeadTooLarge:
            raise BadAnswer(f"the head of the answer is longer than {HEAD_LIMIT} bytes") from None

    def _parse(self, head: bytes) -> h11.Response | h11.InformationalResponse:
        self._http.receive_data(head)
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise BadAnswer(f"the head of the answer is no valid HTTP/1.1: {error}") from error
        assert isinstance(event, h11.Response | h11.InformationalResponse), "h11 sees the head end where we do"
        return event


class ProxyHandshake:
    """Asks an HTTP proxy for a connection to a host (RFC 9110 section 9.3.6)."""

    def __init__(self, proxy: ProxyURL, address: str) -> None:
        """`address` is the `host:port` to reach through it."""
        self._what = f"the proxy {proxy.address}"
        self._address = address
        headers = [(b"Host", address.encode())]
        if proxy.authorization is not None:
            headers.append((b"Proxy-Authorization", proxy.authorization))
        http = h11.Connection(h11.CLIENT)
        self.request: bytes = http.send(h11.Request(method=b"CONNECT", target=address.encode(), headers=headers))
        """To be sent first."""
        http.send(h11.EndOfMessage())
        self._reader = AnswerReader(http)

    def receive(self, data: bytes) -> bool:
        """Whether the way is open now. `ConnectFailed` if it will not be."""
        try:
            found = self._reader.feed(data)
        except BadAnswer as error:
            raise ConnectFailed(f"{self._what} cannot be used: {error}") from error
        if found is None:
            return False
        status = found[1].status_code
        if not 200 <= status < 300:
            raise ConnectFailed(
                f"{self._what} refused to connect to {self._address} with {described(status)}: {_proxy_advice(status)}"
            )
        if self._reader.take_rest():
            # In TLS and in HTTP the client speaks first.
            raise ConnectFailed(f"{self._what} sent bytes before anything was asked of {self._address}")
        return True

    def receive_eof(self) -> ConnectFailed:
        """The proxy sends nothing more: the error to raise."""
        return ConnectFailed(f"{self._what} closed the connection {self._reader.why_unfinished()}")


def _proxy_advice(status: int) -> str:
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return "give credentials that it accepts, as in http://user:password@host:port"
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
        return "it cannot reach that host itself; check host and port"
    return "check that it is an HTTP proxy which allows CONNECT to that host and port"


def described(status: int) -> str:
    """A status with its standard phrase, not with what the far end wrote there."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def list_of(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    """All elements of a header that is a list, in order (RFC 9110 section 5.6.1). The values must be ASCII."""
    values = (value for name, value in headers if name == wanted)
    elements = (element.strip(b" \t") for value in values for element in value.split(b","))
    return [element.decode("ascii") for element in elements if element]


def is_token(text: str) -> bool:
    """Whether it may be a subprotocol (RFC 6455 section 4.1, RFC 9110 section 5.6.2)."""
    return text.isascii() and _TOKEN.fullmatch(text.encode()) is not None


def check_headers(headers: Headers, *, reserved: Iterable[bytes] = (), prefix: bytes | None = None) -> list[Header]:
    """The caller's headers as bytes; ValueError or TypeError naming the header that cannot be sent.

    `reserved` names, names that begin with `prefix`, and those that frame a message are ours to set.
    """
    taken = _FRAMING.union(reserved)
    checked: list[Header] = []
    for name, value in _pairs(headers):
        name, value = _as_bytes("name", name, name), _as_bytes("value", name, value)
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"headers: {name!r} is no name of a header")
        if name.lower() in taken or (prefix is not None and name.lower().startswith(prefix)):
            raise ValueError(f"headers: {name!r} is set by wspool itself; leave it out")
        # The value may be a secret: it is not shown.
        if b"\r" in value or b"\n" in value:
            raise ValueError(f"headers: the value of {name!r} holds a line break")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"headers: the value of {name!r} holds a control character")
        checked.append((name, value.strip(b" \t")))
    return checked


def _pairs(headers: Headers) -> Iterable[Header]:
    given = cast("object", headers.items() if isinstance(headers, Mapping) else headers)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"headers must be a mapping, or pairs of name and value, got {type(given).__name__}")
    for pair in cast("Iterable[object]", given):
        if not _is_pair(pair):
            raise TypeError(f"headers: each must be a pair of name and value, got {type(pair).__name__}")
        yield cast("Header", pair)


def _is_pair(value: object) -> bool:
    # No string: two characters would be one as well.
    return isinstance(value, tuple | list) and len(cast("Sequence[object]", value)) == 2


def _as_bytes(part: str, name: object, value: object) -> bytes:
    if not isinstance(value, str | bytes):
        raise TypeError(f"headers: the {part} of {name!r} must be str or bytes, got {type(value).__name__}")
    if not value.isascii():
        raise ValueError(f"headers: the {part} of {name!r} must be ASCII; encode it")
    return value.encode() if isinstance(value, str) else value


def check_subprotocols(subprotocols: Iterable[str]) -> tuple[str, ...]:
    """The caller's subprotocols; ValueError or TypeError naming the one that is none (RFC 6455 section 4.1)."""
    # Callers without a type checker.
    if isinstance(subprotocols, str | bytes) or not isinstance(subprotocols, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"subprotocols must be several names, such as ['chat'], got {subprotocols!r}")
    names = tuple(subprotocols)
    for name in names:
        check_kind("subprotocols", name, str, "strings")
        if not is_token(name):
            raise ValueError(f"subprotocols: {name!r} must be letters, digits and !#$%&'*+-.^_`|~")
        if names.count(name) > 1:
            raise ValueError(f"subprotocols: {name!r} is there twice")
    return names


def check_kind(name: str, value: object, kind: Any, what: str) -> None:
    """TypeError with its name if a caller without a type checker gives something else; a bool is no number."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {what}, got {value!r}")


def check_port(port: int, *, least: int) -> None:
    """ValueError or TypeError unless it is a port, from `least` on."""
    check_kind("port", port, int, "a whole number")
    if not least <= port <= 65535:
        raise ValueError(f"port must be from {least} to 65535, got {port}")


def check_limit(name: str, seconds: float | None) -> float:
    """A time limit, None being none; ValueError or TypeError with its name."""
    check_kind(name, seconds, int | float | None, "a number of seconds or None")
    if seconds is None:
        return math.inf
    if not seconds > 0:
        raise ValueError(f"{name} must be more than 0 seconds, got {seconds}")
    return seconds
