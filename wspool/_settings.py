"""PURE. The numbers of a pool: their defaults with precedents, and their checks.

Counts are whole numbers; `None` means no limit. Durations are in seconds; `None` means for ever.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields, replace
from typing import Any

NO_LIMIT = sys.maxsize

_POSITIVE_TIMES = (
    "acquire_timeout",
    "connect_timeout",
    "idle_timeout",
    "max_lifetime",
    "validate_timeout",
    "validate_interval",
    "reset_timeout",
    "close_timeout",
)
_TIMES_FROM_ZERO = ("race_delay", "abandoned_dial_grace", "validate_bypass_interval")
_MAY_BE_NONE = (
    "max_size",
    "max_idle",
    "max_connecting",
    "max_waiting",
    "acquire_timeout",
    "connect_timeout",
    "idle_timeout",
    "max_lifetime",
    "max_uses",
    "validate_interval",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Everything about a pool that is a number, checked."""

    # 100: PyMongo's maxPoolSize, httpx's max_connections, aiohttp's limit.
    max_size: int | None = 100
    # None = max_size: a cap below the load closes and redials on every round (golang/go#13801);
    # idle_timeout shrinks the pool instead, as in HikariCP, PyMongo and Npgsql.
    max_idle: int | None = None
    # 0: Go, PyMongo, Npgsql. Nothing is dialled before somebody asks.
    min_idle: int = 0
    # None: Go's database/sql and net/http; a dial starts only for a caller who waits, so callers
    # bound it. MongoDB's CMAP says 2, postgres-nio 20: set it where a dial burst hurts the server.
    max_connecting: int | None = None
    # None: psycopg_pool's max_waiting=0 means the same; the queue holds live callers only.
    max_waiting: int | None = None
    # 30 s: HikariCP's connectionTimeout, psycopg_pool's timeout, SQLAlchemy's pool timeout.
    acquire_timeout: float | None = 30.0
    # 10 s: below acquire_timeout, so that a dial into the void is reported as what it is.
    # PyMongo 20, HikariCP and Go's dialer 30, httpx 5.
    connect_timeout: float | None = 10.0
    # 600 s: HikariCP, r2d2, bb8, psycopg_pool.
    idle_timeout: float | None = 600.0
    # None: Go's database/sql, SQLAlchemy, PyMongo. Set it where credentials or addresses rotate.
    max_lifetime: float | None = None
    # A tenth, taken off: psycopg_pool retires at 90 to 100 % (HikariCP 97.5 to 100 %, pgxpool by option).
    lifetime_jitter: float = 0.1
    # None: only asyncpg (50,000) and async-http-client count uses.
    max_uses: int | None = None
    # 0: hyper-util, Go and psycopg_pool dial at once.
    race_delay: float = 0.0
    # 5 s: .NET's PendingConnectionTimeoutOnRequestCompletion (dotnet/runtime#71785).
    abandoned_dial_grace: float = 5.0
    # 5 s: HikariCP's validationTimeout.
    validate_timeout: float = 5.0
    # 1 s: pgxpool, PyMongo (HikariCP 0.5).
    validate_bypass_interval: float = 1.0
    # 30 s: below the 60 s after which the strictest common NATs and balancers forget a connection.
    validate_interval: float | None = 30.0
    # 5 s, as for validate: a reset is one exchange with the peer as well.
    reset_timeout: float = 5.0
    # 5 s: psycopg_pool's close(timeout); bounds R4's and B08's endless good-byes.
    close_timeout: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming the argument and the value."""
        _check_types(self)
        for name, least in (
            ("max_size", 1),
            ("max_idle", 0),
            ("min_idle", 0),
            ("max_connecting", 1),
            ("max_waiting", 0),
            ("max_uses", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in _POSITIVE_TIMES:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0 seconds, got {value}")
        for name in _TIMES_FROM_ZERO:
            check_time(name, getattr(self, name))
        if not 0 <= self.lifetime_jitter < 1:
            raise ValueError(f"lifetime_jitter must be from 0 up to below 1, got {self.lifetime_jitter}")
        self._check_order()

    def _check_order(self) -> None:
        if self.max_idle is not None and self.min_idle > self.max_idle:
            raise ValueError(f"min_idle must not exceed max_idle, got {self.min_idle} > {self.max_idle}")
        if self.max_size is None:
            return
        if self.min_idle > self.max_size:
            raise ValueError(f"min_idle must not exceed max_size, got {self.min_idle} > {self.max_size}")
        if self.max_idle is not None and self.max_idle > self.max_size:
            raise ValueError(f"max_idle must not exceed max_size, got {self.max_idle} > {self.max_size}")

    def resized(self, **changes: int | None) -> PoolSettings:
        """The same settings with other sizes, checked as a whole."""
        return replace(self, **changes)  # type: ignore[arg-type]  # names and types are checked on creation


def check_time(name: str, value: object, *, finite: bool = True) -> None:
    """TypeError or ValueError unless it is a number of seconds from 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    if not value >= 0 or (finite and value == math.inf):
        raise ValueError(f"{name} must be a {'finite ' if finite else ''}number of seconds from 0, got {value}")


def _check_types(settings: PoolSettings) -> None:
    for field in fields(settings):
        value: Any = getattr(settings, field.name)
        if value is None and field.name in _MAY_BE_NONE:
            continue
        wanted = "a whole number" if str(field.type).startswith("int") else "a number"
        kinds = int if wanted == "a whole number" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            or_none = " or None" if field.name in _MAY_BE_NONE else ""
            raise TypeError(f"{field.name} must be {wanted}{or_none}, got {value!r}")
        if wanted == "a number" and value > sys.float_info.max and value != math.inf:
            raise ValueError(f"{field.name} must be a number that a float can hold: None or math.inf is for ever")


def count_limit(limit: int | None) -> int:
    """A limit as a number to compare with."""
    return NO_LIMIT if limit is None else limit


def time_limit(limit: float | None) -> float:
    """A time limit as a number to add to a time."""
    return math.inf if limit is None else limit
