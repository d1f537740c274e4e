"""PURE. The session rules of the tunnel protocol `wspool.1`: a machine for each end of a tunnel.

Facts come in as method calls. Each returns the effects to be run, in their order; no effect is undone
by a later fact. Time is an argument, in seconds on any monotonic clock, and the next time to come back is
a property. Bytes, sockets and tasks are somebody else's.

Rules of this file:

1. An end is what finishes a direction: FIN, RESET or REFUSED. The tunnel is idle before the first
   session, and when this end's and the far end's are both out; only then may the next session begin.
2. Facts and effects of the local side name their session. A fact that comes too late, when its session is
   over, does nothing: so nothing of one session reaches the next.
3. Once the local side was aborted, by itself or by an effect, no effect speaks to it any more.
4. What the far end may not do closes the tunnel. What a session may suffer never does, the drain budget apart.
5. After `CloseTunnel` or `tunnel_lost` nothing happens any more.
"""

from __future__ import annotations

from enum import Enum

from .addresses import Address
from .codes import CloseCode, Code, Command
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
from .packets import (
    MAX_DATA_SENT,
    Bound,
    Data,
    Datagram,
    Fin,
    Goaway,
    Open,
    Opened,
    Packet,
    Ping,
    Pong,
    Refused,
    Reset,
)

LAST_SESSION = 65535
DRAIN_BYTES = 1024 * 1024
DRAIN_TIME, DRAIN_ROUND_TRIPS = 2.0, 4
"""Seconds at least, and round trips at least, that the far end has for its end after our RESET."""
EARLY_BYTES = 64 * 1024
"""Of payload that the server keeps while it dials."""
MAX_AGE = 30 * 60.0
"""Seconds in which a tunnel may begin sessions; its owner varies it by 10 %, so that tunnels do not end together."""


class End(Enum):
    """How one direction of a session stands."""

    NONE = "It may still carry data, or no session has begun. Next: FIN, RESET."
    FIN = "It was carried to its end; a RESET after it says: stop sending too. Next: RESET, NONE."
    RESET = "It was cut off, by RESET or REFUSED: nothing more comes, and nothing more is wanted. Next: NONE."


NONE, FIN, RESET = End


class TunnelState(Enum):
    """What a tunnel is doing, for logs and tests."""

    IDLE = "No session has begun, or both ends of the last are out. Next: OPENING, DRAINING, CLOSED."
    OPENING = "The server dials, as far as this end knows. Next: OPEN, DRAINING, IDLE, CLOSED."
    OPEN = "A session runs, perhaps in one direction only. Next: DRAINING, IDLE, CLOSED."
    DRAINING = "This end has cut the session off and drops what still comes, within its budget. Next: IDLE, CLOSED."
    CLOSED = "Nothing more happens on this tunnel."


class _Violation(Exception):
    def __init__(self, reason: str, close_code: CloseCode = CloseCode.WRONG_SESSION) -> None:
        super().__init__(reason)
        self.close_code = close_code


def next_session(session: int) -> int:
    """The number after this one; 0 is the tunnel itself."""
    return session % LAST_SESSION + 1


