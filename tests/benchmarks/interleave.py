"""One sample of every contender, then one more of every contender: what disturbs the machine disturbs all alike.

The collector: it stays on while a sample is timed, because garbage that a pool makes is a cost that its user pays;
each sample starts just after a full collection, and what was imported is frozen out of it, so that nobody pays for
the garbage, or for the size, of another.
"""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Named(Protocol):
    @property
    def name(self) -> str: ...


S = TypeVar("S")
C = TypeVar("C", bound=Named)

# A slow contender gets fewer samples, and says so; but two at the least.
SECONDS_EACH = 1.5


@dataclass
class Outcome(Generic[S]):
    """The samples of each contender by name, with the round of each, and the failures."""

    samples: dict[str, dict[int, S]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def few(self) -> str:
        """Who got fewer samples than the others, and how many: the time of the slow runs out first."""
        counts = {name: len(samples) for name, samples in self.samples.items() if name not in self.failures}
        most = max(counts.values(), default=0)
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count < most)

    def names(self) -> list[str]:
        """Of all, those that failed at their first sample last."""
        return list(dict.fromkeys((*self.samples, *self.failures)))

    def of(self, name: str) -> list[S]:
        return list(self.samples.get(name, {}).values())


def interleave(
    title: str,
    contenders: Sequence[C],
    rounds: int,
    sample: Callable[[C], S],
    seconds_each: float = SECONDS_EACH,
) -> Outcome[S]:
    outcome: Outcome[S] = Outcome()
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
    spent = dict.fromkeys((contender.name for contender in contenders), 0.0)
    for number in range(rounds):
        # Another one goes first each time: none is always the neighbour of the same.
        start = number % len(contenders)
        for contender in (*contenders[start:], *contenders[:start]):
            name = contender.name
            if name in outcome.failures or (number > 1 and spent[name] > seconds_each):
                continue
            _progress(f"{title}: round {number + 1} of {rounds}, {name}")
            gc.collect()
            before = time.perf_counter()
            try:
                outcome.samples.setdefault(name, {})[number] = sample(contender)
            # A peer's failure is a result; it must not end the run.
            except Exception as error:
                outcome.failures[name] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
            spent[name] += time.perf_counter() - before
    _progress("")
    return outcome


def settle_collector() -> None:
    """Call once, after all imports."""
    gc.collect()
    gc.freeze()


def _progress(text: str) -> None:
    """One line that changes; nothing where standard error is a file."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
