"""`python -m tests.socks_proxy.simulation SEED`, or `FIRST LAST`."""

from __future__ import annotations

import sys
import time

from .oracle import Violation
from .run import simulate


def say(*lines: object) -> None:
    sys.stdout.write("\n".join(map(str, lines)) + "\n")
    sys.stdout.flush()


def main(first: int, last: int | None = None) -> int:
    """Run one seed and print its trace, or a range and print what failed."""
    if last is None:
        world = simulate(first)
        say(world.plan, *world.network.lines())
        return 0
    failed = list[int]()
    began = time.monotonic()
    for seed in range(first, last):
        try:
            simulate(seed)
            if seed % 1000 == 999:
                say(f"{seed + 1 - first} seeds, failed: {failed}")
        except Exception as error:
            failed.append(seed)
            text = error.summary if isinstance(error, Violation) else f"seed {seed}: {error!r}"
            say(*(line[:200] for line in text.splitlines()), "")
    say(f"{last - first} seeds in {time.monotonic() - began:.0f} s, failed: {failed}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
