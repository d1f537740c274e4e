"""What ours is to reach, and whether it has: medians of ratios within one run, or medians."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from tests.benchmarks.report import Table, verdict

from .systems import SYSTEMS

if TYPE_CHECKING:
    from .tables import Result, Results

OURS = ("wspool-asyncio", "wspool-uvloop", "wspool-trio")
BARE = "wspool-bare"
BULK = ("down-1", "up-1", "down-8", "up-8")


@dataclass(frozen=True)
class Target:
    """At least, or at most, that much; times the reference's, if there is one."""

    workload: str
    key: str
    limit: float
    at_least: bool = False
    reference: str | None = None
    is_aim: bool = False
    suffix: str = ""
    """Of the rows that are judged."""

    def of(self, result: Result, name: str) -> float | None:
        if self.reference:
            return result.ratio(name, self.reference, self.key)
        found = result.values(name, self.key)
        return statistics.median(found) if found else None

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def worded(self) -> str:
        limit = f"{'>=' if self.at_least else '<='} {self.limit:.3g}"
        return f"{limit} x {self.reference}" if self.reference else limit


def _bulk(workload: str) -> list[Target]:
    return [
        Target(workload, "rate", 2, at_least=True, reference="v2ray"),
        Target(workload, "cpu", 0.5, reference="v2ray"),
        Target(workload, "rate", 1, at_least=True, reference="ssh"),
        Target(workload, "cpu", 1, reference="ssh"),
        Target(workload, "rate", 1, at_least=True, reference="ssh-aes128-gcm", is_aim=True),
        Target(workload, "cpu", 1, reference="ssh-aes128-gcm", is_aim=True),
    ]


TARGETS = (
    *(target for workload in BULK for target in _bulk(workload)),
    Target("down-8", "share", 0.7, at_least=True),
    Target("up-8", "share", 0.7, at_least=True),
    Target("sessions", "p50", 1 / 3, reference="v2ray"),
    Target("fifty", "rate", 2, at_least=True, reference="v2ray"),
    Target("fifty", "cpu", 0.6, reference="v2ray"),
    Target("fifty", "rate", 1, at_least=True, reference="v2ray+mux", is_aim=True),
    Target("beside", "p50", 0.5, reference="v2ray"),
    Target("far", "single", 2.1),
    Target("far", "single", 1.1, suffix="-fast-open"),
    Target("far", "first", 2.3),
    Target("far", "second", 2.3),
    Target("memory", "session", 75),
    Target("ready", "server", 500),
    Target("ready", "client", 500),
)


def verdicts(results: Results) -> list[Table]:
    """For what was measured, if anything is to be said of it."""
    return [table for table in (_of_targets(results), _of_bare(results)) if table.rows]


def _of_targets(results: Results) -> Table:
    table = Table("Targets", ["what", "target", *(name.removeprefix("wspool-") for name in OURS), "best"])
    for target in TARGETS:
        if result := results.get(target.workload):
            found = [target.of(result, name + target.suffix) for name in OURS]
            known = [value for value in found if value is not None]
            if not known:
                continue
            heading = next(one.heading for one in result.workload.metrics if one.key == target.key)
            cells = ["-" if value is None else f"{value:.2f}" for value in found]
            table.add(f"{target.workload}{target.suffix} {heading}", target.worded(), *cells, _judged(target, known))
    return table


def _judged(target: Target, values: list[float]) -> str:
    best = max(values) if target.at_least else min(values)
    return verdict(target.reached(best), "aim" if target.is_aim else "target")


def _of_bare(results: Results) -> Table:
    """Every column but memory for a session: ours without the extras over the Python peer."""
    table = Table("Without the extras, over each Python peer", ["what", "peer", "ratio", "better"])
    peers = [system.name for system in SYSTEMS if system.is_python_peer]
    for result, peer in product(results.values(), peers):
        for metric in result.workload.metrics:
            ratio = result.ratio(BARE, peer, metric.key)
            if ratio is None or (result.workload.name, metric.key) == ("memory", "session") or metric.key == "tunnel":
                continue
            better = ratio > 1 if metric.more_is_better else ratio < 1
            table.add(f"{result.workload.name} {metric.heading}", peer, f"{ratio:.2f}", "yes" if better else "NO")
    return table
