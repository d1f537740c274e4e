"""Hand-offs: many users on ten connections, each gets, releases and comes again at once.

All ten connections are held until every user waits; then the clock starts. From there on each release serves a
waiter and each get waits, so one visit is one hand-off, with its queueing. A user that holds a connection does
nothing with it: any work would make every pool look more alike.

That is so for pools that hand over. In a pool that only wakes its waiters, a user that comes again takes the
connection that it has just put back, past all who wait: cheap, and unfair. The last column tells which pools do
that; a second measurement, in which each user comes once and there is nothing to overtake, tells what a hand-off
costs them.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from .backends import calm
from .fakes import Dial
from .interleave import Outcome, interleave
from .report import Table, add_few, add_missing, middle, ratios, verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .backends import Backend
    from .contenders import Missing
    from .contenders.base import Contender

CONNECTIONS = 10
WAITERS = (100, 1_000, 10_000)
TARGET = 1.6
FLAT_TARGET = 1.3
# Visits in one sample at the least: 100 waiters come 100 times each, 10,000 come 3 times.
VISITS = 10_000
FEWEST_VISITS = 3
# Where each user comes once, a sample of few users is several crowds, one after the other.
VISITS_ONCE = 1_000
ROUNDS = 7
FAIRNESS_WAITERS = 100
FAIRNESS_VISITS = 20
REFERENCE = "two deques"


def measure(
    contenders: Sequence[type[Contender]], missing: Sequence[Missing], backend: Backend, repeat: int
) -> list[Table]:
    again = {w: _timed(contenders, backend, ROUNDS * repeat, w, max(FEWEST_VISITS, VISITS // w)) for w in WAITERS}
    once = {w: _timed(contenders, backend, ROUNDS * repeat, w, 1) for w in WAITERS}
    fairness = interleave(
        "fairness", _fit(contenders, FAIRNESS_WAITERS), 1, lambda one: backend.run(FairnessSample(one, backend))
    )
    judge = backend.name == "asyncio"  # the targets are for it
    return [
        _table(
            f"Hand-off on {backend.name}: users that come again and again on 10 connections",
            again,
            contenders,
            missing,
            fairness,
            judge=judge,
        ),
        _table(f"Hand-off on {backend.name}: each user comes once", once, contenders, missing, None, judge=judge),
    ]


def _timed(
    contenders: Sequence[type[Contender]], backend: Backend, rounds: int, waiters: int, visits: int
) -> Outcome[float]:
    title = f"hand-off, {waiters:,} waiters, {visits} visits each"
    return interleave(
        title,
        _fit(contenders, waiters),
        rounds,
        lambda one: backend.run(Sample(one, backend, waiters, visits)),
    )


def _fit(contenders: Sequence[type[Contender]], waiters: int) -> list[type[Contender]]:
    return [one for one in contenders if waiters <= one.largest.get("handoff", waiters)]


def _table(
    title: str,
    outcomes: dict[int, Outcome[float]],
    contenders: Sequence[type[Contender]],
    missing: Sequence[Missing],
    fairness: Outcome[int] | None,
    *,
    judge: bool,
) -> Table:
    table = Table(
        f"{title}, microseconds per visit",
        [
            "pool",
            *(f"{w:,} waiters" for w in WAITERS),
            *(f"x at {w:,}" for w in WAITERS),
            "flat",
            "passed over",
            "target",
        ],
    )
    for contender in contenders:
        judged = contender.name == "wspool" and judge
        _add(table, contender, outcomes, fairness, judged=judged)
    add_missing(table, missing)
    for waiters, outcome in outcomes.items():
        add_few(table, f" at {waiters:,}", outcome.few())
    table.notes.append(
        f"x: times the {REFERENCE} of the same round; flat: the slowest of the three over the time at 100 waiters"
    )
    table.notes.append(f"more tasks than the caches hold slow down everything: compare the flatness of {REFERENCE}")
    if fairness:
        table.notes.append(
            "passed over: the most others that were served between a waiter's coming and its being served, beyond"
            f" those queued before it ({FAIRNESS_WAITERS:,} waiters, {FAIRNESS_VISITS} visits each)"
        )
        table.notes.append(
            f"on trio, which runs those who are woken at once in random order, {REFERENCE} shows some, too"
        )
    return table


def _add(
    table: Table,
    contender: type[Contender],
    outcomes: dict[int, Outcome[float]],
    fairness: Outcome[int] | None,
    *,
    judged: bool,
) -> None:
    name = contender.name
    if failed := [outcome.failures[name] for outcome in outcomes.values() if name in outcome.failures]:
        table.add_problem(name, failed[0])
        return
    times = {w: outcomes[w].of(name) for w in WAITERS}
    over = {w: ratios(outcomes[w].samples.get(name, {}), outcomes[w].samples.get(REFERENCE, {})) for w in WAITERS}
    flat = _flatness(times)
    passed = fairness.of(name) if fairness else []
    if fairness and name in fairness.failures:
        table.notes.append(f"{name}: fairness {fairness.failures[name]}")
    if not all(times.values()):
        table.notes.append(f"{name}: no more than {contender.largest['handoff']:,} waiters: {contender.why_no_larger}")
    table.add(
        name,
        *(middle(times[w], 1) for w in WAITERS),
        *(f"{statistics.median(over[w]):.2f}" if over[w] else "-" for w in WAITERS),
        f"{flat:.2f}" if flat else "-",
        f"{passed[0]:,}" if passed else "-",
        _verdict(over, flat, passed) if judged else "",
    )
    table.data[name] = {
        "microseconds": times,
        "ratios": over,
        "flat": flat,
        "passed_over": passed[0] if passed else None,
    }


def _flatness(times: dict[int, list[float]]) -> float | None:
    if not all(times.values()):
        return None
    middles = [statistics.median(times[w]) for w in WAITERS]
    return max(middles) / middles[0]


def _verdict(over: dict[int, list[float]], flat: float | None, passed: list[int]) -> str:
    worst = max((statistics.median(over[w]) for w in WAITERS if over[w]), default=0.0)
    verdicts = [verdict(worst <= TARGET, f"<= {TARGET}")]
    if flat:
        verdicts.append(verdict(flat <= FLAT_TARGET, f"flat {FLAT_TARGET}"))
    if passed:
        verdicts.append(verdict(passed[0] <= 0, "none passed over"))
    return ", ".join(verdicts)


class _Full:
    """A pool whose every connection is held until the gate opens."""

    def __init__(self, contender: type[Contender], backend: Backend) -> None:
        self.pool = contender()
        self._backend = backend
        self._gate = backend.event()
        self._dial = Dial(self.pool.make, backend.sleep)

    async def run(self, users: int, user: Callable[[], Any], opens: Callable[[], object]) -> float:
        """Let the users loose on it, and say when they were through; ``opens`` is told when they are let in."""
        async with self.pool.opened(CONNECTIONS, self._dial):
            async with self._backend.crowd() as holders:
                for _ in range(CONNECTIONS):
                    holders.add(self._hold)
                await calm(self._backend)
                async with self._backend.crowd() as crowd:
                    for _ in range(users):
                        crowd.add(user)
                    await calm(self._backend)
                    opens()
                    self._gate.set()
            through = time.perf_counter()
            await self._check()
        return through

    async def _hold(self) -> None:
        taken = await self.pool.take()
        await self._gate.wait()
        await self.pool.give(taken)

    async def _check(self) -> None:
        """Everything came back: as many as there are can be taken, without a dial."""
        taken = [await self.pool.take() for _ in range(CONNECTIONS)]
        for one in taken:
            await self.pool.give(one)
        assert self._dial.started == CONNECTIONS, f"{self._dial.started} dials for {CONNECTIONS} places"


class Sample:
    """The time of one visit, in microseconds."""

    def __init__(self, contender: type[Contender], backend: Backend, waiters: int, visits: int) -> None:
        self._contender = contender
        self._backend = backend
        self._waiters = waiters
        self._visits = visits

    async def __call__(self) -> float:
        crowds = max(1, VISITS_ONCE // self._waiters) if self._visits == 1 else 1
        seconds = [await self._crowd() for _ in range(crowds)]
        return sum(seconds) / (crowds * self._waiters * self._visits) * 1e6

    async def _crowd(self) -> float:
        full = _Full(self._contender, self._backend)
        let_in = 0.0

        def opens() -> None:
            nonlocal let_in
            let_in = time.perf_counter()

        def user() -> Awaitable[None]:
            return full.pool.use(self._visits)

        return await full.run(self._waiters, user, opens) - let_in


class FairnessSample:
    """How many others were served before a waiter, beyond those that it found in the queue: the worst case."""

    def __init__(self, contender: type[Contender], backend: Backend) -> None:
        self._contender = contender
        self._backend = backend
        self._waiting = 0
        self._served = 0
        self._worst = 0

    async def __call__(self) -> int:
        self._full = _Full(self._contender, self._backend)
        await self._full.run(FAIRNESS_WAITERS, self._user, lambda: None)
        assert self._served == FAIRNESS_WAITERS * FAIRNESS_VISITS
        return self._worst

    async def _user(self) -> None:
        pool = self._full.pool
        for _ in range(FAIRNESS_VISITS):
            before_me, served_before = self._waiting, self._served
            self._waiting += 1
            taken = await pool.take()
            self._waiting -= 1
            self._worst = max(self._worst, self._served - served_before - before_me)
            self._served += 1
            await pool.give(taken)
