"""Numbers into tables."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .contenders import Missing


@dataclass
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # Everything in the table as plain numbers, for --json.
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, *cells: str) -> None:
        self.rows.append([name, *cells])

    def add_problem(self, name: str, problem: str) -> None:
        """A row of one sentence across all columns."""
        self.rows.append([name, problem])
        self.data.setdefault(name, {})["problem"] = problem

    def __str__(self) -> str:
        full = [self.columns, *(row for row in self.rows if len(row) == len(self.columns))]
        widths = [max(len(cell) for cell in column) for column in zip(*full, strict=True)]
        widths[0] = max(len(row[0]) for row in (self.columns, *self.rows))
        lines = [
            self.title,
            "=" * len(self.title),
            _line(self.columns, widths),
            _line(["-" * w for w in widths], widths),
        ]
        lines += [_line(row, widths) for row in self.rows]
        return "\n".join([*lines, *(f"  - {note}" for note in self.notes), ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    if len(cells) != len(widths):
        return f"{cells[0].ljust(widths[0])}  {cells[1]}"
    last = len(cells) - 1
    aligned = [
        cell.ljust(width) if at in {0, last} else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def add_missing(table: Table, missing: Sequence[Missing]) -> None:
    for contender in missing:
        table.add_problem(contender.name, contender.reason)


def add_few(table: Table, of_what: str, few: str) -> None:
    if few:
        table.notes.append(
            f"fewer samples{of_what}, their time being up: {few} (under five: least and most, not quartiles)"
        )


def middle(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the quartiles around it (with few samples: the least and the most)."""
    if not values:
        return "-"
    low, high = quartiles(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f}..{high:.{digits}f}]"


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 5:
        return min(values), max(values)
    cuts = statistics.quantiles(values, n=4, method="inclusive")
    return cuts[0], cuts[2]


def ratios(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Each sample over the reference's sample of the same round."""
    return [value / reference[number] for number, value in values.items() if number in reference]


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def verdict(reached: bool, target: str) -> str:
    return f"{'reached' if reached else 'MISSED'} ({target})"