class _Tunnel:
    """What both ends have in common."""

    def __init__(self, now: float, *, max_age: float = MAX_AGE) -> None:
        self.session = 0
        """The session that runs, or the last one; 0 before the first."""
        self.sent = NONE
        self.got = NONE
        self.is_idle = True
        """Both ends of the last session are out, or there was none. Kept, as each packet asks several times."""
        self.opening = False
        """The session has begun, and the server has not said that it has dialled."""
        self.closed = False
        self.going_away = False
        """One of the ends has said GOAWAY."""
        self.wants_packets = True
        """Whether to read the tunnel, as far as this machine can tell."""
        self.round_trip = 0.0
        """Seconds that the last ping took; 0 before there was one."""
        self._retires_at = now + max_age
        self._local = False
        """The local side is there and wants to hear from us."""
        self._late_reset = 0
        """The session before, if its far end may still have a RESET on the way that crossed our end."""
        self._now = now
        """When the last fact came that has a time."""
        self._drain_left = 0
        self._drain_deadline: float | None = None
        self._pings = 0
        self._pinged_at = now
        self._effects: list[Effect] = []

    # --- what can be asked ----------------------------------------------------------------------

    @property
    def may_send(self) -> bool:
        """Whether local data would go out; if not, it need not be read."""
        return not self.closed and self.session > 0 and self.sent is NONE

    def takes_data(self, session: int) -> bool:
        """Whether of DATA in that session nothing would come but its delivery: then it need not be told of it."""
        if session != self.session or self.opening or self.closed:
            return False
        return self.got is NONE and self.sent is not RESET

    @property
    def next_deadline(self) -> float | None:
        """When to call `expire`; it changes with any fact."""
        return None if self.closed else self._drain_deadline

    @property
    def state(self) -> TunnelState:
        if self.closed:
            return TunnelState.CLOSED
        if self.is_idle:
            return TunnelState.IDLE
        if self.sent is RESET:
            return TunnelState.DRAINING
        return TunnelState.OPENING if self.opening else TunnelState.OPEN

    def is_reusable(self, now: float) -> bool:
        """Whether a session may begin: as far as packets tell, for unread bytes are not seen here."""
        return self.is_idle and not self.closed and not self.going_away and now < self._retires_at

    # --- facts of the local side ----------------------------------------------------------------

    def local_data(self, session: int, payload: bytes | memoryview) -> list[Effect]:
        """The local side has said something, of any size; dropped if nobody wants it any more."""
        if not payload or session != self.session or not self.may_send:
            return []
        if len(payload) <= MAX_DATA_SENT:
            return [Send(Data(session, payload))]
        view = memoryview(payload)  # it is cut without a copy
        return [
            Send(Data(session, view[start : start + MAX_DATA_SENT])) for start in range(0, len(view), MAX_DATA_SENT)
        ]

    def local_end(self, session: int) -> list[Effect]:
        """The local side has said all; it goes on listening."""
        if session == self.session and self.may_send:
            self._set_sent(FIN)
            self._effects.append(Send(Fin(session)))
        return self._take()

    def local_abort(self, session: int, code: int, text: str = "", *, now: float) -> list[Effect]:
        """The local side is gone, or has to go: it neither speaks nor listens any more."""
        self._now = now
        if session == self.session and not self.closed and not self.is_idle:
            self._abort(code, text)
        return self._take()

    def _abort(self, code: int, text: str) -> None:
        self._local = False
        if self.sent is not RESET:
            self._cut_off(Reset(self.session, code, text))

    def _cut_off(self, packet: Reset | Refused) -> None:
        """End our direction, and drop what comes in the other, within the budget (protocol rule 4)."""
        self._set_sent(RESET)
        self._effects.append(Send(packet))
        if self.got is NONE:
            self._drain_left = DRAIN_BYTES
            self._drain_deadline = self._now + max(DRAIN_TIME, DRAIN_ROUND_TRIPS * self.round_trip)

    # --- facts of the tunnel --------------------------------------------------------------------

    def receive(self, packet: Packet, now: float) -> list[Effect]:
        """A packet has come, or a part of DATA."""
        self._now = now
        if not self.closed:
            try:
                self._receive(packet)
            except _Violation as violation:
                self._close(violation.close_code, str(violation))
        return self._take()

    def expire(self, now: float) -> list[Effect]:
        """It is `now`."""
        if self.next_deadline is not None and self.next_deadline <= now:
            self._close(CloseCode.DRAIN_BUDGET_SPENT, "the far end did not end its direction in time")
        return self._take()

    def ping(self, now: float) -> list[Effect]:
        """Ask whether the far end is alive; the answer measures the round trip."""
        if not self.closed:
            self._pings += 1
            self._pinged_at = now
            self._effects.append(Send(Ping(self._pings.to_bytes(8, "big"))))
        return self._take()

    def go_away(self, code: int, grace_ms: int) -> list[Effect]:
        """Let no further session begin."""
        if not self.closed and not self.going_away:
            self._effects.append(Send(Goaway(code, grace_ms)))
            self.going_away = True
        return self._take()

    def tunnel_lost(self, reason: str) -> list[Effect]:
        """The websocket has ended, or a write was cut short, after which no other may follow."""
        if not self.closed:
            self._lose_session(Code.GENERAL_FAILURE, reason)
            self.closed = True
        return self._take()

    def close(self, close_code: CloseCode, reason: str) -> list[Effect]:
        """Close the tunnel, and the session with it: on an error below, or because it is not needed any more."""
        if not self.closed:
            self._close(close_code, reason)
        return self._take()

    def _close(self, close_code: CloseCode, reason: str) -> None:
        self._lose_session(Code.GENERAL_FAILURE, f"the tunnel was closed: {reason}")
        self.closed = True
        self._effects.append(CloseTunnel(close_code, reason))

    def _lose_session(self, code: int, text: str) -> None:
        if not self.is_idle:
            self._abort_local(code, text)

    # --- packets --------------------------------------------------------------------------------

    def _receive(self, packet: Packet) -> None:
        match packet:
            case Data(session, payload):
                self._expect(session, "DATA")
                self._receive_data(payload)
            case Fin(session):
                self._expect(session, "FIN")
                self._receive_fin()
            case Reset():
                self._receive_reset(packet)
            case Ping(nonce):
                self._effects.append(Send(Pong(nonce)))
            case Pong(nonce):
                # Of an older ping it would measure too much.
                if nonce == self._pings.to_bytes(8, "big"):
                    self.round_trip = self._now - self._pinged_at
            case Goaway():
                self.going_away = True
            case Open() | Opened() | Refused() | Bound() | Datagram():
                self._receive_other(packet)

    def _receive_other(self, packet: Packet) -> None:
        """What only one of the ends may send."""
        raise NotImplementedError

    def _misplaced(self, packet: Packet) -> _Violation:
        name = type(packet).__name__.upper()
        return _Violation(f"{name} has no place here: the tunnel is {self.state.name}", CloseCode.PROTOCOL_ERROR)

    def _expect(self, session: int, what: str) -> None:
        if session != self.session:
            raise _Violation(f"{what} of session {session} in session {self.session}")
        if self.got is not NONE:
            raise _Violation(f"{what} after {self.got.name} in session {session}")

    def _receive_data(self, payload: bytes | memoryview) -> None:
        if self.sent is not RESET:
            self._effects.append(Deliver(self.session, payload))
            return
        self._drain_left -= len(payload)
        if self._drain_left < 0:
            reason = f"more than {DRAIN_BYTES} bytes came after session {self.session} was cut off"
            raise _Violation(reason, CloseCode.DRAIN_BUDGET_SPENT)

    def _receive_fin(self) -> None:
        self._set_got(FIN)
        if self.sent is not RESET:
            self._effects.append(EndLocal(self.session))

    def _receive_reset(self, packet: Reset) -> None:
        if packet.session == self._late_reset:
            # It crossed our end, and the next session has begun (protocol rule 7). There is only one.
            self._late_reset = 0
            return
        if packet.session != self.session or self.got is RESET:
            raise _Violation(f"RESET of session {packet.session} in session {self.session}, got {self.got.name}")
        was_idle = self.is_idle
        self._set_got(RESET)
        if was_idle:
            return
        if self.sent is NONE:
            self._set_sent(RESET)
            self._effects.append(Send(Reset(self.session, Code.CANCELLED)))
        self._abort_local(packet.code, packet.text)

    def _set_sent(self, end: End) -> None:
        self.sent = end
        self.is_idle = self.got is not NONE

    def _set_got(self, end: End) -> None:
        self.got = end
        self.is_idle = self.sent is not NONE
        self._drain_deadline = None

    def _abort_local(self, code: int, text: str) -> None:
        if self._local:
            self._local = False
            self._effects.append(AbortLocal(self.session, code, text))

    # --- small parts ----------------------------------------------------------------------------

    def _begin(self, session: int) -> None:
        self._late_reset = self.session if self.got is FIN else 0
        self.session = session
        self.sent = self.got = NONE
        self.is_idle = False
        self.opening = True
        self._local = False

    def _take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def __repr__(self) -> str:
        ends = f"sent {self.sent.name}, got {self.got.name}"
        return f"<{type(self).__name__}, {self.state.name}, session {self.session}, {ends}>"


