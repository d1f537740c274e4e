"""What is asked of every system, and the numbers that this brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import fresh, near
from .near import Sample, Scale

if TYPE_CHECKING:
    from .running import Running, Stage
    from .systems import System


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


_RATE = Metric("rate", "MB/s", 0, more_is_better=True)
_CPU = Metric("cpu", "CPU s/GB")
_SHARE = Metric("share", "least/largest share", more_is_better=True, compared=False)

WORKLOADS: tuple[Workload, ...] = (
    Workload("down-1", "Download, one session", (_RATE, _CPU), near.bulk("down", 1)),
    Workload("up-1", "Upload, one session", (_RATE, _CPU), near.bulk("up", 1)),
    Workload("down-8", "Download, eight sessions at once", (_RATE, _CPU, _SHARE), near.bulk("down", 8)),
    Workload("up-8", "Upload, eight sessions at once", (_RATE, _CPU, _SHARE), near.bulk("up", 8)),
    Workload(
        "sessions",
        "New sessions, one after another",
        (Metric("p50", "p50 ms"), Metric("p95", "p95 ms", compared=False), Metric("cpu", "CPU ms each")),
        near.sessions,
    ),
    Workload(
        "fifty",
        "New sessions, 50 at a time",
        (
            Metric("rate", "sessions/s", 0, more_is_better=True),
            Metric("cpu", "CPU ms each"),
            Metric("p95", "p95 ms", 1, compared=False),
        ),
        near.fifty,
    ),
    Workload(
        "beside",
        "New sessions, one after another, beside a download",
        (
            Metric("p50", "p50 ms"),
            Metric("p95", "p95 ms", compared=False),
            Metric("rate", "download MB/s", 0, more_is_better=True),
        ),
        near.beside,
    ),
    Workload(
        "far",
        "50 ms of round trip between the ends: new sessions",
        (
            Metric("single", "first byte, RTT"),
            Metric("first", "slowest of 32, RTT"),
            Metric("second", "again, RTT"),
            Metric("fifty", "sessions/s, 50 at a time", 0, more_is_better=True),
        ),
        fresh=fresh.far,
        notes=("ours has opened 64 tunnels in advance, for both bursts; the others have no such option",),
    ),
    Workload(
        "far-bulk",
        "50 ms of round trip between the ends: bulk data",
        (
            Metric("down-1", "download MB/s", 1, more_is_better=True),
            Metric("up-1", "upload MB/s", 1, more_is_better=True),
            Metric("down-8", "8 downloads MB/s", 1, more_is_better=True),
            Metric("up-8", "8 uploads MB/s", 1, more_is_better=True),
            Metric("beside", "session beside a download, RTT", 2),
        ),
        fresh=fresh.far_bulk,
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
