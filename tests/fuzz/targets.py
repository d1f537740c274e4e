"""What is fuzzed, and what must hold for it whatever the bytes are and however they are cut.

A target takes the chunks in which some bytes came. It returns what was made of them, raises AssertionError for a broken
promise, and lets everything else out that should not have been raised. Atheris and Hypothesis run the same ones.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import h11
from wsproto.utilities import generate_accept_token

from tests.websocket.frames import Frame, by_wsproto, close, merged, new_protocol, pull
from wspool.websocket._errors import ConnectFailed, InvalidURL, UpgradeFailed
from wspool.websocket._handshake import (
    BODY_LIMIT,
    ClientHandshake,
    Refusal,
    Request,
    Response,
    ServerHandshake,
    default_decision,
)
from wspool.websocket._http import HEAD_LIMIT, HeadBuffer, ProxyHandshake
from wspool.websocket._protocol import BINARY, CLOSE_RECEIVED, CONTINUATION, PING, PONG, TEXT, WebSocketProtocol
from wspool.websocket._url import WebSocketURL, parse_proxy_url, parse_websocket_url

Run: TypeAlias = Callable[[list[bytes]], object]

# Small ones, so that short inputs reach them.
MAX_FRAME, MAX_MESSAGE = 200, 300
# The longest header, and the longest control frame with its own.
HEADER, CONTROL = 14, 2 + 4 + 125


@dataclass(frozen=True)
class Target:
    """Something that reads bytes."""

    run: Run
    seeds: tuple[bytes, ...]
    """Inputs that get far into it, to begin with."""
    endless: tuple[bytes, ...] = ()
    """Inputs that go on until a limit ends them: too long to be read byte by byte."""


def check(target: Target, raw: bytes) -> None:
    """The same comes out whole, byte by byte and cut at random, the cuts following from the bytes."""
    whole = target.run([raw])
    chance = random.Random(zlib.crc32(raw))
    cuts = sorted(chance.choices(range(len(raw) + 1), k=5))
    ways = [bytes([byte]) for byte in raw], cut(raw, cuts)
    for chunks in ways:
        outcome = target.run(chunks)
        assert outcome == whole, (chunks, outcome, whole)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """The bytes in chunks, none of which is empty: no transport brings such a one."""
    chunks = [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]
    return [chunk for chunk in chunks if chunk]


# --- frames ---------------------------------------------------------------------------------------


def frames_to(*, client: bool) -> Run:
    def run(chunks: list[bytes]) -> object:
        fast, slow = (_after_frames(chunks, client=client, fast=fast) for fast in (True, False))
        assert fast == slow, (fast, slow)
        return fast

    return run


def _after_frames(chunks: list[bytes], *, client: bool, fast: bool) -> object:
    """What a protocol tells, its state, and what it answers."""
    protocol = new_protocol(client=client, fast=fast, max_frame_size=MAX_FRAME, max_message_size=MAX_MESSAGE)
    events = []
    for chunk in chunks:
        protocol.receive_data(chunk)
        events += pull(protocol)
        _check_memory(protocol)
        if protocol._ended:
            break  # as the connection does: nothing more is read
    if protocol.state is CLOSE_RECEIVED:
        protocol.answer_close(events[-1][1])
    answers = protocol.control_to_send()
    assert not protocol.owes_control
    assert not protocol.control_to_send()
    assert len(answers) <= 2 * CONTROL
    told, pings = by_wsproto(answers, client=not client)
    # Which byte was wrong is counted from where the part began that it came in.
    said = [(kind, code, "") if code == 1007 else (kind, code, *more) for kind, code, *more in told]
    return merged(events), protocol.state, said, pings


def _check_memory(protocol: WebSocketProtocol) -> None:
    if protocol._wsproto is not None:
        decoder: Any = protocol._wsproto._proto._frame_decoder
        assert len(decoder.buffer) <= HEADER
    assert len(protocol._control) <= CONTROL
    assert len(protocol._pong or b"") + len(protocol._owed) <= 2 * CONTROL
    if not protocol._ended:
        assert len(protocol._buffer) - protocol._position < HEADER


def _frames(*, to_server: bool) -> tuple[bytes, ...]:
    conversations = [
        [Frame(BINARY, b"bytes"), Frame(BINARY, b"x" * 200), close(1000, "bye")],
        [Frame(TEXT, "grü".encode(), fin=False), Frame(PING, b"?"), Frame(CONTINUATION, "ße €".encode())],
        [Frame(BINARY, b"a", fin=False), Frame(CONTINUATION, b"b" * 300, fin=False), Frame(CONTINUATION, b"")],
        [Frame(PONG, b"!"), Frame(TEXT, b""), close()],
        [Frame(BINARY, b"x" * MAX_FRAME), Frame(BINARY, b"x" * (MAX_FRAME + 1))],
        [Frame(BINARY, b"x" * MAX_FRAME, fin=False), Frame(CONTINUATION, b"x" * (MAX_MESSAGE - MAX_FRAME + 1))],
        [Frame(TEXT, b"\xff"), Frame(0x3), Frame(BINARY, rsv=4)],
        [close(4999, "€" * 41)],
    ]
    return tuple(
        b"".join(frame.encode(to_server=to_server) for frame in conversation) for conversation in conversations
    )


# --- heads ----------------------------------------------------------------------------------------


# An outcome may come before the last byte, and which byte that is depends on the cuts. So it is compared with the
# outcome of just the bytes that were read, in one piece; and that there is one, among the ways of cutting.


def request_head(chunks: list[bytes]) -> object:
    """A server reads a request."""
    server = ServerHandshake()
    for count, chunk in enumerate(chunks, 1):
        outcome = server.receive(chunk)
        if outcome is not None:
            assert outcome == ServerHandshake().receive(b"".join(chunks[:count]))
            _answer(server, outcome)
            return "an outcome"
        _check_head(server._buffer)
    return server.receive_eof()


def _check_head(buffer: HeadBuffer) -> None:
    assert len(buffer._data) <= HEAD_LIMIT


def _answer(server: ServerHandshake, outcome: Request | Refusal) -> None:
    """It can be answered, and any client can read that."""
    decision = (
        outcome.response if isinstance(outcome, Refusal) else default_decision(outcome, tuple(outcome.subprotocols))
    )
    raw = server.answer(decision) if isinstance(decision, Response) else server.accept(decision)
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Upgrade", "websocket")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(raw)
    read = reader.next_event()
    assert isinstance(read, h11.Response | h11.InformationalResponse)
    assert read.status_code == (decision.status if isinstance(decision, Response) else 101)


NONCE = b"dGhlIHNhbXBsZSBub25jZQ=="
# Nobody guesses that one: the answer has it where the input has this.
ACCEPT = b"$ACCEPT"
URL = parse_websocket_url("ws://example.com/")


def _new_client() -> ClientHandshake:
    client = ClientHandshake(URL, subprotocols=["a", "b"])
    client._wsproto._nonce = NONCE
    return client


def answer_head(chunks: list[bytes]) -> object:
    """A client reads the answer to its upgrade."""
    places = [len(chunk) for chunk in chunks]
    raw = b"".join(chunks).replace(ACCEPT, generate_accept_token(NONCE))
    chunks = _cut_like(raw, places)
    client = _new_client()
    for count, chunk in enumerate(chunks, 1):
        outcome = _received(client, chunk)
        assert len(client._body) <= BODY_LIMIT + len(chunk)
        assert len(client._http._receive_buffer) <= HEAD_LIMIT + len(chunk)
        if outcome is not None:
            assert outcome == _received(_new_client(), b"".join(chunks[:count]))
            return "an outcome"
        _check_head(client._reader._buffer)
    return _described(client.receive_eof())


def _cut_like(raw: bytes, sizes: list[int]) -> list[bytes]:
    """In chunks of these sizes, and a last one with the rest."""
    places = [min(sum(sizes[: count + 1]), len(raw)) for count in range(len(sizes) - 1)]
    return cut(raw, places)


def _received(client: ClientHandshake, chunk: bytes) -> object:
    try:
        return client.receive(chunk)
    except UpgradeFailed as error:
        return _described(error)


def _described(error: UpgradeFailed) -> object:
    # What it begins with is quoted as far as it has come.
    return error.status, error.headers, error.body, re.sub("begins with b.*", "", str(error))


def proxy_head(chunks: list[bytes]) -> object:
    """A client reads a proxy's answer."""
    proxy = ProxyHandshake(parse_proxy_url("http://proxy.example"), URL.address)
    try:
        for count, chunk in enumerate(chunks):
            if proxy.receive(chunk):
                # Bytes from behind the proxy, before anything was asked of it: seen only if they have come yet.
                return "an outcome, too early" if chunks[count + 1 :] else "open"
            _check_head(proxy._reader._buffer)
    except ConnectFailed as error:
        return "an outcome, too early" if "sent bytes before" in str(error) else _of_proxy(error)
    return _of_proxy(proxy.receive_eof())