class ClientTunnel(_Tunnel):
    """The end that opens sessions."""

    def __init__(self, now: float, *, max_age: float = MAX_AGE) -> None:
        super().__init__(now, max_age=max_age)
        self._data_sent = False

    def open(
        self, address: Address, *, command: Command = Command.CONNECT, deadline: int = 0, now: float
    ) -> list[Effect]:
        """Begin a session; data may follow at once. Its number is `session` from now on."""
        if not self.is_reusable(now):
            raise RuntimeError(f"no session can begin on {self!r}")
        self._begin(next_session(self.session))
        self._local = True
        self._data_sent = False
        self._effects.append(Send(Open(self.session, command, address, deadline)))
        return self._take()

    def local_data(self, session: int, payload: bytes | memoryview) -> list[Effect]:
        effects = super().local_data(session, payload)
        self._data_sent |= bool(effects)
        return effects

    def _receive_data(self, payload: bytes | memoryview) -> None:
        self._expect_opened("DATA")
        super()._receive_data(payload)

    def _receive_fin(self) -> None:
        self._expect_opened("FIN")
        super()._receive_fin()

    def _expect_opened(self, what: str) -> None:
        if self.opening:
            raise _Violation(f"{what} before OPENED in session {self.session}")

    def _receive_other(self, packet: Packet) -> None:
        if not isinstance(packet, Opened | Refused):
            raise self._misplaced(packet)
        name = type(packet).__name__.upper()
        self._expect(packet.session, name)
        if not self.opening:
            raise _Violation(f"{name} after OPENED in session {self.session}", CloseCode.PROTOCOL_ERROR)
        if isinstance(packet, Opened):
            self.opening = False
            if self._local:
                self._effects.append(SessionOpened(packet.session, packet.dial_ms, packet.bound))
        else:
            self._receive_refused(packet)

    def _receive_refused(self, packet: Refused) -> None:
        self._set_got(RESET)
        if self.sent is NONE:
            self._set_sent(FIN)
            self._effects.append(Send(Fin(self.session)))
        self._refuse_local(packet.code, packet.text, packet.retry_is_safe)

    def _abort_local(self, code: int, text: str) -> None:
        if self.opening:
            self._refuse_local(code, text, not self._data_sent)
        else:
            super()._abort_local(code, text)

    def _refuse_local(self, code: int, text: str, retry_is_safe: bool) -> None:
        self.opening = False
        if self._local:
            self._local = False
            self._effects.append(SessionRefused(self.session, code, text, retry_is_safe))


