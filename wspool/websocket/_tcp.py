"""SHELL. TCP on plain non-blocking sockets: a socket is asked first, and waited for only if it has nothing to give.

In place of `anyio.connect_tcp` and `anyio.create_tcp_listener`, with the same typed attributes, on every backend.
What differs (figures in docs/decisions):

- no transport of asyncio's in between: no reading ahead, no copies, no two changes of epoll's list around each wait;
- a turn for the other tasks is given when the socket makes us wait, and once in some operations, not for each.
"""

from __future__ import annotations

import errno
import itertools
import logging
import math
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import anyio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import Listener, SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from anyio.streams.stapled import MultiListener

from ._http import check_kind, check_port
from ._scratch import scratch
from ._turns import take_turn, turn, turn_is_due, work
from ._waits import Waits, waits_for

_logger = logging.getLogger(__name__)

Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]

# RFC 8305 section 5.
_ATTEMPT_DELAY = 0.25
# Out of descriptors or memory: connections wait in the kernel's queue meanwhile. As trio's serve_listeners.
_EXHAUSTED_DELAY = 0.1
# It may last for hours, and who looks into the log is to find other lines as well.
_EXHAUSTED_WARNINGS = 60.0
# Linux tells of what has happened to that connection already (accept(2)).
_OF_ONE_CONNECTION = frozenset(
    ("ECONNABORTED", "EPROTO", "ENOPROTOOPT", "ENETDOWN", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "ENETUNREACH")
)
# What a connect says that is not at its end.
_UNDER_WAY = frozenset((errno.EINPROGRESS, errno.EWOULDBLOCK))
# The listening socket itself is at fault.
_UNUSABLE = frozenset((errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP))


class TCPStream(SocketStream):
    """A connected socket as a byte stream. Made by `connect_tcp` and `TCPListener`, or of any stream socket.

    One task may send and one may receive at a time. A cancelled receive loses nothing; a send that is cancelled may
    have sent a part. The typed attributes are those of `anyio.abc.SocketAttribute`.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            pass  # it is no TCP; or on macOS the far end is gone already, which is for the first use to say
        self._socket = sock
        self._waits = waits_for(sock, self._read)
        self._wanted = 0
        """The most bytes that the receive that waits can return."""
        self._drained = False
        """There is no use in asking it again: a wait will tell."""
        self._sink: Callable[[memoryview], object] | None = None
        self._sending = False
        self._closed = False

    async def _connect(self, target: tuple[Any, ...]) -> None:
        code = self._socket.connect_ex(target)
        if code in _UNDER_WAY and not self._is_connected():
            await self._waits.writable()
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code and code not in _UNDER_WAY:
            raise OSError(code, os.strerror(code))

    def _is_connected(self) -> bool:
        """On the same machine a connection is there at once, though the kernel does not say so."""
        try:
            self._socket.getpeername()
        except OSError:
            return False
        return True

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what has arrived, at least one byte and at most `max_bytes`.

        Raises:
            EndOfStream: The far end has finished sending.
            BrokenResourceError: The connection broke.
            ClosedResourceError: This stream was closed, perhaps meanwhile.
            BusyResourceError: Another task is receiving.
            ValueError: `max_bytes` is less than 1.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        await take_turn()
        return await self.receive_on(max_bytes)

    def receive_on(self, max_bytes: int) -> Awaitable[bytes]:
        """As `receive`, for one who has just taken a turn, or will. To be awaited at once."""
        if not self._drained or self._waits.kept is not None:
            data = self.receive_nowait(max_bytes)
            if data is not None:
                return _at_hand(data)
        elif self._waits.reading:
            raise BusyResourceError("receiving from")
        self._wanted = max_bytes
        # No coroutine of its own, which would take a quarter of a KiB for as long as nothing comes.
        return self._waits.read()

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """Return what has arrived, or None if nothing has. Raises as `receive` does."""
        if self._waits.reading:
            raise BusyResourceError("receiving from")
        if self._closed:
            raise ClosedResourceError
        self._wanted = max_bytes
        data = self._read() if self._waits.kept is None else self._waits.read_nowait()
        return data if data is None or len(data) <= max_bytes else self._cut(data)

    def interrupt(self) -> None:
        """Have the receive that waits return an empty string, if one waits. Nothing is lost."""
        self._waits.interrupt()

    def _cut(self, data: bytes) -> bytes:
        """What was kept for a cancelled receive may be more than the next one asks for."""
        self._waits.kept = data[self._wanted :]
        return data[: self._wanted]

    def _read(self) -> bytes | None:
        self._drained = False
        sink = self._sink
        try:
            if sink is None:
                data = self._socket.recv(self._wanted)
                size = len(data)
            else:
                buffer = scratch()
                data, size = b"", self._socket.recv_into(buffer)
                if size:
                    sink(buffer[:size])
        except BlockingIOError:
            self._drained = True
            return None
        except OSError as error:
            raise self._failed(error) from error
        if not size:
            raise EndOfStream
        self._drained = size < self._wanted and self._waits.tells_all
        work.moved += size
        return data

    def pour_into(self, sink: Callable[[memoryview], object]) -> None:
        """From now on what is received goes to the sink, up to 256 KiB at a time; a receive returns an empty string.

        For a stream on top of this one, with a buffer of its own: what the sink is given is valid within the call only.
        """
        self._sink = sink
        kept = self._waits.kept
        if isinstance(kept, bytes):  # for a cancelled receive
            sink(memoryview(kept))
            self._waits.kept = b""

    async def send(self, item: bytes | bytearray | memoryview) -> None:
        """Send all of `item`; return when the kernel has taken it.

        Raises:
            BrokenResourceError: The connection broke, or this end has sent its end of file.
            ClosedResourceError: This stream was closed, perhaps meanwhile.
            BusyResourceError: Another task is sending.
        """
        await take_turn()
        with memoryview(item) as view, view.cast("B") as data:
            sent = self.send_nowait(data)
            while sent < len(data):
                self._sending = True
                try:
                    await self._waits.writable()
                finally:
                    self._sending = False
                sent += self.send_nowait(data[sent:])

    def send_nowait(self, item: bytes | memoryview) -> int:
        """Send what the kernel takes at once, and return how many bytes that was, perhaps none.

        Raises as `send` does.
        """
        if self._sending:
            raise BusyResourceError("sending to")
        if self._closed:
            raise ClosedResourceError
        try:
            sent = self._socket.send(item)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._failed(error) from error
        work.moved += sent
        return sent

    @staticmethod
    def _failed(error: OSError) -> BrokenResourceError:
        return BrokenResourceError(f"the TCP connection broke: {error.strerror or error}")

    async def send_eof(self) -> None:
        """Finish sending (FIN); receiving goes on. What breaks here is told by the next receive."""
        await checkpoint_if_cancelled()
        self.send_eof_nowait()

    def send_eof_nowait(self) -> None:
        """As `send_eof`, which never has to wait."""
        if self._closed:
            raise ClosedResourceError
        if self._sending:
            raise BusyResourceError("sending to")
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket; who sends or receives in another task gets ClosedResourceError. May be repeated."""
        self._closed = True
        self._waits.close()

    async def aclose(self) -> None:
        """As `close`, and a checkpoint."""
        self.close()
        await checkpoint()

    @property
    def raw_socket(self) -> socket.socket:
        """For its options and addresses."""
        return self._socket

    @property
    def _raw_socket(self) -> socket.socket:
        return self._socket


