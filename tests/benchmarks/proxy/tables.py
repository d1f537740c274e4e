"""Samples into tables: medians with quartiles, and medians of the ratios within a round."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.benchmarks.report import Table, middle, ratios

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.interleave import Outcome

    from .workloads import Metric, Sample, Workload

# In each table, ratios to these.
REFERENCES = ("v2ray", "ssh")


def table(workload: Workload, outcome: Outcome[Sample], missing: Mapping[str, str]) -> Table:
    references = [name for name in REFERENCES if outcome.of(name) and name not in outcome.failures]
    compared = [metric for metric in workload.metrics if metric.compared]
    headings = [metric.heading for metric in workload.metrics]
    against = [f"{metric.heading} / {reference}'s" for reference in references for metric in compared]
    result = Table(workload.title, ["system", *headings, *against], notes=list(workload.notes))
    for name in outcome.names():
        if name in outcome.failures:
            result.add_problem(name, outcome.failures[name])
            continue
        cells = [middle(values(outcome, name, metric), metric.digits) for metric in workload.metrics]
        cells += [_ratio(outcome, name, reference, metric) for reference in references for metric in compared]
        result.add(name, *cells)
        result.data[name] = {"samples": outcome.samples[name]}
    for name, reason in missing.items():
        result.add_problem(name, reason)
    return result


def values(outcome: Outcome[Sample], name: str, metric: Metric) -> list[float]:
    return [sample[metric.key] for sample in outcome.of(name) if metric.key in sample]


def median_ratio(outcome: Outcome[Sample], name: str, reference: str, key: str) -> float | None:
    """The median of the ratios within a round, of rounds in which both have that number."""
    found = ratios(_by_round(outcome, name, key), _by_round(outcome, reference, key))
    return statistics.median(found) if found else None


def _by_round(outcome: Outcome[Sample], name: str, key: str) -> dict[int, float]:
    # Of nothing there is no ratio: a clock that ticks ten times in a second may have seen no CPU time at all.
    return {at: one[key] for at, one in outcome.samples.get(name, {}).items() if one.get(key)}


def _ratio(outcome: Outcome[Sample], name: str, reference: str, metric: Metric) -> str:
    found = median_ratio(outcome, name, reference, metric.key)
    return "-" if found is None else f"{found:.2f}"


def as_markdown(table: Table) -> str:
    lines = [f"### {table.title}", "", _row(table.columns), _row(["---", *("---:" for _ in table.columns[1:])])]
    lines += [_row([*row, *[""] * (len(table.columns) - len(row))]) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), *([""] if table.notes else [])])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