class ServerTunnel(_Tunnel):
    """The end that dials."""

    def __init__(self, now: float, *, max_age: float = MAX_AGE) -> None:
        super().__init__(now, max_age=max_age)
        # Joined: as objects, payloads of a byte take a hundred times their size.
        self._early = bytearray()

    @property
    def may_send(self) -> bool:
        """Whether local data would go out: from the dial's success until an end."""
        return super().may_send and not self.opening

    # --- the dial -------------------------------------------------------------------------------

    def dial_succeeded(self, session: int, dial_ms: int, bound: Address) -> list[Effect]:
        """There is a local side now. If nobody waits for it any more, it is aborted."""
        if session != self.session or not self.opening:
            return [AbortLocal(session, Code.CANCELLED, "nobody waits for this dial any more")]
        self.opening = False
        self._local = True
        self._effects.append(Send(Opened(session, dial_ms, bound)))
        early = self._take_early()
        if early:
            self._effects.append(Deliver(session, early))
        if self.got is FIN:
            self._effects.append(EndLocal(session))
        return self._take()

    def dial_failed(self, session: int, code: int, text: str = "", *, now: float) -> list[Effect]:
        """There will be no local side."""
        self._now = now
        if session == self.session and self.opening:
            self._refuse(code, text)
        return self._take()

    def _refuse(self, code: int, text: str, *, retry_is_safe: bool = False) -> None:
        self.opening = False
        self._take_early()
        self._cut_off(Refused(self.session, code, text, retry_is_safe))

    def _take_early(self) -> bytes:
        early, self._early = bytes(self._early), bytearray()
        self.wants_packets = True
        return early

    def _abort(self, code: int, text: str) -> None:
        if self.opening:
            self._effects.append(CancelDial(self.session))
            self._refuse(code, text)
        else:
            super()._abort(code, text)

    def _abort_local(self, code: int, text: str) -> None:
        if self.opening:
            self.opening = False
            self._take_early()
            self._effects.append(CancelDial(self.session))
        else:
            super()._abort_local(code, text)

    # --- packets --------------------------------------------------------------------------------

    def _receive_other(self, packet: Packet) -> None:
        if isinstance(packet, Open):
            self._receive_open(packet)
        else:
            raise self._misplaced(packet)

    def _receive_open(self, packet: Open) -> None:
        if not self.is_idle:
            raise _Violation(f"OPEN of session {packet.session}, and session {self.session} is not over")
        if packet.session != next_session(self.session):
            raise _Violation(f"OPEN of session {packet.session} after session {self.session}")
        self._begin(packet.session)
        if self.going_away:
            self._refuse(Code.GOING_AWAY, "this tunnel is going away", retry_is_safe=True)
        elif packet.command != Command.CONNECT:
            self._refuse(Code.COMMAND_NOT_SUPPORTED, f"command {packet.command} is not supported")
        else:
            self._effects.append(StartDial(packet))

    def _receive_data(self, payload: bytes | memoryview) -> None:
        if self.opening:
            self._early += payload
            # The tunnel is read on while the server dials, but not without end.
            self.wants_packets = len(self._early) < EARLY_BYTES
        else:
            super()._receive_data(payload)

    def _receive_fin(self) -> None:
        if self.opening:
            self._set_got(FIN)
        else:
            super()._receive_fin()