async def _at_hand(data: bytes) -> bytes:
    return data


# --- connecting ---------------------------------------------------------------------------------------------


async def connect_tcp(host: str, port: int) -> TCPStream:
    """Connect to a host, by all of its addresses (RFC 8305): IPv6 and IPv4 in turn, 250 ms apart.

    Raises:
        OSError: The name has no address, or none of them answered. Of several reasons, the cause is an
            ExceptionGroup with each of them.
        ValueError: The port is wrong; TypeError alike.
    """
    await checkpoint_if_cancelled()
    return await connect_any(await resolve(host, port))


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the order in which to try them; `socket.gaierror` if there are none."""
    check_kind("host", host, str, "a string")
    check_port(port, least=1)
    found: Any
    try:
        # An address needs no thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):  # Python itself knows only the IDNA of 2003; anyio that of 2008
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name of a host: {error}") from error
    return _in_turn([(family, address) for family, _, _, _, address in found])


def _in_turn(addresses: Iterable[Address]) -> list[Address]:
    """Change families after each address; the first family is the resolver's choice (RFC 8305 section 4)."""
    families: dict[socket.AddressFamily, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    rounds = itertools.zip_longest(*families.values())
    return [address for one in rounds for address in one if address is not None]


async def connect_any(addresses: Sequence[Address]) -> TCPStream:
    """Connect to the first of the addresses that answers; for `OSError`, see `connect_tcp`.

    Cancellation leaves no socket behind. A connection that is there at once, as on the same machine, comes without a
    look for one.
    """
    if not addresses:
        raise ValueError("addresses must be one at least, got none")
    if len(addresses) == 1:
        return await _connect(addresses[0])
    made: list[TCPStream] = []
    errors: list[OSError] = []

    async def attempt(address: Address, failed: anyio.Event) -> None:
        try:
            made.append(await _connect(address))
            attempts.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
            failed.set()

    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed)
                with anyio.move_on_after(_ATTEMPT_DELAY):
                    await failed.wait()
        if made:
            return made.pop()
    finally:
        for loser in made:
            loser.close()
    raise OSError("all attempts to connect failed") from ExceptionGroup("each address", errors)


