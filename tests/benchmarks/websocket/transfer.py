"""The layers between two processes: TLS alone, and the whole stream. Rounds into outcomes, outcomes into tables."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from wspool.websocket import masker

from ..interleave import interleave
from ..report import Table, middle, ratios
from . import stream, tls
from .pairs import open_pairs
from .process import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..interleave import Outcome
    from .ends import Contender
    from .pairs import Sample

SIDES = ("send", "receive")
TITLES = {"tls": "TLS without a websocket", "stream": "Websocket over TLS"}
# With whom the others are compared: in each round with the best of these.
REFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "tls": {"anyio": (tls.Anyio.name,)},
    "stream": {"wsproto": (stream.PlainWsproto.name,), "best library": (stream.Websockets.name, stream.Aiohttp.name)},
}
# A contender that takes more than this in a case gets fewer samples.
SECONDS_EACH = 20.0
ALL_FROM = 8_000


@dataclass(frozen=True)
class Case:
    layer: str
    backend: str
    size: int
    client_sends: bool

    @property
    def masked(self) -> str:
        """The client masks, the server does not."""
        return "masked" if self.client_sends else "not masked"

    def __str__(self) -> str:
        what = f"{TITLES[self.layer]} on {self.backend}, {self.size // 1024} KiB at a time"
        return f"{what}, {self.masked}" if self.layer == "stream" else what


@dataclass(frozen=True)
class Result:
    case: Case
    outcome: Outcome[Sample]

    def side(self, name: str, side: str) -> dict[int, float]:
        """By round: "send" or "receive", in CPU s/GB, or "rate"."""
        return {number: getattr(one, side) for number, one in self.outcome.samples.get(name, {}).items()}

    def best(self, names: Sequence[str], side: str) -> dict[int, float]:
        """By round: the least of those who took part."""
        by_name = [values for name in names if (values := self.side(name, side))]
        rounds = set.intersection(*(set(values) for values in by_name)) if by_name else set()
        return {number: min(values[number] for values in by_name) for number in rounds}

    def over(self, name: str, reference: str, side: str) -> float | None:
        """The median of the ratios within the rounds."""
        base = self.best(REFERENCES[self.case.layer][reference], side)
        within = ratios(self.side(name, side), base)
        return statistics.median(within) if within else None


def measure(layer: str, backend: str, sizes: Sequence[int], total: int, rounds: int) -> Iterator[Result]:
    playing = [one for one in LAYERS[layer] if backend in one.backends]
    with open_pairs(layer, backend) as pairs:
        for size in sizes:
            # TLS does not care who of the two sends.
            for client_sends in (True, False) if layer == "stream" else (True,):
                case = Case(layer, backend, size, client_sends)

                def sample(one: type[Contender], case: Case = case) -> Sample:
                    moved = _total(case.size, total)
                    return pairs.sample(one.name, client_sends=case.client_sends, size=case.size, total=moved)

                yield Result(case, interleave(str(case), playing, rounds, sample, SECONDS_EACH))


def _total(size: int, total: int) -> int:
    """In proportion less of small ones: each takes about as long as one of this size."""
    return int(total * min(1, size / ALL_FROM))


def table(result: Result) -> Table:
    case = result.case
    compared = [(reference, side) for reference in REFERENCES[case.layer] for side in SIDES]
    table = Table(
        str(case),
        ["library", "send, CPU s/GB", "receive, CPU s/GB", "MB/s", *(f"x {one}: {side}" for one, side in compared)],
    )
    for name in result.outcome.names():
        if problem := result.outcome.failures.get(name):
            table.add_problem(name, problem)
            continue
        over = {f"{side} x {reference}": result.over(name, reference, side) for reference, side in compared}
        table.add(
            name,
            *(middle(list(result.side(name, side).values())) for side in SIDES),
            f"{statistics.median(result.side(name, 'rate').values()):.0f}",
            *(shown(one) for one in over.values()),
        )
        samples: Mapping[int, Sample] = result.outcome.samples[name]
        table.data[name] = {"samples": {number: asdict(one) for number, one in samples.items()}, "ratios": over}
    _add_notes(table, result)
    return table


def _add_notes(table: Table, result: Result) -> None:
    if result.case.layer == "stream":
        table.notes.append(f"wspool's masker: {masker()}; best library: websockets or aiohttp, in each round anew")
    if few := result.outcome.few():
        table.notes.append(f"fewer samples, their time being up: {few}")


def shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
