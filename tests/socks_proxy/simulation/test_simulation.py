"""Seeds of the simulated network: what `oracle.py` says holds in each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .run import simulate

_ROOT = Path(__file__).parents[3]
# As many as fit into the time of a test; `python -m tests.socks_proxy.simulation FIRST LAST` runs others.
_SEEDS, _BATCH = 160, 20


@pytest.mark.parametrize("first", range(0, _SEEDS, _BATCH))
def test_whatever_the_network_does_the_promises_hold(first: int) -> None:
    for seed in range(first, first + _BATCH):
        simulate(seed)


@pytest.mark.parametrize("seed", [10632, 34446, 70223])
def test_what_once_went_wrong_does_so_no_more(seed: int) -> None:
    simulate(seed)


@pytest.mark.parametrize("seed", [1, 14, 15])
def test_the_same_seed_does_the_same(seed: int) -> None:
    assert simulate(seed).network.trace == simulate(seed).network.trace


def test_another_process_does_the_same() -> None:
    """Though its strings have other hashes."""
    program = "from tests.socks_proxy.simulation.run import simulate; print(*simulate(2).network.lines(), sep='\\n')"
    command = [sys.executable, "-W", "error", "-c", program]
    traces = {
        subprocess.run(command, env={**os.environ, **hashes}, cwd=_ROOT, capture_output=True, check=True).stdout
        for hashes in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    }
    assert len(traces) == 1
