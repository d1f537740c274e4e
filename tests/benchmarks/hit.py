"""An idle hit: one user, one idle connection, get and release in a loop."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from .fakes import Dial
from .interleave import interleave
from .report import Table, add_few, add_missing, middle, ratios, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backends import Backend
    from .contenders import Missing
    from .contenders.base import Contender

TARGET = 2.0
SAMPLE_SECONDS = 0.03
ROUNDS = 15


def measure(contenders: Sequence[type[Contender]], missing: Sequence[Missing], backend: Backend, repeat: int) -> Table:
    outcome = interleave("hit", contenders, ROUNDS * repeat, lambda contender: backend.run(Sample(contender, backend)))
    reference = contenders[0].name
    base = outcome.samples.get(reference, {})
    table = Table(
        f"Idle hit on {backend.name}: get + release of the one idle connection, microseconds",
        ["pool", "median [quartiles]", f"x {reference}", "target"],
    )
    for contender in contenders:
        name = contender.name
        if name in outcome.failures:
            table.add_problem(name, outcome.failures[name])
            continue
        times, over = outcome.of(name), ratios(outcome.samples[name], base)
        ratio = statistics.median(over)
        judged = name.startswith("wspool") and backend.name == "asyncio"
        table.add(name, middle(times), middle(over, 1), verdict(ratio <= TARGET, f"<= {TARGET}") if judged else "")
        table.data[name] = {"microseconds": times, "ratio": ratio}
    add_missing(table, missing)
    add_few(table, "", outcome.few())
    if backend.name != "trio":
        table.notes.append("a target of 2 put_nowait pairs would be the stricter one: both pairs are shown")
    table.notes.append(
        "each ratio is the median of the ratios within a round, so that a slow moment counts on both sides"
    )
    return table


class Sample:
    """The time of one hit, over as many as fit into ``SAMPLE_SECONDS``."""

    def __init__(self, contender: type[Contender], backend: Backend) -> None:
        self._contender = contender
        self._backend = backend

    async def __call__(self) -> float:
        pool = self._contender()
        dial = Dial(pool.make, self._backend.sleep)
        # One place only: a connection that did not come back would stop the very next hit.
        async with pool.opened(1, dial):
            await pool.give(await pool.take())
            hits = max(50, int(50 * SAMPLE_SECONDS / await self._time(pool, 50)))
            seconds = await self._time(pool, hits)
            assert dial.started == 1, f"{dial.started} dials for one connection"
        return seconds / hits * 1e6

    async def _time(self, pool: Contender, hits: int) -> float:
        before = time.perf_counter()
        await pool.use(hits)
        return time.perf_counter() - before
