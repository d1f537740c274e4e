"""``python -m tests.benchmarks.websocket``: bulk data through a websocket over TLS on loopback, CPU seconds per GB.

One process sends, another receives, and each counts its own CPU time from the first byte of data to the last. The
client masks, the server does not: so both directions are measured. All have compression off and no limit on messages.
Contenders take turns, one sample each in a round; medians with the least and the most. Needs `trustme`, `websockets`
and `aiohttp` (the groups `test` and `bench`).
"""

from __future__ import annotations

import argparse
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream as AnyioTLSStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Request

from wspool.websocket import (
    TLSStream,
    WebSocketConnection,
    WebSocketStream,
    accept_websocket,
    connect_websocket,
    masker,
)

from .report import Table, verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SIZES = (1024, 16 * 1024, 64 * 1024, 256 * 1024)
TOTAL = 200_000_000
ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]
PROCESS_TIMEOUT = 120
# At 64 KiB, over plain wsproto on anyio's TLSStream.
TARGET, TARGET_SIZE = 0.5, 64 * 1024


class End:
    """One end of a websocket, opened by its contender: sends a payload, or receives and counts."""

    def __init__(
        self, send: Callable[[bytes], Awaitable[object]], receive: Callable[[], Awaitable[int]], close: Any = None
    ) -> None:
        self.send = send
        self.receive = receive
        self.close = close


# --- contenders: each opens a client, and serves --------------------------------------------------


class Ours:
    name = "wspool"
    fast = True
    backends = ("asyncio", "uvloop", "trio")

    def _end(self, connection: WebSocketConnection) -> End:
        if not self.fast:
            connection._protocol._fast = False
        stream = WebSocketStream(connection)

        async def receive() -> int:
            return len(await stream.receive(256 * 1024))

        return End(stream.send, receive, stream)

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        return self._end(await connect_websocket(f"wss://localhost:{port}/", ssl_context=context))

    async def serve(self, context: ssl.SSLContext, use: Callable[[End], Awaitable[None]]) -> None:
        async def handle(stream: ByteStream) -> None:
            tls = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            await use(self._end(await accept_websocket(tls)))

        await _serve(handle)


class OursThroughWsproto(Ours):
    name = "wspool, fast=False"
    fast = False


class PlainWsproto:
    """As its documentation shows it, on anyio's own TLS stream."""

    name = "wsproto on anyio's TLSStream"
    backends = ("asyncio", "uvloop", "trio")

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        stream = await anyio.connect_tcp("localhost", port, tls=True, ssl_context=context)
        websocket = WSConnection(ConnectionType.CLIENT)
        await stream.send(websocket.send(Request(host="localhost", target="/")))
        websocket.receive_data(await stream.receive())
        assert isinstance(next(websocket.events()), AcceptConnection)
        return self._end(stream, websocket)

    async def serve(self, context: ssl.SSLContext, use: Callable[[End], Awaitable[None]]) -> None:
        async def handle(stream: ByteStream) -> None:
            tls = await AnyioTLSStream.wrap(stream, server_side=True, ssl_context=context)
            websocket = WSConnection(ConnectionType.SERVER)
            websocket.receive_data(await tls.receive())
            assert isinstance(next(websocket.events()), Request)
            await tls.send(websocket.send(AcceptConnection()))
            await use(self._end(tls, websocket))

        await _serve(handle)

    def _end(self, stream: ByteStream, websocket: WSConnection) -> End:
        async def send(payload: bytes) -> None:
            await stream.send(websocket.send(BytesMessage(data=payload)))

        async def receive() -> int:
            websocket.receive_data(await stream.receive())
            return sum(len(event.data) for event in websocket.events() if isinstance(event, BytesMessage))

        return End(send, receive, stream)


class Websockets:
    name = "websockets"
    backends = ("asyncio", "uvloop")

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        from websockets.asyncio.client import connect

        return self._end(await connect(f"wss://localhost:{port}/", ssl=context, compression=None, max_size=None))

    async def serve(self, context: ssl.SSLContext, use: Callable[[End], Awaitable[None]]) -> None:
        from websockets.asyncio.server import serve

        async def handle(connection: Any) -> None:
            await use(self._end(connection))

        options: Any = {"ssl": context, "compression": None, "max_size": None}
        async with serve(handle, "127.0.0.1", 0, **options) as server:
            _tell(server.sockets[0].getsockname()[1])
            await anyio.sleep_forever()

    def _end(self, connection: Any) -> End:
        async def receive() -> int:
            return len(await connection.recv())

        return End(connection.send, receive, connection)


class Aiohttp:
    name = "aiohttp"
    backends = ("asyncio", "uvloop")

    async def client(self, port: int, context: ssl.SSLContext) -> End:
        import aiohttp

        session = aiohttp.ClientSession()
        websocket = await session.ws_connect(f"wss://localhost:{port}/", ssl=context, max_msg_size=0, compress=0)
        return self._end(websocket, (session, websocket))

    async def serve(self, context: ssl.SSLContext, use: Callable[[End], Awaitable[None]]) -> None:
        from aiohttp import web

        async def handle(request: Any) -> Any:
            websocket = web.WebSocketResponse(max_msg_size=0, compress=False)
            await websocket.prepare(request)
            await use(self._end(websocket, websocket))
            return websocket

        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        _tell(runner.addresses[0][1])
        await anyio.sleep_forever()

    def _end(self, websocket: Any, keep: Any) -> End:
        async def receive() -> int:
            return len(await websocket.receive_bytes())

        return End(websocket.send_bytes, receive, keep)


