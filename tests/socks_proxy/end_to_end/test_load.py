"""Load on both ends as processes: a thousand sessions, thousands of aborts, signals under load, a server that stops."""

from __future__ import annotations

import os
import re
import resource
import selectors
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from socketserver import BaseRequestHandler

import pytest

from examples.socks_proxy.codes import Code
from tests.socks_proxy.end_to_end import raw_socks
from tests.socks_proxy.end_to_end.conftest import Launcher
from tests.socks_proxy.end_to_end.content import BLOCK, content
from tests.socks_proxy.end_to_end.origins import Origin, serving
from tests.socks_proxy.end_to_end.programs import LIMIT, Program, port_of, wait_until

MIB = 1 << 20
SESSIONS = 1000
ABORTS = 2000
# All tunnels are opened at once, perhaps on a machine that does much else.
PATIENT = ("--connect-timeout", str(LIMIT))
# What a session takes of each process, in descriptors: two of the client, two of the server; and some for itself.
DESCRIPTORS = 2 * SESSIONS + 200


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """As many as are needed, here and in the programs that inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"{DESCRIPTORS} descriptors are needed, and the hard limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- what can be seen of a process ------------------------------------------------------------------------------


class Footprint:
    """What both processes hold; the base is measured while a session runs, so none is needed to come back to it."""

    def __init__(self, *programs: Program) -> None:
        self._programs = programs
        self._base = self._descriptors()
        self._memory = self._resident()

    def _descriptors(self) -> list[int]:
        return [len(os.listdir(f"/proc/{program.process.pid}/fd")) for program in self._programs]

    def _resident(self) -> list[int]:
        status = [Path(f"/proc/{program.process.pid}/status").read_text() for program in self._programs]
        return [int(re.findall(r"VmRSS:\s+(\d+) kB", each)[0]) * 1024 for each in status]

    def check_back_at_base(self, memory: int) -> None:
        """No descriptor more than at the base, and in memory not more than that above it."""
        wait_until(
            lambda: all(now <= base for now, base in zip(self._descriptors(), self._base, strict=True)),
            lambda: f"descriptors: {self._descriptors()}, and at first {self._base}",
        )
        grown = [now - base for now, base in zip(self._resident(), self._memory, strict=True)]
        assert max(grown) <= memory, f"client and server have grown by {grown} bytes"


@contextmanager
def warm_proxy(launcher: Launcher, echo: Origin) -> Generator[tuple[int, Footprint], None, None]:
    """The port of a client that keeps few idle tunnels, and what it and its server hold with one session."""
    token = ("--token-file", launcher.token_file)
    # A thousand handshakes of TLS take longer than all the rest.
    server = launcher.start("server", "--listen", "127.0.0.1:0", "--plain", "--allow-private", *token)
    few = ("--min-idle", "1", "--max-idle", "1")
    client = launcher.start("client", "--listen", "127.0.0.1:0", "--server", server.ready("ws"), *few, *PATIENT, *token)
    proxy = port_of(client.ready("socks5"))
    for _ in range(20):
        check_echo(proxy, echo)
    with raw_socks.connect(proxy, "127.0.0.1", echo.port):
        footprint = Footprint(client, server)
    yield proxy, footprint
    check_echo(proxy, echo)


def check_echo(proxy: int, echo: Origin) -> None:
    with raw_socks.connect(proxy, "127.0.0.1", echo.port) as stream:
        stream.sendall(b"hello")
        assert raw_socks.receive_exactly(stream, 5) == b"hello"


def many(proxy: int, port: int, count: int, stack: ExitStack) -> list[socket.socket]:
    """Sessions at once."""
    with ThreadPoolExecutor(100) as threads:
        return list(
            threads.map(lambda _: stack.enter_context(raw_socks.connect(proxy, "127.0.0.1", port)), range(count))
        )


# --- load -------------------------------------------------------------------------------------------------------


def test_a_thousand_sessions_at_once_all_carry_data_and_leave_nothing(launcher: Launcher, echo: Origin) -> None:
    with warm_proxy(launcher, echo) as (proxy, footprint):
        with ExitStack() as stack:
            streams = many(proxy, echo.port, SESSIONS, stack)
            for size in (1, 10_000):
                data = [content(size - 1) + bytes([number % 256]) for number in range(SESSIONS)]
                for stream, each in zip(streams, data, strict=True):
                    stream.sendall(each)
                for stream, each in zip(streams, data, strict=True):
                    assert raw_socks.receive_exactly(stream, size) == each
        # What a thousand sessions take is not given back to the system at once: 57 MiB were measured.
        footprint.check_back_at_base(memory=100 * MIB)


def test_two_thousand_connections_that_are_aborted_anywhere_leave_nothing(launcher: Launcher, echo: Origin) -> None:
    request = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", echo.port) + b"data"
    with warm_proxy(launcher, echo) as (proxy, footprint):
        for size in islice(cycle(range(len(request) + 1)), ABORTS):
            stream = socket.create_connection(("127.0.0.1", proxy), LIMIT)
            stream.sendall(request[:size])
            abort(stream)
        # 0.4 MiB were measured; 10 KiB that each of them left would be 20.
        footprint.check_back_at_base(memory=10 * MIB)


def test_a_client_with_few_descriptors_serves_a_crowd_that_has_to_wait(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server("--allow-private")
    launcher.open_files = 60
    client, proxy = launcher.client(url)
    with ThreadPoolExecutor(30) as threads:
        list(threads.map(lambda _: check_echo(proxy, echo), range(60)))
    assert "60 open files (ulimit -n) are enough for 15 tunnels: --max-size is as many" in client.said()


def test_idle_tunnels_leave_descriptors_for_destinations_to_a_server_with_few(launcher: Launcher, echo: Origin) -> None:
    launcher.open_files = 60
    server, url = launcher.server("--allow-private")
    launcher.open_files = None
    _, proxy = launcher.client(url)
    everybody = threading.Barrier(60)

    def come(_: int) -> None:
        with ExitStack() as stack:
            with suppress(OSError, AssertionError):  # some are refused, for want of a tunnel
                stack.enter_context(raw_socks.connect(proxy, "127.0.0.1", echo.port))
            everybody.wait(LIMIT)

    with ThreadPoolExecutor(60) as threads:
        list(threads.map(come, range(60)))
    check_echo(proxy, echo)
    assert "60 open files (ulimit -n) are enough for 15 tunnels: --max-connections is as many" in server.said()
    assert "Too many open files" not in server.said()


def abort(stream: socket.socket) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


# --- signals under load -----------------------------------------------------------------------------------------


class Flood(BaseRequestHandler):
    """Speaks for ever."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        while True:
            connection.sendall(bytes(BLOCK))


