"""What is asked of every system: each workload takes one sample of one system, as plain numbers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.benchmarks.report import percentile

from . import fresh

if TYPE_CHECKING:
    from .running import Running, Stage
    from .systems import System

Sample: TypeAlias = dict[str, float]
MIB = 1 << 20
# A transfer that tells how much is moved in the time of a sample; all of it is compared with what was sent.
_TRIAL = 8 * MIB
_MOST = 1 << 30


@dataclass(frozen=True)
class Scale:
    """How long a sample takes, and how many there are of what is counted."""

    seconds: float = 1.0
    held: int = 1000
    idle: int = 200


@dataclass(frozen=True)
class Metric:
    key: str
    heading: str
    digits: int = 2
    more_is_better: bool = False
    compared: bool = True


@dataclass(frozen=True)
class Workload:
    """Of a system that runs all the time, or of one that is started for each sample."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    sample: Callable[[Stage, Running, Scale], Sample] | None = None
    fresh: Callable[[Stage, System, Scale], Sample] | None = None
    notes: tuple[str, ...] = ()
    most_rounds: int = 1000


def _bulk(direction: str, sessions: int) -> Callable[[Stage, Running, Scale], Sample]:
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
        arguments = {**running.where, "direction": direction, "sessions": 1}
        for size in (MIB, _TRIAL):
            trial = stage.load.do("bulk", **arguments, size=size, all_of_it=True)
        running.pace[direction] = trial["bytes"] / trial["seconds"]
    wanted = int(running.pace[direction] * scale.seconds)
    return min(_MOST, max(MIB, wanted // MIB * MIB))


def _sessions(stage: Stage, running: Running, scale: Scale) -> Sample:
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


def _fifty(stage: Stage, running: Running, scale: Scale) -> Sample:
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


def _beside(stage: Stage, running: Running, scale: Scale) -> Sample:
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


_RATE = Metric("rate", "MB/s", 0, more_is_better=True)
_CPU = Metric("cpu", "CPU s/GB")
_SHARE = Metric("share", "least/largest share", more_is_better=True, compared=False)

WORKLOADS: tuple[Workload, ...] = (
    Workload("down-1", "Download, one session", (_RATE, _CPU), _bulk("down", 1)),
    Workload("up-1", "Upload, one session", (_RATE, _CPU), _bulk("up", 1)),
    Workload("down-8", "Download, eight sessions at once", (_RATE, _CPU, _SHARE), _bulk("down", 8)),
    Workload("up-8", "Upload, eight sessions at once", (_RATE, _CPU, _SHARE), _bulk("up", 8)),
    Workload(
        "sessions",
        "New sessions, one after another",
        (Metric("p50", "p50 ms"), Metric("p95", "p95 ms", compared=False), Metric("cpu", "CPU ms each")),
        _sessions,
    ),
    Workload(
        "fifty",
        "New sessions, 50 at a time",
        (
            Metric("rate", "sessions/s", 0, more_is_better=True),
            Metric("cpu", "CPU ms each"),
            Metric("p95", "p95 ms", 1, compared=False),
        ),
        _fifty,
    ),
    Workload(
        "beside",
        "New sessions, one after another, beside a download",
        (
            Metric("p50", "p50 ms"),
            Metric("p95", "p95 ms", compared=False),
            Metric("rate", "download MB/s", 0, more_is_better=True),
        ),
        _beside,
    ),
    Workload(
        "far",
        "50 ms of round trip between the ends",
        (
            Metric("single", "first byte, RTT"),
            Metric("first", "slowest of 32, RTT"),
            Metric("second", "again, RTT"),
            Metric("down", "download MB/s", 1, more_is_better=True),
            Metric("up", "upload MB/s", 1, more_is_better=True),
        ),
        fresh=fresh.far,
        notes=("ours has opened 32 tunnels in advance; the others have no such option",),
    ),
    Workload(
        "memory",
        "Memory of both ends together (proportional set size)",
        (
            Metric("idle", "idle MiB", 1),
            Metric("session", "KiB for an open session", 1),
            Metric("tunnel", "KiB for an idle tunnel", 1, compared=False),
        ),
        fresh=fresh.memory,
        # It takes long, and hardly differs.
        most_rounds=3,
        notes=("pages that other processes of this machine use as well count in part: those of Python, for example",),
    ),
    Workload(
        "ready",
        "From the start of the process until it accepts connections",
        (
            Metric("server", "far end ms", 0),
            Metric("client", "near end ms", 0),
            Metric("answer", "near end, first answer ms", 0),
        ),
        fresh=fresh.ready,
    ),
)
