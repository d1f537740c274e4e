"""Test your own `connect` and hooks: a manual clock, fakes answered by hand, and a cancellation sweep.

And your own byte streams: a suite of checks, and streams in memory that fail on demand.

Everything runs on asyncio and on trio. Nothing here sleeps.
"""

from __future__ import annotations

from ._byte_streams import check_byte_stream
from ._clock import ManualClock, settle
from ._fakes import FakeConnection, FakeConnector, FakeDial, Fault
from ._invariants import check_invariants
from ._memory_streams import MemoryByteStream, memory_byte_streams
from ._sweep import SweepReport, cancel_everywhere, prove_capacity

__all__ = (
    "FakeConnection",
    "FakeConnector",
    "FakeDial",
    "Fault",
    "ManualClock",
    "MemoryByteStream",
    "SweepReport",
    "cancel_everywhere",
    "check_byte_stream",
    "check_invariants",
    "memory_byte_streams",
    "prove_capacity",
    "settle",
)
