"""The tunnel's packets: what is written is read, in any parts, within the limits, and nothing else is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from examples.socks_proxy import packets
from examples.socks_proxy.addresses import Address
from examples.socks_proxy.codes import CloseCode, Code
from examples.socks_proxy.packets import (
    MAX_DATA,
    MAX_DATAGRAM,
    MAX_PACKET,
    Bound,
    Data,
    Datagram,
    Fin,
    Goaway,
    Open,
    Opened,
    Packet,
    PacketError,
    PacketReader,
    Ping,
    Pong,
    Refused,
    Reset,
    data_header,
    encode,
)

SESSIONS = st.integers(1, 65535)
CODES = st.integers(0, 255)
U32 = st.integers(0, 0xFFFFFFFF)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=60)
PAYLOADS = st.binary(max_size=40)
NONCES = st.binary(min_size=8, max_size=8)
ADDRESSES = st.builds(
    Address,
    st.ip_addresses() | st.sampled_from(["a", "example.org", "xn--bcher-kva.example"]),
    st.integers(0, 65535),
)
PACKETS: st.SearchStrategy[Any] = st.one_of(
    st.builds(Open, SESSIONS, CODES, ADDRESSES, st.integers(0, 65535)),
    st.builds(Opened, SESSIONS, U32, ADDRESSES),
    st.builds(Refused, SESSIONS, CODES, TEXTS, st.booleans()),
    st.builds(Data, SESSIONS, st.binary(min_size=1, max_size=40)),
    st.builds(Fin, SESSIONS),
    st.builds(Reset, SESSIONS, CODES, TEXTS),
    st.builds(Datagram, SESSIONS, ADDRESSES, PAYLOADS),
    st.builds(Bound, SESSIONS, ADDRESSES),
    st.builds(Ping, NONCES),
    st.builds(Pong, NONCES),
    st.builds(Goaway, CODES, U32),
)
V4, V6 = Address(IPv4Address("192.0.2.1"), 80), Address(IPv6Address("2001:db8::1"), 443)


def read(*parts: bytes, reader: PacketReader | None = None) -> list[Packet]:
    """What the parts of one message make; parts of DATA joined."""
    reader = reader or PacketReader()
    told = [reader.feed(part, number == len(parts)) for number, part in enumerate(parts, 1)]
    found = [packet for packet in told if packet is not None]
    if found and isinstance(found[0], Data):
        payload = b"".join(packet.payload for packet in found if isinstance(packet, Data))
        assert {packet.session for packet in found if isinstance(packet, Data)} == {found[0].session}
        return [Data(found[0].session, payload)]
    return found


def broken(raw: bytes) -> PacketError:
    with pytest.raises(PacketError) as raised:
        PacketReader().feed(raw, True)
    return raised.value


@given(packet=PACKETS)
def test_what_was_written_is_read_however_the_message_is_split(packet: Packet) -> None:
    raw = encode(packet)
    reader = PacketReader()
    for at in range(len(raw) + 1):
        assert read(raw[:at], raw[at:], reader=reader) == [packet]
    assert read(*(bytes((byte,)) for byte in raw), reader=reader) == [packet]
    assert read(raw, b"", reader=reader) == [packet]


@given(sent=st.lists(PACKETS, max_size=6), data=st.data())
def test_packets_follow_each_other_in_any_parts(sent: list[Packet], data: st.DataObject) -> None:
    reader = PacketReader()
    for packet in sent:
        raw = encode(packet)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=4)))
        assert read(*(raw[a:b] for a, b in pairwise([0, *cuts, len(raw)])), reader=reader) == [packet]


@given(
    messages=st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=4), max_size=5), kind=st.integers(0, 255)
)
def test_no_bytes_raise_anything_but_a_packet_error(messages: list[list[bytes]], kind: int) -> None:
    for prefix in (b"", bytes((kind, 0, 0, 1)), bytes((kind % 12, 1, 0, 0))):
        reader = PacketReader()
        codes = [CloseCode.PROTOCOL_ERROR, CloseCode.WRONG_SESSION]
        try:
            for parts in messages:
                read(prefix + parts[0], *parts[1:], reader=reader)
        except PacketError as error:
            codes.remove(error.close_code)


def test_the_bytes_are_those_of_the_protocol() -> None:
    assert encode(Open(1, 1, V4, 100)) == bytes.fromhex("01000001 0100 0064 01 c0000201 0050")
    assert encode(Opened(2, 12, V6)) == bytes.fromhex("02000002 0000000c 04 20010db8000000000000000000000001 01bb")
    assert encode(Refused(3, Code.CONNECTION_REFUSED, "no", retry_is_safe=True)) == bytes.fromhex("03010003 05") + b"no"
    assert encode(Data(0x1234, b"xy")) == bytes.fromhex("04001234") + b"xy"
    assert encode(Fin(65535)) == bytes.fromhex("0500ffff")
    assert encode(Reset(1, 0x18)) == bytes.fromhex("06000001 18")
    assert encode(Datagram(1, V4, b"?")) == bytes.fromhex("07000001 01 c0000201 0050") + b"?"
    assert encode(Bound(1, V4)) == bytes.fromhex("08000001 01 c0000201 0050")
    assert encode(Ping(b"12345678")) == bytes.fromhex("09000000") + b"12345678"
    assert encode(Pong(b"12345678")) == bytes.fromhex("0a000000") + b"12345678"
    assert encode(Goaway(0x15, 5000)) == bytes.fromhex("0b000000 15 00001388")


def test_the_header_of_data_is_what_stands_before_its_payload() -> None:
    assert data_header(7) + b"payload" == encode(Data(7, b"payload"))


# --- data passes through --------------------------------------------------------------------------


def test_a_part_of_data_passes_through_before_the_rest_has_come() -> None:
    reader = PacketReader()
    assert reader.feed(data_header(9) + b"ab", False) == Data(9, b"ab")
    assert reader.feed(b"cd", False) == Data(9, b"cd")
    assert reader.feed(b"", False) is None
    assert reader.feed(b"ef", True) == Data(9, b"ef")
    assert reader.feed(encode(Fin(9)), True) == Fin(9)


def test_a_header_of_data_may_be_split_from_a_long_payload() -> None:
    raw = encode(Data(1, bytes(65536)))
    for at in range(5):
        assert read(raw[:at], raw[at:]) == [Data(1, bytes(65536))]


def test_data_is_not_copied() -> None:
    part = data_header(1) + bytes(65536)
    packet = PacketReader().feed(part, True)
    assert isinstance(packet, Data)
    assert isinstance(packet.payload, memoryview)
    assert packet.payload.obj is part


def test_empty_data_is_nothing_and_never_an_end() -> None:
    reader = PacketReader()
    assert reader.feed(data_header(1), True) is None
    assert reader.feed(data_header(1), False) is None
    assert reader.feed(b"", True) is None
    assert reader.feed(encode(Data(1, b"x")), True) == Data(1, b"x")


@pytest.mark.parametrize("sizes", [[MAX_DATA], [1] + [65536] * 15 + [65535], [MAX_DATA - 1, 0, 1]])
def test_data_of_a_mebibyte_is_accepted_in_any_parts_and_one_byte_more_is_not(sizes: list[int]) -> None:
    for extra in (0, 1):
        reader = PacketReader()
        reader.feed(data_header(1), False)
        for size in sizes:
            reader.feed(bytes(size), False)
        if extra:
            with pytest.raises(PacketError, match="more than 1048576 bytes"):
                reader.feed(b"x", True)
        else:
            reader.feed(b"", True)


def test_data_that_is_sent_fits_into_a_frame_of_64_kib() -> None:
    # RFC 6455 section 5.2: two bytes, a length of two, and a client's key of four.
    assert packets.MAX_DATA_SENT + packets.HEADER_SIZE + 2 + 2 + 4 == 65536
    assert packets.MAX_MESSAGE == MAX_DATA + packets.HEADER_SIZE


# --- limits and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [packets.OPEN, packets.RESET, packets.FIN, 0x0C, 0x40])
def test_another_packet_beyond_a_kibibyte_is_refused_before_it_is_kept(kind: int) -> None:
    head = bytes((kind, 0, 0, 1))
    reader = PacketReader()
    reader.feed(head, False)
    reader.feed(bytes(MAX_PACKET - 4), False)
    with pytest.raises(PacketError, match="more than 1024 bytes"):
        reader.feed(b"x", False)
    assert len(reader._kept) <= MAX_PACKET


def test_a_datagram_of_full_size_is_accepted_and_one_byte_more_is_not() -> None:
    address = Address("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61, 53)
    packet = Datagram(1, address, bytes(MAX_DATAGRAM))
    assert read(encode(packet)) == [packet]
    assert "65508" in str(broken(encode(Datagram(1, V4, bytes(MAX_DATAGRAM + 1)))))
    assert "more than" in str(broken(encode(Datagram(1, address, bytes(MAX_DATAGRAM + 9)))))


@pytest.mark.parametrize("kind", [0x40, 0x41, 0x7F])
def test_a_type_that_a_later_version_may_use_is_skipped(kind: int) -> None:
    for session in (0, 1, 999):
        assert PacketReader().feed(bytes((kind, 0xFF)) + session.to_bytes(2, "big") + b"anything", True) is None


@pytest.mark.parametrize("kind", [0x00, 0x0C, 0x3F, 0x80, 0xFF])
def test_any_other_unknown_type_is_a_protocol_error(kind: int) -> None:
    error = broken(bytes((kind, 0, 0, 1)))
    assert error.close_code is CloseCode.PROTOCOL_ERROR
    assert f"{kind:#04x}" in str(error)


@given(packet=PACKETS.filter(lambda packet: not isinstance(packet, Data | Datagram | Refused | Reset)))
def test_a_body_that_is_too_short_or_too_long_is_a_protocol_error(packet: Packet) -> None:
    raw = encode(packet)
    for end in range(len(raw)):
        assert broken(raw[:end]).close_code is CloseCode.PROTOCOL_ERROR
    assert broken(raw + b"\0").close_code is CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [packets.REFUSED, packets.RESET])
def test_an_end_has_a_code_and_at_most_255_bytes_of_text(kind: int) -> None:
    head = bytes((kind, 0, 0, 1))
    assert "without a code" in str(broken(head))
    assert len(read(head + b"\x01" + b"t" * 255)) == 1
    assert "256 bytes" in str(broken(head + b"\x01" + b"t" * 256))


@pytest.mark.parametrize("packet", [Ping(b"12345678"), Pong(b"12345678"), Goaway(0, 0)])
def test_what_is_of_the_tunnel_has_no_session(packet: Packet) -> None:
    raw = bytearray(encode(packet))
    raw[3] = 1
    assert broken(bytes(raw)).close_code is CloseCode.WRONG_SESSION


@pytest.mark.parametrize(
    "packet", [Open(0, 1, V4), Opened(0, 0, V4), Refused(0, 1), Fin(0), Reset(0, 1), Datagram(0, V4, b""), Bound(0, V4)]
)
def test_everything_else_has_one(packet: Packet) -> None:
    assert broken(encode(packet)).close_code is CloseCode.WRONG_SESSION


@pytest.mark.parametrize("finished", [True, False])
def test_data_has_one_too(finished: bool) -> None:
    with pytest.raises(PacketError) as raised:
        PacketReader().feed(data_header(0) + b"x", finished)
    assert raised.value.close_code is CloseCode.WRONG_SESSION


@pytest.mark.parametrize("address", [b"\x02" + bytes(6), b"\x03\x00\x00\x50", b"\x03\x03a b\x00\x50", b"\x01\x7f"])
def test_an_address_that_is_none_is_a_protocol_error(address: bytes) -> None:
    assert broken(bytes.fromhex("01000001 0100 0000") + address).close_code is CloseCode.PROTOCOL_ERROR
    assert broken(bytes.fromhex("08000001") + address).close_code is CloseCode.PROTOCOL_ERROR


def test_unknown_flags_do_no_harm() -> None:
    assert read(b"\x03\xfe\x00\x01\x05") == [Refused(1, 5)]
    assert read(b"\x03\xff\x00\x01\x05") == [Refused(1, 5, retry_is_safe=True)]
    assert read(b"\x05\xff\x00\x01") == [Fin(1)]


# --- text -----------------------------------------------------------------------------------------


def test_a_long_text_is_cut_between_characters() -> None:
    (packet,) = read(encode(Reset(1, 1, "a" + "ü" * 200)))
    assert packet == Reset(1, 1, "a" + "ü" * 127)


def test_text_that_could_forge_a_line_of_the_log_or_is_no_text_is_replaced() -> None:
    (packet,) = read(b"\x06\x00\x00\x01\x01ok\r\n\x1b[31m\xff")
    assert packet == Reset(1, 1, "ok\ufffd\ufffd\ufffd[31m\ufffd")


def test_a_text_that_cannot_be_written_is_written_as_far_as_it_can() -> None:
    assert encode(Refused(1, 1, "a\udcffb")) == b"\x03\x00\x00\x01\x01a?b"


def test_numbers_beyond_their_field_are_the_largest_that_fit() -> None:
    assert read(encode(Opened(1, 1 << 40, V4))) == [Opened(1, 0xFFFFFFFF, V4)]
    assert read(encode(Goaway(1, 1 << 40))) == [Goaway(1, 0xFFFFFFFF)]
