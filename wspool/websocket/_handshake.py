"""PURE. Both ends of the opening handshake (RFC 6455 section 4): bytes in, outcome out, bytes to send returned.

wsproto's `H11Handshake` writes the request and the 101 answer, and checks the one that came. What it
leaves out or gets wrong is done here before it sees anything: the size of a head, early bytes, keys,
non-ASCII bytes, bodies, informational answers, absent subprotocols. No input raises anything but the
errors of this package. wsproto draws the nonce of the request from the operating system: the one
thing here that is not a function of what was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

import h11
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Request as UpgradeRequest
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from ._errors import UpgradeFailed
from ._http import (
    HEAD_LIMIT,
    AnswerReader,
    BadAnswer,
    HeadBuffer,
    Header,
    Headers,
    HeadTooLarge,
    check_headers,
    check_kind,
    check_subprotocols,
    described,
    is_token,
    list_of,
)
from ._url import WebSocketURL

# As much of a refusal's body as is worth keeping for a log.
BODY_LIMIT = 64 * 1024

_RESERVED = (b"host", b"upgrade")
_PREFIX = b"sec-websocket-"
# 16 bytes in base64 (RFC 6455 section 4.1).
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_SCHEME = re.compile(r"https?://[^/?]*", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------- client


@dataclass(frozen=True, slots=True)
class Agreement:
    """The server has agreed: the transport carries frames from now on."""

    subprotocol: str | None
    received: bytes
    """What followed the answer: the server's first frames, perhaps."""


class ClientHandshake:
    """The client's end. Send `request`, then feed what comes until there is an outcome; nothing after it."""

    def __init__(self, url: WebSocketURL, *, headers: Headers = (), subprotocols: Iterable[str] = ()) -> None:
        """ValueError or TypeError, naming what is wrong, for what cannot be sent.

        With subprotocols given, the server must choose one of them: an answer without one fails.
        """
        extra = check_headers(headers, reserved=_RESERVED, prefix=_PREFIX)
        if url.authorization is not None:
            if any(name.lower() == b"authorization" for name, _ in extra):
                raise ValueError("headers: b'Authorization' is given by the URL's user name and password as well")
            extra.append((b"Authorization", url.authorization))
        self._subprotocols = check_subprotocols(subprotocols)
        self._address = url.address
        self._wsproto = H11Handshake(ConnectionType.CLIENT)
        self.request: bytes = self._wsproto.send(
            UpgradeRequest(
                host=url.authority, target=url.target, extra_headers=extra, subprotocols=list(self._subprotocols)
            )
        )
        """To be sent first."""
        # A second reader for all that is no 101: it only has to know what was asked.
        self._http = h11.Connection(h11.CLIENT)
        self._http.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b""), (b"Upgrade", b"websocket")]))
        self._http.send(h11.EndOfMessage())
        self._reader = AnswerReader(self._http)
        self._refusal: h11.Response | None = None
        self._body = bytearray()

    def receive(self, data: bytes) -> Agreement | None:
        """The outcome, or None while more is needed. `UpgradeFailed` if the answer is none, or a refusal.

        A refusal is read until its body ends or `BODY_LIMIT` bytes of it are there.
        """
        if self._refusal is not None:
            self._receive_body(self._refusal, data)
            return None
        try:
            found = self._reader.feed(data)
        except BadAnswer as error:
            raise UpgradeFailed(f"{self._address} does not speak websocket: {error}") from error
        if found is None:
            return None
        head, answer = found
        if isinstance(answer, h11.InformationalResponse):
            return self._agree(head, answer)
        self._refusal = answer
        self._receive_body(answer, self._reader.take_rest())
        return None

    def receive_eof(self) -> UpgradeFailed:
        """The server sends nothing more: the error to raise."""
        if self._refusal is not None:
            return self._refused(self._refusal)
        return UpgradeFailed(f"{self._address} closed the connection {self._reader.why_unfinished()} to the upgrade")

    def _agree(self, head: bytes, answer: h11.InformationalResponse) -> Agreement:
        wrong = self._wrong_with(head, answer)
        if wrong is not None:
            raise UpgradeFailed(
                f"{self._address} agreed to the upgrade, but wrongly: {wrong}",
                status=answer.status_code,
                headers=list(answer.headers),
            )
        chosen = list_of(answer.headers, b"sec-websocket-protocol")
        return Agreement(chosen[0] if chosen else None, self._reader.take_rest())

    def _wrong_with(self, head: bytes, answer: h11.InformationalResponse) -> str | None:
        """What wsproto finds, after what it does not look for."""
        if answer.http_version != b"1.1":
            return "its answer is not HTTP/1.1"
        names = [name for name, _ in answer.headers]
        for name in (b"sec-websocket-accept", b"sec-websocket-protocol"):
            if names.count(name) > 1:
                return f"{name.decode()} is there twice"
        try:
            self._wsproto.receive_data(head)
        except (RemoteProtocolError, UnicodeError) as error:
            return str(error)
        if self._subprotocols and b"sec-websocket-protocol" not in names:
            return f"it chose none of the subprotocols {', '.join(self._subprotocols)}"
        return None

    def _receive_body(self, refusal: h11.Response, data: bytes) -> None:
        """Return while there may be more of it."""
        if data:  # to h11, no bytes would mean the end
            self._http.receive_data(data)
        while len(self._body) < BODY_LIMIT:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                break
            if event is h11.NEED_DATA:
                return
            if not isinstance(event, h11.Data):
                break
            self._body += event.data
        raise self._refused(refusal)

    def _refused(self, refusal: h11.Response) -> UpgradeFailed:
        status = refusal.status_code
        return UpgradeFailed(
            f"{self._address} answered the upgrade with {described(status)}: {_advice(status)}",
            status=status,
            headers=list(refusal.headers),
            body=bytes(self._body[:BODY_LIMIT]),
        )


