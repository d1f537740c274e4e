"""``python -m tests.fuzz TARGET``: atheris looks for bytes that break a promise, led by what they reach.

It needs ``pip install --group fuzz``. What it finds is left in a file, which ``--replay`` runs again without it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

# An input that takes this long hangs: most take a hundredth of a second, with everything traced.
INPUT_TIMEOUT = 20
# Far more than the limits of all targets; what goes beyond has no limit.
MEMORY = 1024
# Everything can be reached with less; it is read byte by byte, too.
LONGEST = 1024


def main() -> None:
    options = _options()
    if options.replay:
        from tests.fuzz.targets import TARGETS, check

        check(TARGETS[options.target], options.replay.read_bytes())
        print("every promise holds for it")
        return
    with tempfile.TemporaryDirectory() as scratch:
        _fuzz(options.target, options.seconds, options.corpus or Path(scratch))


def _options() -> argparse.Namespace:
    # Named here, so that nothing is imported before it is instrumented.
    targets = ("client", "server", "request", "answer", "proxy", "url")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=targets)
    parser.add_argument("--seconds", type=int, default=60, help="how long to look; 60 by default")
    parser.add_argument("--corpus", type=Path, help="a directory that keeps what was found worth trying, between runs")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input, with its traceback, and end")
    return parser.parse_args()


def _fuzz(name: str, seconds: int, corpus: Path) -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install --group fuzz")
    with atheris.instrument_imports(include=["wspool", "wsproto", "h11", "idna"]):
        from tests.fuzz.targets import TARGETS, check
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_TIMEOUT}",
        f"-rss_limit_mb={MEMORY}",
        f"-max_len={LONGEST}",
    ]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", str(corpus)], lambda raw: check(target, raw))
    atheris.Fuzz()


main()
