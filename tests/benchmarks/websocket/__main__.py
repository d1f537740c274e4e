"""``python -m tests.benchmarks.websocket``: bulk data through the layers of the websocket, CPU seconds per GB.

framing: frames made and read without I/O. tls: bytes over TLS, without a websocket. stream: bytes in a websocket over
TLS. The last two go over loopback between two processes, and each counts its own CPU time. Contenders take turns, one
sample each in a round. Needs the groups `test` and `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks import machine
from tests.benchmarks.arguments import some_of
from tests.benchmarks.interleave import settle_collector
from tests.benchmarks.websocket import framing, targets, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.report import Table
    from tests.benchmarks.websocket.transfer import Result

LAYERS = ("framing", "tls", "stream")
BACKENDS = ("asyncio", "uvloop", "trio")
SIZES = (1024, 16 * 1024, 64 * 1024, 256 * 1024)
TOTAL = 32_000_000
ROUNDS = 5
QUICK_SIZES = (1024, 64 * 1024)
QUICK_TOTAL = 16_000_000
QUICK_ROUNDS = 3
# The versions that --json tells.
PEERS = ("wspool", "anyio", "trio", "uvloop", "wsproto", "websockets", "aiohttp", "numpy")


def main() -> None:
    options = _options()
    settle_collector()
    print(f"Python {platform.python_version()} on {platform.system()}, {os.cpu_count()} CPUs\n")
    tables: dict[str, list[Table]] = {}
    for layer, table in _measured(options):
        print(table, flush=True)
        tables.setdefault(layer, []).append(table)
    if options.json:
        options.json.write_text(json.dumps(_as_json(tables), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.websocket", description=__doc__)
    parser.add_argument("--layer", type=some_of(LAYERS), default=LAYERS, metavar="NAMES", help=",".join(LAYERS))
    parser.add_argument(
        "--backend", type=some_of(BACKENDS), default=_backends(), metavar="NAMES", help=",".join(BACKENDS)
    )
    parser.add_argument("--sizes", type=_sizes, metavar="BYTES,...", help="of what is sent at a time")
    parser.add_argument("--rounds", type=int, help="samples of each contender")
    parser.add_argument("--total", type=int, metavar="BYTES", help="sent in a sample; of small sizes less")
    parser.add_argument("--quick", action="store_true", help="about two minutes, with less of everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there, too")
    options = parser.parse_args()
    options.sizes = options.sizes or (QUICK_SIZES if options.quick else SIZES)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    options.total = options.total or (QUICK_TOTAL if options.quick else TOTAL)
    return options


def _backends() -> tuple[str, ...]:
    """Those that run on this platform."""
    return tuple(name for name in BACKENDS if name != "uvloop" or sys.platform != "win32")


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(one) for one in text.split(","))
    if any(size <= 0 or framing.BLOCK % size for size in sizes):
        raise argparse.ArgumentTypeError(f"each must divide {framing.BLOCK}")
    return sizes


def _measured(options: argparse.Namespace) -> Iterator[tuple[str, Table]]:
    if "framing" in options.layer:
        for table in framing.measure(options.sizes, options.rounds):
            yield "framing", table
    results: list[Result] = []
    for layer in ("tls", "stream"):
        for backend in options.backend if layer in options.layer else ():
            for result in transfer.measure(layer, backend, options.sizes, options.total, options.rounds):
                results.append(result)
                yield layer, transfer.table(result)
    if judged := targets.table(results):
        yield "targets", judged


def _as_json(tables: dict[str, list[Table]]) -> dict[str, Any]:
    layers = {layer: [{"title": t.title, "data": t.data} for t in many] for layer, many in tables.items()}
    return {**machine.facts(PEERS), "layers": layers}


if __name__ == "__main__":
    main()