@pytest.fixture(scope="module")
def flood() -> Iterator[Origin]:
    server = Origin(Flood)
    with serving(server):
        yield server


def endings(streams: list[socket.socket], begun: Callable[[], None]) -> list[str]:
    """Read them all until they end, and say how each did; `begun` is called once all of them carry data."""
    how: dict[socket.socket, str] = {}
    carrying: set[socket.socket] = set()
    deadline = time.monotonic() + LIMIT
    with selectors.DefaultSelector() as selector:
        for each in streams:
            each.setblocking(False)
            selector.register(each, selectors.EVENT_READ)
        while len(how) < len(streams):
            assert time.monotonic() < deadline, f"only {len(how)} of {len(streams)} have ended"
            for key, _ in selector.select(1):
                assert isinstance(key.fileobj, socket.socket)
                stream = key.fileobj
                try:
                    data = stream.recv(BLOCK)
                except ConnectionResetError:
                    how[stream] = "reset"
                else:
                    how |= {} if data else {stream: "end"}
                if stream in how:
                    selector.unregister(stream)
                elif stream not in carrying:
                    carrying.add(stream)
                    if len(carrying) == len(streams):
                        begun()
    return [how[stream] for stream in streams]


@pytest.mark.parametrize("which", ["client", "server"])
def test_sessions_that_do_not_finish_within_the_grace_are_reset(which: str, launcher: Launcher, flood: Origin) -> None:
    server, url = launcher.server("--allow-private", "--grace", "0.5")
    client, proxy = launcher.client(url, "--grace", "0.5")
    program = client if which == "client" else server
    with ExitStack() as stack:
        streams = many(proxy, flood.port, 50, stack)
        # The applications see that this was not all.
        assert endings(streams, lambda: program.signal(signal.SIGTERM)) == ["reset"] * 50
        assert program.wait() == 0


def test_a_second_signal_ends_a_client_under_load_at_once(launcher: Launcher, flood: Origin) -> None:
    _, url = launcher.server("--allow-private")
    client, proxy = launcher.client(url, "--grace", "100000")

    def twice() -> None:
        client.signal(signal.SIGTERM)
        wait_until(lambda: "a second signal ends at once" in client.said(), client.said)
        client.signal(signal.SIGTERM)

    with ExitStack() as stack:
        streams = many(proxy, flood.port, 50, stack)
        # Nobody is left who could say how it ended: the system says it, by what it had not sent yet.
        assert len(endings(streams, twice)) == 50
        assert client.wait() == 128 + signal.SIGTERM


# --- a server that stops ----------------------------------------------------------------------------------------


def test_while_the_server_is_stopped_sessions_are_refused_in_time_and_afterwards_all_works(
    launcher: Launcher, echo: Origin
) -> None:
    server, url = launcher.server("--allow-private")
    client, proxy = launcher.client(url, "--min-idle", "2", "--max-idle", "2", "--connect-timeout", "2")
    with raw_socks.connect(proxy, "127.0.0.1", echo.port) as running:
        check_echo(proxy, echo)
        server.signal(signal.SIGSTOP)
        try:
            running.sendall(b"patience")
            # With the time for an answer: 2 s for the dial, 5 for it to be told, and 4 to close that tunnel.
            codes = replies(proxy, echo, 5)
            assert codes <= {Code.TTL_EXPIRED, Code.GENERAL_FAILURE}
            # By now an idle tunnel has been silent for more than 5 s: it is asked whether it is alive.
            assert replies(proxy, echo, 2) <= {Code.TTL_EXPIRED, Code.GENERAL_FAILURE}
        finally:
            server.signal(signal.SIGCONT)
        # It was never told of anything.
        assert raw_socks.receive_exactly(running, 8) == b"patience"
    check_echo(proxy, echo)
    assert "Traceback" not in client.said()


def replies(proxy: int, echo: Origin, count: int) -> set[int]:
    """The codes of so many sessions that are asked for at once; each must come within 20 seconds."""
    began = time.monotonic()
    with ThreadPoolExecutor(count) as threads:
        codes = set(threads.map(lambda _: raw_socks.reply_to(proxy, "127.0.0.1", echo.port).code, range(count)))
    assert time.monotonic() - began < 20
    return codes
