"""The race: every connection is held and comes back after 5 ms, a dial takes 50 ms. How long do callers wait?

Ten holders, ten callers, twenty places. A pool that only dials keeps its callers for 50 ms; one that races serves
them with what comes back. Its dials go on meanwhile; whether they were for nothing shows afterwards, when twenty
users come at once: a dial is wasted if its connection has served nobody by then.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .backends import calm
from .fakes import Dial
from .interleave import Outcome, interleave
from .report import Table, add_missing, percentile, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backends import Backend, Event
    from .contenders import Missing
    from .contenders.base import Contender

HOLDERS = CALLERS = 10
SIZE = HOLDERS + CALLERS
RELEASE_AFTER = 0.005
DIAL = 0.050
ROUNDS = 20
SECONDS_EACH = 4.0
# A timer of asyncio wakes up to a millisecond late. Not more: a pool that is slow to start its dials keeps the released
# connections waiting meanwhile, and that is to be seen.
SLACK_MS = 1.0


def measure(contenders: Sequence[type[Contender]], missing: Sequence[Missing], backend: Backend, repeat: int) -> Table:
    outcome = interleave(
        "race", contenders, ROUNDS * repeat, lambda one: backend.run(Sample(one, backend)), SECONDS_EACH
    )
    table = Table(
        f"Race on {backend.name}: {CALLERS} callers, dial {DIAL * 1000:.0f} ms,"
        f" releases after {RELEASE_AFTER * 1000:.0f} ms",
        ["pool", "p50 ms", "p99 ms", "dials", "wasted", "by release", "rounds", "target"],
    )
    base = _waits(outcome, contenders[0].name)
    for contender in contenders:
        _add(table, contender.name, outcome, base, judged=contender.name == "wspool" and backend.name == "asyncio")
    add_missing(table, missing)
    table.notes += [
        f"{contenders[0].name} has {HOLDERS} places and cannot dial here: it waits for the release that comes",
        "dials: started by the callers, a round",
        f"wasted: of these, those whose connection never served anybody, although {SIZE} users came at once afterwards",
        "by release: the share of callers that were served by a connection that came back",
    ]
    table.notes.append(f"as the release: p50 and p99 within {SLACK_MS:.0f} ms of {contenders[0].name}")
    return table


def _waits(outcome: Outcome[Race], name: str) -> list[float]:
    return [wait for race in outcome.of(name) for wait in race.waits]


def _add(table: Table, name: str, outcome: Outcome[Race], base: list[float], *, judged: bool) -> None:
    if name in outcome.failures:
        table.add_problem(name, outcome.failures[name])
        return
    races, waits = outcome.of(name), _waits(outcome, name)
    p50, p99 = percentile(waits, 50), percentile(waits, 99)
    wasted = statistics.mean(race.wasted for race in races)
    in_time = p50 <= percentile(base, 50) + SLACK_MS and p99 <= percentile(base, 99) + SLACK_MS
    table.add(
        name,
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{statistics.mean(race.dials for race in races):.1f}",
        f"{wasted:.1f}",
        f"{100 * sum(race.by_release for race in races) / len(waits):.0f} %",
        f"{len(races)}",
        _verdict(in_time, wasted) if judged else "",
    )
    table.data[name] = {
        "p50_ms": p50,
        "p99_ms": p99,
        "waits_ms": waits,
        "dials": [race.dials for race in races],
        "wasted": [race.wasted for race in races],
        "by_release": [race.by_release for race in races],
    }


def _verdict(in_time: bool, wasted: float) -> str:
    return f"{verdict(in_time, 'as the release')}, {verdict(not wasted, 'none wasted')}"


@dataclass
class Race:
    waits: list[float]
    dials: int
    wasted: int
    by_release: int


class Sample:
    def __init__(self, contender: type[Contender], backend: Backend) -> None:
        self._backend = backend
        self._pool = contender()
        self._dial = Dial(self._pool.make, backend.sleep)
        self._size = HOLDERS if contender.is_reference else SIZE
        self._waits: list[float] = []
        self._old: set[int] = set()
        self._by_release = 0
        self._held_at_once: list[Any] = []

    async def __call__(self) -> Race:
        async with self._pool.opened(self._size, self._dial):
            await self._race()
            dials = self._dial.started - HOLDERS
            # Every dial is over by now, for any pool that did not give it up.
            await self._backend.sleep(DIAL)
            raced = self._dial.made[HOLDERS:]
            await self._everybody()
            wasted = dials - sum(connection.served for connection in raced)
        return Race(self._waits, dials, wasted, self._by_release)

    async def _race(self) -> None:
        go = self._backend.event()
        async with self._backend.crowd() as crowd:
            for _ in range(HOLDERS):
                crowd.add(self._hold, go)
            await calm(self._backend)
            assert self._dial.started == HOLDERS, f"{self._dial.started} dials for {HOLDERS} holders"
            self._dial.delay = DIAL
            go.set()
            for _ in range(CALLERS):
                crowd.add(self._call)
        assert len(self._waits) == CALLERS

    async def _hold(self, go: Event) -> None:
        taken = await self._pool.take()
        connection = self._pool.connection(taken)
        connection.served = True
        self._old.add(id(connection))
        await go.wait()
        await self._backend.sleep(RELEASE_AFTER)
        await self._pool.give(taken)

    async def _call(self) -> None:
        came = time.perf_counter()
        taken = await self._pool.take()
        self._waits.append((time.perf_counter() - came) * 1000)
        connection = self._pool.connection(taken)
        connection.served = True
        self._by_release += id(connection) in self._old
        # Held to the end of the race: what comes back once serves one caller.
        await self._backend.sleep(DIAL)
        await self._pool.give(taken)

    async def _everybody(self) -> None:
        """As many users as there are places, at once. The dials that this takes are not counted."""
        self._dial.delay = 0
        all_here = self._backend.event()
        async with self._backend.crowd() as crowd:
            for _ in range(self._size):
                crowd.add(self._visit, all_here)

    async def _visit(self, all_here: Event) -> None:
        taken = await self._pool.take()
        connection = self._pool.connection(taken)
        assert connection not in self._held_at_once, "one connection for two users"
        assert not connection.closed, "a closed connection"
        self._held_at_once.append(connection)
        connection.served = True
        if len(self._held_at_once) == self._size:
            all_here.set()
        await all_here.wait()
        await self._pool.give(taken)
