"""A small world round a tunnel: both ends, the link between them, and local sides that do what they like.

Its moves are the facts that a real shell could report. After each it checks what must hold, from the
outside: it keeps its own books of what was said and heard, and never asks the machines about them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, TypeAlias

from examples.socks_proxy.addresses import Address
from examples.socks_proxy.codes import Code
from examples.socks_proxy.effects import (
    AbortLocal,
    CancelDial,
    CloseTunnel,
    Deliver,
    Effect,
    EndLocal,
    Send,
    SessionOpened,
    SessionRefused,
    StartDial,
)
from examples.socks_proxy.packets import Data, Packet
from examples.socks_proxy.session import ClientTunnel, End, ServerTunnel, TunnelState

Move: TypeAlias = tuple[str, ...]

TARGET = Address(IPv4Address("192.0.2.1"), 80)
NOW = 0.0


@dataclass
class Local:
    """The local side of one end in one session: an application, or a destination."""

    said: list[bytes] = field(default_factory=list)
    """What went out as DATA."""
    heard: list[bytes] = field(default_factory=list)
    state: str = "none"
    """none, there, refused, or gone (aborted by whomever)."""
    has_ended: bool = False
    """It has said all."""
    heard_end: bool = False
    told: int = 0
    """How often it was told of the dial: at most once."""

    @property
    def is_there(self) -> bool:
        return self.state == "there"


@dataclass(frozen=True)
class Bounds:
    """How large the world is."""

    sessions: int
    up: int = 1
    """Items of data that the client's side says in a session."""
    down: int = 1
    goaway: bool = False
    losses: bool = False
    """The tunnel may be lost."""
    late_dials: bool = False
    """A cancelled dial may run on, and even succeed."""


def _essence(end: ClientTunnel | ServerTunnel) -> list[str]:
    """What can matter later: most of what a session leaves behind cannot, once it is over."""
    whole = vars(end)
    if end.is_idle:
        whole = {name: whole[name] for name in ("session", "got", "opening", "going_away", "closed", "_late_reset")}
    return [repr(value) for value in whole.values()]


