"""Addresses: the encoding of RFC 1928, and nothing that a resolver or a policy could be fooled by."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, strategies as st

from examples.socks_proxy.addresses import UNKNOWN, Address, BadAddress, parse_host, read_address
from examples.socks_proxy.codes import Code

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join).filter(lambda name: isinstance(parse_host(name), str))
ADDRESSES = st.builds(
    Address,
    st.ip_addresses(v=4) | st.ip_addresses(v=6) | NAMES,
    st.integers(0, 65535),
)


def named(name: bytes, port: int = 80) -> bytes:
    return bytes((3, len(name))) + name + port.to_bytes(2, "big")


@given(address=ADDRESSES, before=st.binary(max_size=3), after=st.binary(max_size=3))
def test_what_was_encoded_is_decoded_wherever_it_stands(address: Address, before: bytes, after: bytes) -> None:
    raw = address.encode()
    assert read_address(before + raw + after, len(before)) == (address, len(before) + len(raw))


@given(address=ADDRESSES)
def test_an_address_that_is_cut_off_anywhere_is_not_there_yet(address: Address) -> None:
    raw = address.encode()
    assert all(read_address(raw[:end]) is None for end in range(len(raw)))


@given(raw=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_bad_address(raw: bytes) -> None:
    try:
        read_address(raw)
    except BadAddress:
        pass


@given(text=st.text(max_size=70))
def test_no_text_gives_a_host_that_is_not_ascii_and_lower_case(text: str) -> None:
    try:
        host = parse_host(text)
    except BadAddress:
        return
    assert not isinstance(host, str) or (host.isascii() and host == host.lower() and 0 < len(host) <= 254)
    assert parse_host(str(host)) == host


def test_the_encodings_are_those_of_rfc_1928() -> None:
    assert Address(IPv4Address("192.0.2.1"), 80).encode() == bytes((1, 192, 0, 2, 1, 0, 80))
    assert Address(IPv6Address("2001:db8::1"), 443).encode() == b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x01\xbb"
    assert Address("example.org", 0x1234).encode() == b"\x03\x0bexample.org\x12\x34"
    assert UNKNOWN.encode() == b"\x01" + bytes(6)


def test_addresses_are_shown_as_people_write_them() -> None:
    shown = [Address(parse_host(host), 80) for host in ("192.0.2.1", "2001:db8::1", "example.org")]
    assert [str(address) for address in shown] == ["192.0.2.1:80", "[2001:db8::1]:80", "example.org:80"]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (b"127.0.0.1", "127.0.0.1"),
        (b"127.0.0.1.", "127.0.0.1"),
        (b"::1", "::1"),
        (b"[::1]", "::1"),
        (b"::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("\uff11\uff12\uff17.0.0.1".encode(), "127.0.0.1"),
        ("127\u30020\u30020\u30021".encode(), "127.0.0.1"),
    ],
)
def test_an_address_written_as_a_name_is_an_address(name: bytes, address: str) -> None:
    found = read_address(named(name))
    assert found is not None
    assert not isinstance(found[0].host, str)
    assert str(found[0].host) == str(parse_host(address))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"Example.ORG", "example.org"),
        (b"example.org.", "example.org."),
        (b"my_container", "my_container"),
        ("bücher.example".encode(), "xn--bcher-kva.example"),
        ("BÜCHER.example".encode(), "xn--bcher-kva.example"),
        (b"127.1", "127.1"),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
        (b".".join([b"a" * 49] * 5) + b".abc", ".".join(["a" * 49] * 5) + ".abc"),
    ],
)
def test_a_name_becomes_ascii_and_lower_case(name: bytes, expected: str) -> None:
    assert read_address(named(name)) == (Address(expected, 80), len(name) + 4)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"example.org\0.evil", id="NUL"),
        pytest.param(b"example.org\r\n", id="line end"),
        pytest.param(b"exam ple", id="space"),
        pytest.param(b"\x7f", id="DEL"),
    ],
)
def test_an_empty_name_and_one_with_control_characters_are_bad_requests(name: bytes) -> None:
    with pytest.raises(BadAddress) as raised:
        read_address(named(name))
    assert raised.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"a" * 64 + b".example", id="long label"),
        pytest.param(b".".join([b"a" * 49] * 5) + b".abcde", id="long name"),
        pytest.param(b"a..b", id="empty label"),
        pytest.param(b"-a.example", id="hyphen first"),
        pytest.param(b"a-.example", id="hyphen last"),
        pytest.param(b"exa/mple", id="slash"),
        pytest.param(b"user@example", id="user name"),
        pytest.param(b"example.org:80", id="port"),
        pytest.param(b"fe80::1%eth0", id="zone"),
        pytest.param(b"[127.0.0.1]", id="IPv4 in brackets"),
        pytest.param(b".", id="dot"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param("\u200d.example".encode(), id="joiner"),
        pytest.param("a\u3002\u3002b".encode(), id="empty label in disguise"),
    ],
)
def test_a_name_that_cannot_be_does_not_exist(name: bytes) -> None:
    with pytest.raises(BadAddress) as raised:
        read_address(named(name))
    assert raised.value.code is Code.NAME_NOT_FOUND


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_an_unknown_type_of_address_says_so_before_the_rest_is_there(kind: int) -> None:
    with pytest.raises(BadAddress, match=f"unknown type {kind}") as raised:
        read_address(bytes((kind, 0)))
    assert raised.value.code is Code.ADDRESS_TYPE_NOT_SUPPORTED