CONTENDERS: dict[str, Any] = {one.name: one for one in (PlainWsproto, Ours, OursThroughWsproto, Websockets, Aiohttp)}


async def _serve(handle: Callable[[ByteStream], Awaitable[None]]) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    _tell(listener.extra(SocketAttribute.local_port))
    await listener.serve(handle)


def _tell(what: object) -> None:
    print(json.dumps(what), flush=True)


# --- one process ----------------------------------------------------------------------------------


async def _move(end: End, *, sends: bool, size: int, total: int) -> None:
    """Send, or receive, so many bytes; tell the CPU time and the time that it took."""
    count = max(1, total // size)
    payload = bytes(range(256)) * (size // 256)
    before, began = time.process_time(), time.perf_counter()
    if sends:
        for _ in range(count):
            await end.send(payload)
    else:
        left = count * size
        while left > 0:
            left -= await end.receive()
        assert not left, "more came than was sent"
    _tell({"cpu": time.process_time() - before, "seconds": time.perf_counter() - began})


async def _process(
    role: str, contender: str, directory: str, size: int, total: int, client_sends: bool, port: int
) -> None:
    kind = CONTENDERS[contender]()
    if role == "server":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{directory}/server.pem")

        async def use(end: End) -> None:
            await _move(end, sends=not client_sends, size=size, total=total)
            await anyio.sleep_forever()  # until it is killed: closing is not measured

        await kind.serve(context, use)
    else:
        context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
        end = await kind.client(port, context)
        await _move(end, sends=client_sends, size=size, total=total)
        await anyio.sleep_forever()


# --- all of them ----------------------------------------------------------------------------------


def _spawn(role: str, *facts: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.websocket", "--process", json.dumps([role, *facts])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _sample(
    contender: str, backend: str, directory: str, size: int, total: int, *, client_sends: bool
) -> dict[str, float]:
    facts = (backend, contender, directory, size, total, client_sends)
    server = _spawn("server", *facts, 0)
    client = None
    try:
        assert server.stdout is not None
        client = _spawn("client", *facts, json.loads(server.stdout.readline()))
        assert client.stdout is not None
        told = {"server": json.loads(server.stdout.readline()), "client": json.loads(client.stdout.readline())}
    finally:
        for process in (server, client):
            if process is not None:
                process.kill()
                process.wait()
    sender, receiver = ("client", "server") if client_sends else ("server", "client")
    gigabytes = total / 1e9
    return {
        "send": told[sender]["cpu"] / gigabytes,
        "receive": told[receiver]["cpu"] / gigabytes,
        "rate": total / 1e6 / told[receiver]["seconds"],
    }


def measure(backend: str, sizes: list[int], total: int, rounds: int) -> list[Table]:
    playing = [name for name, kind in CONTENDERS.items() if backend in kind.backends]
    tables = []
    with tempfile.TemporaryDirectory() as directory:
        _make_certificates(directory)
        for size in sizes:
            for client_sends in (True, False):
                samples: dict[str, list[dict[str, float]]] = {name: [] for name in playing}
                for number in range(rounds):
                    start = number % len(playing)
                    for name in (*playing[start:], *playing[:start]):
                        samples[name].append(_sample(name, backend, directory, size, total, client_sends=client_sends))
                tables.append(_table(backend, size, samples, client_sends=client_sends))
                print(tables[-1], flush=True)
    return tables


def _table(backend: str, size: int, samples: dict[str, list[dict[str, float]]], *, client_sends: bool) -> Table:
    who = "the client sends, masked" if client_sends else "the server sends, not masked"
    table = Table(
        f"Websocket over TLS on {backend}: {size // 1024} KiB at a time, {who}",
        ["library", "send, CPU s/GB", "receive, CPU s/GB", "MB/s", "x wsproto: send", "receive", "target"],
    )
    base = samples[PlainWsproto.name]
    for name, many in samples.items():
        over = {
            key: statistics.median(one[key] / plain[key] for one, plain in zip(many, base, strict=True))
            for key in ("send", "receive")
        }
        wanted = name == Ours.name and size == TARGET_SIZE and backend == "asyncio"
        reached = max(over.values()) <= TARGET
        table.add(
            name,
            *(_middle([one[key] for one in many]) for key in ("send", "receive")),
            f"{statistics.median(one['rate'] for one in many):.0f}",
            f"{over['send']:.2f}",
            f"{over['receive']:.2f}",
            verdict(reached, f"<= {TARGET}") if wanted else "",
        )
        table.data[name] = {"samples": many, "ratios": over}
    table.notes.append(f"masker: {masker()}")
    return table


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"


def _make_certificates(directory: str) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(f"{directory}/ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        f"{directory}/server.pem"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.websocket", description=__doc__)
    parser.add_argument("--backend", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--sizes", type=lambda text: [int(one) for one in text.split(",")], default=list(SIZES))
    parser.add_argument("--total", type=int, default=TOTAL, metavar="BYTES", help="sent in each sample")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there, too")
    parser.add_argument("--process", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        role, backend, *facts = options.process
        loop: Any = {"backend_options": {"use_uvloop": True}} if backend == "uvloop" else {}
        anyio.run(_process, role, *facts, backend="trio" if backend == "trio" else "asyncio", **loop)
        return
    tables = measure(options.backend, options.sizes, options.total, options.rounds)
    if options.json:
        options.json.write_text(json.dumps([{"title": one.title, "data": one.data} for one in tables], indent=1) + "\n")


if __name__ == "__main__":
    main()
