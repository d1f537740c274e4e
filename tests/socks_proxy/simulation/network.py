"""A network in memory: sockets as a kernel has them, and wires between them that delay, split, stall and reset.

What Linux does is done here too, where a program could be led astray by it: an error is told once, by whichever
call comes first, and after it a socket reads as if it had ended; a close with unread data resets; what arrives at
a closed socket is answered by a reset.

Time is that of the event loop. One task, `Network.run`, does what is due; everything else is a plain call.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import math
import os
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

import anyio
from anyio import ClosedResourceError
from anyio.lowlevel import checkpoint

from .weather import FOR_EVER, Course, Storm, Weather, weather

Target: TypeAlias = tuple[str, int]

# To whom the sockets belong that are made here.
OWNER: ContextVar[str] = ContextVar("OWNER", default="nobody")
_ABORT = struct.pack("ii", 1, 0)


# Of sockets that do not listen.
ANYWHERE = "10.9.9.9"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Wire:
    """One direction of a connection: what is on its way to `sink`, in order."""

    def __init__(self, network: Network, course: Course, name: str) -> None:
        self.network = network
        self.course = course
        self.name = name
        self.sink: Socket
        self.connection: Connection
        self._sent = 0
        self._afloat = 0
        self._last = 0.0
        """When the last of what is on its way arrives."""
        self._age = 0
        """What was sent before a reset is lost, and known by its age."""
        self._aborted = False

    @property
    def room(self) -> int:
        return self.course.capacity - self._afloat - len(self.sink.inbox)

    def send(self, data: bytes | memoryview) -> int:
        """Take what there is room for; how much that was."""
        size = max(0, min(len(data), self.room))
        if size:
            self.network.note(self.name, f"sends {size}")
        start = 0
        for end in self.course.cuts(size):
            self._post(bytes(data[start:end]))
            start = end
        return size

    def _post(self, piece: bytes) -> None:
        course = self.course
        if self._sent + len(piece) > course.stall_at:
            self.network.note(self.name, f"stalls for {course.stall:g} s")
            self._last, course.stall_at = self.network.now() + course.delay() + course.stall, FOR_EVER
        if self._sent + len(piece) > course.reset_at:
            piece, course.reset_at = piece[: int(course.reset_at) - self._sent], FOR_EVER
            self._at_its_turn(self.connection.reset)
        self._sent += len(piece)
        self._afloat += len(piece)
        self._at_its_turn(self._arrive, piece)

    def finish(self) -> None:
        """Nothing more comes."""
        self.network.note(self.name, "FIN")
        self._at_its_turn(self._arrive_end)

    def abort(self) -> None:
        """What is on its way is lost, and the sink is told."""
        if not self._aborted:
            self._aborted = True
            self.network.note(self.name, "RST")
            self._age += 1
            self._at_its_turn(self._arrive_reset)

    def establish(self) -> None:
        """The last part of the handshake: the sink may be accepted."""
        self._at_its_turn(self._arrive_handshake)

    def forget(self) -> None:
        """Let nothing through any more."""
        self._age += 1
        self._last = FOR_EVER

    @property
    def dead(self) -> bool:
        return self._last == FOR_EVER

    def _at_its_turn(self, call: Callable[..., None], *args: Any) -> None:
        self._last = max(self._last, self.network.now() + self.course.delay())
        if not self.dead:
            self.network.at(self._last, self._if_not_lost, self._age, call, args)

    def _if_not_lost(self, age: int, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if age == self._age:
            call(*args)

    def _arrive(self, piece: bytes) -> None:
        self._afloat -= len(piece)
        if piece:
            self.network.note(self.name, f"brings {len(piece)}")
            self.sink.arrive(piece)

    def _arrive_handshake(self) -> None:
        self.sink.become_acceptable()

    def _arrive_end(self) -> None:
        self.network.note(self.name, "brings the end")
        self.sink.arrive_end()

    def _arrive_reset(self) -> None:
        self.network.note(self.name, "brings a reset")
        self.sink.arrive_reset()


class Connection:
    """Two sockets, and the wires between them."""

    def __init__(
        self, network: Network, number: int, leg: str, conditions: Weather, ends: tuple[Socket, Socket]
    ) -> None:
        self.network = network
        self.number = number
        self.leg = leg
        self.conditions = conditions
        self.ends = near, far = ends
        self.there = Wire(network, conditions.there, f"{leg} {number} there")
        self.back = Wire(network, conditions.back, f"{leg} {number} back")
        self.there.sink, self.back.sink = far, near
        near.outgoing, near.incoming, far.outgoing, far.incoming = self.there, self.back, self.back, self.there
        self.there.connection = self.back.connection = near.connection = far.connection = self
        for after, call in ((conditions.reset_after, self.reset), (conditions.forgotten_after, self.forget)):
            if after < FOR_EVER:
                network.at(network.now() + after, self._unless_calm, call)

    def _unless_calm(self, call: Callable[[], None]) -> None:
        if self.network.storm is not None:
            call()

    def reset(self) -> None:
        """Both sides see a reset."""
        self.network.note(f"{self.leg} {self.number}", "is reset")
        for end in self.ends:
            end.arrive_reset()

    def forget(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        if not self.dead:
            self.network.note(f"{self.leg} {self.number}", "is forgotten")
        self.there.forget()
        self.back.forget()

    @property
    def dead(self) -> bool:
        """Whether a direction lets nothing through for ever."""
        return self.there.dead or self.back.dead


class Socket:
    """What `socket.socket` offers, as far as wspool uses it."""

    def __init__(self, network: Network, family: int = socket.AF_INET, owner: str | None = None) -> None:
        self.network = network
        self.family = socket.AddressFamily(family)
        self.owner = OWNER.get() if owner is None else owner
        self.name: Target = (ANYWHERE, next(network.ports))
        self.peer: Target | None = None
        self.connection: Connection | None = None
        self.outgoing: Wire
        self.incoming: Wire
        self.inbox = bytearray()
        self.queue: deque[Socket] | None = None
        """Of connections to accept, once it listens."""
        self.listener: Socket | None = None
        """Where it is to be accepted, while it is not."""
        self.established = False
        self.ended = False
        """They have said all."""
        self.broken = False
        self.closed = False
        self._in_vain: set[str] = set()
        """What is waited for by those who were told that it is being closed."""
        self._error = 0
        self._shut = False
        self._aborts = False
        self._waiting: dict[str, anyio.Event] = {}
        network.sockets[self] = None

    # --- what the network does to it --------------------------------------------------------------------

    def arrive(self, piece: bytes) -> None:
        if self.closed:
            self.outgoing.abort()
        elif not self.broken:
            self.inbox += piece
            self._wake("read")

    def arrive_end(self) -> None:
        self.ended = not self.broken
        self._wake("read")

    def arrive_reset(self) -> None:
        if not self.broken:
            self.fail(errno.EPIPE if self.ended else errno.ECONNRESET)
            if not self.ended and self.connection is not None and self.connection.conditions.forgets_unread:
                self.inbox.clear()

    def fail(self, number: int) -> None:
        self._error, self.broken = number, True
        self._wake("read", "write")

    def establish(self) -> None:
        """They have answered. Nobody may be there any more to hear it."""
        if self.closed:
            self.outgoing.abort()
        else:
            self.established = True
            self.outgoing.establish()
            self._wake("write")

    def become_acceptable(self) -> None:
        listener, self.listener = self.listener, None
        if listener is None or listener.queue is None or listener.closed:
            self.abort()
        else:
            self.established = True
            listener.queue.append(self)
            listener._wake("read")

    # --- what a program asks of it ----------------------------------------------------------------------

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._check_open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._aborts = value == _ABORT

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        number, self._error = self._error, 0
        return number

    def getsockname(self) -> Target:
        self._check_open()
        return self.name

    def getpeername(self) -> Target:
        if self.peer is None or not self.established:
            raise _error(errno.ENOTCONN)
        return self.peer

    def fileno(self) -> int:
        return -1 if self.closed else self.name[1]

    def connect_ex(self, target: Target) -> int:
        self.peer = target
        self.network.connect(self, target)
        return errno.EINPROGRESS

    def accept(self) -> tuple[Socket, Target]:
        self._check_open()
        if not self.queue:
            raise BlockingIOError
        accepted = self.queue.popleft()
        accepted.owner = self.owner
        return accepted, accepted.getpeername()

    def recv(self, max_bytes: int) -> bytes:
        self._check_open()
        if self.inbox:
            data = bytes(self.inbox[:max_bytes])
            del self.inbox[:max_bytes]
            self.connection_end.make_room()
            return data
        if self.ended:
            return b""
        self._raise_error()
        if self.broken:
            return b""
        raise BlockingIOError

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes | memoryview) -> int:
        self._check_open()
        self._raise_error()
        if self.broken or self._shut:
            raise _error(errno.EPIPE)
        sent = self.outgoing.send(data)
        if not sent and len(data):
            raise BlockingIOError
        return sent

    def shutdown(self, how: int) -> None:
        self._check_open()
        assert how == socket.SHUT_WR
        if self.broken:
            raise _error(errno.ENOTCONN)
        if not self._shut:
            self._shut = True
            self.outgoing.finish()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.network.sockets.pop(self)
        for waiting in self.queue or ():
            waiting.abort()
        if self.established and self.connection is not None and not self.broken:
            if self._aborts or self.inbox:
                self.outgoing.abort()
            elif not self._shut:
                self.outgoing.finish()

    def abort(self) -> None:
        """Nobody has accepted it, and nobody will."""
        self._aborts = True
        self.close()

    # --- waiting ----------------------------------------------------------------------------------------

    def is_readable(self) -> bool:
        return bool(self.inbox or self.ended or self.broken or self.queue)

    def is_writable(self) -> bool:
        return self.broken or (self.established and self.outgoing.room > 0)

    def make_room(self) -> None:
        self._wake("write")

    def notify_closing(self) -> None:
        """Who waits now, waits in vain."""
        self._in_vain.update(self._waiting)
        self._wake("read", "write")

    async def wait(self, what: str, is_ready: Callable[[], bool]) -> None:
        """As `anyio.wait_readable` and `anyio.wait_writable`."""
        if is_ready():
            await checkpoint()
        while not is_ready():
            assert what not in self._waiting, "one task may wait for it"
            event = self._waiting[what] = anyio.Event()
            try:
                await event.wait()
            finally:
                self._waiting.pop(what, None)
                is_in_vain = what in self._in_vain
                self._in_vain.discard(what)
            if is_in_vain:
                raise ClosedResourceError

    # --- small parts ------------------------------------------------------------------------------------

    @property
    def connection_end(self) -> Socket:
        """The far one."""
        assert self.connection is not None
        near, far = self.connection.ends
        return far if self is near else near

    def _wake(self, *whats: str) -> None:
        for what in whats:
            event = self._waiting.get(what)
            if event is not None:
                event.set()

    def _check_open(self) -> None:
        if self.closed:
            raise _error(errno.EBADF)

    def __repr__(self) -> str:
        connection = self.connection
        over = "unconnected" if connection is None else f"{connection.leg} {connection.number}"
        return f"<Socket of {self.owner}, {over}, {'closed' if self.closed else 'open'}>"

    def _raise_error(self) -> None:
        number, self._error = self._error, 0
        if number:
            raise _error(number)


@dataclass
class Network:
    """All sockets, and what is to happen when."""

    seed: int
    now: Callable[[], float]
    storm: Storm | None = None
    sockets: dict[Socket, None] = field(default_factory=dict)
    """Those that are open, in their order."""
    connections: list[Connection] = field(default_factory=list)
    listeners: dict[Target, Socket] = field(default_factory=dict)
    answers: dict[Target, str] = field(default_factory=dict)
    """How a target answers that does not say "yes" to everybody."""
    asked: dict[Target, list[str]] = field(default_factory=dict)
    """What became of the requests for connections to each target."""
    requests: Counter[str] = field(default_factory=Counter)
    """How many connections were asked for on each leg."""
    killed: set[str] = field(default_factory=set)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The addresses of hosts."""
    legs: dict[str, str] = field(default_factory=dict)
    """What a connection to this host is called."""
    trace: list[tuple[float, str, str]] = field(default_factory=list)
    ports: itertools.count[int] = field(default_factory=lambda: itertools.count(10000))
    _due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _earlier: anyio.Event = field(default_factory=anyio.Event)

    def note(self, who: str, what: str) -> None:
        """For the trace."""
        self.trace.append((self.now(), who, what))

    def lines(self) -> list[str]:
        """The trace, to be read."""
        return [f"{when:10.4f}  {who:20}  {what}" for when, who, what in self.trace]

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Make a call at that time, after all that were asked for before at the same."""
        if not self._due or when < self._due[0][0]:
            self._earlier.set()
        heapq.heappush(self._due, (when, next(self._order), call, args))

    async def run(self) -> None:
        while True:
            while self._due and self._due[0][0] <= self.now():
                _, _, call, args = heapq.heappop(self._due)
                call(*args)
            self._earlier = anyio.Event()
            with anyio.CancelScope(deadline=self._due[0][0] if self._due else math.inf):
                await self._earlier.wait()

    def calm_down(self) -> None:
        """From now on nothing goes wrong. What is dead stays dead."""
        self.note("network", "calms down")
        self.storm = None
        for connection in self.connections:
            connection.conditions.improve()

    def forget(self, leg: str) -> None:
        """Nothing gets through the connections of this leg any more; new ones work."""
        for connection in self.connections:
            if connection.leg == leg:
                connection.forget()

    # --- hosts ------------------------------------------------------------------------------------------

    def listen(self, target: Target) -> Socket:
        sock = Socket(self)
        sock.name, sock.queue = target, deque()
        self.listeners[target] = sock
        return sock

    def sockets_of(self, owner: str) -> list[Socket]:
        return [each for each in self.sockets if each.owner == owner]

    def kill(self, owner: str) -> None:
        """A process dies: the kernel closes its sockets."""
        self.note(owner, "is killed")
        self.killed.add(owner)
        for sock in self.sockets_of(owner):
            sock.close()

    def cut_off(self, owner: str) -> None:
        """A machine loses its power: nobody is told."""
        self.note(owner, "has no power")
        for connection in self.connections:
            if owner in [end.owner for end in connection.ends]:
                connection.forget()
        self.kill(owner)

    async def look_up(self, host: str, port: int) -> list[tuple[int, int, int, str, Target]]:
        """As `socket.getaddrinfo`."""
        await checkpoint()
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in self.names[host]]
        return [(family, socket.SOCK_STREAM, 0, "", (address, port)) for family, address in families]

    # --- connecting -------------------------------------------------------------------------------------

    def connect(self, sock: Socket, target: Target) -> None:
        """A request for a connection goes out."""
        leg = self.legs.get(target[0], "destination")
        self.requests[leg] += 1
        number = self.requests[leg]
        conditions = weather(Random(f"{self.seed} {leg} {number}"), self.storm, leg)
        self.note(f"{leg} {number}", f"{sock.owner} asks for {target[0]}:{target[1]}")
        self.at(self.now() + conditions.there.delay(), self._ask, sock, target, leg, number, conditions)

    def _ask(self, sock: Socket, target: Target, leg: str, number: int, conditions: Weather) -> None:
        if sock.closed:
            return
        if self.storm is None:
            conditions.improve()
        listener = self.listeners.get(target)
        answer = self.answers.get(target, "yes") if conditions.answer == "yes" else conditions.answer
        if answer == "yes" and (listener is None or listener.closed):
            answer = "refused"
        self.asked.setdefault(target, []).append(answer)
        self.note(f"{leg} {number}", f"is answered {answer}")
        answers = self.now() + conditions.back.delay()
        if answer == "yes" and listener is not None:
            far = Socket(self, sock.family, "a kernel")
            far.name, far.peer, far.listener = target, sock.name, listener
            self.connections.append(Connection(self, number, leg, conditions, (sock, far)))
            self.at(answers, sock.establish)
        elif answer != "silence":
            self.at(answers, sock.fail, errno.ECONNREFUSED if answer == "refused" else errno.EHOSTUNREACH)
