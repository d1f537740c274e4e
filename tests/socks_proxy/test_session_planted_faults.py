"""The checks are checked: each fault planted into the session machines is found by the explorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from examples.socks_proxy.session import ClientTunnel, ServerTunnel, _Tunnel
from tests.planting import broken
from tests.pool_state.explore import Violation, explore
from tests.socks_proxy.world import Bounds, World

_SMALL, _TWICE, _LATE = Bounds(1), Bounds(2, up=1, down=0), Bounds(2, up=0, down=0, late_dials=True)
_GOING, _LOST = Bounds(1, up=0, down=0, goaway=True), Bounds(2, up=1, down=1, losses=True)
_BOUND = 8000


@dataclass(frozen=True)
class Fault:
    """In this method, write `new` for `old`; to be found in this world."""

    what: str
    owner: type
    method: str
    old: str
    new: str
    bounds: Bounds = _SMALL


FAULTS = [
    Fault("an end is sent twice", _Tunnel, "local_end", "self._set_sent(FIN)", "pass"),
    Fault("data goes out after the end", _Tunnel, "local_data", "self.may_send", "self.session"),
    Fault("an abort tells nobody", _Tunnel, "_cut_off", "self._effects.append(Send(packet))", "pass"),
    Fault("an abort after FIN tells nobody", _Tunnel, "_abort", "is not RESET", "is NONE"),
    Fault("what is drained is delivered", _Tunnel, "_receive_data", "self.sent is not RESET", "True"),
    Fault("what is drained goes straight on", _Tunnel, "takes_data", "self.sent is not RESET", "True"),
    Fault("early data goes straight on", _Tunnel, "takes_data", "self.opening", "False"),
    Fault("the end of what is drained is told", _Tunnel, "_receive_fin", "self.sent is not RESET", "True"),
    Fault("FIN is not told", _Tunnel, "_receive_fin", "self._effects.append", "list"),
    Fault(
        "FIN ends both directions",
        _Tunnel,
        "_receive_fin",
        "self._set_got(FIN)",
        "self._set_got(FIN); self._set_sent(FIN)",
    ),
    Fault("RESET is not answered", _Tunnel, "_receive_reset", "self.sent is NONE", "False"),
    Fault("RESET is answered twice", _Tunnel, "_receive_reset", "self.sent is NONE", "True"),
    Fault(
        "RESET leaves the local side", _Tunnel, "_receive_reset", "self._abort_local(packet.code, packet.text)", "pass"
    ),
    Fault(
        "a late RESET is a violation", _Tunnel, "_receive_reset", "packet.session == self._late_reset", "False", _TWICE
    ),
    Fault(
        "a late RESET hits the next session",
        _Tunnel,
        "_receive_reset",
        "if packet.session == self._late_reset:",
        "packet = packet._replace(session=self.session)\n    if False:",
        _TWICE,
    ),
    Fault(
        "a RESET that crossed aborts what is over",
        _Tunnel,
        "_receive_reset",
        "was_idle = self.is_idle",
        "was_idle = False",
    ),
    Fault(
        "the session number stands still",
        ClientTunnel,
        "open",
        "next_session(self.session)",
        "self.session or 1",
        _TWICE,
    ),
    Fault("a stale fact hits the session that runs", _Tunnel, "local_abort", "session == self.session and", "", _TWICE),
    Fault("the next session inherits a local side", _Tunnel, "_begin", "self._local = False", "pass", _TWICE),
    Fault("a session begins half over", _Tunnel, "_set_got", "self.sent is not NONE", "True", _TWICE),
    Fault("REFUSED is not answered", ClientTunnel, "_receive_refused", "self.sent is NONE", "False"),
    Fault(
        "REFUSED tells nobody",
        ClientTunnel,
        "_receive_refused",
        "self._refuse_local(packet.code, packet.text, packet.retry_is_safe)",
        "pass",
    ),
    Fault("who aborted is told of the dial", ClientTunnel, "_receive_other", "if self._local:", "if True:"),
    Fault("OPENED does not open", ClientTunnel, "_receive_other", "self.opening = False", "pass"),
    Fault("a retry that may say things twice", ClientTunnel, "_abort_local", "not self._data_sent", "True", _LOST),
    Fault("early data is lost", ServerTunnel, "dial_succeeded", "self._take_early()", "()"),
    Fault(
        "early data comes last",
        ServerTunnel,
        "_receive_data",
        "self._early += payload",
        "self._early[:0] = payload",
        Bounds(1, up=2, down=0),
    ),
    Fault("an early end is lost", ServerTunnel, "dial_succeeded", "self.got is FIN", "False"),
    Fault("early data reaches the next session", ServerTunnel, "_abort_local", "self._take_early()", "pass", _TWICE),
    Fault("refused early data reaches the next session", ServerTunnel, "_refuse", "self._take_early()", "pass", _TWICE),
    Fault(
        "RESET does not cancel the dial",
        ServerTunnel,
        "_abort_local",
        "self._effects.append(CancelDial(self.session))",
        "pass",
    ),
    Fault(
        "a dial that nobody wants is kept",
        ServerTunnel,
        "dial_succeeded",
        "session != self.session or not self.opening",
        "not self.opening",
        _LATE,
    ),
    Fault(
        "a cancelled dial opens",
        ServerTunnel,
        "dial_succeeded",
        "session != self.session or not self.opening",
        "session != self.session",
        _LATE,
    ),
    Fault(
        "a failed dial tells nobody",
        ServerTunnel,
        "_refuse",
        "self._cut_off(Refused(self.session, code, text, retry_is_safe))",
        "self._set_sent(RESET)",
    ),
    Fault(
        "data from the destination before OPENED",
        ServerTunnel,
        "dial_succeeded",
        "self._effects.append(Send(Opened(session, dial_ms, bound)))",
        "pass",
    ),
    Fault(
        "an OPEN that crosses GOAWAY is dialled for", ServerTunnel, "_receive_open", "self.going_away", "False", _GOING
    ),
    Fault("GOAWAY is not seen", _Tunnel, "_receive", "self.going_away = True", "pass", _GOING),
    Fault(
        "a lost tunnel leaves its session",
        _Tunnel,
        "tunnel_lost",
        "self._lose_session(Code.GENERAL_FAILURE, reason)",
        "pass",
        _LOST,
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.owner, fault.method, broken(fault.owner, fault.method, fault.old, fault.new))
    make: Any = lambda: World(fault.bounds)  # noqa: E731  # as in test_session_exhaustive
    with pytest.raises(Violation):
        explore(make, limit=_BOUND)
