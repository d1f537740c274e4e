"""A burst: 1,000 users come at once to an empty pool of 100 places. A dial takes 20 ms, a visit 2 ms."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .fakes import Dial
from .interleave import interleave
from .report import Table, add_few, add_missing, middle, ratios, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backends import Backend
    from .contenders import Missing
    from .contenders.base import Contender

USERS = 1_000
PLACES = 100
DIAL = 0.020
VISIT = 0.002
IDEAL_MS = (DIAL + math.ceil(USERS / PLACES) * VISIT) * 1000
ROUNDS = 9
# Over a queue that dials all its places at once and does nothing else: its time is the ideal one, with the loop's own.
TARGET = 1.1


def measure(contenders: Sequence[type[Contender]], missing: Sequence[Missing], backend: Backend, repeat: int) -> Table:
    fit = [one for one in contenders if one.largest.get("burst", USERS) >= USERS]
    outcome = interleave("burst", fit, ROUNDS * repeat, lambda one: backend.run(Sample(one, backend)))
    reference = contenders[0].name
    base = {number: burst.milliseconds for number, burst in outcome.samples.get(reference, {}).items()}
    table = Table(
        f"Burst on {backend.name}: {USERS:,} users on {PLACES} places,"
        f" dial {DIAL * 1000:.0f} ms, visit {VISIT * 1000:.0f} ms",
        ["pool", "total ms [quartiles]", f"x {reference}", f"x ideal {IDEAL_MS:.0f} ms", "dials", "target"],
    )
    for contender in contenders:
        name = contender.name
        if contender not in fit:
            table.add_problem(name, f"not run with {USERS:,} users: {contender.why_no_larger}")
            continue
        if name in outcome.failures:
            table.add_problem(name, outcome.failures[name])
            continue
        times = {number: burst.milliseconds for number, burst in outcome.samples[name].items()}
        dials = [burst.dials for burst in outcome.of(name)]
        over = statistics.median(ratios(times, base))
        total = statistics.median(times.values())
        table.add(
            name,
            middle(list(times.values()), 1),
            f"{over:.2f}",
            f"{total / IDEAL_MS:.2f}",
            f"{statistics.median(dials):.0f}",
            verdict(over <= TARGET, f"<= {TARGET}") if name == "wspool" and backend.name == "asyncio" else "",
        )
        table.data[name] = {"milliseconds": list(times.values()), "ratio": over, "dials": dials}
    add_missing(table, missing)
    add_few(table, "", outcome.few())
    table.notes.append(f"ideal: {PLACES} dials at once, then {USERS // PLACES} visits one after the other on each")
    table.notes.append(
        f"{reference} dials all its places at once and then only waits: the ideal, with the loop's own cost"
    )
    return table


@dataclass
class Burst:
    milliseconds: float
    dials: int


class Sample:
    def __init__(self, contender: type[Contender], backend: Backend) -> None:
        self._backend = backend
        self._pool = contender()
        self._dial = Dial(self._pool.make, backend.sleep)
        self._dial.delay = DIAL
        self._served = 0
        self._held: set[int] = set()
        self._most_held = 0

    async def __call__(self) -> Burst:
        async with self._pool.opened(PLACES, self._dial):
            before = time.perf_counter()
            async with self._backend.crowd() as crowd:
                for _ in range(USERS):
                    crowd.add(self._visit)
            seconds = time.perf_counter() - before
            assert self._served == USERS, f"{self._served} of {USERS} served"
            assert self._most_held <= PLACES, f"{self._most_held} connections on {PLACES} places"
        return Burst(seconds * 1000, self._dial.started)

    async def _visit(self) -> None:
        taken = await self._pool.take()
        connection = id(self._pool.connection(taken))
        assert connection not in self._held, "one connection for two users"
        self._held.add(connection)
        self._most_held = max(self._most_held, len(self._held))
        self._served += 1
        await self._backend.sleep(VISIT)
        self._held.remove(connection)
        await self._pool.give(taken)
