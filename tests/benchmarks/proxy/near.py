"""Samples of a system that runs: whether its ends are near to each other is not their business."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.benchmarks.report import percentile

if TYPE_CHECKING:
    from .running import Running, Stage

Sample: TypeAlias = dict[str, float]
MIB = 1 << 20
# Transfers that tell how much is moved in the time of a sample; all of them is compared with what was sent.
_TRIALS = (MIB, 8 * MIB, 32 * MIB)
_MOST = 1 << 30


@dataclass(frozen=True)
class Scale:
    """How long a sample takes, and how many there are of what is counted."""

    seconds: float = 1.0
    held: int = 1000
    idle: int = 200


def bulk(direction: str, sessions: int) -> Callable[[Stage, Running, Scale], Sample]:
    def sample(stage: Stage, running: Running, scale: Scale) -> Sample:
        size = _size(stage, running, direction, scale) // sessions
        before = running.cpu()
        done = stage.load.do("bulk", **running.where, direction=direction, sessions=sessions, size=size)
        cpu = running.cpu() - before
        return {
            "rate": done["bytes"] / 1e6 / done["seconds"],
            "cpu": cpu / done["bytes"] * 1e9,
            "share": min(done["shares"]) / max(done["shares"]),
        }

    return sample


def _size(stage: Stage, running: Running, direction: str, scale: Scale) -> int:
    """What this system moves in a sample's time; found at its first, and kept."""
    if direction not in running.pace:
        running.pace[direction] = _pace(stage, running, direction, scale)
    wanted = int(running.pace[direction] * scale.seconds)
    return min(_MOST, max(MIB, wanted // MIB * MIB))


def _pace(stage: Stage, running: Running, direction: str, scale: Scale) -> float:
    for size in _TRIALS:
        trial = stage.load.do("bulk", **running.where, direction=direction, sessions=1, size=size, all_of_it=True)
        pace = float(trial["bytes"] / trial["seconds"])
        # A longer one tells more, but the slow are known by now.
        if pace * scale.seconds < size:
            break
    return pace


def sessions(stage: Stage, running: Running, scale: Scale) -> Sample:
    stage.load.do("sessions", **running.where, seconds=scale.seconds / 10)
    before = running.cpu()
    done = stage.load.do("sessions", **running.where, seconds=scale.seconds)
    cpu = running.cpu() - before
    times = done["times"]
    return {
        "p50": statistics.median(times) * 1e3,
        "p95": percentile(times, 95) * 1e3,
        "cpu": cpu / len(times) * 1e3,
    }


def fifty(stage: Stage, running: Running, scale: Scale) -> Sample:
    stage.load.do("many", **running.where, at_once=50, count=100)
    before = running.cpu()
    done = stage.load.do("many", **running.where, at_once=50, seconds=scale.seconds)
    cpu = running.cpu() - before
    count = len(done["times"])
    return {
        "rate": count / done["seconds"],
        "cpu": cpu / count * 1e3,
        "p95": percentile(done["times"], 95) * 1e3,
    }


def beside(stage: Stage, running: Running, scale: Scale) -> Sample:
    stage.load.do("background", **running.where)
    try:
        stage.load.do("sessions", **running.where, seconds=scale.seconds / 10)
        before, began = stage.load.do("background_count"), time.perf_counter()
        done = stage.load.do("sessions", **running.where, seconds=scale.seconds)
        moved = stage.load.do("background_count") - before
        took = time.perf_counter() - began
    finally:
        stage.load.do("stop_background")
    times = done["times"]
    return {
        "p50": statistics.median(times) * 1e3,
        "p95": percentile(times, 95) * 1e3,
        "rate": moved / 1e6 / took,
    }