async def _connect(address: Address) -> TCPStream:
    family, target = address
    if turn_is_due():  # on the same machine nothing has to be waited for
        await turn()
    stream = TCPStream(socket.socket(family, socket.SOCK_STREAM))
    try:
        await stream._connect(target)
    except BaseException:
        stream.close()
        raise
    return stream


# --- listening ----------------------------------------------------------------------------------------------


class Starts(Protocol):
    """What a task group does, as far as it is needed here."""

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> object:
        """Run the function as a task."""
        ...


class TCPListener(Listener[TCPStream]):
    """Accepts connections, on one or more sockets. Made by `listen_tcp`."""

    def __init__(self, bound: MultiListener[SocketStream]) -> None:
        """Take over listening sockets of anyio's."""
        self._bound = bound
        self._waits: list[Waits[socket.socket]] = []
        self._warned_at = -math.inf
        for listener in bound.listeners:
            sock: socket.socket = listener.extra(SocketAttribute.raw_socket)
            self._waits.append(waits_for(sock, partial(_accept, sock)))
        self._closed = False

    async def serve(self, handler: Callable[[TCPStream], Any], task_group: Starts | None = None) -> None:
        """Accept for ever, and start `handler` for each connection, in `task_group` or in one of its own.

        A lack of descriptors or memory is waited out, with a warning in the log, once a minute at most. What a handler
        raises ends it all.

        Raises:
            ExceptionGroup: With a ClosedResourceError, when this listener was closed, perhaps meanwhile; or with an
                OSError of a socket that accepts no more.
        """
        async with anyio.create_task_group() as own:
            for waits in self._waits:
                own.start_soon(self._accept_all, waits, handler, task_group or own)

    async def _accept_all(
        self, waits: Waits[socket.socket], handler: Callable[[TCPStream], Any], handlers: Starts
    ) -> None:
        await checkpoint_if_cancelled()
        while not self._closed:
            if turn_is_due():
                await turn()
            try:
                accepted = waits.read_nowait() or await waits.read()
            except OSError as error:
                await self._refused(error)
            else:
                handlers.start_soon(handler, TCPStream(accepted))
        raise ClosedResourceError

    async def _refused(self, error: OSError) -> None:
        """What an accept has raised: of the listener, of the machine, or of that one connection (accept(2))."""
        if error.errno in _UNUSABLE:
            if not self._closed:
                raise error
        elif errno.errorcode.get(error.errno or 0) not in _OF_ONE_CONNECTION:
            now, level = anyio.current_time(), logging.DEBUG
            if now - self._warned_at >= _EXHAUSTED_WARNINGS:
                self._warned_at, level = now, logging.WARNING
            _logger.log(level, "no connection can be accepted, tried again every %g s: %s", _EXHAUSTED_DELAY, error)
            await anyio.sleep(_EXHAUSTED_DELAY)

    async def aclose(self) -> None:
        """Stop listening; what has been accepted goes on. May be repeated."""
        self._closed = True
        for waits in self._waits:
            waits.close()
            # Accepted in this moment, and in nobody's hands yet.
            accepted, waits.kept = waits.kept, None
            if accepted is not None and not isinstance(accepted, Exception):
                accepted.close()
        await self._bound.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the first socket: `anyio.abc.SocketAttribute`."""
        return self._bound.extra_attributes


def _accept(listening: socket.socket) -> socket.socket | None:
    try:
        return listening.accept()[0]
    except BlockingIOError:
        return None


async def listen_tcp(
    host: str | None = None, port: int = 0, *, backlog: int = 65536, reuse_port: bool = False
) -> TCPListener:
    """Listen on a host's addresses, by default on all interfaces; on port 0, on a free one.

    Args:
        host: A name or an address.
        port: The same on all addresses.
        backlog: How many connections may wait to be accepted; the system has a limit of its own.
        reuse_port: Whether several processes may listen on the same port.

    Raises:
        OSError: The address is in use, or not one of this machine.
        ValueError: The port is wrong; TypeError alike.
    """
    check_kind("host", host, str | None, "a string or None")
    check_port(port, least=0)
    check_kind("backlog", backlog, int, "a whole number")
    return TCPListener(
        await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=backlog, reuse_port=reuse_port)
    )
