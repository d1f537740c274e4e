"""The oracle is checked: each fault that is planted into the proxy is found by one of the first seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from examples.socks_proxy import dial
from examples.socks_proxy.client import _ClientEnd
from examples.socks_proxy.liveness import Liveness
from examples.socks_proxy.relay import Session
from examples.socks_proxy.server import _ServerEnd
from examples.socks_proxy.session import _Tunnel
from examples.socks_proxy.tunnel import Tunnel
from tests.planting import broken

from .oracle import Violation
from .run import simulate

_SEEDS = 60


@dataclass(frozen=True)
class Fault:
    """In this function, write `new` for `old`; what is found says `found`."""

    what: str
    owner: Any
    name: str
    old: str
    new: str
    found: str


FAULTS = [
    Fault(
        "the last of the data is dropped before an end",
        Session,
        "_write",
        "local.send(payload)",
        "local.send(payload[:-1])",
        "hears a clean end",
    ),
    Fault(
        "data is delivered to another session",
        Session,
        "deliver_nowait",
        "self.local.send_nowait",
        "(lambda it: setattr(Session, 'it', self.local) or it)(getattr(Session, 'it', self.local)).send_nowait",
        "has not said",
    ),
    Fault("a cut is told as an end", Session, "join", "reset_on_close(local)", "pass", "hears a clean end"),
    Fault("an end is told as a cut", Session, "conclude", "self.local is not None", "False", "has failed"),
    Fault("an end is not told", _Tunnel, "_receive_fin", "self._effects.append", "list", "has failed"),
    Fault("an end ends both directions", Session, "end", "send_eof_nowait()", "close()", "has failed"),
    Fault(
        "a tunnel is never released",
        _ClientEnd,
        "_serve",
        "pooled.release()",
        "vars(self).setdefault('kept', []).append(pooled)",
        "a tunnel in use|has failed",
    ),
    Fault(
        "a tunnel is released while its session runs",
        Session,
        "carried",
        "self.until(lambda: self.over or self.refused)",
        "anyio.sleep(1)",
        "tunnels|has failed",
    ),
    Fault(
        "a session is over when one direction has ended",
        Tunnel,
        "_settle",
        "self.machine.is_idle",
        "self.machine.got.name != 'NONE'",
        "tunnels|has failed|a session at the server",
    ),
    Fault("a tunnel is used once", Tunnel, "may_begin", "not self.lost", "not self.sessions", "tunnels"),
    Fault(
        "nothing is tried again",
        _ClientEnd,
        "_run",
        "refusal is None or not",
        "True or not",
        "all the trouble",
    ),
    Fault(
        "silence is never noticed", Liveness, "expire", "return Verdict.DEAD", "return Verdict.FINE", "a dead tunnel"
    ),
    Fault(
        "OPEN has no PING with it", Liveness, "needs_ping", "self.suspect or now", "False and now", "all the trouble"
    ),
    Fault("an idle session is never ended", Tunnel, "_tick_session", "session is None", "True", "hangs"),
    Fault(
        "a failure is told as a success",
        _ClientEnd,
        "_refused",
        "socks.reply(code)",
        "socks.reply(0)",
        "reply 0",
    ),
    Fault("every failure is the same", dial, "code_of_errno", "number or 0", "0", "reply 1"),
    Fault(
        "a destination is not let go",
        _ServerEnd,
        "_conclude",
        "session.local.close()",
        "pass",
        "has left",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.owner, fault.name, broken(fault.owner, fault.name, fault.old, fault.new))
    with pytest.raises(Violation, match=fault.found):
        for seed in range(_SEEDS):
            simulate(seed)
