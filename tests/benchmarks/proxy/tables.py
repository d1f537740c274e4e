"""Samples into tables: medians with quartiles, and medians of the ratios within a round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.benchmarks.report import Table, add_few, middle, ratios

if TYPE_CHECKING:
    from tests.benchmarks.interleave import Outcome

    from .near import Sample
    from .workloads import Workload

# In each table, ratios to these.
REFERENCES = ("v2ray", "ssh")


@dataclass(frozen=True)
class Result:
    """What a workload has brought to light."""

    workload: Workload
    outcome: Outcome[Sample]
    missing: dict[str, str]

    def values(self, name: str, key: str) -> list[float]:
        return [sample[key] for sample in self.outcome.of(name) if key in sample]

    def ratio(self, name: str, reference: str, key: str) -> float | None:
        """The median of the ratios within a round, of rounds in which both have that number."""
        found = ratios(self._by_round(name, key), self._by_round(reference, key))
        return statistics.median(found) if found else None

    def _by_round(self, name: str, key: str) -> dict[int, float]:
        # Of nothing there is no ratio: a clock of a hundred ticks a second may have seen no CPU time at all.
        return {at: one[key] for at, one in self.outcome.samples.get(name, {}).items() if one.get(key)}


Results: TypeAlias = dict[str, Result]


def table(result: Result) -> Table:
    workload, outcome = result.workload, result.outcome
    references = [name for name in REFERENCES if outcome.of(name) and name not in outcome.failures]
    against = [(reference, metric) for reference in references for metric in workload.metrics if metric.compared]
    headings = [metric.heading for metric in workload.metrics]
    ratio_headings = [f"{metric.heading} / {reference}" for reference, metric in against]
    made = Table(workload.title, ["system", *headings, *ratio_headings], notes=list(workload.notes))
    for name in outcome.names():
        if name in outcome.failures:
            made.add_problem(name, outcome.failures[name])
            continue
        cells = [middle(result.values(name, metric.key), metric.digits) for metric in workload.metrics]
        made.add(name, *cells, *(_shown(result.ratio(name, reference, metric.key)) for reference, metric in against))
        made.data[name] = {"samples": outcome.samples[name]}
    for name, reason in result.missing.items():
        made.add_problem(name, reason)
    add_few(made, "", outcome.few())
    return made


def as_markdown(table: Table) -> str:
    lines = [f"### {table.title}", "", _row(table.columns), _row(["---", *("---:" for _ in table.columns[1:])])]
    lines += [_row([*row, *[""] * (len(table.columns) - len(row))]) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), *([""] if table.notes else [])])


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
