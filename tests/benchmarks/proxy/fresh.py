"""Workloads for which a system is started anew each time: far ends, memory, and the start itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from . import near
from .near import Sample, Scale
from .processes import Process
from .running import Running

if TYPE_CHECKING:
    from .running import Stage
    from .systems import System

ROUND_TRIP = 0.05
BURST = 32
# Tunnels for both bursts are there before the first comes: those that it takes are free again only a round trip after
# its last answers, and the second comes sooner.
PREWARMED = ("--min-idle", str(2 * BURST))
# Of --min-idle.
DEFAULT_IDLE = 2
_SINGLES = 10


def far(stage: Stage, system: System, scale: Scale) -> Sample:
    """First the bursts, of which the first is the first thing that happens to the tunnels; then the rest."""
    with _far(stage, system) as running:
        bursts = [_slowest_of_a_burst(stage, running) for _ in range(2)]
        running.settle()  # ours opens new tunnels in place of those that were taken
        singles = [_first_byte(stage, running) for _ in range(_SINGLES)]
        fifty = near.fifty(stage, running, scale)
        return {"single": statistics.median(singles), "first": bursts[0], "second": bursts[1], "fifty": fifty["rate"]}


@contextmanager
def _far(stage: Stage, system: System) -> Iterator[Running]:
    with stage.running(system, PREWARMED if system.is_ours else (), ROUND_TRIP / 2) as running:
        running.settle()
        yield running


def _slowest_of_a_burst(stage: Stage, running: Running) -> float:
    done = stage.load.do("many", **running.where, at_once=BURST, count=BURST)
    return float(max(done["first_byte"]) / ROUND_TRIP)


def _first_byte(stage: Stage, running: Running) -> float:
    done = stage.load.do("many", **running.where, at_once=1, count=1)
    return float(done["first_byte"][0] / ROUND_TRIP)


def far_bulk(stage: Stage, system: System, scale: Scale) -> Sample:
    with _far(stage, system) as running:
        found = {
            f"{direction}-{sessions}": near.bulk(direction, sessions)(stage, running, scale)["rate"]
            for direction in ("down", "up")
            for sessions in (1, 8)
        }
        beside = near.beside(stage, running, scale)
    return {**found, "beside": beside["p50"] / 1e3 / ROUND_TRIP}


def memory(stage: Stage, system: System, scale: Scale) -> Sample:
    """Of both ends together."""
    with stage.running(system) as running:
        running.settle()
        new = running.memory()
        stage.load.do("sessions", **running.where, seconds=0.0)
        running.settle()
        idle = running.memory()
        stage.load.do("hold", **running.where, count=scale.held)
        held = running.memory()
        stage.load.do("let_go")
    if not idle:
        return {}  # no tunnel
    found = {"idle": idle / 1024, "session": (held - idle) / scale.held}
    return {**found, **({"tunnel": _tunnel(stage, system, scale, new)} if system.is_ours else {})}


def _tunnel(stage: Stage, system: System, scale: Scale, new: int) -> float:
    """For each idle tunnel of a pool, beyond those few that it has by default."""
    count = str(DEFAULT_IDLE + scale.idle)
    with stage.running(system, ("--min-idle", count, "--max-idle", count)) as running:
        running.settle()
        return (running.memory() - new) / scale.idle


def ready(stage: Stage, system: System, scale: Scale) -> Sample:
    """From the start of a process until its port accepts; the near end starts when the far one is ready."""
    site = stage.site(system)
    found: Sample = {}
    with ExitStack() as stack:
        processes = []
        for command in system.ends(site):
            began = time.perf_counter()
            process = Process(command, site.folder)
            stack.callback(process.stop)
            process.wait_ready()
            found[command.name] = (time.perf_counter() - began) * 1e3
            processes.append(process)
        if processes:
            stage.see_it_work(Running(system, processes, site.socks, stage.to))
            found["answer"] = (time.perf_counter() - began) * 1e3
    return found
