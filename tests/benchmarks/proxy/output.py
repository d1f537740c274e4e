"""Results into files: tables in Markdown, every sample in JSON, and a plot of each workload."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

from tests.benchmarks import machine

from .plots import plot
from .systems.base import program
from .tables import as_markdown, table
from .targets import verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from .tables import Result, Results

PACKAGES = ("wspool", "anyio", "trio", "uvloop", "websockets")
_COMMANDS = {"v2ray": ["v2ray", "-version"], "ssh": ["ssh", "-V"], "trojan": ["trojan", "--version"]}


def write(folder: Path, results: Results, newest: Result) -> None:
    """All tables and samples, and a plot of the newest."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine.facts(PACKAGES)
    facts["versions"] |= {name: _version(command) for name, command in _COMMANDS.items() if program(name)}
    (folder / "results.json").write_text(json.dumps({**facts, "workloads": _as_json(results)}, indent=1) + "\n")
    tables = [*(table(one) for one in results.values()), *verdicts(results)]
    (folder / "tables.md").write_text("\n".join(as_markdown(one) for one in tables))
    plot(newest, folder / f"{newest.workload.name}.svg")


def _as_json(results: Results) -> dict[str, Any]:
    return {
        name: {"title": one.workload.title, "data": table(one).data, "failures": one.outcome.failures}
        for name, one in results.items()
    }


def _version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\S*", done.stdout + done.stderr)
    return found[0] if found else "?"
