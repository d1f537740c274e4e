"""``python -m tests.benchmarks``: measure with what is installed. ``run.py`` installs the peers first."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks import backends, burst, contenders, handoff, hit, machine, memory, race
from tests.benchmarks.interleave import settle_collector

if TYPE_CHECKING:
    from tests.benchmarks.contenders import Missing
    from tests.benchmarks.contenders.base import Contender
    from tests.benchmarks.report import Table

SCENARIOS: dict[str, Any] = {"hit": hit, "handoff": handoff, "race": race, "burst": burst, "memory": memory}
# The versions that --json tells.
PEERS = (
    "wspool",
    "anyio",
    "trio",
    "uvloop",
    "aiohttp",
    "psycopg_pool",
    "psycopg",
    "asyncpg",
    "httpcore",
    "connpool",
    "asyncio-connection-pool",
    "generic-connection-pool",
)


def main() -> None:
    options = _options()
    # What peers log and warn about while they are stressed is no result.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    backend = backends.named(options.backend)
    found, missing = contenders.load(options.backend)
    settle_collector()
    print(f"Python {platform.python_version()} on {platform.system()}, {os.cpu_count()} CPUs, {options.backend}\n")
    tables: dict[str, list[Table]] = {}
    for name in options.only:
        playing = [contender for contender in found if name in contender.scenarios]
        absent = _absent(name, missing)
        if not playing:
            continue
        tables[name] = _measure(name, playing, absent, backend, options.repeat)
        for table in tables[name]:
            print(table, flush=True)
    _print_notes(found)
    if options.json:
        options.json.write_text(json.dumps(_as_json(options, tables), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(SCENARIOS),
        metavar="NAMES",
        help=f"some of {','.join(SCENARIOS)}",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="N times as many samples as usual")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there, too")
    parser.add_argument("--backend", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    options = parser.parse_args()
    if unknown := set(options.only) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def _measure(
    name: str, playing: list[type[Contender]], absent: list[Missing], backend: backends.Backend, repeat: int
) -> list[Table]:
    measured = SCENARIOS[name].measure(playing, absent, backend, repeat)
    return measured if isinstance(measured, list) else [measured]


def _absent(scenario: str, missing: list[Missing]) -> list[Missing]:
    """Variants of wspool are rows of their own only where it is measured in more than one way."""
    return [one for one in missing if "," not in one.name or scenario == "hit"]


def _print_notes(found: list[type[Contender]]) -> None:
    print("How each was measured\n=====================")
    for contender in found:
        if contender.note:
            print(f"{contender.name}: {contender.note}")


def _as_json(options: argparse.Namespace, tables: dict[str, list[Table]]) -> dict[str, Any]:
    return {
        **machine.facts(PEERS),
        "backend": options.backend,
        "scenarios": {name: [{"title": t.title, "data": t.data} for t in many] for name, many in tables.items()},
    }


if __name__ == "__main__":
    main()
