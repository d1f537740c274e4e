"""The reply code of the real outcome, and the real bound address (RFC 1928 section 6)."""

from __future__ import annotations

import pytest

from examples.socks_proxy.codes import Code
from tests.socks_proxy.end_to_end import raw_socks
from tests.socks_proxy.end_to_end.conftest import Launcher
from tests.socks_proxy.end_to_end.origins import HTTPOrigin, Origin, closed_port
from tests.socks_proxy.end_to_end.raw_socks import BIND, CONNECT, UDP_ASSOCIATE, Reply, reply_to


@pytest.fixture(scope="session")
def strict_proxy(shared: Launcher, echo: Origin) -> int:
    """The port of a client whose server allows a single private destination: the echo."""
    _, url = shared.server("--allow", f"127.0.0.1:{echo.port}")
    return shared.client(url)[1]


@pytest.fixture(scope="session")
def fast_proxy(shared: Launcher, server_url: str) -> int:
    """The port of a client that does not wait for the far end."""
    return shared.client(server_url, "--fast-open")[1]


def failure(code: Code) -> Reply:
    """A failed request has no bound address."""
    return Reply(code, "0.0.0.0", 0)


def test_the_bound_address_is_the_one_that_the_destination_sees(proxy: int, origin: HTTPOrigin) -> None:
    request = bytes([5, CONNECT, 0]) + raw_socks.encoded_address("127.0.0.1", origin.port)
    stream, reply = raw_socks.ask(proxy, request)
    with stream, stream.makefile("rb") as answer:
        stream.sendall(b"GET /peer HTTP/1.0\r\n\r\n")
        host, port = answer.read().decode().split("\r\n")[-1].split()
    assert reply == Reply(Code.SUCCEEDED, host, int(port))


def test_a_refused_connection_is_reply_5(proxy: int) -> None:
    with closed_port() as port:
        assert reply_to(proxy, "127.0.0.1", port) == failure(Code.CONNECTION_REFUSED)
        assert reply_to(proxy, "localhost", port) == failure(Code.CONNECTION_REFUSED)


def test_a_name_that_does_not_exist_is_reply_4(proxy: int) -> None:
    # RFC 6761 section 6.4: no name below it ever exists.
    assert reply_to(proxy, "wspool.invalid", 80) == failure(Code.HOST_UNREACHABLE)


@pytest.mark.parametrize("command", [BIND, UDP_ASSOCIATE, 0x7F])
def test_a_command_other_than_connect_is_reply_7(command: int, proxy: int, echo: Origin) -> None:
    assert reply_to(proxy, "127.0.0.1", echo.port, command=command) == failure(Code.COMMAND_NOT_SUPPORTED)


@pytest.mark.parametrize("kind", [0, 2, 5, 0xFF])
def test_an_unknown_address_type_is_reply_8(kind: int, proxy: int) -> None:
    stream, reply = raw_socks.ask(proxy, bytes([5, CONNECT, 0, kind]) + b"\x7f\0\0\1\0\x50")
    stream.close()
    assert reply == failure(Code.ADDRESS_TYPE_NOT_SUPPORTED)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", "0.0.0.0", "10.1.2.3", "169.254.169.254", "64:ff9b::a01:203"],
)
def test_a_private_destination_is_reply_2_unless_allowed(host: str, strict_proxy: int, origin: HTTPOrigin) -> None:
    """The origin listens: were it dialled, the reply would be another."""
    assert reply_to(strict_proxy, host, origin.port) == failure(Code.NOT_ALLOWED)


def test_a_private_destination_that_a_rule_names_is_reached(strict_proxy: int, echo: Origin) -> None:
    with raw_socks.connect(strict_proxy, "127.0.0.1", echo.port) as stream:
        stream.sendall(b"hello")
        assert raw_socks.receive_exactly(stream, 5) == b"hello"


def test_with_fast_open_success_is_said_before_anything_is_dialled(fast_proxy: int, echo: Origin) -> None:
    request = bytes([5, CONNECT, 0]) + raw_socks.encoded_address("127.0.0.1", echo.port)
    stream, reply = raw_socks.ask(fast_proxy, request + b"hello")
    with stream:
        assert reply == Reply(Code.SUCCEEDED, "0.0.0.0", 0)
        assert raw_socks.receive_exactly(stream, 5) == b"hello"


def test_with_fast_open_a_refused_connection_is_a_reset(fast_proxy: int) -> None:
    with closed_port() as port, raw_socks.connect(fast_proxy, "127.0.0.1", port) as stream:
        with pytest.raises(ConnectionResetError):
            stream.recv(1)


def test_after_every_refusal_the_tunnels_still_carry_sessions(
    strict_proxy: int, origin: HTTPOrigin, echo: Origin
) -> None:
    for _ in range(50):
        assert reply_to(strict_proxy, "127.0.0.1", origin.port).code == Code.NOT_ALLOWED
    with raw_socks.connect(strict_proxy, "127.0.0.1", echo.port) as stream:
        stream.sendall(b"hello")
        assert raw_socks.receive_exactly(stream, 5) == b"hello"
