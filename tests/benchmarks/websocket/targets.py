"""What is to be reached, and whether it is: 64 KiB at a time in a websocket over TLS, each direction by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..report import Table, verdict
from .stream import Ours
from .transfer import SIDES, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .transfer import Result

SIZE = 64 * 1024
HALF = 0.5


def table(results: Sequence[Result]) -> Table | None:
    """None if nothing was measured that has a target."""
    judged = [one for one in results if one.case.layer == "stream" and one.case.size == SIZE]
    if not judged:
        return None
    table = Table(
        f"Targets: CPU s/GB of wspool at {SIZE // 1024} KiB over TLS",
        ["what", "x wsproto", "at most half", "x best library", "less than websockets and aiohttp"],
    )
    for result in judged:
        for side in SIDES:
            _add(table, result, side)
    table.notes.append("medians of the ratios within the rounds; on trio there are no such libraries")
    return table


def _add(table: Table, result: Result, side: str) -> None:
    half = result.over(Ours.name, "wsproto", side)
    best = result.over(Ours.name, "best library", side)
    what = f"{result.case.backend}, {result.case.masked}, {side}"
    table.add(
        what,
        shown(half),
        "-" if half is None else verdict(half <= HALF, f"<= {HALF}"),
        shown(best),
        "-" if best is None else verdict(best < 1, "< 1"),
    )
    table.data[what] = {"x wsproto": half, "x best library": best}
