"""After many thousands of random users, cancels, failures and hangs, not one connection or place is lost.

WSPOOL_STORM_USERS says how many users each of asyncio and trio gets, WSPOOL_STORM_SEED from which seed.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from tests.pool.storm import rage

USERS = int(os.environ.get("WSPOOL_STORM_USERS", "100000"))
SEED = int(os.environ.get("WSPOOL_STORM_SEED", "1"))

PARTS = 4
"""So that a hang is told from a long way to go, and the parts of a storm can run side by side."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_storm_of_users_loses_nothing(backend: str, part: int) -> None:
    users = -(-USERS // PARTS)
    outcomes = rage(backend, SEED + part * 1_000_000, users)
    # A storm in which nobody got anything would prove nothing. One round alone may be as unlucky as that.
    assert outcomes["served"] > users // 3 or users < 10_000, outcomes


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            "eager", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
        ),
        pytest.param(
            "uvloop", marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is missing")
        ),
    ],
)
def test_a_small_storm_on_another_loop_loses_nothing(backend: str) -> None:
    rage(backend, SEED, min(USERS, 6_000))
