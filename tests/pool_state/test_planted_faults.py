"""The checks are checked: each fault planted into the state machine is found by the explorer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.planting import broken
from wspool._dial_book import DialBook
from wspool._pool_state import PoolState
from wspool._wait_queue import WaitQueue

from .bounds import make_world
from .explore import Violation, explore

_PLAIN = "get, cancel, release, discard, dials"
_BOUND = 3000


@dataclass(frozen=True)
class Fault:
    """In this method, write `new` for `old`; to be found in this world."""

    what: str
    owner: type
    method: str
    old: str
    new: str
    world: str = _PLAIN


FAULTS = [  # one a line, as a table
    Fault("a freed place does not look at the queue", PoolState, "_free_place", "self._rebalance(now)", "pass"),
    Fault("a newcomer goes to the front", WaitQueue, "enter", "self.waiters.append", "self.waiters.appendleft"),
    Fault("a release forgets the queue", PoolState, "give_back", "self.queue.waiting", "False"),
    Fault("a reserved connection is lost", PoolState, "leave_queue", "self._offer(entry, now)", "pass"),
    Fault("an idle entry is counted twice", PoolState, "give_back", "entries.idle += 1", "entries.idle += 2"),
    Fault("who leaves is still counted", WaitQueue, "leave", "self.waiting -= 1", "pass"),
    Fault("a failed dial tells nobody", PoolState, "_blame", "self._fail_waiter(waiter, error)", "pass"),
    Fault("who is served keeps a dial", PoolState, "_reserve", "self.dials.disown(waiter)", "pass"),
    Fault("an ended dial is hoped for", DialBook, "strike", "self.spare.pop(job, None)", "pass"),
    Fault("one more than max_size", PoolState, "_may_dial", "self.places < self._max_size", "self.places <= 2"),
    Fault("a dial more than callers", PoolState, "_rebalance", "> self._supply()", ">= self._supply()"),
    Fault("an unwanted dial has no end", DialBook, "settle", "> wanted", "> wanted + 1"),
    Fault("a wanted dial stays abandoned", DialBook, "settle", "< wanted", "< wanted - 9"),
    Fault("an unwanted dial starts", PoolState, "dial_may_start", "in self.dials.abandoned", "in {}"),
    Fault(
        "a discard frees its place early", PoolState, "discard", "self._rebalance", "self.places -= 1; self._rebalance"
    ),
    Fault("a dead one is handed out", PoolState, "take_idle", "self._careful or", "", "deaths"),
    Fault("a dead one is collected", PoolState, "collect", "self._check is not None", "False", "deaths"),
    Fault(
        "served in vain means last",
        WaitQueue,
        "re_enter",
        "self.waiters[place].ticket < waiter.ticket",
        "True",
        "deaths",
    ),
    Fault("clear spares the idle", PoolState, "clear", "while self.entries.idle:", "while False:", "clear"),
    Fault("clear spares the held", PoolState, "clear", "self._retired.update(self.entries.held())", "pass", "clear"),
    Fault("clear spares the reserved", PoolState, "clear", "in self.entries.reserved()", "in ()", "clear"),
    Fault("clear spares the dials", PoolState, "clear", "is not CLOSE:", "not in (CLOSE, CONNECT):", "clear"),
    Fault("closing leaves waiters", PoolState, "begin_closing", "self._refuse_all(now)", "pass", "close"),
    Fault("closing leaves dials", PoolState, "begin_closing", "if job.kind is not CLOSE:", "if False:", "close"),
    Fault("closed under its holder, closed again", PoolState, "_receive", "is not EntryState.HELD", "is None", "close"),
    Fault(
        "an emptied handle keeps its place", PoolState, "drop_place", "self._free_place(now)", "pass", "take and insert"
    ),
    Fault("a failed reset is kept", PoolState, "reset_ended", " or error is not None", "", "reset"),
    Fault("a failed check is kept", PoolState, "check_ended", " or not valid", "", "validation"),
    Fault(
        "max_idle is forgotten",
        PoolState,
        "give_back",
        "entries.idle >= self._idle_room",
        "False",
        "max_idle and resize",
    ),
    Fault(
        "less room closes nothing",
        PoolState,
        "resize",
        "while len(kept) > max(0, room):",
        "while False:",
        "max_idle and resize",
    ),
    Fault("min_idle is forgotten", PoolState, "warm_up", "self._rebalance(now)", "pass", "min_idle"),
    Fault("a deadline is missed", PoolState, "expire", "_acquire_timeout <= now", "_acquire_timeout < now", "time"),
    Fault("the timer is not set", PoolState, "_begin", "self._arm(job.deadline)", "pass", "time"),
    Fault("the timer is not set anew", PoolState, "expire", "self._rearm()", "pass", "time"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.owner, fault.method, broken(fault.owner, fault.method, fault.old, fault.new))
    with pytest.raises(Violation):
        explore(lambda: make_world(fault.world), limit=_BOUND)
