"""``python -m tests.benchmarks.proxy``: the proxy beside other tunnels, in interleaved rounds.

Load generator and destination are processes of their own; CPU time is that of the tunnel's processes only. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.benchmarks.arguments import some_of
from tests.benchmarks.interleave import Outcome, interleave
from tests.benchmarks.proxy.install import install
from tests.benchmarks.proxy.near import Sample, Scale
from tests.benchmarks.proxy.output import write
from tests.benchmarks.proxy.running import Running, Stage
from tests.benchmarks.proxy.systems import SYSTEMS, System
from tests.benchmarks.proxy.tables import Result, Results, table
from tests.benchmarks.proxy.targets import verdicts
from tests.benchmarks.proxy.workloads import WORKLOADS, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 5
# Who is slower at a workload, all rounds together, gets fewer samples: two at the least.
SECONDS_EACH = 120.0
QUICK = Scale(seconds=0.05, held=20, idle=5)
QUICK_SYSTEMS = ("direct", "wspool-asyncio")


def main() -> None:
    options = _options()
    if options.install:
        python = str(install())
        os.execv(python, [python, "-m", __package__, *(one for one in sys.argv[1:] if one != "--install")])
    _allow_many_files()
    # So that everything that was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale = QUICK if options.quick else Scale(seconds=options.seconds)
    with TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            results = _measure(stage, options, scale)
        finally:
            stage.close()
    for judged in verdicts(results):
        print(judged)


def _measure(stage: Stage, options: argparse.Namespace, scale: Scale) -> Results:
    systems = _named(SYSTEMS, options.only)
    workloads = _named(WORKLOADS, options.workloads)
    missing = {system.name: reason for system in systems if (reason := system.missing())}
    present = [system for system in systems if system.name not in missing]
    results: Results = {}
    # Those that run all the time end before memory is measured: processes share pages.
    lasting = [workload for workload in workloads if workload.sample]
    if lasting:
        with ExitStack() as stack:
            runnings = _start(stage, stack, present, missing)
            for workload in lasting:
                outcome = _of_running(stage, workload, runnings, options.rounds, scale)
                _add(results, Result(workload, outcome, dict(missing)), options.output)
    for workload in workloads:
        if workload.fresh:
            outcome = _of_started(stage, workload, present, options.rounds, scale)
            _add(results, Result(workload, outcome, dict(missing)), options.output)
    return results


def _start(stage: Stage, stack: ExitStack, systems: Sequence[System], missing: dict[str, str]) -> list[Running]:
    runnings: list[Running] = []
    for system in systems:
        try:
            runnings.append(stack.enter_context(stage.running(system)))
        except (OSError, RuntimeError) as error:
            missing[system.name] = f"did not start: {error}"
    return runnings


def _of_running(
    stage: Stage, workload: Workload, runnings: list[Running], rounds: int, scale: Scale
) -> Outcome[Sample]:
    def sample(running: Running) -> Sample:
        assert workload.sample
        running.check()
        return workload.sample(stage, running, scale)

    contenders = [running for running in runnings if running.system.takes_part(workload.name)]
    return interleave(workload.title, contenders, rounds, sample, SECONDS_EACH)


def _of_started(stage: Stage, workload: Workload, systems: list[System], rounds: int, scale: Scale) -> Outcome[Sample]:
    def sample(system: System) -> Sample:
        assert workload.fresh
        return workload.fresh(stage, system, scale)

    contenders = [system for system in systems if system.takes_part(workload.name)]
    rounds = min(rounds, workload.most_rounds)
    return interleave(workload.title, contenders, rounds, sample, SECONDS_EACH)


def _add(results: Results, result: Result, output: Path | None) -> None:
    results[result.workload.name] = result
    print(table(result), flush=True)
    # At once: a run that is broken off has lost nothing of what it has measured.
    if output:
        write(output, results, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.proxy", description=__doc__)
    systems = [one.name for one in SYSTEMS]
    workloads = [one.name for one in WORKLOADS]
    parser.add_argument("--only", type=some_of(systems), metavar="SYSTEMS", help=",".join(systems))
    parser.add_argument("--workloads", type=some_of(workloads), metavar="NAMES", help=",".join(workloads))
    parser.add_argument("--rounds", type=int, help=f"samples of each (default {ROUNDS})")
    parser.add_argument("--seconds", type=float, default=1.0, help="the time of a sample (default 1)")
    parser.add_argument("--quick", action="store_true", help="one tiny round of direct and ours: does it all work?")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write tables, every sample and plots there")
    parser.add_argument("--install", action="store_true", help="first install the peers that can be, as root")
    options = parser.parse_args()
    options.only = options.only or (QUICK_SYSTEMS if options.quick else systems)
    options.workloads = options.workloads or workloads
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    return options


def _named(things: Sequence[Any], names: Sequence[str]) -> list[Any]:
    return [one for one in things if one.name in names]


def _allow_many_files() -> None:
    """A thousand open sessions take some thousand descriptors of each process; children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
