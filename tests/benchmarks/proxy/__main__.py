"""``python -m tests.benchmarks.proxy``: the proxy beside other tunnels, in interleaved rounds.

Load generator and destination are processes of their own; CPU time is that of the tunnel's processes only. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.benchmarks import machine
from tests.benchmarks.interleave import Outcome, interleave
from tests.benchmarks.proxy.running import Running, Stage
from tests.benchmarks.proxy.systems import SYSTEMS, System
from tests.benchmarks.proxy.tables import as_markdown, table
from tests.benchmarks.proxy.workloads import WORKLOADS, Sample, Scale, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.report import Table

ROUNDS = 5
QUICK = Scale(seconds=0.05, held=20, idle=5)
QUICK_SYSTEMS = ("direct", "wspool-asyncio")
PACKAGES = ("wspool", "anyio", "trio", "uvloop", "websockets")


def main() -> None:
    options = _options()
    _allow_many_files()
    scale = QUICK if options.quick else Scale(seconds=options.seconds)
    with TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            results = _measure(stage, options, scale)
        finally:
            stage.close()
    if options.output:
        _write(options.output, results)


def _measure(stage: Stage, options: argparse.Namespace, scale: Scale) -> dict[str, Table]:
    systems = _named(SYSTEMS, options.only, "system")
    results: dict[str, Table] = {}
    with ExitStack() as stack:
        runnings, missing = _start(stage, stack, systems)
        for workload in _named(WORKLOADS, options.workloads, "workload"):
            outcome = _outcome(stage, workload, runnings, options.rounds, scale)
            results[workload.name] = table(workload, outcome, missing)
            print(results[workload.name], flush=True)
    return results


def _start(stage: Stage, stack: ExitStack, systems: Sequence[System]) -> tuple[list[Running], dict[str, str]]:
    runnings: list[Running] = []
    missing: dict[str, str] = {}
    for system in systems:
        if reason := system.missing():
            missing[system.name] = reason
            continue
        try:
            runnings.append(stack.enter_context(stage.running(system)))
        except (OSError, RuntimeError) as error:
            missing[system.name] = f"did not start: {error}"
    return runnings, missing


def _outcome(stage: Stage, workload: Workload, runnings: list[Running], rounds: int, scale: Scale) -> Outcome[Sample]:
    def sample(running: Running) -> Sample:
        running.check()
        return workload.sample(stage, running, scale)

    return interleave(workload.title, runnings, rounds, sample, seconds_each=float("inf"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.proxy", description=__doc__)
    systems = [one.name for one in SYSTEMS]
    workloads = [one.name for one in WORKLOADS]
    parser.add_argument("--only", type=_some_of(systems), metavar="SYSTEMS", help=",".join(systems))
    parser.add_argument("--workloads", type=_some_of(workloads), metavar="NAMES", help=",".join(workloads))
    parser.add_argument("--rounds", type=int, help=f"samples of each (default {ROUNDS})")
    parser.add_argument("--seconds", type=float, default=1.0, help="the time of a sample (default 1)")
    parser.add_argument("--quick", action="store_true", help="one tiny round of direct and ours: does it all work?")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write tables, every sample and plots there")
    options = parser.parse_args()
    options.only = options.only or (QUICK_SYSTEMS if options.quick else systems)
    options.workloads = options.workloads or workloads
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    return options


def _some_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        asked = text.split(",")
        if unknown := set(asked) - set(names):
            raise argparse.ArgumentTypeError(f"none of {', '.join(names)}: {', '.join(sorted(unknown))}")
        return tuple(name for name in names if name in asked)

    return parse


def _named(things: Sequence[Any], names: Sequence[str], what: str) -> list[Any]:
    return [one for one in things if one.name in names]


def _allow_many_files() -> None:
    """A thousand open sessions take some thousand descriptors of each process; children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _write(folder: Path, results: dict[str, Table]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine.facts(PACKAGES)
    tables = {name: {"title": one.title, "data": one.data} for name, one in results.items()}
    (folder / "results.json").write_text(json.dumps({**facts, "workloads": tables}, indent=1) + "\n")
    (folder / "tables.md").write_text("\n".join(as_markdown(one) for one in results.values()))


if __name__ == "__main__":
    main()
