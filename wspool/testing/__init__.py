"""Test your own `connect` and hooks: a manual clock, fakes answered by hand, and a cancellation sweep.

Everything runs on asyncio and on trio. Nothing here sleeps.
"""

from __future__ import annotations

from ._clock import ManualClock, settle
from ._fakes import FakeConnection, FakeConnector, FakeDial, Fault
from ._invariants import check_invariants
from ._sweep import SweepReport, cancel_everywhere, prove_capacity

__all__ = (
    "FakeConnection",
    "FakeConnector",
    "FakeDial",
    "Fault",
    "ManualClock",
    "SweepReport",
    "cancel_everywhere",
    "check_invariants",
    "prove_capacity",
    "settle",
)
