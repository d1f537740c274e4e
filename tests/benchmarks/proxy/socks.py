"""A connection to the destination, straight or through a SOCKS5 proxy: blocking, by hand."""

from __future__ import annotations

import socket
import struct

# No answer within it is a failure of the tunnel.
TIMEOUT = 30
HOST = "127.0.0.1"
GREETING = b"\x05\x01\x00"
METHOD = b"\x05\x00"
REPLY_SIZE = 10
_TIME_LIMIT = struct.pack("@ll", TIMEOUT, 0)


def request(port: int) -> bytes:
    return b"\x05\x01\x00\x01" + socket.inet_aton(HOST) + port.to_bytes(2, "big")


def connect(via: int | None, to: int) -> socket.socket:
    """Through the proxy on that port of loopback, if there is one."""
    stream = opened(to if via is None else via)
    try:
        if via is not None:
            stream.sendall(GREETING)
            check_method(receive(stream, 2))
            stream.sendall(request(to))
            check_reply(receive(stream, REPLY_SIZE))
    except BaseException:
        stream.close()
        raise
    return stream


def opened(port: int) -> socket.socket:
    """A blocking socket, with the kernel's own time limits: Python's would cost a system call for each read."""
    # Not `create_connection`, which asks the resolver first: 20 µs of the machine that is measured.
    stream = socket.socket()
    try:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # of which the latter holds for connecting, too
            stream.setsockopt(socket.SOL_SOCKET, option, _TIME_LIMIT)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.connect((HOST, port))
    except BaseException:
        stream.close()
        raise
    return stream


def check_method(data: bytes) -> None:
    if data != METHOD:
        raise RuntimeError(f"the proxy's greeting was {data!r}")


def check_reply(data: bytes) -> None:
    if data[:4] != b"\x05\x00\x00\x01":
        raise RuntimeError(f"the proxy's reply was {data!r}")


def receive(stream: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = stream.recv(size - len(received))
        if not part:
            raise RuntimeError(f"the connection ended after {len(received)} of {size} bytes")
        received += part
    return received
