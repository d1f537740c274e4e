"""A real browser at the other end: headless Chromium, with a page and a websocket from one port of ours."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from anyio import EndOfStream
from anyio.abc import ByteStream, SocketAttribute
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.websocket.conftest import Certificates
from wspool.websocket import (
    Accept,
    ConnectTimeout,
    Request,
    Response,
    TLSStream,
    UpgradeFailed,
    WebSocketClosed,
    WebSocketConnection,
    WebSocketStream,
    accept_websocket,
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine"
)

# A browser that has not finished by then never will; on a quiet machine it takes 2 s.
LIMIT = 90

# What would talk to other hosts is off, and no name but the loopback address is resolved.
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

TEXTS = ["", "grüße", "€uro 🎈 " * 20_000]
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, (3 << 20) + 1]

# It tells what it saw by one last request. Whatever goes wrong in it is told the same way.
PAGE = """<!DOCTYPE html>
<title>wspool</title>
<script>
const told = {};
const base = location.origin.replace(/^http/, "ws");

function opened(path, protocols) {
  const socket = new WebSocket(base + path, protocols);
  socket.binaryType = "arraybuffer";
  socket.waiting = [];
  socket.onmessage = event => socket.waiting.shift()(event.data);
  socket.closed = new Promise(tell => socket.onclose = e => tell([e.code, e.reason, e.wasClean]));
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(path + " failed"));
  });
}

const next = socket => new Promise(resolve => socket.waiting.push(resolve));

function bytes(size) {
  const made = new Uint8Array(size);
  for (let at = 0; at < size; at++) made[at] = (at * 31 + (at >> 8)) & 255;
  return made;
}

const same = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

async function echoes() {
  const socket = await opened("/echo", ["chat.v2", "chat.v1"]);
  told.protocol = socket.protocol;
  told.extensions = socket.extensions;
  told.texts = [];
  for (const text of TEXTS) {
    const answer = next(socket);
    socket.send(text);
    told.texts.push(await answer === text);
  }
  told.sizes = [];
  for (const size of SIZES) {
    const sent = bytes(size), answer = next(socket);
    socket.send(sent);
    told.sizes.push(same(sent, new Uint8Array(await answer)));
  }
  socket.close(1000, "that was all");
  told.close = await socket.closed;
}

async function stream() {
  const socket = await opened("/stream");
  const sent = bytes(200000);
  let came = 0, right = true;
  const whole = new Promise(resolve => socket.onmessage = event => {
    const part = new Uint8Array(event.data);
    right = right && same(part, sent.subarray(came, came + part.length));
    came += part.length;
    if (came === sent.length) resolve();
  });
  for (let at = 0; at < sent.length; at += 1000) socket.send(sent.subarray(at, at + 1000));
  await whole;
  told.stream = right;
  socket.close(1000);
  told.stream_close = await socket.closed;
}

async function run() {
  await echoes();
  await stream();
  told.server_close = await (await opened("/leave")).closed;
  told.refused = await opened("/refused").catch(error => error.message);
}

run().catch(error => told.error = String(error))
  .then(() => fetch("/result?" + encodeURIComponent(JSON.stringify(told))));
</script>
""".replace("TEXTS", json.dumps(TEXTS)).replace("SIZES", json.dumps(SIZES))


class Site:
    """Page, websockets and result, all at one port."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self.result: dict[str, Any] = {}
        self.closes: list[BaseException | None] = []
        self.done = anyio.Event()

    def decide(self, request: Request) -> Accept | Response | None:
        self.requests[request.path] = request
        if request.path in ("/echo", "/stream", "/leave"):
            return None
        if request.path == "/":
            return Response(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE.encode())
        if request.path == "/result":
            self.result = json.loads(unquote(request.query))
            self.done.set()
            return Response(204)
        return Response(404)  # /refused, and the icon that browsers ask for

    async def serve(self, stream: ByteStream, context: ssl.SSLContext | None) -> None:
        paths: list[str] = []

        def decide(request: Request) -> Accept | Response | None:
            paths.append(request.path)
            return self.decide(request)

        try:
            if context is not None:
                stream = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            connection = await accept_websocket(stream, decide, subprotocols=["chat.v1"], upgrade_timeout=LIMIT)
        # Browsers also open connections just in case, and leave them.
        except (UpgradeFailed, ConnectTimeout, ssl.SSLError, anyio.BrokenResourceError, EndOfStream):
            return
        async with connection:
            await self.talk(connection, paths[0])

    async def talk(self, connection: WebSocketConnection, path: str) -> None:
        if path == "/leave":
            await connection.aclose(4001, "enough for today")
            return
        end = WebSocketStream(connection) if path == "/stream" else connection
        try:
            while True:
                received: Any = await end.receive()
                await end.send(received)
        except EndOfStream as error:
            self.closes.append(error.__cause__)


@contextmanager
def browser(url: str, directory: Path, *flags: str) -> Generator[None, None, None]:
    """Chromium at that page, with a profile of its own, in a process group that does not outlive the block."""
    assert CHROMIUM is not None
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root it refuses to start with one
    command = [CHROMIUM, *FLAGS, *root, *flags, f"--user-data-dir={directory / 'profile'}", url]
    environment = {**os.environ, "HOME": str(directory), "TMPDIR": str(directory)}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def trust(certificates: Certificates) -> str:
    """The flag with which it accepts our server's key, though it does not know who signed it."""
    (pem, *_) = certificates.server.cert_chain_pems
    key = x509.load_pem_x509_certificate(pem.bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"


async def visited(context: ssl.SSLContext | None, directory: Path, *flags: str) -> Site:
    """What the site knows after a browser has run its page."""
    site = Site()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, lambda stream: site.serve(stream, context))
        port = listener.extra(SocketAttribute.local_port)
        url = f"{'https' if context else 'http'}://127.0.0.1:{port}/"
        with browser(url, directory, *flags), anyio.move_on_after(LIMIT):
            await site.done.wait()
        tasks.cancel_scope.cancel()
    assert site.result, (directory / "log").read_text(errors="replace")
    return site


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
async def test_a_page_in_chromium_exchanges_messages_and_bytes_with_our_server(
    tls: bool, certificates: Certificates, server_context: ssl.SSLContext, tmp_path: Path
) -> None:
    flags = [trust(certificates)] if tls else []
    site = await visited(server_context if tls else None, tmp_path, *flags)
    assert site.result == {
        "protocol": "chat.v1",
        "extensions": "",
        "texts": [True] * len(TEXTS),
        "sizes": [True] * len(SIZES),
        "close": [1000, "", True],  # our answer repeats the code
        "stream": True,
        "stream_close": [1000, "", True],
        "server_close": [4001, "enough for today", True],
        "refused": "/refused failed",
    }
    first, second = (close for close in site.closes if isinstance(close, WebSocketClosed))
    assert (first.code, first.reason) == (1000, "that was all")
    assert (second.code, second.reason) == (1000, "")
    headers = dict(site.requests["/echo"].headers)
    # It offers compression, and does without.
    assert b"permessage-deflate" in headers[b"sec-websocket-extensions"]
    assert headers[b"origin"].decode().endswith(site.requests["/"].host)