def _of_proxy(error: ConnectFailed) -> str:
    return re.sub("begins with b.*", "", str(error))


REQUEST = b"GET /chat?a=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Key: " + NONCE + b"\r\nSec-WebSocket-Version: 13\r\n"
AGREED = b"HTTP/1.1 101 Oh\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: $ACCEPT\r\n"
REQUESTS = (
    REQUEST + KEY + b"Sec-WebSocket-Protocol: a, b\r\nOrigin: http://x\r\n\r\n",
    REQUEST + b"\r\n",
    REQUEST + KEY + b"\r\nearly",
    b"GET http://example.com/x HTTP/1.0\n\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b"\x16\x03\x01",
)
ANSWERS = (
    AGREED + b"Sec-WebSocket-Protocol: a\r\n\r\n\x81\x00",
    AGREED + b"\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + AGREED + b"Sec-WebSocket-Protocol: b\r\n\r\n",
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\nmore",
    b"HTTP/1.0 200 OK\n\nhello",
)
PROXY_ANSWERS = (
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nearly",
)


ENDLESS = b"X: " + b"x" * HEAD_LIMIT
BODY = b"HTTP/1.0 500 \n\n" + b"x" * 2 * BODY_LIMIT


# --- URLs -----------------------------------------------------------------------------------------


