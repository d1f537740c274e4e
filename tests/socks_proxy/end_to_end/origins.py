"""What the proxy's users want to reach: servers in threads, on ports of their own."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn

from tests.socks_proxy.end_to_end.content import BLOCK, blocks, content, digest
from tests.socks_proxy.end_to_end.programs import LIMIT

HALF_CLOSE_ANSWER = 1 << 20


class Origin(ThreadingMixIn, TCPServer):
    """A server with a thread for each connection, which ends with it; nobody waits for these threads."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handler: type[BaseRequestHandler], host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), handler)
        self.host = host
        self.port: int = self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave in the middle are what some tests are about; what they got is checked at their end."""


@contextmanager
def serving(server: Origin) -> Generator[None, None, None]:
    """It answers for as long as the block."""
    # How often it looks whether it should end: what its end takes.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class Gate:
    """Holds answers back in their middle until it is opened, so that sessions run for as long as a test wants."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.open = threading.Event()


class HTTPOrigin(Origin):
    """Answers GET and POST; see HTTPHandler."""

    def __init__(self, handler: type[HTTPHandler], host: str = "127.0.0.1", *, directory: Path | None = None) -> None:
        super().__init__(handler, host)
        self.directory = directory
        self.gates: dict[str, Gate] = {}
        self._names = count()

    @contextmanager
    def gate(self, size: int) -> Generator[Gate, None, None]:
        """A URL whose answer stops in its middle until the gate is opened, or the block ends."""
        name = str(next(self._names))
        gate = self.gates[name] = Gate(f"{self.url}/gated/{name}/{size}")
        try:
            yield gate
        finally:
            gate.open.set()


class HTTPHandler(BaseHTTPRequestHandler):
    """GET /bytes/N, /gated/GATE/N, /files/PATH and /peer; POST answers with the SHA-256 of what came."""

    protocol_version = "HTTP/1.1"
    # In which a connection may be idle.
    timeout = LIMIT

    @property
    def origin(self) -> HTTPOrigin:
        assert isinstance(self.server, HTTPOrigin)
        return self.server

    def do_GET(self) -> None:
        kind, *rest = self.path.partition("?")[0].strip("/").split("/")
        answer = getattr(self, f"get_{kind}", None)
        if answer is None:
            self.send_error(404)
        else:
            answer(*rest)

    def get_bytes(self, size: str) -> None:
        self.answer(blocks(int(size)), int(size))

    def get_gated(self, name: str, size: str) -> None:
        whole = content(int(size))
        self.start_answer(len(whole))
        self.wfile.write(whole[: len(whole) // 2])
        if self.origin.gates[name].open.wait(LIMIT):
            self.wfile.write(whole[len(whole) // 2 :])

    def get_files(self, *path: str) -> None:
        assert self.origin.directory is not None
        file = self.origin.directory.joinpath(*path)
        if ".." in path or not file.is_file():
            self.send_error(404)
        else:
            self.answer([file.read_bytes()], file.stat().st_size)

    def get_peer(self) -> None:
        """Who asks, as this end of the connection sees it."""
        host, port = self.client_address[:2]
        self.answer_text(f"{host} {port}")

    def do_POST(self) -> None:
        sha256, missing = hashlib.sha256(), int(self.headers["Content-Length"])
        while missing and (part := self.rfile.read(min(BLOCK, missing))):
            sha256.update(part)
            missing -= len(part)
        self.answer_text(sha256.hexdigest())

    def answer_text(self, text: str, kind: str = "text/plain") -> None:
        self.answer([text.encode()], len(text.encode()), kind)

    def answer(self, parts: Iterable[bytes], size: int, kind: str = "application/octet-stream") -> None:
        self.start_answer(size, kind)
        for part in parts:
            self.wfile.write(part)

    def start_answer(self, size: int, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        if self.close_connection:
            # Said, or a client sends its next request into the closing connection.
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the standard library
        """Say nothing: what was asked is known to the tests."""


class Echo(BaseRequestHandler):
    """Sends back what comes, until the end of it."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        while part := connection.recv(BLOCK):
            connection.sendall(part)


class HalfClose(BaseRequestHandler):
    """Says nothing until the other end has said everything; then what it got, and HALF_CLOSE_ANSWER bytes."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        sha256 = hashlib.sha256()
        while part := connection.recv(BLOCK):
            sha256.update(part)
        connection.sendall(sha256.hexdigest().encode() + content(HALF_CLOSE_ANSWER))


HALF_CLOSE_TAIL = digest(HALF_CLOSE_ANSWER)


@contextmanager
def closed_port() -> Generator[int, None, None]:
    """A port that refuses connections, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
