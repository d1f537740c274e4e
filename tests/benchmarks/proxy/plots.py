"""A bar for each system, and for each number that is compared."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .tables import Result

_OURS, _PEER = "#1f6feb", "#9aa4b2"


def plot(result: Result, file: Path) -> None:
    """As SVG, with text that stays text; nothing where matplotlib is not installed, or nothing was measured."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        print("no plots: matplotlib is not installed (group `bench`)", file=sys.stderr)
        return
    # The same numbers make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "wspool", "font.size": 9})
    metrics = [metric for metric in result.workload.metrics if metric.compared]
    names = [name for name in result.outcome.names() if name != "direct" and name not in result.outcome.failures]
    if not names:
        return
    figure = Figure(figsize=(3 * len(metrics) + 2, 0.28 * len(names) + 1.2), layout="constrained")
    figure.suptitle(result.workload.title)
    beside_one_another = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    beside_one_another[0].invert_yaxis()
    for axes, metric in zip(beside_one_another, metrics, strict=True):
        values = [result.values(name, metric.key) for name in names]
        middles = [statistics.median(one) if one else 0.0 for one in values]
        least = [middle - min(one, default=0.0) for middle, one in zip(middles, values, strict=True)]
        most = [max(one, default=0.0) - middle for middle, one in zip(middles, values, strict=True)]
        colours = [_OURS if name.startswith("wspool") else _PEER for name in names]
        axes.barh(names, middles, xerr=[least, most], color=colours, error_kw={"elinewidth": 0.8})
        axes.set_title(f"{metric.heading}\n({'more' if metric.more_is_better else 'less'} is better)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, format="svg", metadata={"Date": None})