class World:
    """Both ends, joined without loss and in order."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.client, self.server = ClientTunnel(NOW), ServerTunnel(NOW)
        self.up: deque[Packet] = deque()
        self.down: deque[Packet] = deque()
        self.applications: dict[int, Local] = {}
        self.destinations: dict[int, Local] = {}
        self.dials: dict[int, str] = {}
        """Those that run: wanted, or cancelled, which may yet succeed."""
        self.lost = False
        self.transitions: set[tuple[str, str]] = set()

    def key(self) -> bytes:
        ends = [_essence(end) for end in (self.client, self.server)]
        books = [sorted(self.applications.items()), sorted(self.destinations.items()), sorted(self.dials.items())]
        return repr((ends, self.up, self.down, books, self.lost)).encode()

    # --- moves ----------------------------------------------------------------------------------

    def moves(self) -> Iterator[Move]:
        if self.lost:
            return
        if self.client.is_reusable(NOW) and self.client.session < self.bounds.sessions:
            yield ("open",)
        if self.up:
            yield ("up arrives",)
        if self.down:
            yield ("down arrives",)
        yield from self._local_moves("application", self.applications.get(self.client.session), self.bounds.up)
        yield from self._local_moves("destination", self.destinations.get(self.server.session), self.bounds.down)
        for session, what in self.dials.items():
            yield ("dial succeeds", str(session))
            yield ("dial fails" if what == "wanted" else "dial ends", str(session))
        if self.server.opening:
            yield ("server gives up",)
        if self.bounds.goaway and not self.server.going_away:
            yield ("server goes away",)
        if self.bounds.losses:
            yield ("lost",)

    def _local_moves(self, who: str, local: Local | None, items: int) -> Iterator[Move]:
        if local is None or not local.is_there:
            return
        if not local.has_ended:
            yield (who, "ends")
            if len(local.said) < items:
                yield (who, "speaks")
        yield (who, "aborts")

    def do(self, move: Move) -> None:
        before = self._states()
        match move:
            case ("open",):
                effects = self.client.open(TARGET, now=NOW)
                self.applications[self.client.session] = Local(state="there")
                self._run("client", effects)
            case ("up arrives",):
                self._hand_over("server", self.server, self.up.popleft())
            case ("down arrives",):
                self._hand_over("client", self.client, self.down.popleft())
            case ("application" | "destination" as who, what):
                self._local_fact(who, what)
            case ("dial succeeds" | "dial fails" | "dial ends" as what, session):
                self._dial_fact(what, int(session))
            case ("server gives up",):
                self._run("server", self.server.local_abort(self.server.session, Code.TIMED_OUT, now=NOW))
            case ("server goes away",):
                self._run("server", self.server.go_away(Code.GOING_AWAY, 1000))
            case ("lost",):
                self.lost = True
                self._run("client", self.client.tunnel_lost("gone"))
                self._run("server", self.server.tunnel_lost("gone"))
            case _:
                raise AssertionError(f"no such move: {move}")
        self.transitions |= {pair for pair in zip(before, self._states(), strict=True) if pair[0] != pair[1]}
        self.check()
        self._forget()

    def _states(self) -> list[str]:
        ends = (self.client, self.server)
        return [
            *(f"TunnelState.{end.state.name}" for end in ends),
            *(f"End.{one.name}" for end in ends for one in (end.sent, end.got)),
        ]

    def _hand_over(self, name: str, end: ClientTunnel | ServerTunnel, packet: Packet) -> None:
        if isinstance(packet, Data) and end.takes_data(packet.session):
            # The shell does not tell the machine of it: so nothing else may come of it.
            told = deepcopy(end)
            assert told.receive(packet, NOW) == [Deliver(packet.session, packet.payload)], (
                "payload that goes straight on"
            )
            assert vars(told) == vars(end), "payload that goes straight on changes nothing"
        self._run(name, end.receive(packet, NOW))

    def _local_fact(self, who: str, what: str) -> None:
        end, name, books = (
            (self.client, "client", self.applications)
            if who == "application"
            else (self.server, "server", self.destinations)
        )
        session = end.session
        local = books[session]
        if what == "speaks":
            item = f"{who} {session}.{len(local.said)};".encode()
            effects = end.local_data(session, item)
            assert bool(effects) == end.may_send, "what may be sent is sent"
            if effects:
                local.said.append(item)
            else:
                local.has_ended = True  # nobody wants to hear it: the shell reads no more
        elif what == "ends":
            local.has_ended = True
            effects = end.local_end(session)
        else:
            local.state = "gone"
            effects = end.local_abort(session, Code.LOCAL_CLIENT_GONE, now=NOW)
        self._run(name, effects)

    def _dial_fact(self, what: str, session: int) -> None:
        wanted = self.dials.pop(session) == "wanted"
        if what == "dial succeeds":
            self.destinations[session] = Local(state="there")
            self._run("server", self.server.dial_succeeded(session, 5, TARGET))
            assert self.destinations[session].is_there == wanted, "a dial that nobody wants is aborted"
        else:
            effects = self.server.dial_failed(session, Code.CONNECTION_REFUSED, now=NOW)
            assert bool(effects) == wanted
            self._run("server", effects)

    def _forget(self) -> None:
        """Sessions that are over at both ends no longer matter, unless a dial of theirs runs."""
        over = min(self.client.session, self.server.session)
        for books in (self.applications, self.destinations):
            for session in [one for one in books if one < over and one not in self.dials]:
                del books[session]

    # --- effects --------------------------------------------------------------------------------

    def _run(self, end: str, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(packet):
                    (self.up if end == "client" else self.down).append(packet)
                case StartDial(request):
                    assert request.session not in self.dials, "one dial a session"
                    assert request.address == TARGET
                    assert not self.server.going_away, "a dial after GOAWAY"
                    self.dials[request.session] = "wanted"
                case CancelDial(session):
                    assert self.dials[session] == "wanted", "cancelled twice"
                    self.dials[session] = "cancelled"
                    if not self.bounds.late_dials:
                        del self.dials[session]
                case CloseTunnel():
                    raise AssertionError(f"{end} closes the tunnel of two honest ends: {effect.reason}")
                case _:
                    self._run_local(self.applications if end == "client" else self.destinations, effect)

    def _run_local(self, books: dict[int, Local], effect: Any) -> None:
        local = books[effect.session]
        assert local.is_there, f"{effect} for a local side that is {local.state}"
        match effect:
            case Deliver(_, payload):
                assert not local.heard_end, "data after the end"
                # Several may have been joined on their way.
                local.heard += bytes(payload).replace(b";", b";\n").splitlines()
            case EndLocal():
                assert not local.heard_end, "ended twice"
                local.heard_end = True
            case AbortLocal():
                local.state = "gone"
            case SessionOpened():
                local.told += 1
            case SessionRefused(_, _, _, retry_is_safe):
                assert not local.heard, "refused after it has heard something"
                assert not retry_is_safe or not local.said, "data may have reached somebody"
                local.state = "refused"
                local.told += 1
            case _:
                raise AssertionError(f"an effect of the other end: {effect}")
        assert local.told <= 1, "told twice"

    # --- what must hold -------------------------------------------------------------------------

    def check(self) -> None:
        for session in {*self.applications, *self.destinations}:
            self._check_session(session)
        self._check_stale_facts()
        if self.lost:
            locals_ = (self.applications.get(self.client.session), self.destinations.get(self.server.session))
            ends = (self.client, self.server)
            for local, end in zip(locals_, ends, strict=True):
                assert local is None or not local.is_there or end.is_idle, "a session outlives its tunnel"
            assert "wanted" not in self.dials.values(), "a dial outlives its tunnel"
        elif not self.up and not self.down:
            self._check_quiet()

    def _check_session(self, session: int) -> None:
        application = self.applications.get(session, Local())
        destination = self.destinations.get(session, Local())
        for one, other in ((application, destination), (destination, application)):
            assert one.heard == other.said[: len(one.heard)], "what is heard is what was said, in its session and order"
            # A side that reset may have been told to stop before it said all; one that ended has said it.
            assert not one.heard_end or one.heard == other.said, "an end before all was delivered"

    def _check_stale_facts(self) -> None:
        for end in (self.client, self.server):
            for stale in (end.session - 1, end.session + 1):
                assert end.local_data(stale, b"stale") == []
                assert end.local_end(stale) == []
                assert end.local_abort(stale, Code.CANCELLED, now=NOW) == []
            if not end.may_send:
                assert end.local_data(end.session, b"too late") == []
                assert end.local_end(end.session) == []
        for stale in (self.server.session - 1, self.server.session + 1):
            assert self.server.dial_failed(stale, Code.TIMED_OUT, now=NOW) == []

    def _check_quiet(self) -> None:
        """Nothing is on its way: both ends see the same."""
        client, server = self.client, self.server
        assert client.session == server.session
        assert client.is_idle == server.is_idle, "both ends agree when the tunnel is reusable"
        assert client.going_away == server.going_away
        for sent, got in ((client.sent, server.got), (server.sent, client.got)):
            assert got is sent, f"{sent.name} was sent, {got.name} was got"
        # Nobody drains without end: who has cut off has heard the other's end by now.
        assert TunnelState.DRAINING not in (client.state, server.state), "an end is owed and does not come"
        session = client.session
        if not session:
            return
        application = self.applications[session]
        destination = self.destinations.get(session, Local())
        assert client.opening == server.opening == (self.dials.get(session) == "wanted")
        for one, other in ((application, destination), (destination, application)):
            if one.is_there and other.has_ended and other.state != "gone" and not server.opening:
                assert one.heard_end, "an end that does not arrive"
        if client.is_idle:
            ends = (client.sent, client.got)
            if End.RESET not in ends:
                assert application.heard_end
                assert destination.heard_end
            else:
                assert not (application.is_there and destination.is_there), "a reset that nobody sees"
            assert self.dials.get(session) != "wanted"

    def prove_recovery(self) -> None:
        """From here, when all local sides come to their ends, the tunnel becomes idle and serves again."""
        if self.lost:
            return
        self._finish()
        assert self.client.is_idle
        assert self.server.is_idle
        if self.client.going_away:
            return
        self.do(("open",))
        self.do(("application", "speaks"))
        self._arrive()
        self.do(("dial succeeds", str(self.server.session)))
        self.do(("destination", "speaks"))
        self._arrive()
        assert self.applications[self.client.session].heard == self.destinations[self.client.session].said != []
        assert self.destinations[self.client.session].heard == self.applications[self.client.session].said != []
        self._finish()
        assert self.client.is_reusable(NOW)

    def _finish(self) -> None:
        self._arrive()
        for session in [one for one, what in self.dials.items() if what == "wanted"]:
            self.do(("dial succeeds", str(session)))
        for who, books, end in (
            ("application", self.applications, self.client),
            ("destination", self.destinations, self.server),
        ):
            local = books.get(end.session)
            if local is not None and local.is_there and not local.has_ended:
                self.do((who, "ends"))
        self._arrive()

    def _arrive(self) -> None:
        while self.up or self.down:
            self.do(("up arrives",) if self.up else ("down arrives",))
