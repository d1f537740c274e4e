"""Bytes in bulk: each way, both ways at once, and after a half-close."""

from __future__ import annotations

import hashlib
import socket
import threading

import pytest

from tests.socks_proxy.end_to_end import raw_socks
from tests.socks_proxy.end_to_end.content import BLOCK, blocks, digest
from tests.socks_proxy.end_to_end.origins import HALF_CLOSE_ANSWER, HTTPOrigin, Origin
from tests.socks_proxy.end_to_end.programs import LIMIT

MIB = 1 << 20
SHA256_HEX = 64


def send_blocks(stream: socket.socket, size: int) -> None:
    for block in blocks(size):
        stream.sendall(block)


def digest_of(stream: socket.socket, size: int) -> str:
    """SHA-256 of so many bytes that come; fewer are an error."""
    sha256, buffer = hashlib.sha256(), bytearray(4 * BLOCK)
    while size:
        count = stream.recv_into(buffer, min(size, len(buffer)))
        assert count, f"the connection ended, and {size} bytes are missing"
        sha256.update(memoryview(buffer)[:count])
        size -= count
    return sha256.hexdigest()


def read_head(stream: socket.socket) -> str:
    """The head of an HTTP answer, and not a byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw_socks.receive_exactly(stream, 1)
    return head.decode()


def test_a_download_of_100_mib_is_right(proxy: int, origin: HTTPOrigin) -> None:
    size = 100 * MIB
    with raw_socks.connect(proxy, "127.0.0.1", origin.port) as stream:
        stream.sendall(f"GET /bytes/{size} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        assert f"Content-Length: {size}\r\n" in read_head(stream)
        assert digest_of(stream, size) == digest(size)
        assert stream.recv(1) == b""


def test_an_upload_of_100_mib_is_right(proxy: int, origin: HTTPOrigin) -> None:
    size = 100 * MIB
    with raw_socks.connect(proxy, "127.0.0.1", origin.port) as stream:
        stream.sendall(f"POST /hash HTTP/1.1\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode())
        send_blocks(stream, size)
        read_head(stream)
        assert raw_socks.receive_exactly(stream, SHA256_HEX).decode() == digest(size)
        assert stream.recv(1) == b""


def test_20_mib_both_ways_at_once_are_right(proxy: int, echo: Origin) -> None:
    with raw_socks.connect(proxy, "127.0.0.1", echo.port) as stream:
        sender = threading.Thread(target=send_blocks, args=(stream, 20 * MIB))
        sender.start()
        assert digest_of(stream, 20 * MIB) == digest(20 * MIB)
        sender.join()


@pytest.mark.parametrize("size", [0, 8 * MIB])
def test_a_half_close_reaches_the_origin_and_its_answer_comes_back(size: int, proxy: int, half_close: Origin) -> None:
    """The origin says nothing before the end of what it is told has come."""
    with raw_socks.connect(proxy, "127.0.0.1", half_close.port) as stream:
        send_blocks(stream, size)
        stream.shutdown(socket.SHUT_WR)
        assert raw_socks.receive_exactly(stream, SHA256_HEX).decode() == digest(size)
        assert digest_of(stream, HALF_CLOSE_ANSWER) == digest(HALF_CLOSE_ANSWER)
        assert stream.recv(1) == b""


def test_an_origin_that_ends_first_still_hears_the_rest(proxy: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with raw_socks.connect(proxy, *listener.getsockname()) as stream, listener.accept()[0] as origin:
            origin.sendall(b"that is all from here")
            origin.shutdown(socket.SHUT_WR)
            assert stream.makefile("rb").read() == b"that is all from here"
            sender = threading.Thread(target=send_blocks, args=(stream, MIB))
            sender.start()
            assert digest_of(origin, MIB) == digest(MIB)
            sender.join()
            stream.shutdown(socket.SHUT_WR)
            assert origin.recv(1) == b""


def test_a_reset_by_the_origin_is_a_reset_for_the_application(proxy: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with raw_socks.connect(proxy, *listener.getsockname()) as stream, listener.accept()[0] as origin:
            abort(origin)
            with pytest.raises(ConnectionResetError):
                stream.recv(1)


def test_a_reset_by_the_application_is_a_reset_for_the_origin(proxy: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with raw_socks.connect(proxy, *listener.getsockname()) as stream, listener.accept()[0] as origin:
            origin.settimeout(LIMIT)
            abort(stream)
            with pytest.raises(ConnectionResetError):
                origin.recv(1)


def abort(stream: socket.socket) -> None:
    """Close it by a reset (RST), as a program that is killed with unread data does."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    stream.close()
