"""The server's side of SOCKS5: RFC 1928 and RFC 1929 line by line, however the bytes come."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from examples.socks_proxy.addresses import Address
from examples.socks_proxy.codes import Code, Command
from examples.socks_proxy.socks5 import (
    NO_AUTHENTICATION,
    USERNAME_PASSWORD,
    Credentials,
    Refusal,
    Request,
    Socks5Server,
    Socks5State,
)

OPEN = (NO_AUTHENTICATION,)
LOGIN = (USERNAME_PASSWORD,)
BOUND = Address(IPv6Address("2001:db8::7"), 4711)

GREETING, LOGIN_GREETING = b"\x05\x01\x00", b"\x05\x02\x00\x02"
PASSWORD = b"\x01\x05alice\x06secret"
REQUEST = b"\x05\x01\x00\x03\x0bexample.org\x01\xbb"
PAYLOAD = b"\x16\x03\x01 payload \x05\x01\x00"


class Dialogue:
    """A server with everything that has happened to it."""

    def __init__(self, methods: tuple[int, ...] = OPEN, **options: Any) -> None:
        self.server = Socks5Server(methods, **options)
        self.events: list[Any] = []
        self.sent = b""
        self.reads = 0

    def feed(self, *chunks: bytes) -> Dialogue:
        """Bytes come in; every question is answered by yes."""
        for chunk in chunks:
            self.reads += self.server.wants_data
            self.server.receive_data(chunk)
            while (event := self.server.next_event()) is not None:
                self.events.append(event)
                if isinstance(event, Credentials):
                    self.server.answer_credentials(True)
                elif isinstance(event, Request):
                    self.server.reply(Code.SUCCEEDED, BOUND)
            self.sent += self.server.data_to_send()
        return self

    @property
    def refusal(self) -> str:
        (event,) = self.events
        assert isinstance(event, Refusal)
        assert self.server.state is Socks5State.REFUSED
        return event.reason


def failure(code: int) -> bytes:
    return bytes((5, code, 0, 1)) + bytes(6)


def cuts(raw: bytes, at: Iterable[int]) -> list[bytes]:
    return [raw[a:b] for a, b in pairwise([0, *sorted(at), len(raw)])]


# --- any fragmentation (RFC 1928) -----------------------------------------------------------------


SCRIPTS = [
    pytest.param(
        OPEN,
        GREETING + REQUEST,
        [Request(Command.CONNECT, Address("example.org", 443))],
        b"\x05\x00\x05\x00\x00" + BOUND.encode(),
        id="no login",
    ),
    pytest.param(
        LOGIN,
        LOGIN_GREETING + PASSWORD + REQUEST,
        [Credentials(b"alice", b"secret"), Request(Command.CONNECT, Address("example.org", 443))],
        b"\x05\x02\x01\x00\x05\x00\x00" + BOUND.encode(),
        id="login",
    ),
]


@pytest.mark.parametrize(("methods", "raw", "events", "sent"), SCRIPTS)
def test_greeting_login_request_and_payload_may_come_split_anywhere(
    methods: tuple[int, ...], raw: bytes, events: list[Any], sent: bytes
) -> None:
    everything = raw + PAYLOAD
    splits = [cuts(everything, [at]) for at in range(len(everything) + 1)]
    for chunks in [*splits, [everything], [bytes((byte,)) for byte in everything]]:
        dialogue = Dialogue(methods).feed(*chunks)
        assert (dialogue.events, dialogue.sent) == (events, sent)
        assert dialogue.server.take_rest() == PAYLOAD


@pytest.mark.parametrize(("methods", "raw", "events", "sent"), SCRIPTS)
@given(data=st.data())
def test_greeting_login_request_and_payload_may_come_in_any_pieces(
    methods: tuple[int, ...], raw: bytes, events: list[Any], sent: bytes, data: st.DataObject
) -> None:
    everything = raw + PAYLOAD
    chunks = cuts(everything, data.draw(st.sets(st.integers(0, len(everything)), max_size=8)))
    dialogue = Dialogue(methods).feed(*chunks)
    assert (dialogue.events, dialogue.sent) == (events, sent)
    assert dialogue.server.take_rest() == PAYLOAD


@given(
    raw=st.binary(max_size=600)
    | st.binary(max_size=300).map(lambda rest: GREETING + rest)
    | st.binary(max_size=300).map(lambda rest: b"\x05\x01\x02\x01" + rest)
    | st.binary(max_size=300).map(lambda rest: GREETING + b"\x05\x01\x00" + rest),
    size=st.integers(1, 50),
    login=st.booleans(),
)
def test_no_bytes_make_it_raise_or_keep_more_than_one_message(raw: bytes, size: int, login: bool) -> None:
    dialogue = Dialogue(LOGIN if login else OPEN)
    for start in range(0, len(raw), size):
        if dialogue.server.wants_data:
            dialogue.feed(raw[start : start + size])
            assert len(dialogue.server._data) < 513 or not dialogue.server.wants_data
    assert sum(isinstance(event, Refusal) for event in dialogue.events) <= 1


def test_each_answer_is_due_as_soon_as_its_question_is_complete() -> None:
    dialogue = Dialogue(LOGIN)
    assert dialogue.feed(b"\x05\x01").sent == b""
    assert dialogue.feed(b"\x02").sent == b"\x05\x02"
    assert dialogue.feed(PASSWORD[:-1]).sent == b"\x05\x02"
    assert dialogue.feed(PASSWORD[-1:]).sent == b"\x05\x02\x01\x00"
    assert dialogue.feed(REQUEST[:-1]).events == [Credentials(b"alice", b"secret")]
    assert len(dialogue.feed(REQUEST[-1:]).events) == 2


def test_it_wants_no_more_bytes_while_a_question_waits() -> None:
    server = Socks5Server(LOGIN)
    server.receive_data(LOGIN_GREETING + PASSWORD + REQUEST)
    assert isinstance(server.next_event(), Credentials)
    assert not server.wants_data
    assert server.next_event() is None
    server.answer_credentials(True)
    assert server.wants_data
    assert isinstance(server.next_event(), Request)
    assert not server.wants_data
    assert server.next_event() is None


def test_what_is_sent_and_what_is_left_over_is_fetched_once() -> None:
    server = Dialogue().feed(GREETING + REQUEST + PAYLOAD).server
    assert server.take_rest() == PAYLOAD
    assert server.take_rest() == b""
    assert server.data_to_send() == b""
    server.receive_data(b"more")
    assert server.take_rest() == b"more"


def test_payload_can_be_taken_before_the_reply() -> None:
    server = Socks5Server()
    server.receive_data(GREETING + REQUEST + PAYLOAD)
    server.next_event()
    assert server.take_rest() == PAYLOAD


# --- methods (RFC 1928 section 3) -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "answer", "says"),
    [
        pytest.param(b"\x04\x01\x00\x50", b"\x00\x5b" + bytes(6), "SOCKS4", id="SOCKS4"),
        pytest.param(b"GET / HTTP/1.1\r\n", None, "HTTP", id="HTTP"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\n", None, "HTTP", id="HTTP CONNECT"),
        pytest.param(b"\x16\x03\x01", b"", "TLS", id="TLS"),
        pytest.param(b"\x00", b"", "0x00", id="something"),
    ],
)
def test_another_protocol_is_told_in_its_own_language(first: bytes, answer: bytes | None, says: str) -> None:
    dialogue = Dialogue().feed(first[:1], first[1:])
    assert says in dialogue.refusal
    assert "SOCKS5" in dialogue.refusal
    if answer is None:
        head, _, body = dialogue.sent.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 501 ")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"SOCKS5 proxy" in body
    else:
        assert dialogue.sent == answer


def test_a_greeting_without_methods_is_refused_and_not_a_mystery() -> None:
    dialogue = Dialogue().feed(b"\x05\x00")
    assert dialogue.sent == b"\x05\xff"
    assert "it offers nothing" in dialogue.refusal


@pytest.mark.parametrize(
    ("ours", "offered", "chosen"),
    [
        (OPEN, b"\x00", 0x00),
        (OPEN, b"\x02\x01\x00", 0x00),
        (OPEN, b"\x02", 0xFF),
        (LOGIN, b"\x00\x02", 0x02),
        (LOGIN, b"\x00", 0xFF),
        (LOGIN, b"\x01\x00\x80", 0xFF),
        ((2, 0), b"\x00\x02", 0x02),
        ((0, 2), b"\x02\x00", 0x00),
        ((2, 0), b"\x00", 0x00),
        (OPEN, bytes(range(1, 256)), 0xFF),
    ],
)
def test_our_first_choice_among_what_is_offered_is_taken_and_no_other(
    ours: tuple[int, ...], offered: bytes, chosen: int
) -> None:
    dialogue = Dialogue(ours).feed(bytes((5, len(offered))) + offered)
    assert dialogue.sent == bytes((5, chosen))
    assert (dialogue.server.state is Socks5State.REFUSED) == (chosen == 0xFF)


def test_who_must_log_in_cannot_skip_it() -> None:
    dialogue = Dialogue(LOGIN).feed(LOGIN_GREETING + REQUEST)
    assert dialogue.sent == b"\x05\x02\x01\x01"
    assert "version 5" in dialogue.refusal


def test_a_refusal_names_what_was_offered_and_what_would_do() -> None:
    assert (
        "offers none, method 0x80, and user name and password would do"
        in Dialogue(LOGIN).feed(b"\x05\x02\x00\x80").refusal
    )


def test_what_comes_after_a_refusal_is_ignored() -> None:
    dialogue = Dialogue().feed(b"\x05\x00" + REQUEST, GREETING + REQUEST, b"x" * 100)
    assert dialogue.sent == b"\x05\xff"
    assert not dialogue.server._data
    assert not dialogue.server.wants_data


# --- requests and replies (RFC 1928 sections 4 to 6) ----------------------------------------------


def test_a_request_of_another_version_is_a_general_failure() -> None:
    dialogue = Dialogue().feed(GREETING + b"\x04\x01\x00\x50")
    assert dialogue.sent == b"\x05\x00" + failure(1)
    assert "version 4" in dialogue.refusal


@pytest.mark.parametrize(
    ("command", "name"), [(0, "command 0x00"), (2, "BIND"), (3, "UDP_ASSOCIATE"), (4, "command 0x04")]
)
def test_a_command_that_is_not_supported_says_so(command: int, name: str) -> None:
    dialogue = Dialogue().feed(GREETING + bytes((5, command, 0, 1, 192, 0, 2, 1, 0, 80)))
    assert dialogue.sent == b"\x05\x00" + failure(7)
    assert dialogue.refusal == f"{name} is not supported"


@pytest.mark.parametrize("command", [Command.BIND, Command.UDP_ASSOCIATE])
def test_commands_of_later_versions_only_have_to_be_switched_on(command: Command) -> None:
    dialogue = Dialogue(commands=frozenset(Command)).feed(GREETING + bytes((5, command, 0, 1)) + bytes(6))
    assert dialogue.events == [Request(command, Address(IPv4Address(0), 0))]


def test_the_reserved_byte_is_not_looked_at() -> None:
    dialogue = Dialogue().feed(GREETING + b"\x05\x01\xff" + REQUEST[3:])
    assert dialogue.events == [Request(Command.CONNECT, Address("example.org", 443))]


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_an_address_of_an_unknown_type_says_so(kind: int) -> None:
    dialogue = Dialogue().feed(GREETING + bytes((5, 1, 0, kind)) + bytes(6))
    assert dialogue.sent == b"\x05\x00" + failure(8)
    assert "unknown type" in dialogue.refusal


@pytest.mark.parametrize(
    "host", [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), "example.org", "a" * 63 + ".example"]
)
def test_each_type_of_address_is_read(host: Any) -> None:
    dialogue = Dialogue().feed(GREETING + b"\x05\x01\x00" + Address(host, 65535).encode())
    assert dialogue.events == [Request(Command.CONNECT, Address(host, 65535))]


@pytest.mark.parametrize(
    ("name", "code"), [(b"", 1), (b"a\0b", 1), (b"a\r\nb", 1), (b"a..b", 4), (b"\xff", 4), (b"a" * 255, 4)]
)
def test_a_name_that_is_none_is_refused_without_a_dial(name: bytes, code: int) -> None:
    dialogue = Dialogue().feed(GREETING + b"\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x00\x50")
    assert dialogue.sent == b"\x05\x00" + failure(code)
    assert dialogue.refusal.startswith("the request has a")


def test_an_address_that_is_written_as_a_name_is_an_address() -> None:
    dialogue = Dialogue().feed(GREETING + b"\x05\x01\x00\x03\x09127.0.0.1\x00\x50")
    assert dialogue.events == [Request(Command.CONNECT, Address(IPv4Address("127.0.0.1"), 80))]


def test_port_0_cannot_be_connected_to() -> None:
    dialogue = Dialogue().feed(GREETING + REQUEST[:-2] + b"\x00\x00")
    assert dialogue.sent == b"\x05\x00" + failure(1)
    assert "port 0" in dialogue.refusal


@pytest.mark.parametrize("host", [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), "far.example"])
def test_the_reply_has_the_length_of_its_address(host: Any) -> None:
    server = asked()
    server.reply(Code.SUCCEEDED, Address(host, 80))
    assert server.data_to_send() == b"\x05\x00\x00" + Address(host, 80).encode()
    assert server.state is Socks5State.RELAYING


def test_an_unknown_bound_address_is_zeros() -> None:
    server = asked()
    server.reply(Code.SUCCEEDED)
    assert server.data_to_send() == failure(0)


@pytest.mark.parametrize(
    ("code", "reply"), [(5, 5), (Code.NAME_NOT_FOUND, 4), (Code.TIMED_OUT, 6), (Code.DENIED, 2), (0x3F, 1)]
)
def test_a_failure_has_the_reply_of_its_code_and_no_address(code: int, reply: int) -> None:
    server = asked()
    server.reply(code, BOUND)
    assert server.data_to_send() == failure(reply)
    assert server.state is Socks5State.REFUSED


def test_a_request_is_answered_exactly_once_and_never_before_it_came() -> None:
    server = Socks5Server()
    with pytest.raises(RuntimeError, match="GREETING"):
        server.reply(Code.SUCCEEDED)
    for code in (Code.SUCCEEDED, Code.CONNECTION_REFUSED):
        server = asked()
        server.reply(code)
        with pytest.raises(RuntimeError, match="no request waits for a reply"):
            server.reply(Code.SUCCEEDED)


def test_no_payload_can_be_taken_before_the_request() -> None:
    server = Socks5Server()
    server.receive_data(GREETING)
    server.next_event()
    with pytest.raises(RuntimeError, match="REQUEST"):
        server.take_rest()


def asked() -> Socks5Server:
    """A server whose request waits for its reply."""
    server = Socks5Server()
    server.receive_data(GREETING + REQUEST)
    assert isinstance(server.next_event(), Request)
    assert server.data_to_send() == b"\x05\x00"
    return server


# --- user name and password (RFC 1929) ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "password"),
    [(b"a", b"b"), (b"n" * 255, b"p" * 255), (b"\xff\x00\r\n", b"\x00\xfe"), ("grüße".encode(), b":")],
)
def test_user_name_and_password_are_any_bytes_up_to_255(name: bytes, password: bytes) -> None:
    raw = b"\x01" + bytes((len(name),)) + name + bytes((len(password),)) + password
    for chunks in ([raw], [bytes((byte,)) for byte in raw]):
        assert Dialogue(LOGIN).feed(LOGIN_GREETING, *chunks).events == [Credentials(name, password)]


@pytest.mark.parametrize("version", [0, 2, 5])
def test_the_login_has_a_version_of_its_own(version: int) -> None:
    dialogue = Dialogue(LOGIN).feed(LOGIN_GREETING, bytes((version,)))
    assert dialogue.sent == b"\x05\x02\x01\x01"
    assert f"version {version}" in dialogue.refusal


@pytest.mark.parametrize("raw", [b"\x01\x00\x00", b"\x01\x05alice\x00", b"\x01\x00\x06secret"])
def test_an_empty_name_or_password_is_a_failed_login_that_nobody_is_asked_about(raw: bytes) -> None:
    dialogue = Dialogue(LOGIN).feed(LOGIN_GREETING + raw)
    assert dialogue.sent == b"\x05\x02\x01\x01"
    assert "empty" in dialogue.refusal


def test_after_a_failed_login_nothing_is_read_any_more() -> None:
    server = Socks5Server(LOGIN)
    server.receive_data(LOGIN_GREETING + PASSWORD + REQUEST)
    server.next_event()
    server.answer_credentials(False)
    assert server.data_to_send() == b"\x05\x02\x01\x01"
    assert server.state is Socks5State.REFUSED
    assert server.next_event() is None
    with pytest.raises(RuntimeError, match="REFUSED"):
        server.answer_credentials(True)


def test_a_password_is_in_no_repr() -> None:
    assert "secret" not in repr(Credentials(b"alice", b"secret"))
    assert "alice" in repr(Credentials(b"alice", b"secret"))
