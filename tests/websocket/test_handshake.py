"""Both ends of the opening handshake: every duty, every split, and no error but our own whatever comes."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from wsproto.utilities import generate_accept_token

from wspool.websocket._errors import ConnectFailed, UpgradeFailed
from wspool.websocket._handshake import (
    BODY_LIMIT,
    Accept,
    Agreement,
    ClientHandshake,
    Refusal,
    Request,
    Response,
    ServerHandshake,
    default_decision,
)
from wspool.websocket._http import HEAD_LIMIT, MAX_INFORMATIONAL, ProxyHandshake, check_limit
from wspool.websocket._url import parse_proxy_url, parse_websocket_url

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ANSWER_TO_KEY = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # both from RFC 6455 section 1.3


def new_client(url: str = "ws://example.com/chat?room=1", **arguments: Any) -> ClientHandshake:
    return ClientHandshake(parse_websocket_url(url), **arguments)


def head_of(message: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    head, blank, _ = message.partition(b"\r\n\r\n")
    assert blank
    first, *lines = head.split(b"\r\n")
    pairs = [line.split(b": ", 1) for line in lines]
    return first, [(name.lower(), value) for name, value in pairs]


def answer_to(client: ClientHandshake, *more: bytes, status: bytes = b"HTTP/1.1 101 Switching Protocols") -> bytes:
    key = dict(head_of(client.request)[1])[b"sec-websocket-key"]
    accept = b"Sec-WebSocket-Accept: " + generate_accept_token(key)
    return b"\r\n".join([status, b"Upgrade: websocket", b"Connection: Upgrade", accept, *more, b"", b""])


def upgrade_request(
    *more: bytes, without: bytes | None = None, line: bytes = b"GET /chat?room=1 HTTP/1.1", key: bytes = KEY
) -> bytes:
    lines = [
        b"Host: example.com",
        b"Upgrade: websocket",
        b"Connection: keep-alive, Upgrade",
        b"Sec-WebSocket-Key: " + key,
        b"Sec-WebSocket-Version: 13",
    ]
    kept = [name for name in lines if without is None or not name.startswith(without + b":")]
    return b"\r\n".join([line, *kept, *more, b"", b""])


# What a client or a server makes of bytes, in one value that can be compared.


def client_outcome(client: ClientHandshake, chunks: list[bytes]) -> object:
    """Feeds until there is an outcome; the bytes of later chunks would have been received afterwards."""
    try:
        for at, chunk in enumerate(chunks):
            agreement = client.receive(chunk)
            if agreement is not None:
                return agreement.subprotocol, agreement.received + b"".join(chunks[at + 1 :])
        raise client.receive_eof()
    except UpgradeFailed as error:
        return error.status, error.headers, error.body, re.sub("begins with b.*", "", str(error))


def server_outcome(chunks: list[bytes]) -> object:
    server = ServerHandshake()
    for at, chunk in enumerate(chunks):
        outcome = server.receive(chunk)
        if outcome is not None:
            if isinstance(outcome, Request) and b"".join(chunks[at + 1 :]):
                return "early bytes, not seen yet"
            return outcome
    return server.receive_eof()


# ---------------------------------------------------------------------------------------------- client


def test_the_request_is_that_of_the_rfc() -> None:
    first, headers = head_of(new_client(subprotocols=["a", "b"], headers={"Origin": "https://example.com"}).request)
    assert first == b"GET /chat?room=1 HTTP/1.1"
    key = dict(headers)[b"sec-websocket-key"]
    assert len(base64.b64decode(key, validate=True)) == 16
    assert headers == [
        (b"host", b"example.com"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-key", key),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"a, b"),
        (b"origin", b"https://example.com"),
    ]
    assert dict(head_of(new_client().request)[1])[b"sec-websocket-key"] != key


def test_the_credentials_of_the_url_are_sent() -> None:
    headers = dict(head_of(new_client("ws://user:password@example.com:81").request)[1])
    assert headers[b"authorization"] == b"Basic dXNlcjpwYXNzd29yZA=="
    assert headers[b"host"] == b"example.com:81"


def test_credentials_cannot_be_given_twice() -> None:
    with pytest.raises(ValueError, match="b'Authorization' is given by the URL's user name and password as well"):
        new_client("ws://user:password@example.com", headers={"AUTHORIZATION": "Bearer x"})
    new_client(headers={"AUTHORIZATION": "Bearer x"})
    new_client("ws://user:password@example.com", headers={"X-Other": "1"})


def test_a_right_answer_is_an_agreement() -> None:
    client = new_client()
    assert client.receive(answer_to(client)) == Agreement(None, b"")


def test_what_follows_the_answer_is_handed_on() -> None:
    client = new_client()
    assert client.receive(answer_to(client) + b"\x81\x02hi\r\n\r\n") == Agreement(None, b"\x81\x02hi\r\n\r\n")


def test_the_servers_choice_of_a_subprotocol_counts() -> None:
    client = new_client(subprotocols=["a", "b"])
    assert client.receive(answer_to(client, b"Sec-WebSocket-Protocol: b")) == Agreement("b", b"")


def test_names_of_headers_and_options_are_compared_without_case() -> None:
    client = new_client()
    answer = answer_to(client).replace(b"Upgrade: websocket", b"UPGRADE: WebSocket")
    assert client.receive(answer.replace(b"Connection: Upgrade", b"connection: foo, upGRADE")) is not None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: a.replace(b"Upgrade: websocket\r\n", b""), "Upgrade: websocket"),
        (lambda a: a.replace(b"Upgrade: websocket", b"Upgrade: h2c"), "Upgrade: websocket"),
        (lambda a: a.replace(b"Connection: Upgrade\r\n", b""), "Connection: Upgrade"),
        (lambda a: a.replace(b"Connection: Upgrade", b"Connection: close"), "Connection: Upgrade"),
        (lambda a: a.replace(b"Connection: Upgrade", b"Connection: Upgr\xe4de"), "ascii"),
        (lambda a: re.sub(b"Sec-WebSocket-Accept: .*\r\n", b"", a), "Bad accept token"),
        (lambda a: re.sub(b"Accept: .*\r\n", b"Accept: " + ANSWER_TO_KEY + b"\r\n", a), "Bad accept token"),
        (lambda a: re.sub(b"(Sec-WebSocket-Accept: .*\r\n)", rb"\1\1", a), "sec-websocket-accept is there twice"),
        (lambda a: a.replace(b"HTTP/1.1", b"HTTP/1.0"), "not HTTP/1.1"),
        (lambda a: a[:-2] + b"Sec-WebSocket-Protocol: c\r\n\r\n", "unrecognized subprotocol c"),
        (lambda a: a[:-2] + b"Sec-WebSocket-Protocol: \r\n\r\n", "unrecognized subprotocol"),
        (lambda a: a[:-2] + b"Sec-WebSocket-Protocol: a, b\r\n\r\n", "unrecognized subprotocol a, b"),
        (lambda a: a[:-2] + b"Sec-WebSocket-Protocol: \xe4\r\n\r\n", "ascii"),
        (lambda a: a[:-2] + b"Sec-WebSocket-Protocol: a\r\n" * 2 + b"\r\n", "sec-websocket-protocol is there twice"),
        (lambda a: a, "it chose none of the subprotocols a, b"),
        (
            lambda a: a[:-2] + b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "unrecognized extension permessage-deflate",
        ),
    ],
)
def test_a_wrong_answer_fails_and_says_why(change: Callable[[bytes], bytes], why: str) -> None:
    client = new_client(subprotocols=["a", "b"])
    with pytest.raises(UpgradeFailed, match=re.escape(why)) as caught:
        client.receive(change(answer_to(client)))
    assert str(caught.value).startswith("example.com:80 agreed to the upgrade, but wrongly: ")
    assert caught.value.status == 101
    assert caught.value.headers


def test_a_subprotocol_that_nobody_offered_fails() -> None:
    client = new_client()
    with pytest.raises(UpgradeFailed, match="unrecognized subprotocol a"):
        client.receive(answer_to(client, b"Sec-WebSocket-Protocol: a"))


def test_informational_answers_are_skipped_up_to_a_number() -> None:
    client = new_client()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert client.receive(b"HTTP/1.1 100 Continue\r\n\r\n" + early * (MAX_INFORMATIONAL - 1)) is None
    assert client.receive(answer_to(client) + b"x") == Agreement(None, b"x")

    client = new_client()
    with pytest.raises(UpgradeFailed, match="more than 5 informational"):
        client.receive(early * (MAX_INFORMATIONAL + 1))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope", b"nope"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope and more", b"nope"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n2\r\npe\r\n0\r\n\r\n", b"nope"),
        (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\nwhat?\r\n", b"no"),
        (b"HTTP/1.1 403\r\nContent-Length: %d\r\n\r\n" % 10**9 + b"x" * BODY_LIMIT, b"x" * BODY_LIMIT),
        (b"HTTP/1.0 403 No\r\n\r\n" + b"x" * BODY_LIMIT + b"y", b"x" * BODY_LIMIT),
    ],
)
def test_a_refusal_carries_status_headers_and_body(answer: bytes, body: bytes) -> None:
    client = new_client()
    with pytest.raises(UpgradeFailed) as caught:
        client.receive(answer)
    assert caught.value.status == 403
    assert caught.value.body == body
    assert all(
        type(part) is bytes and name == name.lower()
        for header in caught.value.headers
        for part in header
        for name in header[:1]
    )
    assert type(caught.value.body) is bytes
    assert str(caught.value).startswith("example.com:80 answered the upgrade with 403 Forbidden: ")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 500 Oh\r\n\r\nhalf"]
)
def test_a_body_that_the_end_of_the_connection_ends_is_kept(answer: bytes) -> None:
    client = new_client()
    assert client.receive(answer) is None
    assert client.receive(b"") is None
    error = client.receive_eof()
    assert (error.status, error.body) == (500, b"half")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (200, "check the path"),
        (301, "redirects are not followed"),
        (401, "other credentials"),
        (403, "other credentials"),
        (404, "check the path"),
        (429, "try again later"),
        (500, "its body may say more"),
        (503, "try again later"),
        (799, "its body may say more"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, advice: str) -> None:
    with pytest.raises(UpgradeFailed, match=advice) as caught:
        new_client().receive(b"HTTP/1.1 %d ?\r\nContent-Length: 0\r\n\r\n" % status)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "it begins with b'SSH-2.0-OpenSSH_9.6"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it looks like TLS"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "it begins with"),
        (b"HTTP/2 200\r\n\r\n", "it begins with"),
        (b"HTTP/1.1 abc\r\n\r\n", "no valid HTTP/1.1"),
        (b"HTTP/1.1 000 \r\n\r\n", "no valid HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "no valid HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n: x\r\n\r\n", "no valid HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * HEAD_LIMIT, "longer than 16384 bytes"),
    ],
)
def test_what_is_no_http_fails_at_once_without_a_status(answer: bytes, why: str) -> None:
    with pytest.raises(UpgradeFailed, match=re.escape(why)) as caught:
        new_client().receive(answer)
    assert caught.value.status is None
    assert str(caught.value).startswith("example.com:80 does not speak websocket: ")


@pytest.mark.parametrize(
    ("answer", "why"), [(b"", "without an answer"), (b"HTTP/1.1 101 S", "in the middle of its answer")]
)
def test_an_end_before_the_answers_end_is_said(answer: bytes, why: str) -> None:
    client = new_client()
    assert client.receive(answer) is None
    assert str(client.receive_eof()) == f"example.com:80 closed the connection {why} to the upgrade"


def test_a_head_of_just_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    for length, agreed in ((HEAD_LIMIT, True), (HEAD_LIMIT + 1, False)):
        client = new_client()
        answer = answer_to(client, b"X: ")
        answer = answer.replace(b"X: ", b"X: " + b"x" * (length - len(answer)))
        assert len(answer) == length
        for chunks in ([answer], [answer[:100], answer[100:]], [answer[:-1], answer[-1:]]):
            result = client_outcome(new_client_like(client), chunks)
            assert (result == (None, b"")) is agreed


def new_client_like(client: ClientHandshake) -> ClientHandshake:
    """Another one with the same key, so that the same answer suits it."""
    new = new_client(subprotocols=client._subprotocols)
    new._wsproto._nonce = client._wsproto._nonce
    return new


def answers_worth_splitting() -> list[tuple[ClientHandshake, bytes]]:
    client = new_client(subprotocols=["a"])
    early = b"HTTP/1.1 103 Early Hints\nLink: x\n\n"
    chunked = b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\nmore"
    return [
        (client, early + answer_to(client, b"Sec-WebSocket-Protocol: a") + b"\x81\x00\r\n\r\n"),
        (client, chunked),
        (client, b"HTTP/1.1 500 Oh\nContent-Length: 5\n\nhello"),
        (client, b"HTTP/1.0 200 OK\r\n\r\nhello"),
        (client, b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello"),
        (client, b"HTTP/1.1 nonsense\r\n\r\nhello"),
    ]


@pytest.mark.parametrize("which", range(6))
def test_an_answer_means_the_same_at_every_split_and_byte_by_byte(which: int) -> None:
    client, answer = answers_worth_splitting()[which]
    whole = client_outcome(new_client_like(client), [answer])
    assert client_outcome(new_client_like(client), [bytes([byte]) for byte in answer]) == whole
    for at in range(len(answer) + 1):
        assert client_outcome(new_client_like(client), [answer[:at], answer[at:]]) == whole


MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=4)


def mutated(message: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in mutations:
        at %= len(message) + 1
        message = message[:at] + new + message[at + length :]
    return message


def chunks_of(message: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(message) + 1) for cut in cuts})
    return [message[start:end] for start, end in zip([0, *places], [*places, len(message)], strict=True)]


CUTS = st.lists(st.integers(0, 1000), max_size=5)


@given(st.integers(0, 5), MUTATIONS, CUTS)
def test_a_spoilt_answer_raises_nothing_but_our_error_however_it_is_cut(which: int, mutations: Any, cuts: Any) -> None:
    client, answer = answers_worth_splitting()[which]
    answer = mutated(answer, mutations)
    whole = client_outcome(new_client_like(client), [answer])
    assert client_outcome(new_client_like(client), chunks_of(answer, cuts)) == whole


@given(st.sampled_from([b"", b"HTTP/1.1 101 \r\n", b"HTTP/1.1 200 OK\r\n"]), st.lists(st.binary()))
def test_no_bytes_raise_anything_but_our_error_at_the_client(start: bytes, chunks: list[bytes]) -> None:
    client_outcome(new_client(), [start, *chunks])


# ---------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("headers", "error", "why"),
    [
        ({"X": "a\r\nY: b"}, ValueError, "the value of b'X' holds a line break"),
        ({"X": "a\nb"}, ValueError, "the value of b'X' holds a line break"),
        ({"X": "a\rb"}, ValueError, "the value of b'X' holds a line break"),
        ({b"X": b"a\0b"}, ValueError, "the value of b'X' holds a control character"),
        ({"X": "ä"}, ValueError, "the value of 'X' must be ASCII"),
        ({"X": b"\xff"}, ValueError, "the value of 'X' must be ASCII"),
        ({"ä": "x"}, ValueError, "the name of 'ä' must be ASCII"),
        ({"X\r\nY": "x"}, ValueError, r"b'X\r\nY' is no name of a header"),
        ({"X ": "x"}, ValueError, "b'X ' is no name of a header"),
        ({"": "x"}, ValueError, "b'' is no name of a header"),
        ({"X": 1}, TypeError, "the value of 'X' must be str or bytes, got int"),
        ({1: "x"}, TypeError, "the name of 1 must be str or bytes, got int"),
        ({"Content-Length": "1"}, ValueError, "b'Content-Length' is set by wspool itself"),
        ({"Transfer-Encoding": "chunked"}, ValueError, "b'Transfer-Encoding' is set by wspool itself"),
        ({"connection": "close"}, ValueError, "b'connection' is set by wspool itself"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda headers: new_client(headers=headers),
        lambda headers: Accept(headers=headers),
        lambda headers: Response(200, headers),
        lambda headers: Response(200, list(headers.items())),
    ],
    ids=["request", "accept", "response", "pairs"],
)
def test_headers_that_cannot_be_sent_are_refused_by_name(
    use: Callable[[Any], object], headers: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=re.escape(f"headers: {why}")) as caught:
        use(headers)
    assert "Y: b" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (None, "headers must be a mapping, or pairs of name and value, got NoneType"),
        ("x: y", "headers must be a mapping, or pairs of name and value, got str"),
        (b"x: y", "headers must be a mapping, or pairs of name and value, got bytes"),
        ([1], "headers: each must be a pair of name and value, got int"),
        (["ab"], "headers: each must be a pair of name and value, got str"),
        ([("a",)], "headers: each must be a pair of name and value, got tuple"),
        ([("a", "b", "c")], "headers: each must be a pair of name and value, got tuple"),
    ],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda headers: new_client(headers=headers),
        lambda headers: Accept(None, headers),
        lambda headers: Response(200, headers),
    ],
    ids=["request", "accept", "response"],
)
def test_headers_come_in_pairs(use: Callable[[Any], object], headers: Any, why: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(why)}$"):
        use(headers)


def test_headers_may_be_pairs_in_lists_and_come_one_by_one() -> None:
    headers: Any = iter([["X", "y"]])
    assert Response(200, headers).headers == [(b"X", b"y")]


def test_what_is_accepted_is_a_subprotocol() -> None:
    subprotocol: Any = 5
    with pytest.raises(TypeError, match="subprotocol must be a string or None, got 5"):
        Accept(subprotocol)


@pytest.mark.parametrize("name", ["Host", "UPGRADE", "Sec-WebSocket-Key", "sec-websocket-protocol"])
@pytest.mark.parametrize(
    "use",
    [lambda headers: new_client(headers=headers), lambda headers: Accept(headers=headers)],
    ids=["request", "accept"],
)
def test_headers_of_the_handshake_are_not_the_callers(use: Callable[[Any], object], name: str) -> None:
    with pytest.raises(ValueError, match=f"headers: b'{name}' is set by wspool itself"):
        use([(name, "x")])


@pytest.mark.parametrize(
    ("subprotocols", "error", "why"),
    [
        ("chat", TypeError, "subprotocols must be several names, such as ['chat'], got 'chat'"),
        (b"chat", TypeError, "subprotocols must be several names, such as ['chat'], got b'chat'"),
        (None, TypeError, "subprotocols must be several names, such as ['chat'], got None"),
        ([b"chat"], TypeError, "subprotocols must be strings, got b'chat'"),
        (["a b"], ValueError, "subprotocols: 'a b' must be letters, digits"),
        (["a,b"], ValueError, "subprotocols: 'a,b' must be letters, digits"),
        (["a\r\nX: y"], ValueError, r"subprotocols: 'a\r\nX: y' must be letters, digits"),
        (["ä"], ValueError, "subprotocols: 'ä' must be letters, digits"),
        ([""], ValueError, "subprotocols: '' must be letters, digits"),
        (["a", "b", "a"], ValueError, "subprotocols: 'a' is there twice"),
    ],
)
def test_subprotocols_that_are_none_are_refused(subprotocols: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=re.escape(why)):
        new_client(subprotocols=subprotocols)


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"status": 101}, ValueError, "status must be from 200 to 599, got 101"),
        ({"status": 600}, ValueError, "status must be from 200 to 599, got 600"),
        ({"status": "200"}, TypeError, "status must be a whole number, got '200'"),
        ({"status": True}, TypeError, "status must be a whole number, got True"),
        ({"status": 200, "body": "text"}, TypeError, "body must be bytes, got str"),
        ({"status": 204, "body": b"x"}, ValueError, "body must be empty with the status 204, got 1 bytes"),
        ({"status": 304, "body": b"x"}, ValueError, "body must be empty with the status 304, got 1 bytes"),
    ],
)
def test_a_response_that_cannot_be_sent_is_refused(arguments: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=re.escape(why)):
        Response(**arguments)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_time_limit_is_more_than_nothing(value: float) -> None:
    with pytest.raises(ValueError, match=f"x_timeout must be more than 0 seconds, got {value}"):
        check_limit("x_timeout", value)
    assert check_limit("x_timeout", 0.5) == 0.5
    assert check_limit("x_timeout", None) == float("inf")


@pytest.mark.parametrize("value", ["1", True])
def test_a_time_limit_is_a_number(value: Any) -> None:
    with pytest.raises(TypeError, match=f"x_timeout must be a number of seconds or None, got {value!r}"):
        check_limit("x_timeout", value)


# ---------------------------------------------------------------------------------------------- server


def test_a_request_is_understood() -> None:
    outcome = ServerHandshake().receive(upgrade_request(b"Sec-WebSocket-Protocol: a, b", b"sec-websocket-protocol:b,c"))
    assert isinstance(outcome, Request)
    headers = outcome.headers
    assert headers[0] == (b"host", b"example.com")
    assert all(type(part) is bytes for header in headers for part in header)
    assert outcome == Request("GET", "/chat?room=1", "/chat", "room=1", headers, "example.com", ("a", "b", "c"), True)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a?", "/a", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"/a%20b", "/a%20b", ""),
        (b"http://example.com/a?b", "/a", "b"),
        (b"https://example.com?b", "/", "b"),
        (b"*", "*", ""),
    ],
)
def test_path_and_query_are_those_of_the_target(target: bytes, path: str, query: str) -> None:
    outcome = ServerHandshake().receive(upgrade_request(line=b"GET " + target + b" HTTP/1.1"))
    assert isinstance(outcome, Request)
    assert (outcome.target, outcome.path, outcome.query) == (target.decode(), path, query)


def test_an_acceptance_is_that_of_the_rfc() -> None:
    server = ServerHandshake()
    assert server.receive(upgrade_request(b"Sec-WebSocket-Protocol: a, b")) is not None
    first, headers = head_of(server.accept(Accept("b", {"Set-Cookie": "x=1"})))
    assert first.startswith(b"HTTP/1.1 101 ")
    assert headers == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", ANSWER_TO_KEY),
        (b"sec-websocket-protocol", b"b"),
        (b"set-cookie", b"x=1"),
    ]


def test_an_acceptance_says_only_what_was_decided() -> None:
    server = ServerHandshake()
    assert server.receive(upgrade_request(b"Sec-WebSocket-Extensions: permessage-deflate")) is not None
    assert [name for name, _ in head_of(server.accept(Accept()))[1]] == [
        b"upgrade",
        b"connection",
        b"sec-websocket-accept",
    ]


@pytest.mark.parametrize(("header", "offered"), [(b"X: y", "none"), (b"Sec-WebSocket-Protocol: a, b", "a, b")])
def test_a_subprotocol_that_was_not_offered_cannot_be_accepted(header: bytes, offered: str) -> None:
    server = ServerHandshake()
    assert server.receive(upgrade_request(header)) is not None
    with pytest.raises(ValueError, match=re.escape(f"one that the client offers ({offered}), got 'c'")):
        server.accept(Accept("c"))


def test_plain_http_cannot_be_accepted() -> None:
    server = ServerHandshake()
    with pytest.raises(ValueError, match="only a request with upgrade=True can be accepted"):
        server.accept(Accept())
    assert server.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") is not None
    with pytest.raises(ValueError, match="only a request with upgrade=True can be accepted"):
        server.accept(Accept())


@pytest.mark.parametrize(
    ("request_", "status", "why"),
    [
        (upgrade_request(line=b"POST / HTTP/1.1"), 405, "the method of an upgrade must be GET"),
        (upgrade_request(line=b"GET / HTTP/2.0"), 505, "only HTTP/1.1"),
        (upgrade_request(line=b"CONNECT a:1 HTTP/1.1"), 405, "this is no proxy"),
        (upgrade_request(line=b"GET /"), 400, "no valid HTTP/1.1"),
        (upgrade_request(without=b"Host"), 400, "no valid HTTP/1.1"),
        (upgrade_request(b"Host: b"), 400, "no valid HTTP/1.1"),
        (upgrade_request(b"Host:", without=b"Host"), 400, "the header Host is missing"),
        (upgrade_request(without=b"Connection"), 400, "the header Connection: Upgrade is missing"),
        (upgrade_request(without=b"Sec-WebSocket-Version"), 426, "the version must be 13"),
        (upgrade_request(b"Sec-WebSocket-Version: 8", without=b"Sec-WebSocket-Version"), 426, "the version must be 13"),
        (upgrade_request(b"Sec-WebSocket-Version: 8"), 426, "the version must be 13"),
        (upgrade_request(without=b"Sec-WebSocket-Key"), 400, "16 bytes in base64"),
        (upgrade_request(b"Sec-WebSocket-Key: " + KEY), 400, "16 bytes in base64"),
        (upgrade_request(key=b""), 400, "16 bytes in base64"),
        (upgrade_request(key=KEY[:-2]), 400, "16 bytes in base64"),
        (upgrade_request(key=base64.b64encode(bytes(15))), 400, "16 bytes in base64"),
        (upgrade_request(key=base64.b64encode(bytes(17))), 400, "16 bytes in base64"),
        (upgrade_request(key=b"!" + KEY[1:]), 400, "16 bytes in base64"),
        (upgrade_request(key=b"-_" + KEY[2:]), 400, "16 bytes in base64"),
        (upgrade_request(b"Sec-WebSocket-Protocol: a b"), 400, "Sec-WebSocket-Protocol is no list of names"),
        (upgrade_request(b"Content-Length: 1"), 400, "has a body"),
        (upgrade_request(b"Transfer-Encoding: chunked"), 400, "has a body"),
        (upgrade_request(b"Transfer-Encoding: gzip"), 501, "no valid HTTP/1.1"),
        (upgrade_request(b"X: caf\xc3\xa9"), 400, "not ASCII"),
        (upgrade_request(line=b"GET /\xff HTTP/1.1"), 400, "not ASCII"),
        (upgrade_request(b"Host: b\xff", without=b"Host"), 400, "not ASCII"),
        (upgrade_request(b"Sec-WebSocket-Protocol: \xff"), 400, "not ASCII"),
        (upgrade_request(b"Sec-WebSocket-Extensions: \xff"), 400, "not ASCII"),
        (upgrade_request(b"Connection: \xff"), 400, "not ASCII"),
        (upgrade_request() + b"\x81\x80aaaa", 400, "bytes follow the request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", 400, "bytes follow the request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400, "has a body"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_LIMIT, 431, "longer than 16384 bytes"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "it looks like TLS"),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", 400, "no HTTP"),
        (b"\x81\x80", 400, "no HTTP"),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused(request_: bytes, status: int, why: str) -> None:
    server = ServerHandshake()
    outcome = server.receive(request_)
    assert isinstance(outcome, Refusal)
    assert outcome.response.status == status
    assert why in outcome.reason
    first, headers = head_of(answer := server.answer(outcome.response))
    body = answer.partition(b"\r\n\r\n")[2]
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert b"close" in dict(headers)[b"connection"]
    assert (b"upgrade" in dict(headers)) == (b"Upgrade" in dict(headers)[b"connection"]) == (status == 426)
    assert (b"content-length", b"%d" % len(body)) in headers
    assert why.encode() in body
    assert body.isascii()
    assert (status == 426) == ((b"sec-websocket-version", b"13") in headers)
    assert (status == 405) == ((b"allow", b"GET") in headers)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        upgrade_request(line=b"GET /health HTTP/1.0"),
        upgrade_request(line=b"GET /health HTTP/1.1", without=b"Upgrade"),
        upgrade_request(b"Upgrade: h2c", line=b"GET /health HTTP/1.1", without=b"Upgrade"),
        b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_request_without_an_upgrade_can_be_answered_in_plain_http(request_: bytes) -> None:
    server = ServerHandshake()
    outcome = server.receive(request_)
    assert isinstance(outcome, Request)
    assert not outcome.upgrade
    assert outcome.path == "/health"
    first, headers = head_of(answer := server.answer(Response(200, {"X": " y "}, b"fine")))
    assert first == b"HTTP/1.1 200 OK"
    assert sorted(headers) == [(b"connection", b"close"), (b"content-length", b"4"), (b"x", b"y")]
    assert answer.endswith(b"\r\n\r\nfine")


def test_upgrade_may_be_one_of_several() -> None:
    outcome = ServerHandshake().receive(upgrade_request(b"Upgrade: h2c, WebSocket", without=b"Upgrade"))
    assert isinstance(outcome, Request)
    assert outcome.upgrade


@pytest.mark.parametrize(
    ("line", "response", "expected"),
    [
        (b"HEAD", Response(200, body=b"fine"), b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"),
        (b"GET", Response(204), b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        (b"GET", Response(304), b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"),
        (b"GET", Response(599), b"HTTP/1.1 599 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_an_answer_has_a_body_only_where_it_may_have_one(line: bytes, response: Response, expected: bytes) -> None:
    server = ServerHandshake()
    assert server.receive(line + b" / HTTP/1.1\r\nHost: a\r\n\r\n") is not None
    assert server.answer(response) == expected


def test_by_default_every_upgrade_is_accepted_with_the_subprotocol_that_the_client_likes_best() -> None:
    def decide(*headers: bytes) -> Accept | Response:
        request = ServerHandshake().receive(upgrade_request(*headers))
        assert isinstance(request, Request)
        return default_decision(request, ("c", "b"))

    assert decide() == Accept()
    assert decide(b"Sec-WebSocket-Protocol: a") == Accept()
    assert decide(b"Sec-WebSocket-Protocol: a, b, c") == Accept("b")


def test_by_default_plain_http_is_told_to_upgrade() -> None:
    request = ServerHandshake().receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(request, Request)
    response = default_decision(request, ())
    assert isinstance(response, Response)
    assert response.status == 426
    assert (b"Upgrade", b"websocket") in list(response.headers)


@pytest.mark.parametrize(
    ("came", "why"), [(b"", "without a request"), (b"GET / HTTP/1.1\r\n", "in the middle of its request")]
)
def test_a_client_that_leaves_before_its_request_is_complete_is_said(came: bytes, why: str) -> None:
    server = ServerHandshake()
    assert server.receive(came) is None
    assert server.receive_eof() == f"the client closed the connection {why}"


def test_a_request_of_just_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    request = upgrade_request(b"X: ")
    for length, kind in ((HEAD_LIMIT, Request), (HEAD_LIMIT + 1, Refusal)):
        long = request.replace(b"X: ", b"X: " + b"x" * (length - len(request)))
        assert len(long) == length
        for chunks in ([long], [long[:100], long[100:]], [long[:-1], long[-1:]]):
            assert isinstance(server_outcome(chunks), kind)


REQUESTS = [
    upgrade_request(b"Sec-WebSocket-Protocol: a", b"X: y"),
    upgrade_request().replace(b"\r\n", b"\n"),
    upgrade_request(without=b"Sec-WebSocket-Key"),
    upgrade_request(b"X: \xff"),
    b"GET / HTTP/1.0\r\n\r\n",
    b"\r\n\r\n",
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_means_the_same_at_every_split_and_byte_by_byte(request_: bytes) -> None:
    whole = server_outcome([request_])
    assert server_outcome([bytes([byte]) for byte in request_]) == whole
    for at in range(len(request_) + 1):
        assert server_outcome([request_[:at], request_[at:]]) == whole


@given(st.sampled_from(REQUESTS), MUTATIONS, CUTS)
def test_a_spoilt_request_raises_nothing_and_can_be_answered(message: bytes, mutations: Any, cuts: Any) -> None:
    message = mutated(message, mutations)
    server = ServerHandshake()
    for chunk in chunks_of(message, cuts):
        outcome = server.receive(chunk)
        if outcome is not None:
            check_answer(server, outcome)
            return


@given(st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]), st.lists(st.binary()))
def test_no_bytes_raise_anything_at_the_server(start: bytes, chunks: list[bytes]) -> None:
    server = ServerHandshake()
    for chunk in [start, *chunks]:
        outcome = server.receive(chunk)
        if outcome is not None:
            check_answer(server, outcome)
            return


def check_answer(server: ServerHandshake, outcome: Request | Refusal) -> None:
    if isinstance(outcome, Request) and outcome.upgrade:
        decision = default_decision(outcome, outcome.subprotocols)
        assert isinstance(decision, Accept)
        assert server.accept(decision).startswith(b"HTTP/1.1 101 ")
    else:
        response = outcome.response if isinstance(outcome, Refusal) else default_decision(outcome, ())
        assert isinstance(response, Response)
        assert server.answer(response).startswith(b"HTTP/1.1 %d " % response.status)


@pytest.mark.parametrize("subprotocols", [(), ("a",), ("b", "a")])
def test_both_ends_agree_with_one_another(subprotocols: tuple[str, ...]) -> None:
    client, server = new_client("ws://" + "a" * 58 + ":8080", subprotocols=subprotocols), ServerHandshake()
    request = server.receive(client.request)
    assert isinstance(request, Request)
    decision = default_decision(request, ("a",))
    assert isinstance(decision, Accept)
    assert client.receive(server.accept(decision)) == Agreement("a" if subprotocols else None, b"")


# ----------------------------------------------------------------------------------------------- proxy


def new_proxy(url: str = "http://proxy:3128", address: str = "example.com:443") -> ProxyHandshake:
    return ProxyHandshake(parse_proxy_url(url), address)


def test_a_proxy_is_asked_with_connect() -> None:
    request = new_proxy("http://user:password@proxy:3128", "[::1]:443").request
    assert request == (
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n"
    )
    assert b"Authorization" not in new_proxy().request


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_any_2xx_opens_the_way_at_every_split(answer: bytes) -> None:
    for at in range(len(answer)):
        proxy = new_proxy()
        assert not proxy.receive(answer[:at])
        assert proxy.receive(answer[at:])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 ?\r\n\r\n", "407 Proxy Authentication Required: give credentials"),
        (b"HTTP/1.1 502 ?\r\n\r\n", "502 Bad Gateway: it cannot reach that host itself"),
        (b"HTTP/1.1 403 ?\r\n\r\n", "403 Forbidden: check that it is an HTTP proxy"),
        (b"HTTP/1.1 302 ?\r\n\r\n", "302 Found: check"),
        (b"HTTP/1.1 101 ?\r\n\r\n", "the proxy proxy:3128 cannot be used"),
        (b"\x05\xff", "the proxy proxy:3128 cannot be used: the answer is no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "the proxy proxy:3128 sent bytes before anything was asked"),
        (b"HTTP/1.1 200 OK\r\nX:" + b"x" * HEAD_LIMIT, "longer than 16384 bytes"),
    ],
)
def test_a_proxy_that_opens_no_way_says_why(answer: bytes, why: str) -> None:
    with pytest.raises(ConnectFailed, match=re.escape(why)) as caught:
        new_proxy().receive(answer)
    assert isinstance(caught.value, OSError)


def test_a_proxy_that_hangs_up_is_said() -> None:
    proxy = new_proxy()
    assert str(proxy.receive_eof()) == "the proxy proxy:3128 closed the connection without an answer"
    assert not proxy.receive(b"HTTP/1.1 ")
    assert str(proxy.receive_eof()) == "the proxy proxy:3128 closed the connection in the middle of its answer"


@given(st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n"]), st.lists(st.binary()))
def test_no_bytes_raise_anything_but_our_error_at_a_proxy(start: bytes, chunks: list[bytes]) -> None:
    proxy = new_proxy()
    try:
        for chunk in [start, *chunks]:
            if proxy.receive(chunk):
                return
    except ConnectFailed:
        pass
