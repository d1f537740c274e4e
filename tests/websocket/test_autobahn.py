"""The cases of the Autobahn test suite, sections 1 to 7, 9 and 10, against an echo server of ours.

https://github.com/crossbario/autobahn-testsuite: its cases are sent by hand here, since it needs Python 2. Each is
sent whole, and in pieces of a few bytes, as its "chopped" cases do. Where it sends ten pings and wants ten pongs
(2.10), the last one is enough (RFC 6455 section 5.5.3). Sections 12 and 13 are about compression, which is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import pytest
from anyio import BrokenResourceError, EndOfStream

from tests.websocket.frames import Frame, Told, by_wsproto, close
from wspool.testing import memory_byte_streams
from wspool.websocket import WebSocketConnection
from wspool.websocket._protocol import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

GREETING = "Hello-µ@ßöäüàá-UTF-8!!".encode()


@dataclass(frozen=True)
class Case:
    name: str
    frames: list[Frame]
    echoed: list[bytes | str] = field(default_factory=list)
    code: int = 1000
    """With which the server closes in the end: 1000 answers the Close that ends each case."""
    pong: bytes | None = None
    """The last pong."""


def fails(name: str, *frames: Frame, code: int = 1002, echoed: list[bytes | str] | None = None) -> Case:
    return Case(name, list(frames), echoed or [], code)


def text(name: str, payload: bytes, *, fragments: int = 1) -> Case:
    """A text message that is valid; each byte its own frame if there are many fragments."""
    return Case(name, cut(TEXT, payload, fragments), [payload.decode()])


def cut(opcode: int, payload: bytes, fragments: int) -> list[Frame]:
    size = max(1, -(-len(payload) // fragments))
    parts = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
    return [
        Frame(opcode if number == 0 else CONTINUATION, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


SIZES = (0, 125, 126, 127, 128, 65535, 65536)
FRAMING = [
    *(Case(f"1.1, {size}", [Frame(TEXT, b"*" * size)], ["*" * size]) for size in SIZES),
    *(Case(f"1.2, {size}", [Frame(BINARY, b"\xfe" * size)], [b"\xfe" * size]) for size in SIZES),
]
PINGS = [
    Case("2.1", [Frame(PING)], pong=b""),
    Case("2.2", [Frame(PING, b"Hello, world!")], pong=b"Hello, world!"),
    Case("2.3", [Frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")], pong=b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
    Case("2.4", [Frame(PING, b"\xfe" * 125)], pong=b"\xfe" * 125),
    fails("2.5", Frame(PING, b"\xfe" * 126)),
    Case("2.7", [Frame(PONG)]),
    Case("2.8", [Frame(PONG, b"unsolicited pong payload")]),
    Case("2.9", [Frame(PONG, b"unsolicited"), Frame(PING, b"ping payload")], pong=b"ping payload"),
    Case("2.10", [Frame(PING, f"payload-{number}".encode()) for number in range(10)], pong=b"payload-9"),
]
RESERVED = [
    fails("3.1", Frame(TEXT, b"Hello", rsv=1)),
    fails("3.2", Frame(TEXT, b"Hello"), Frame(TEXT, b"Hello", rsv=2), Frame(PING), echoed=["Hello"]),
    fails("3.5", Frame(BINARY, b"\x00\xff", rsv=5)),
    fails("3.6", Frame(PING, b"Hello", rsv=6)),
    fails("3.7", Frame(CLOSE, rsv=7)),
    *(fails(f"4, opcode {code}", Frame(code)) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *(
        fails(f"4, opcode {code} with payload", Frame(TEXT, b"Hello"), Frame(code, b"!"), echoed=["Hello"])
        for code in (5, 13)
    ),
]
FRAGMENTS = [
    fails("5.1", Frame(PING, b"fragment1", fin=False), Frame(CONTINUATION, b"fragment2")),
    fails("5.2", Frame(PONG, b"fragment1", fin=False), Frame(CONTINUATION, b"fragment2")),
    text("5.3", b"fragment1fragment2", fragments=2),
    Case(
        "5.6",
        [Frame(TEXT, b"fragment1", fin=False), Frame(PING, b"ping"), Frame(CONTINUATION, b"fragment2")],
        ["fragment1fragment2"],
        pong=b"ping",
    ),
    fails("5.9", Frame(CONTINUATION, b"non-continuation"), Frame(TEXT, b"Hello")),
    fails("5.12", Frame(CONTINUATION, b"non-continuation", fin=False), Frame(TEXT, b"Hello")),
    fails(
        "5.15",
        *cut(TEXT, b"fragment1fragment2", 2),
        Frame(CONTINUATION, b"fragment3", fin=False),
        Frame(TEXT, b"fragment4"),
        echoed=["fragment1fragment2"],
    ),
    fails("5.16", *[Frame(CONTINUATION, b"1", fin=False), Frame(TEXT, b"2", fin=False), Frame(CONTINUATION, b"3")] * 2),
    fails("5.18", Frame(TEXT, b"fragment1", fin=False), Frame(TEXT, b"fragment2")),
    Case(
        "5.19",
        [
            Frame(TEXT, b"fragment1", fin=False),
            Frame(CONTINUATION, b"fragment2", fin=False),
            Frame(PING, b"pongme 1!"),
            Frame(CONTINUATION, b"fragment3", fin=False),
            Frame(CONTINUATION, b"fragment4", fin=False),
            Frame(PING, b"pongme 2!"),
            Frame(CONTINUATION, b"fragment5"),
        ],
        ["fragment1fragment2fragment3fragment4fragment5"],
        pong=b"pongme 2!",
    ),
]
VALID = {
    "6.2": GREETING,
    "6.5": "κόσμε".encode(),
    "6.7.1": b"\x00",
    "6.7.2": b"\xc2\x80",
    "6.7.3": b"\xe0\xa0\x80",
    "6.7.4": b"\xf0\x90\x80\x80",
    "6.9.1": b"\x7f",
    "6.9.2": b"\xdf\xbf",
    "6.9.3": b"\xef\xbf\xbf",
    "6.9.4": b"\xf4\x8f\xbf\xbf",
    "6.11.1": b"\xed\x9f\xbf",
    "6.11.2": b"\xee\x80\x80",
    "6.11.3": b"\xef\xbf\xbd",
    "6.22.1": b"\xef\xbf\xbe",
    "6.23.1": b"\xef\xbf\xbd",
}
INVALID = {
    "6.3": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    "6.4": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
    "6.6.1": b"\xce",
    "6.6.4": b"\xce\xba\xe1\xbd",
    "6.8.1": b"\xf8\x88\x80\x80\x80",
    "6.8.2": b"\xfc\x84\x80\x80\x80\x80",
    "6.10.1": b"\xf7\xbf\xbf\xbf",
    "6.11.5": b"\xf4\x90\x80\x80",
    "6.12.1": b"\x80",
    "6.12.2": b"\xbf",
    "6.13.1": b" ".join(bytes([byte]) for byte in range(0xC0, 0xE0)),
    "6.13.3": b" ".join(bytes([byte]) for byte in range(0xF0, 0xF8)),
    "6.14.1": b"\xc0",
    "6.14.4": b"\xf8\x80\x80\x80",
    "6.15.1": b"\xc0\xe0\x80\xf0\x80\x80",
    "6.16.1": b"\xfe",
    "6.16.2": b"\xff",
    "6.17.1": b"\xc0\xaf",
    "6.18.1": b"\xc1\xbf",
    "6.19.1": b"\xc0\x80",
    "6.20.1": b"\xed\xa0\x80",
    "6.20.7": b"\xed\xbf\xbf",
    "6.21.1": b"\xed\xa0\x80\xed\xb0\x80",
}
TEXTS = [
    Case("6.1.1", [Frame(TEXT)], [""]),
    Case("6.1.2", [Frame(TEXT, fin=False), Frame(CONTINUATION, fin=False), Frame(CONTINUATION)], [""]),
    Case("6.1.3", [Frame(TEXT, fin=False), Frame(CONTINUATION, b"middle", fin=False), Frame(CONTINUATION)], ["middle"]),
    *(text(name, payload) for name, payload in VALID.items()),
    *(text(f"{name}, each byte a frame", payload, fragments=len(payload)) for name, payload in VALID.items()),
    *(fails(name, Frame(TEXT, payload), code=1007) for name, payload in INVALID.items()),
    *(
        fails(f"{name}, each byte a frame", *cut(TEXT, payload, len(payload)), code=1007)
        for name, payload in INVALID.items()
    ),
]
CODES_RIGHT = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
CODES_WRONG = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
CLOSES = [
    Case("7.1.1", [Frame(TEXT, b"Hello")], ["Hello"]),
    Case("7.1.2", [close(1000), close(1000)]),
    Case("7.1.3", [close(1000), Frame(PING, b"late")]),
    Case("7.1.4", [close(1000), Frame(TEXT, b"late")]),
    Case("7.1.5", [Frame(TEXT, b"fragment1", fin=False), close(1000), Frame(CONTINUATION, b"fragment2")]),
    Case("7.3.1", [close()], code=1005),
    fails("7.3.2", Frame(CLOSE, b"a")),
    Case("7.3.3", [close(1000)]),
    Case("7.3.4", [close(1000, "Hello World!")]),
    Case("7.3.5", [close(1000, "*" * 123)]),
    fails("7.3.6", close(1000, "*" * 124)),
    fails("7.5.1", close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), code=1007),
    *(Case(f"7.7, {code}", [close(code)], code=code) for code in CODES_RIGHT),
    *(fails(f"7.9, {code}", close(code)) for code in CODES_WRONG),
]
MIB = 1024 * 1024
LARGE = [
    Case("9.1, 1 MiB of text", [Frame(TEXT, b"*" * MIB)], ["*" * MIB]),
    Case("9.2, 1 MiB", [Frame(BINARY, b"\xfe" * MIB)], [b"\xfe" * MIB]),
    Case("9.3, 1 MiB of text in frames of 4 KiB", cut(TEXT, b"*" * MIB, 256), ["*" * MIB]),
    Case("9.4, 1 MiB in frames of 64 KiB", cut(BINARY, b"\xfe" * MIB, 16), [b"\xfe" * MIB]),
    Case("9.7, 1000 short texts", [Frame(TEXT, b"*" * 16)] * 1000, ["*" * 16] * 1000),
    Case("10.1.1", cut(TEXT, b"*" * 65536, 51), ["*" * 65536]),
]
CASES = [*FRAMING, *PINGS, *RESERVED, *FRAGMENTS, *TEXTS, *CLOSES, *LARGE]


async def run(case: Case, chop: int | None, *, fast: bool) -> tuple[list[Told], list[bytes]]:
    """What the echo server sends back, as wsproto understands it: events, and the payloads of its pings (none)."""
    here, far = memory_byte_streams(max_buffer=4 * MIB)
    server = WebSocketConnection(here, client=False, fast=fast)
    raw = b"".join(frame.encode(to_server=True) for frame in [*case.frames, close(1000)])
    answered = bytearray()

    async def echo() -> None:
        try:
            async for message in server:
                await server.send(message)
        except BrokenResourceError:
            pass
        await server.aclose()

    async def listen() -> None:
        try:
            while True:
                answered.extend(await far.receive())
        except (EndOfStream, BrokenResourceError):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(echo)
        tasks.start_soon(listen)
        size = chop or len(raw)
        for start in range(0, len(raw), size):
            try:
                await far.send(raw[start : start + size])
            except BrokenResourceError:
                break  # it has dropped the connection, rightly or not: its answer tells
    return by_wsproto(bytes(answered), client=True)


@pytest.mark.parametrize("fast", [True, False], ids=["round wsproto", "through wsproto"])
@pytest.mark.parametrize("chop", [None, 7], ids=["whole", "chopped"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_echo_server_passes_the_case(case: Case, chop: int | None, fast: bool) -> None:
    if chop is not None and sum(len(frame.payload) for frame in case.frames) > 100_000:
        chop = 997  # as in 9.5 and 9.6
    events, pings = await run(case, chop, fast=fast)
    kinds = ("text", "bytes")
    assert [event[1] for event in events if event[0] in kinds] == case.echoed
    pongs = [event[1] for event in events if event[0] == "pong"]
    assert pongs[-1:] == ([] if case.pong is None else [case.pong])
    assert events[-1][:2] == ("close", case.code)
    assert not pings
