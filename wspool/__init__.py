"""A connection pool for async Python that loses nothing: on asyncio and on trio, through anyio."""

from __future__ import annotations

from ._backend import Clock
from ._errors import PoolClosed, PoolError, PoolFull, PoolMisuse, PoolTimeout
from ._events import (
    CloseReason,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReady,
    ConnectionReleased,
    DialEnd,
    DialFailed,
    DialStarted,
    GetTimedOut,
    GetWaiting,
    PoolEvent,
)
from ._pool import Pool
from ._poolable import Poolable
from ._pooled import Pooled
from ._statistics import PoolStatistics

__version__ = "0.1.0"

__all__ = (
    "Clock",
    "CloseReason",
    "ConnectionAcquired",
    "ConnectionClosed",
    "ConnectionReady",
    "ConnectionReleased",
    "DialEnd",
    "DialFailed",
    "DialStarted",
    "GetTimedOut",
    "GetWaiting",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolEvent",
    "PoolFull",
    "PoolMisuse",
    "PoolStatistics",
    "PoolTimeout",
    "Poolable",
    "Pooled",
)
