"""SOCKS5 by hand, on blocking sockets: for what no client of others asks, and to see the reply itself."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import NamedTuple

from tests.socks_proxy.end_to_end.programs import LIMIT

CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3


class Reply(NamedTuple):
    """What the proxy answered, with the address that it says to be bound to."""

    code: int
    host: str
    port: int


def receive_exactly(stream: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = stream.recv(size - len(received))
        assert part, f"the proxy ended the connection after {received!r}"
        received += part
    return received


def encoded_address(host: str, port: int) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        return bytes([3, len(host)]) + host.encode() + port.to_bytes(2, "big")
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed + port.to_bytes(2, "big")


def read_reply(stream: socket.socket) -> Reply:
    version, code, reserved, kind = receive_exactly(stream, 4)
    assert (version, reserved) == (5, 0)
    # A name is no address to be bound to.
    host = ip_address(receive_exactly(stream, {1: 4, 4: 16}[kind]))
    return Reply(code, str(host), int.from_bytes(receive_exactly(stream, 2), "big"))


def ask(proxy_port: int, request: bytes) -> tuple[socket.socket, Reply]:
    """Greet, send the request, and read its reply; the connection is the caller's."""
    stream = socket.create_connection(("127.0.0.1", proxy_port), LIMIT)
    try:
        stream.sendall(b"\x05\x01\x00")
        assert receive_exactly(stream, 2) == b"\x05\x00"
        stream.sendall(request)
        return stream, read_reply(stream)
    except BaseException:
        stream.close()
        raise


def reply_to(proxy_port: int, host: str, port: int, *, command: int = CONNECT) -> Reply:
    """Only the reply: the connection is closed."""
    stream, reply = ask(proxy_port, bytes([5, command, 0]) + encoded_address(host, port))
    stream.close()
    return reply


def connect(proxy_port: int, host: str, port: int) -> socket.socket:
    """A connection to there, through the proxy."""
    stream, reply = ask(proxy_port, bytes([5, CONNECT, 0]) + encoded_address(host, port))
    if reply.code:
        stream.close()
        raise AssertionError(f"{host}:{port} was not reached: {reply}")
    return stream
