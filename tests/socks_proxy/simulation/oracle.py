"""What must hold, whatever the network does and whoever goes away.

1. What one side of a session hears is a beginning of what the other says, and of nothing else. If it hears a clean
   end, the other has ended cleanly, and it has heard all of it; even if one of the proxy's ends was killed.
2. Everybody is told the outcome in bounded time: `run.py` has the limits.
3. Of a process that has ended, nothing is left: no socket, no session, no tunnel in the pool. No error of the
   program is logged.
4. The reply tells the truth: a success only if the destination has accepted, and of failures the one that happened.
5. Where nothing goes wrong, every session succeeds.
6. A tunnel whose session ended well is used again; one that has died meanwhile is noticed, and costs no session.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

from .applications import Party
from .network import OWNER, Network, Target
from .plan import Plan, Visit

SUCCEEDED, FAILED, HOST_UNREACHABLE, REFUSED, TIMED_OUT = 0, 1, 4, 5, 6
# What the reply may be, by what the network answered to the dial.
_TRUTH = {"yes": {SUCCEEDED}, "refused": {REFUSED}, "unreachable": {HOST_UNREACHABLE}, "silence": {TIMED_OUT}}


class Violation(AssertionError):
    """Something does not hold; the text says what, with which seed, and how it came to it."""

    def __init__(self, plan: Plan, violations: list[str], network: Network) -> None:
        self.summary = "\n".join([*violations, f"seed {plan.seed}"])
        super().__init__("\n".join([repr(plan), *network.lines()[-400:], self.summary]))


@dataclass
class Case:
    """One session as it went."""

    visit: Visit
    host: str
    port: int
    targets: list[Target]
    """Where its destination is."""
    up: bytes = field(repr=False)
    down: bytes = field(repr=False)
    reply: int | None = None
    outcome: str = ""
    """Of the application, if it did not come to talk."""
    near: Party | None = None
    far: list[Party] = field(default_factory=list)
    """One for each connection that the destination has accepted."""

    @property
    def is_complete(self) -> bool:
        """All has been said and heard on both sides."""
        return self.near is not None and self.near.is_complete and any(each.is_complete for each in self.far)


class Oracle:
    """Collects what does not hold."""

    def __init__(self, plan: Plan, network: Network) -> None:
        self.plan = plan
        self.network = network
        self.violations: list[str] = []

    def blame(self, what: str) -> None:
        self.network.note("VIOLATION", what)
        self.violations.append(what)

    def blame_if(self, is_wrong: object, what: str) -> None:
        if is_wrong:
            self.blame(what)

    def verdict(self) -> None:
        """Raise if something does not hold."""
        if self.violations:
            raise Violation(self.plan, self.violations, self.network)

    # --- one session ------------------------------------------------------------------------------------

    def hears(self, listener: Party, speakers: Iterable[Party], expected: bytes) -> None:
        """Rule 1, each time that something is heard, or the end."""
        heard = bytes(listener.heard)
        if not expected.startswith(heard):
            self.blame(f"{listener.name} hears what the other side has not said")
        if listener.saw_end and not any(each.has_ended and each.said == len(heard) for each in speakers):
            said = [(each.said, each.has_ended) for each in speakers]
            self.blame(f"{listener.name} hears a clean end after {len(heard)} bytes; said, and ended: {said}")

    def judge(self, case: Case) -> None:
        """Rules 4 and 5, when a session is over."""
        name = f"session {case.visit.number}"
        self.blame_if(case.outcome == "hangs", f"{name} hangs")
        if case.reply is not None and not (self.plan.fast_open and case.reply == SUCCEEDED):
            self._judge_reply(case, name)
        self.blame_if(
            len([each for each in case.far if each.heard]) > 1, f"{name}: two connections were told something"
        )
        self.blame_if(self.is_to_finish(case), f"{name} has failed, and nothing went wrong: {case}")

    def _judge_reply(self, case: Case, name: str) -> None:
        answers = [answer for target in case.targets for answer in self.network.asked.get(target, [])]
        true = set().union(*(_TRUTH[answer] for answer in answers))
        if case.visit.door == "no name":
            true.add(HOST_UNREACHABLE)
        # A tunnel that hangs or breaks, and a server that ends, are failures as well; so is waiting for a tunnel.
        if not self.plan.is_calm:
            true |= {FAILED, TIMED_OUT}
        if self.plan.is_contended:
            true.add(FAILED)
        self.blame_if(case.reply not in true, f"{name}: reply {case.reply}, but the dials were answered {answers}")

    def is_to_finish(self, case: Case) -> bool:
        """Rule 5: whether all is to be said and heard, and is not."""
        visit = case.visit
        is_hopeful = self.plan.is_calm and visit.door == "open" and visit.is_polite and not self._has_no_tunnel(case)
        return is_hopeful and not case.is_complete

    def _has_no_tunnel(self, case: Case) -> bool:
        return self.plan.is_contended and (case.reply == FAILED or self.plan.fast_open)


def content(seed: int, what: str, size: int) -> bytes:
    """Bytes that nobody else says."""
    return Random(f"{seed} {what}").randbytes(size)


class LogWatch(logging.Handler):
    """Puts the proxy's log into the trace, and blames what must never be in it."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(logging.INFO)
        self.retries = 0
        self._oracle = oracle
        self.sessions: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if OWNER.get() in self._oracle.network.killed:
            return  # the dead log nothing
        session = getattr(record, "session", None)
        if session is not None:
            self.sessions.append(session)
        self.retries += "tried again" in record.getMessage()
        self._oracle.network.note("log", record.getMessage() if session is None else _told(session))
        # The pool warns of each dial that fails in the background.
        if record.levelno >= (logging.WARNING if record.name == "wspool.proxy" else logging.ERROR):
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            self._oracle.blame(f"the log says: {record.getMessage()} {trace}")

    def __enter__(self) -> Self:
        logger = logging.getLogger("wspool")
        self._before = logger.level, logger.propagate
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("wspool")
        logger.removeHandler(self)
        logger.level, logger.propagate = self._before
        logger.setLevel(logger.level)


def _told(session: Any) -> str:
    return f"{session.id} {session.destination} {session.outcome}, {session.bytes_up} up, {session.bytes_down} down"
