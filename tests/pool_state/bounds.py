"""The worlds that are explored. Each has all of one subject; some have several together.

`WSPOOL_EXPLORE_USERS`, `WSPOOL_EXPLORE_PLACES` and `WSPOOL_EXPLORE_STATES` make them larger.
"""

from __future__ import annotations

import os
from typing import Any

from wspool._settings import PoolSettings

from .world import World

USERS = int(os.environ.get("WSPOOL_EXPLORE_USERS", "3"))
PLACES = int(os.environ.get("WSPOOL_EXPLORE_PLACES", "2"))
STATES = int(os.environ.get("WSPOOL_EXPLORE_STATES", "4000"))
"""How many states are visited in each world at most, nearest first."""


def _settings(**changes: Any) -> PoolSettings:
    timeless: dict[str, Any] = {"acquire_timeout": None, "connect_timeout": None, "idle_timeout": None}
    settings = {"max_size": PLACES, **timeless, **changes}
    return PoolSettings(**settings)


_CLOCKED = {
    "acquire_timeout": 7.0,
    "connect_timeout": 5.0,
    "idle_timeout": 11.0,
    "abandoned_dial_grace": 2.0,
    "race_delay": 1.0,
}
_CHECKED = {"validate_bypass_interval": 0.0, "validate_interval": None}

WORLDS: dict[str, dict[str, Any]] = {
    "get, cancel, release, discard, dials": {"settings": _settings()},
    "deaths": {"settings": _settings(), "deaths": True},
    "take and insert": {"settings": _settings(), "takes": True},
    "validation": {"settings": _settings(**_CHECKED), "validates": True, "deaths": True},
    "reset": {"settings": _settings(), "resets": True, "deaths": True},
    "min_idle": {"settings": _settings(min_idle=1)},
    "max_idle and resize": {"settings": _settings(max_idle=1), "sizes": (1, PLACES)},
    "max_connecting and max_waiting": {"settings": _settings(max_connecting=1, max_waiting=1)},
    "clear": {"settings": _settings(), "clears": 1, "deaths": True},
    "close": {"settings": _settings(), "closes": True, "takes": True},
    "everything but hooks": {"settings": _settings(), "deaths": True, "takes": True, "closes": True, "clears": 1},
    "everything and hooks": {
        "settings": _settings(**_CHECKED),
        "validates": True,
        "resets": True,
        "deaths": True,
        "clears": 1,
        "closes": True,
    },
    "time": {"settings": _settings(**_CLOCKED), "ticks": 3},
    "time, with checks and lifetimes": {
        "settings": _settings(
            **_CLOCKED,
            max_lifetime=30.0,
            max_uses=2,
            validate_timeout=3.0,
            validate_bypass_interval=1.0,
            validate_interval=4.0,
            close_timeout=2.0,
        ),
        "validates": True,
        "ticks": 4,
    },
    "time, with min_idle": {"settings": _settings(**_CLOCKED, min_idle=1), "ticks": 3},
}


def make_world(name: str) -> World:
    """A fresh world of that name."""
    return World(users=USERS, **WORLDS[name])
