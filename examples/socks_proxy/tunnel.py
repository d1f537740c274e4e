"""SHELL. One end of a tunnel: its websocket, its session machine, and the session that runs on it.

One task reads the tunnel (`run`) and writes what comes to the local side, so that a local side that does not
accept it stops the reading, and with it the far end. What is said goes out in the order of the facts that
made it, whichever task sends it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
from anyio import EndOfStream

from wspool.websocket import WebSocketConnection, WebSocketSettings, WriteLock

from .codes import CloseCode, Code
from .effects import (
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
from .liveness import Liveness, Verdict, reuse_patience
from .packets import MAX_MESSAGE, Data, Fin, Open, Packet, PacketError, PacketReader, Pong, encode
from .relay import GONE, STALL_TIMEOUT, Session
from .session import MAX_AGE, ClientTunnel, ServerTunnel

StartDialling: TypeAlias = Callable[["Tunnel", Open], Awaitable[None]]
_Rare: TypeAlias = EndLocal | AbortLocal | SessionOpened | SessionRefused | CancelDial
_Other: TypeAlias = Deliver | _Rare | StartDial | CloseTunnel

# Keepalive is the tunnel's own: a ping of the protocol below would say nothing about the other end's machine.
WEBSOCKET_SETTINGS = WebSocketSettings(
    max_frame_size=MAX_MESSAGE, max_message_size=MAX_MESSAGE, ping_interval=None, close_timeout=2.0
)
# While a session runs, an end that has said nothing for so long says that it is there: the far end may hear nothing
# else for long, as its pings lie behind all the data that this end's slow sink has not taken. Below CLIENT_PING_AFTER.
_HEARTBEAT = 15.0
# So many packets may wait to be sent. An honest far end reads before it asks for so much; one that only asks
# would have this one keep it all.
_MAX_UNSENT = 64
# A FIN that waits for the next OPEN is to go out before the tunnel is closed, if it is taken so soon.
_LAST_WORDS = 1.0
# A pong that nobody has asked for; pings count from 1.
_SIGN_OF_LIFE = Send(Pong(bytes(8)))


def varied(seconds: float) -> float:
    """10 % more or less, so that tunnels opened together do not act together."""
    return seconds * random.uniform(0.9, 1.1)


def new_machine(kind: type[ClientTunnel | ServerTunnel]) -> ClientTunnel | ServerTunnel:
    """A session machine whose age begins now."""
    return kind(time.monotonic(), max_age=varied(MAX_AGE))


class Tunnel:
    """One end. A `wspool.Poolable`: reusable between sessions only."""

    __slots__ = (
        "_acting",
        "_dial",
        "_idle_timeout",
        "_is_server",
        "_last_said",
        "_outbox",
        "_reader",
        "_room",
        "_sending",
        "_session",
        "_ticking",
        "liveness",
        "lost",
        "machine",
        "sessions",
        "websocket",
    )

    def __init__(
        self,
        websocket: WebSocketConnection,
        machine: ClientTunnel | ServerTunnel,
        *,
        ping_after: float,
        idle_timeout: float,
        dial: StartDialling | None = None,
    ) -> None:
        self.websocket = websocket
        self.machine = machine
        self.liveness = Liveness(time.monotonic(), ping_after=varied(ping_after))
        self.sessions = 0
        """How many have begun."""
        self.lost = ""
        """Why it cannot be used any more."""
        self._idle_timeout = idle_timeout
        self._dial = dial
        self._is_server = dial is not None
        self._reader = PacketReader()
        self._session: Session | None = None
        self._room: anyio.Event | None = None
        """Set when whoever reads the tunnel may go on."""
        self._ticking = False
        self._acting = 0
        """How many have something to tell the local side yet."""
        self._outbox: list[bytes] = []
        """Packets that the machine has made, in its order."""
        self._sending = WriteLock()
        self._last_said = time.monotonic()

    def is_reusable(self) -> bool:
        """Whether the next session may begin."""
        return self.may_begin(time.monotonic())

    def may_begin(self, now: float) -> bool:
        """As `is_reusable`, at a time that was looked up already."""
        return not self.lost and self._session is None and self.machine.is_reusable(now)

    # --- the session that runs --------------------------------------------------------------------------

    def begin(self, session: Session) -> None:
        """This session runs here from now on, with the machine's number."""
        if self._session is not None:
            # Over for the machine, and given up, but the last write to its local side has not noticed that yet.
            self._session.finish()
        session.tunnel, session.number = self, self.machine.session
        session.last_active = time.monotonic()
        self._session = session
        self.sessions += 1

    def runs(self, session: Session) -> bool:
        """Whether that session has not ended here."""
        return self._session is session

    async def idle(self) -> None:
        """Wait until no session runs."""
        session = self._session
        if session is not None:
            await session.until(lambda: session.over)

    def let_go(self, session: Session) -> None:
        """It could not begin here, and is tried elsewhere: it is not over when it is over here."""
        if self.runs(session):
            self._session = None

    def go_on(self, session: Session) -> None:
        """What had to reach the local side first has reached it."""
        session.held = False
        self._settle()
        self._make_room()

    async def flush(self) -> None:
        """Wait until all has been sent."""
        async with self._sending:
            pass

    def _settle(self) -> None:
        """Let go of a session that is over."""
        session = self._session
        # Not before its local side has been told all, perhaps that it was cut off; until then its time limits hold.
        if session is None or self._acting or session.held:
            return
        if self.machine.is_idle or self.machine.closed:
            self._session = None
            session.finish()

    # --- what the machine wants to be done --------------------------------------------------------------

    async def say(self, effects: list[Effect]) -> None:
        """Run effects, at once after the fact. Their packets go out first, in one write.

        Only data waits for what is being sent already, so that whoever reads the tunnel never waits for its writer.
        """
        # The effects are this one's, though it may be settled by another fact while the packets go out.
        session = self._session
        # Not `list[Packet]()`: that raises, and swallows, an AttributeError.
        packets: list[Packet] = []
        others: list[_Other] = []
        for effect in effects:
            if isinstance(effect, Send):
                packets.append(effect.packet)
            else:
                others.append(effect)
        if others:
            self._acting += 1
        try:
            if packets and not self.lost:
                self._outbox += map(encode, packets)
                if self._cannot_wait(packets):
                    await self._send_all()
            for effect in others:
                await self._do(effect, session)
        finally:
            if others:
                self._acting -= 1
            if self._session is not None:
                self._settle()
        if self._room is not None:
            self._make_room()

    def _cannot_wait(self, packets: list[Packet]) -> bool:
        if self._sending.locked:  # whoever sends already takes it along
            return any(isinstance(packet, Data) for packet in packets)
        # With the end of its own, a client's session is over: the next OPEN takes that along (protocol rule 9).
        return self._is_server or not self.machine.is_idle or not isinstance(packets[-1], Fin) or len(packets) > 1

    async def _send_all(self) -> None:
        """Send the outbox, with what other tasks have put there: the order is that of the facts."""
        try:
            if self._sending.locked:
                await self._sending.acquire()
            else:
                self._sending.locked = True
            try:
                while self._outbox:
                    packets, self._outbox = self._outbox, []
                    await self.websocket.send_many(packets)
                    self._last_said = time.monotonic()
            finally:
                self._sending.release()
        except GONE as error:
            await self.lose(f"sending failed: {error}")
        except BaseException:
            # What was taken out of the outbox is lost, whether a part of it went out or nothing.
            self.lost = self.lost or "a send was cut off"
            raise

    async def _do(self, effect: _Other, session: Session | None) -> None:
        match effect:
            case StartDial(request):
                assert self._dial is not None, "only a server's machine says this"
                await self._dial(self, request)
            case CloseTunnel(close_code, reason):
                self.lost = self.lost or reason
                await self.websocket.aclose(close_code, reason)
            case _:
                if session is None or session.number != effect.session:
                    return
                if isinstance(effect, Deliver):
                    await self._deliver(session, effect.payload)
                else:
                    await self._do_locally(effect, session)

    async def _do_locally(self, effect: _Rare, session: Session) -> None:
        match effect:
            case EndLocal():
                if session.local is not None:
                    await session.end()
            case AbortLocal(_, code, text):
                session.failed(code, text)
                session.abort()
            case SessionOpened():
                session.answer_by = session.ask_at = None
                if session.on_opened is not None:
                    await session.on_opened(effect)
            case SessionRefused():
                session.refuse(effect)
            case CancelDial():
                if session.dial_scope is not None:
                    session.dial_scope.cancel()

    async def _deliver(self, session: Session, payload: bytes | memoryview) -> None:
        sent = session.deliver_nowait(payload)
        if sent < len(payload) and session.local is not None:
            await self._deliver_slowly(session, payload[sent:])

    async def _deliver_slowly(self, session: Session, payload: bytes | memoryview) -> None:
        """Meanwhile the tunnel is not read, and the session's time limits hold."""
        self._acting += 1
        self.liveness.stop_reading(time.monotonic())
        try:
            await session.deliver(payload)
        finally:
            self.liveness.go_on_reading(time.monotonic())
            self._acting -= 1
            self._settle()

    # --- reading ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read the tunnel until it ends. Nothing that happens to it is raised."""
        try:
            while True:
                part = await self.websocket.receive_part()
                now = time.monotonic()
                self.liveness.heard(now)
                if isinstance(part.data, str):
                    raise PacketError("a text message", CloseCode.UNSUPPORTED_DATA)
                packet = self._reader.feed(part.data, part.finished)
                if isinstance(packet, Data) and (session := self._taker(packet.session)) is not None:
                    payload = packet.payload
                    sent = session.deliver_nowait(payload)
                    if sent < len(payload):
                        await self._deliver_slowly(session, payload[sent:])
                    del payload, session
                elif packet is not None:
                    if not self.machine.wants_packets or (self._session is not None and self._session.held):
                        await self._wait_for_room()
                    await self.say(self.machine.receive(packet, now))
                    if len(self._outbox) > _MAX_UNSENT:
                        raise PacketError("it asks for ever more and reads nothing", CloseCode.POLICY_VIOLATION)
                # Payload: it is not to be kept for as long as nothing comes.
                del part, packet
        except PacketError as error:
            await self.say(self.machine.close(error.close_code, str(error)))
        except EndOfStream:
            await self.lose("the far end has closed it")
        except GONE as error:
            await self.lose(str(error) or "it was closed")
        finally:
            # Even when cancelled: whoever runs a session here waits to be told.
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self.websocket)
                await self.lose("it is not read any more")

    def _taker(self, number: int) -> Session | None:
        """Who takes payload of that session as it comes, if that is all that comes of it."""
        session = self._session
        if session is None or session.held or session.number != number or not self.machine.takes_data(number):
            return None
        return session

    async def _wait_for_room(self) -> None:
        """Early data is kept up to a limit: then the dial has to end, and what was kept to go out."""
        while not self.machine.wants_packets or (self._session is not None and self._session.held):
            self._room = anyio.Event()
            self.liveness.stop_reading(time.monotonic())
            await self._room.wait()
            self.liveness.go_on_reading(time.monotonic())

    def _make_room(self) -> None:
        """Whoever waits for it looks again."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def lose(self, reason: str) -> None:
        """The websocket has ended: so does the session, if one runs. The first reason is the true one."""
        self.lost = self.lost or reason
        await self.say(self.machine.tunnel_lost(self.lost))

    # --- time, and the end ------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Whether `tick` would do something, and is not at it already."""
        if self.lost:
            return False
        deadlines = [self.machine.next_deadline]
        if self._outbox and not self._sending.locked:
            deadlines.append(now)
        session = self._session
        if session is not None:
            if not self._sending.locked:
                deadlines.append(self._last_said + _HEARTBEAT)
            if not session.given_up:
                deadlines += [session.last_active + self._idle_timeout, session.stalled_until]
                deadlines += [session.ask_at, session.answer_by]
        due = any(deadline is not None and deadline <= now for deadline in deadlines)
        silence = self.liveness.next_deadline
        return (due and not self._ticking) or (silence is not None and silence <= now)

    async def tick(self, now: float) -> None:
        """Look at the clock: silence, budgets, and sessions in which nothing happens any more."""
        verdict = self.liveness.expire(now)
        if verdict is Verdict.DEAD:
            self.lost = self.lost or "no byte came after a ping"
            # First, as a sender may be blocked on it.
            await anyio.aclose_forcefully(self.websocket)
            await self.lose(self.lost)
        elif not self._ticking:
            self._ticking = True
            try:
                await self._tick(now, ping=verdict is Verdict.PING)
            finally:
                self._ticking = False

    async def _tick(self, now: float, *, ping: bool) -> None:
        if self._outbox and not self._sending.locked:
            await self._send_all()
        await self.say(self.machine.expire(now))
        if ping:
            await self.say(self.machine.ping(now))
        elif self._session is not None and self._last_said + _HEARTBEAT <= now and not self._sending.locked:
            # What is being sent already, and is not taken, will say as much.
            await self.say([_SIGN_OF_LIFE])
        await self._tick_session(now)

    async def _tick_session(self, now: float) -> None:
        session = self._session
        if session is None or session.given_up:
            return
        if session.ask_at is not None and session.ask_at <= now:
            session.ask_at = None
            await self.say(self.ask(now))
        elif session.answer_by is not None and session.answer_by <= now:
            session.answer_by = None
            effects = self.machine.local_abort(session.number, Code.TIMED_OUT, "no answer", now=now)
            text = "the server did not answer"
            session.refuse(SessionRefused(session.number, Code.TIMED_OUT, text, retry_is_safe=False))
            await self.say(effects)
        elif session.stalled_until is not None and session.stalled_until <= now:
            await session.give_up(Code.TIMED_OUT, f"it has accepted nothing for {STALL_TIMEOUT:g} s")
        elif now - session.last_active >= self._idle_timeout:
            await session.give_up(Code.IDLE_TOO_LONG, f"nothing has happened for {self._idle_timeout:g} s")

    def ask(self, now: float) -> list[Effect]:
        """A PING beside an OPEN or after it: if nothing is heard for a few round trips, the tunnel is dead."""
        self.liveness.pinged(now, reuse_patience(self.machine.round_trip))
        return self.machine.ping(now)

    async def aclose(self) -> None:
        """Close it: the pool does not need it any more."""
        may_speak = not self.lost
        self.lost = self.lost or "it was closed"
        try:
            if self._outbox and may_speak:
                with anyio.move_on_after(_LAST_WORDS):
                    await self._send_all()
            await self.say(self.machine.close(CloseCode.DONE, "done"))
        finally:
            await anyio.aclose_forcefully(self.websocket)

    def __repr__(self) -> str:
        return f"<Tunnel, {self.machine!r}{f', lost: {self.lost}' if self.lost else ''}>"