def _advice(status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "it wants other credentials; give them in the URL (user:password@) or as a header"
    if 300 <= status < 400:
        return "redirects are not followed; connect to what its Location header says"
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return "it is busy; try again later"
    if status >= 500:
        return "the server, or a proxy before it, has failed; its body may say more"
    return "check the path of the URL, and that a websocket server listens there"


# ---------------------------------------------------------------------------------------------- server


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for. What it says of itself is not to be trusted."""

    method: str
    """`GET`, if it is an upgrade."""
    target: str
    """As it stood in the request line."""
    path: str
    """Of the target, still percent-encoded."""
    query: str
    """Of the target, without the question mark; empty if there is none."""
    headers: list[tuple[bytes, bytes]]
    """In their order, with lower-case names; all in ASCII."""
    host: str
    """The Host header: the name, and perhaps the port, by which the client knows this server."""
    subprotocols: tuple[str, ...]
    """Those that the client offers, the one it likes best first."""
    upgrade: bool
    """Whether a websocket is asked for. If not, it can only be given a `Response`."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The answer that opens the websocket."""

    subprotocol: str | None = None
    """One of those that the client offered."""
    headers: Headers = ()
    """More headers for the answer, such as Set-Cookie."""

    def __post_init__(self) -> None:
        """ValueError or TypeError, naming what cannot be sent."""
        check_kind("subprotocol", self.subprotocol, str | None, "a string or None")
        object.__setattr__(self, "headers", check_headers(self.headers, reserved=_RESERVED, prefix=_PREFIX))


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that opens no websocket: a refusal, or plain HTTP. The connection is closed after it."""

    status: int
    """From 200 to 599."""
    headers: Headers = ()
    body: bytes = b""

    def __post_init__(self) -> None:
        """ValueError or TypeError, naming what cannot be sent."""
        check_kind("status", self.status, int, "a whole number")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status must be from 200 to 599, got {self.status}")
        # Callers without a type checker; it may be long.
        if not isinstance(self.body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"body must be bytes, got {type(self.body).__name__}")
        if self.body and self.status in _NO_BODY:
            raise ValueError(f"body must be empty with the status {self.status}, got {len(self.body)} bytes")
        object.__setattr__(self, "headers", check_headers(self.headers))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that cannot be granted whatever the handler thinks: the answer, and why."""

    response: Response
    reason: str


class ServerHandshake:
    """The server's end. Feed what comes until there is an outcome; then ask once for the bytes that answer it."""

    def __init__(self) -> None:
        """Of one connection, which carries one request."""
        self._buffer = HeadBuffer()
        self._http = h11.Connection(h11.SERVER)
        self._request: Request | None = None
        self._key = b""

    def receive(self, data: bytes) -> Request | Refusal | None:
        """The client's request or what is wrong with it, or None while more is needed."""
        self._buffer.feed(data)
        start = self._buffer.start(1)
        if start and not 0x21 <= start[0] < 0x7F:
            hint = ": it looks like TLS, which is not spoken here" if start[0] == 0x16 else ""
            return refusal(400, f"the request is no HTTP{hint}")
        try:
            head = self._buffer.take_head()
        except HeadTooLarge:
            return refusal(431, f"the head of the request is longer than {HEAD_LIMIT} bytes")
        return None if head is None else self._receive_head(head)

    def receive_eof(self) -> str:
        """The client sends nothing more: what to say of it."""
        came = "in the middle of its request" if self._buffer.start(1) else "without a request"
        return f"the client closed the connection {came}"

    def accept(self, accept: Accept) -> bytes:
        """The bytes of a 101. ValueError if the client asked for no upgrade, or not for that subprotocol."""
        if self._request is None or not self._request.upgrade:
            raise ValueError("only a request with upgrade=True can be accepted; answer this one with a Response")
        if accept.subprotocol is not None and accept.subprotocol not in self._request.subprotocols:
            offered = ", ".join(self._request.subprotocols) or "none"
            raise ValueError(f"subprotocol must be one that the client offers ({offered}), got {accept.subprotocol!r}")
        wsproto = H11Handshake(ConnectionType.SERVER)
        wsproto.initiate_upgrade_connection(self._essence(self._request), b"/")
        headers = check_headers(accept.headers)
        return wsproto.send(AcceptConnection(subprotocol=accept.subprotocol, extra_headers=headers))

    def answer(self, response: Response) -> bytes:
        """The bytes of any other answer, after which the connection is to be closed."""
        headers = check_headers(response.headers)
        # RFC 9110 section 7.8: who sends Upgrade names it in Connection.
        upgrade = any(name.lower() == b"upgrade" for name, _ in headers)
        headers.append((b"Connection", b"Upgrade, close" if upgrade else b"close"))
        if response.status not in _NO_BODY:
            headers.append((b"Content-Length", b"%d" % len(response.body)))
        reason = HTTPStatus(response.status).phrase if response.status in _STATUSES else ""
        head = h11.Response(status_code=response.status, headers=headers, reason=reason.encode())
        data = self._http.send(head) or b""
        # h11 refuses to send what an answer to HEAD must not have (RFC 9110 section 9.3.2).
        if response.body and not (self._request and self._request.method == "HEAD"):
            data += self._http.send(h11.Data(data=response.body)) or b""
        return data + (self._http.send(h11.EndOfMessage()) or b"")

    def _essence(self, request: Request) -> list[Header]:
        """The checked request as wsproto wants it: each header once, and nothing that it would choke on."""
        headers = [
            (b"Host", b"localhost"),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", self._key),
            (b"Sec-WebSocket-Version", b"13"),
        ]
        if request.subprotocols:
            headers.append((b"Sec-WebSocket-Protocol", ", ".join(request.subprotocols).encode()))
        return headers

    def _receive_head(self, head: bytes) -> Request | Refusal:
        if not head.isascii():
            return refusal(400, "the head of the request holds bytes that are not ASCII: encode them")
        self._http.receive_data(head)
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            return refusal(error.error_status_hint, f"the request is no valid HTTP/1.1: {error}")
        assert isinstance(event, h11.Request), "h11 sees the head end where we do"
        headers = list(event.headers)
        refused = _wrong_with_message(event, headers)
        if refused is not None:
            return refused
        if self._buffer.take_rest():
            return refusal(400, "bytes follow the request: a client waits for the answer before it sends more")
        self._request = request = _understood(event, headers)
        if not request.upgrade:
            return request
        self._key = next((value for name, value in headers if name == b"sec-websocket-key"), b"")
        return _wrong_with_upgrade(request) or request


_STATUSES = frozenset(map(int, HTTPStatus))


def refusal(status: int, reason: str, *headers: Header) -> Refusal:
    """A refusal that tells the client the reason in plain text."""
    body = f"{reason}\n".encode("ascii", "backslashreplace")
    return Refusal(Response(status, [(b"Content-Type", b"text/plain; charset=utf-8"), *headers], body), reason)


def default_decision(request: Request, subprotocols: tuple[str, ...]) -> Accept | Response:
    """Accept every upgrade, with the first subprotocol offered that is among ours; 426 to the rest."""
    if request.upgrade:
        return Accept(next((name for name in request.subprotocols if name in subprotocols), None))
    reason = "only websockets are served here; a proxy on the way may have removed the Upgrade header"
    return refusal(426, reason, (b"Upgrade", b"websocket")).response


def _understood(event: h11.Request, headers: list[Header]) -> Request:
    target = event.target.decode("ascii")
    path, _, query = _SCHEME.sub("", target, count=1).partition("?")
    host = next((value for name, value in headers if name == b"host"), b"")
    upgrades = [element.lower() for element in list_of(headers, b"upgrade")]
    return Request(
        method=event.method.decode("ascii"),
        target=target,
        path=path or "/",
        query=query,
        headers=headers,
        host=host.decode("ascii"),
        subprotocols=tuple(dict.fromkeys(list_of(headers, b"sec-websocket-protocol"))),
        # RFC 9110 section 7.8: a server must ignore Upgrade in HTTP/1.0.
        upgrade="websocket" in upgrades and event.http_version == b"1.1",
    )


def _wrong_with_message(event: h11.Request, headers: list[Header]) -> Refusal | None:
    """What is wrong with it whatever it asks for."""
    if event.http_version not in (b"1.0", b"1.1"):
        return refusal(505, "only HTTP/1.1 is spoken here")
    if event.method == b"CONNECT":
        return refusal(405, "this is no proxy", (b"Allow", b"GET"))
    fields = dict(headers)
    if b"transfer-encoding" in fields or int(fields.get(b"content-length", b"0")):
        return refusal(400, "the request has a body: it must have none")
    return None


def _wrong_with_upgrade(request: Request) -> Refusal | None:
    """What is wrong with it as a request for a websocket (RFC 6455 section 4.2.1)."""
    if request.method != "GET":
        return refusal(405, "the method of an upgrade must be GET", (b"Allow", b"GET"))
    if "upgrade" not in (option.lower() for option in list_of(request.headers, b"connection")):
        return refusal(400, "the header Connection: Upgrade is missing; a proxy on the way may have removed it")
    if not request.host:
        return refusal(400, "the header Host is missing")
    if list_of(request.headers, b"sec-websocket-version") != ["13"]:
        return refusal(426, "the version must be 13", (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13"))
    keys = [value for name, value in request.headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        return refusal(400, "there must be one header Sec-WebSocket-Key, of 16 bytes in base64")
    if not all(map(is_token, request.subprotocols)):
        return refusal(400, "the header Sec-WebSocket-Protocol is no list of names")
    return None