def url(chunks: list[bytes]) -> object:
    """A user's URL, of a server and of a proxy; lone surrogates stand for what is no UTF-8."""
    text = b"".join(chunks).decode("utf-8", "surrogateescape")
    try:
        parse_proxy_url(text)
    except InvalidURL:
        pass
    try:
        parsed = parse_websocket_url(text)
    except InvalidURL as error:
        return str(error)
    assert parsed.host.isascii()
    assert parsed.target.startswith("/")
    assert 1 <= parsed.port <= 65535
    again = parse_websocket_url(f"ws{'s' * parsed.secure}://{parsed.authority}{parsed.target}")
    assert again == WebSocketURL(parsed.secure, parsed.host, parsed.port, parsed.target)
    ClientHandshake(parsed)  # it can be asked for
    return parsed


URLS = tuple(
    text.encode()
    for text in (
        "ws://example.com",
        "wss://user:p%40ss@[::1]:8443/path?query#",
        "ws://bücher.example:80/%20?x=1",
        "http://user:password@proxy.example:3128",
        "ws://1.2.3.4:65536",
    )
)


TARGETS: dict[str, Target] = {
    "client": Target(frames_to(client=True), _frames(to_server=False)),
    "server": Target(frames_to(client=False), _frames(to_server=True)),
    "request": Target(request_head, REQUESTS, (REQUEST + ENDLESS,)),
    "answer": Target(answer_head, ANSWERS, (AGREED + ENDLESS, BODY)),
    "proxy": Target(proxy_head, PROXY_ANSWERS, (b"HTTP/1.1 200 OK\r\n" + ENDLESS,)),
    "url": Target(url, URLS),
}
