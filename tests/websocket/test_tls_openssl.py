"""OpenSSL's own programs at the other end: they can change keys in the middle, which Python's `ssl` cannot ask for."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio import BrokenResourceError, EndOfStream
from anyio.abc import ByteReceiveStream, ByteStream, Process, SocketAttribute

from tests.websocket.conftest import Certificates
from wspool.websocket import TLSStream
from wspool.websocket._tls import default_context

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="no openssl on this machine")

# What hangs must fail by itself.
LIMIT = 60

# How `-msg` announces it.
KEY_UPDATE_CAME = b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate"


class Program:
    """`openssl s_client` or `s_server`: takes lines, of which one that is a single letter is a command."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.output = bytearray()
        self._more = anyio.Event()

    async def collect(self, pipe: ByteReceiveStream) -> None:
        try:
            async for part in pipe:
                self.output += part
                self._more.set()
                self._more = anyio.Event()
        except anyio.ClosedResourceError:
            pass  # it has been ended

    async def said(self, text: bytes, times: int = 1) -> None:
        """Wait until it has printed that so often."""
        while self.output.count(text) < times:
            await self._more.wait()

    async def type(self, text: str) -> None:
        """Each call is one read of the program: wait for its effect before the next."""
        assert self.process.stdin is not None
        await self.process.stdin.send(text.encode() + b"\n")


@asynccontextmanager
async def openssl(*arguments: str) -> AsyncGenerator[Program, None]:
    assert OPENSSL is not None
    command = [OPENSSL, *arguments]
    async with await anyio.open_process(command, stderr=subprocess.STDOUT) as process:
        program = Program(process)
        assert process.stdout is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(program.collect, process.stdout)
            try:
                with anyio.move_on_after(LIMIT) as scope:
                    yield program
                assert not scope.cancelled_caught, program.output.decode(errors="replace")
            finally:
                process.kill()
                tasks.cancel_scope.cancel()


async def echo(stream: TLSStream) -> None:
    try:
        while True:
            await stream.send(await stream.receive())
    except EndOfStream:
        await stream.aclose()


@asynccontextmanager
async def s_client(
    context: ssl.SSLContext, serve: Callable[[TLSStream], Awaitable[None]], *arguments: str
) -> AsyncGenerator[Program, None]:
    """OpenSSL's client, connected to a server of ours."""

    async def handle(stream: ByteStream) -> None:
        tls = await TLSStream.wrap(stream, ssl_context=context)
        try:
            await serve(tls)
        except BrokenResourceError:
            pass  # the program has been ended
        finally:
            await anyio.aclose_forcefully(tls)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        address = f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        async with openssl("s_client", "-connect", address, "-msg", *arguments) as program:
            yield program
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def s_server(
    certificates: Certificates, context: ssl.SSLContext, *arguments: str
) -> AsyncGenerator[tuple[Program, TLSStream], None]:
    """OpenSSL's server, and a client of ours that is connected to it."""
    file = certificates.directory / "server.pem"
    certificates.server.private_key_and_cert_chain_pem.write_to_path(str(file))
    async with openssl("s_server", "-accept", "127.0.0.1:0", "-cert", str(file), "-msg", *arguments) as program:
        await program.said(b"ACCEPT 127.0.0.1:")
        port = program.output.partition(b"ACCEPT 127.0.0.1:")[2].split()[0]
        transport = await anyio.connect_tcp("127.0.0.1", int(port))
        async with await TLSStream.wrap(transport, hostname="127.0.0.1", ssl_context=context) as stream:
            yield program, stream


async def test_a_client_that_changes_keys_is_answered_and_data_goes_on(server_context: ssl.SSLContext) -> None:
    async with s_client(server_context, echo) as client:
        await client.type("before")
        await client.said(b"before\n")
        for count, command in enumerate(("K", "k", "K"), 1):
            await client.type(command)
            await client.said(b"KEYUPDATE", count)
            await client.type(f"after {count}")
            await client.said(f"after {count}\n".encode())
            # Who was asked by K has to answer before the next data (RFC 8446 section 4.6.3), and not by k.
            assert client.output.count(KEY_UPDATE_CAME) == (count + 1) // 2


async def test_a_server_that_changes_keys_is_answered_and_data_goes_on(
    certificates: Certificates, client_context: ssl.SSLContext
) -> None:
    async with s_server(certificates, client_context) as (server, stream), anyio.create_task_group() as tasks:
        tasks.start_soon(echo, stream)
        for count, command in enumerate(("K", "k", "K"), 1):
            await server.type(command)
            await server.said(KEY_UPDATE_CAME.replace(b"<<<", b">>>"), count)
            await server.type(f"after {count}")
            await server.said(f"after {count}\n".encode())
            assert server.output.count(KEY_UPDATE_CAME) == (count + 1) // 2
        tasks.cancel_scope.cancel()


async def test_keys_change_in_the_middle_of_a_large_send(server_context: ssl.SSLContext) -> None:
    sent = anyio.Event()

    async def serve(stream: TLSStream) -> None:
        async def send() -> None:
            while not sent.is_set():
                await stream.send(b"a line of it\n" * 1000)
            await stream.send(b"the last line\n")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            assert await stream.receive() == b"go on\n"
            sent.set()
            with pytest.raises((EndOfStream, BrokenResourceError)):
                await stream.receive()

    async with s_client(server_context, serve) as client:
        await client.said(b"a line of it\n", 1000)
        for count in (1, 2, 3):
            await client.type("K")
            await client.said(b"KEYUPDATE", count)
            await client.said(KEY_UPDATE_CAME, count)
            await client.said(b"a line of it\n", client.output.count(b"a line of it\n") + 1000)
        await client.type("go on")
        await client.said(b"the last line\n")


async def test_a_client_cannot_renegotiate_in_tls_1_2(server_context: ssl.SSLContext) -> None:
    async with s_client(server_context, echo, "-tls1_2") as client:
        await client.type("before")
        await client.said(b"before\n")
        await client.type("R")
        await client.said(b"no_renegotiation")


async def test_a_server_cannot_make_us_renegotiate_in_tls_1_2(certificates: Certificates) -> None:
    context = default_context(ca_file=certificates.ca_file)
    async with s_server(certificates, context, "-tls1_2") as (server, stream):
        await server.type("r")
        with pytest.raises(BrokenResourceError):  # it insists
            await stream.receive()
        await server.said(b"no_renegotiation")
