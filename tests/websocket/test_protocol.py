"""The protocol after the handshake: it says what wsproto says, however the bytes come, and keeps its limits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from tests.websocket.frames import KEY, Frame, by_wsproto, close, feed, new_protocol
from wspool.websocket._protocol import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL_FRAMES,
    CONTROL_WINDOW,
    PING,
    PONG,
    TEXT,
)

ENDS = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
PATHS = pytest.mark.parametrize("fast", [True, False], ids=["round wsproto", "through wsproto"])

SAMPLE = [
    Frame(BINARY, b"first"),
    Frame(TEXT, "grüße ".encode(), fin=False),
    Frame(PING, b"a"),
    Frame(CONTINUATION, "€ und 🎈".encode(), fin=False),
    Frame(PING, b"b"),
    Frame(CONTINUATION, b""),
    Frame(BINARY, b"x" * 126, fin=False),
    Frame(PONG, b"c"),
    Frame(CONTINUATION, b"", fin=False),
    Frame(CONTINUATION, b"y" * 300),
    Frame(BINARY, b""),
    Frame(TEXT, b""),
    close(1001, "bye"),
]


def encoded(frames: list[Frame], *, client: bool) -> bytes:
    return b"".join(frame.encode(to_server=not client) for frame in frames)


# --- what comes in --------------------------------------------------------------------------------


def test_each_split_of_the_bytes_gives_the_same_events() -> None:
    for client in (True, False):
        raw = encoded(SAMPLE, client=client)
        expected, _ = by_wsproto(raw, client=client)
        for fast in (True, False):
            for at in range(len(raw) + 1):
                assert feed(new_protocol(client=client, fast=fast), raw[:at], raw[at:]) == expected
            assert feed(new_protocol(client=client, fast=fast), *(bytes([byte]) for byte in raw)) == expected


FRAMES = st.builds(
    Frame,
    opcode=st.sampled_from([CONTINUATION, TEXT, BINARY, BINARY, PING, PONG, CLOSE, 0x3, 0xB])
    | st.sampled_from([CONTINUATION, TEXT, BINARY]),
    payload=st.binary(max_size=10)
    | st.text(max_size=5).map(str.encode)
    | st.sampled_from([b"z" * 125, b"z" * 126, b"z" * 65535, b"z" * 65536, b"\x03\xe8", b"\x03\xec", b"\x13\x88x"]),
    fin=st.booleans(),
    rsv=st.sampled_from([0] * 20 + [1, 2, 4]),
    masked=st.sampled_from([None] * 20 + [True, False]),
    form=st.sampled_from([None] * 20 + [2, 8]),
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of payloads at the bounds of a length's form
@given(frames=st.lists(FRAMES, max_size=8), client=st.booleans(), fast=st.booleans(), data=st.data())
def test_it_tells_what_wsproto_tells_of_frames_right_and_wrong(
    frames: list[Frame], client: bool, fast: bool, data: st.DataObject
) -> None:
    assume(all(frame.payload[:2] != b"\x03\xf6" for frame in frames))  # the code 1014, which wsproto does not know
    raw = encoded(frames, client=client)
    expected, pings = by_wsproto(raw, client=client)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=6)))
    protocol = new_protocol(client=client, fast=fast)
    assert feed(protocol, *(raw[a:b] for a, b in pairwise([0, *cuts, len(raw)]))) == expected
    if protocol.state.name == "OPEN":
        answer = protocol.control_to_send()
        assert answer == (Frame(PONG, pings[-1]).encode(to_server=client, key=answer[2:6]) if pings else b"")


@given(raw=st.binary(max_size=200), client=st.booleans(), fast=st.booleans(), size=st.integers(1, 50))
def test_no_bytes_make_it_raise_or_keep_more_than_a_control_frame(
    raw: bytes, client: bool, fast: bool, size: int
) -> None:
    protocol = new_protocol(client=client, fast=fast, max_frame_size=100, max_message_size=150)
    for start in range(0, len(raw), size):
        feed(protocol, raw[start : start + size])
        assert len(protocol._control) <= 139
        assert len(protocol._buffer) - protocol._position < 14 or protocol._ended
    protocol.control_to_send()


@ENDS
@PATHS
def test_a_part_of_a_frame_passes_through_before_the_rest_has_come(client: bool, fast: bool) -> None:
    raw = Frame(BINARY, b"0123456789").encode(to_server=not client)
    protocol = new_protocol(client=client, fast=fast)
    assert feed(protocol, raw[:-6]) == [("bytes", b"0123", False)]
    assert feed(protocol, raw[-6:-1]) == [("bytes", b"45678", False)]
    assert feed(protocol, raw[-1:]) == [("bytes", b"9", True)]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([Frame(BINARY, rsv=4)], 1002),
        ([Frame(BINARY, rsv=1)], 1002),
        ([Frame(0x3)], 1002),
        ([Frame(0xF)], 1002),
        ([Frame(PING, fin=False)], 1002),
        ([Frame(PING, b"x" * 126)], 1002),
        ([Frame(CONTINUATION, b"x")], 1002),
        ([Frame(BINARY, b"x", fin=False), Frame(BINARY, b"y")], 1002),
        ([Frame(TEXT, b"x", fin=False), Frame(TEXT, b"y")], 1002),
        ([Frame(BINARY, b"x", form=2)], 1002),
        ([Frame(BINARY, b"x" * 200, form=8)], 1002),
        ([Frame(TEXT, b"\xff")], 1007),
        ([Frame(TEXT, "€".encode()[:2])], 1007),
        ([Frame(TEXT, "€".encode()[:2], fin=False), Frame(CONTINUATION, b"x")], 1007),
        ([Frame(CLOSE, b"\x03")], 1002),
        ([close(999)], 1002),
        ([close(1005)], 1002),
        ([close(1004)], 1002),
        ([close(1006)], 1002),
        ([close(1015)], 1002),
        ([close(1016)], 1002),
        ([close(2999)], 1002),
        ([close(5000)], 1002),
        ([close(1000, b"\xff")], 1007),
    ],
)
@ENDS
@PATHS
def test_a_violation_is_answered_by_a_close_that_names_it(
    frames: list[Frame], code: int, client: bool, fast: bool
) -> None:
    protocol = new_protocol(client=client, fast=fast)
    assert feed(protocol, encoded(frames, client=client))[-1] == ("violation", code)
    assert protocol.state.name == "FAILED"
    (answer,), _ = by_wsproto(protocol.control_to_send(), client=not client)
    assert answer[:2] == ("close", code)
    assert not protocol.control_to_send()
    # Nothing after it is read.
    assert feed(protocol, Frame(BINARY, b"more").encode(to_server=not client)) == []


@ENDS
def test_the_first_bit_of_a_length_is_never_set(client: bool) -> None:
    raw = bytes([0x82, 127 if client else 0xFF]) + b"\xff" * 8 + KEY
    assert feed(new_protocol(client=client), raw) == [("violation", 1002)]


@pytest.mark.parametrize("masked", [True, False])
def test_a_frame_masked_for_the_wrong_direction_is_a_violation(masked: bool) -> None:
    frame = Frame(BINARY, b"x", masked=masked).encode(to_server=True)
    assert feed(new_protocol(client=masked), frame) == [("violation", 1002)]


# --- limits ---------------------------------------------------------------------------------------


@ENDS
@PATHS
def test_a_frame_over_the_limit_fails_by_its_header_alone(client: bool, fast: bool) -> None:
    protocol = new_protocol(client=client, fast=fast, max_frame_size=1000)
    assert feed(protocol, Frame(BINARY, b"x" * 1000).encode(to_server=not client)) == [("bytes", b"x" * 1000, True)]
    head = Frame(BINARY, b"x" * 1001).encode(to_server=not client)[: 4 if client else 8]
    assert feed(protocol, head) == [("violation", 1009)]


@ENDS
@PATHS
def test_a_message_over_the_limit_fails_by_the_header_that_goes_beyond(client: bool, fast: bool) -> None:
    protocol = new_protocol(client=client, fast=fast, max_message_size=10)
    parts = [Frame(BINARY, b"x" * 6, fin=False), Frame(PING, b"y" * 100), Frame(CONTINUATION, b"x" * 4)]
    assert feed(protocol, encoded(parts, client=client)) == [("bytes", b"x" * 10, True)]
    assert feed(protocol, encoded(parts[:2], client=client)) == [("bytes", b"x" * 6, False)]
    head = Frame(CONTINUATION, b"x" * 5).encode(to_server=not client)[: 2 if client else 6]
    assert feed(protocol, head) == [("violation", 1009)]


def test_a_header_that_announces_a_tebibyte_costs_nothing() -> None:
    protocol = new_protocol(client=True, max_frame_size=2**24)
    assert feed(protocol, bytes([0x82, 127]) + (2**40).to_bytes(8, "big")) == [("violation", 1009)]


def test_text_fails_by_its_header_where_it_is_not_accepted() -> None:
    protocol = new_protocol(client=True)
    protocol.accepts_text = False
    assert feed(protocol, Frame(TEXT, b"hello").encode(to_server=False)[:2]) == [("violation", 1003)]


def test_a_flood_of_control_frames_is_a_violation() -> None:
    protocol = new_protocol(client=True)
    ping = Frame(PING).encode(to_server=False)
    for _ in range(CONTROL_FRAMES):
        protocol.receive_data(ping, now=5.0)
        assert protocol.next_event() is None
    protocol.receive_data(ping, now=5.0)
    event = protocol.next_event()
    assert event is not None
    assert event[0] == 1008


def test_a_flood_of_empty_fragments_is_a_violation() -> None:
    protocol = new_protocol(client=True)
    empty = Frame(CONTINUATION, fin=False).encode(to_server=False)
    protocol.receive_data(Frame(BINARY, fin=False).encode(to_server=False) + empty * CONTROL_FRAMES)
    assert protocol.next_event() is None
    protocol.receive_data(empty)
    event = protocol.next_event()
    assert event is not None
    assert event[0] == 1008


def test_control_frames_are_counted_within_their_window_only() -> None:
    protocol = new_protocol(client=True)
    ping = Frame(PING).encode(to_server=False)
    for turn in range(3):
        protocol.receive_data(ping * CONTROL_FRAMES, now=turn * (CONTROL_WINDOW + 1))
        assert protocol.next_event() is None


def test_of_many_pings_the_last_is_answered() -> None:
    protocol = new_protocol(client=False)
    assert not protocol.owes_control
    feed(protocol, encoded([Frame(PING, b"1"), Frame(PING, b"2"), Frame(PING, b"3")], client=False))
    assert protocol.owes_control
    assert protocol.control_to_send() == Frame(PONG, b"3").encode(to_server=False)
    assert not protocol.owes_control


# --- what goes out --------------------------------------------------------------------------------


@given(sizes=st.lists(st.sampled_from([0, 1, 3, 125, 126, 127, 65535, 65536, 70000]), max_size=4), client=st.booleans())
def test_the_bytes_that_go_out_are_those_of_wsproto(sizes: list[int], client: bool) -> None:
    keys = [bytes([number, 1, 2, 255]) for number, _ in enumerate(sizes)]
    ours, theirs = iter(keys), iter(keys)
    writer = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
    protocol = new_protocol(client=client)
    protocol._next_key = ours.__next__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsproto.frame_protocol.os.urandom", lambda _: next(theirs))
        for number, size in enumerate(sizes):
            finished = bool(number % 2)
            data = b"payload " * size
            expected = writer.send(BytesMessage(data=data[:size], message_finished=finished))
            assert protocol.send_bytes(memoryview(data)[:size], finished=finished) == expected


@ENDS
@PATHS
def test_what_one_end_sends_the_other_receives(client: bool, fast: bool) -> None:
    here, there = new_protocol(client=client, fast=fast), new_protocol(client=not client)
    raw = here.send_bytes(b"some", finished=False) + here.send_bytes(bytearray(b"thing")) + here.send_text("grüße")
    assert feed(there, raw) == [("bytes", b"something", True), ("text", "grüße", True)]


@ENDS
def test_a_ping_of_ours_is_repeated_by_its_pong(client: bool) -> None:
    here, there = new_protocol(client=client), new_protocol(client=not client)
    here.ask(b"anybody?")
    assert feed(there, here.control_to_send()) == []
    assert feed(here, there.control_to_send()) == [("pong", b"anybody?")]


# --- closing --------------------------------------------------------------------------------------


@ENDS
def test_a_close_is_answered_once_and_nothing_follows_it(client: bool) -> None:
    here, there = new_protocol(client=client), new_protocol(client=not client)
    raw = here.send_close(1000, "done")
    assert here.state.name == "CLOSE_SENT"
    assert not here.may_send
    assert feed(there, Frame(PING, b"x").encode(to_server=client) + raw + raw) == [("close", 1000, "done")]
    assert there.state.name == "CLOSE_RECEIVED"
    assert there.may_send
    there.answer_close(1000)
    assert there.state.name == "CLOSED"
    answer = there.control_to_send()
    assert feed(here, answer) == [("pong", b"x"), ("close", 1000, "")]
    assert here.state.name == "CLOSED"
    assert not there.control_to_send()
    assert not here.control_to_send()


@ENDS
@PATHS
def test_after_their_close_this_end_may_finish_what_it_sends(client: bool, fast: bool) -> None:
    here, there = new_protocol(client=client, fast=fast), new_protocol(client=not client, fast=fast)
    assert feed(there, here.send_close(1000)) == [("close", 1000, "")]
    assert feed(here, there.send_bytes(b"late") + there.send_text("later")) == [
        ("bytes", b"late", True),
        ("text", "later", True),
    ]
    assert feed(here, there.send_close(1000)) == [("close", 1000, "")]
    assert here.state.name == there.state.name == "CLOSED"


@ENDS
def test_a_close_without_a_code_is_1005(client: bool) -> None:
    protocol = new_protocol(client=client)
    assert feed(protocol, close().encode(to_server=not client)) == [("close", 1005, "")]
    protocol.answer_close(1005)
    assert feed(new_protocol(client=not client), protocol.control_to_send()) == [("close", 1005, "")]


@ENDS
def test_a_violation_after_our_close_is_not_answered_by_another(client: bool) -> None:
    protocol = new_protocol(client=client)
    protocol.send_close(1000)
    assert feed(protocol, Frame(0x3).encode(to_server=not client)) == [("violation", 1002)]
    assert protocol.state.name == "FAILED"
    assert not protocol.control_to_send()


def test_a_long_reason_is_cut_at_a_character() -> None:
    raw = new_protocol(client=False).send_close(1000, "€" * 100)
    ((_, _, reason),) = feed(new_protocol(client=True), raw)
    assert reason == "€" * 41


@pytest.mark.parametrize(("kind", "what"), [("send_bytes", b""), ("send_text", ""), ("send_close", 1000)])
def test_nothing_is_sent_after_our_close(kind: str, what: Any) -> None:
    protocol = new_protocol(client=True)
    protocol.send_close(1000)
    with pytest.raises(AssertionError):
        getattr(protocol, kind)(what)


def test_what_comes_after_the_end_is_not_kept() -> None:
    protocol = new_protocol(client=True)
    protocol.receive_data(close(1000).encode(to_server=False))
    assert protocol.next_event() == (1000, "")
    for _ in range(10):
        protocol.receive_data(bytes(1000))
    assert len(protocol._buffer) < 1000
