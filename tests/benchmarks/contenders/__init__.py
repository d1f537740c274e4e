"""Who is measured. A module is imported only when asked for, so that a missing peer costs its own row and no more."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Contender

# The first that takes part in a scenario is shown first.
_PLACES = {
    "asyncio.Queue, await put": "asyncio_queue:AsyncioQueue",
    "asyncio.Queue, put_nowait": "asyncio_queue:AsyncioQueueNowait",
    "two deques": "two_deques:TwoDeques",
    "trio memory channel": "on_trio:TrioChannel",
    "two deques on trio": "on_trio:TwoDequesOnTrio",
    "wspool": "ours:Wspool",
    "wspool, async with": "ours:WspoolBlock",
    "wspool, get_nowait": "ours:WspoolNowait",
    "aiohttp connector": "peer_aiohttp:AiohttpConnector",
    "psycopg_pool": "peer_psycopg:PsycopgPool",
    "asyncpg": "peer_asyncpg:AsyncpgPool",
    "httpcore": "peer_httpcore:HttpcorePool",
    "connpool": "peer_connpool:Connpool",
    "asyncio-connection-pool": "peer_asyncio_connection_pool:AsyncioConnectionPool",
    "generic-connection-pool": "peer_generic:GenericConnectionPool",
}


@dataclass(frozen=True)
class Missing:
    """A contender that cannot take part, and why."""

    name: str
    reason: str


def load(backend: str) -> tuple[list[type[Contender]], list[Missing]]:
    found: list[type[Contender]] = []
    missing: list[Missing] = []
    for name, place in _PLACES.items():
        if not place.startswith("ours:") and place.startswith("on_trio:") != (backend == "trio"):
            continue
        try:
            contender = by_name(name)
        except ImportError as error:
            missing.append(Missing(name, _why(error)))
        else:
            found.append(contender)
    return found, missing


def _why(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("wspool."):
        return f"not installed ({error.name})"
    return f"cannot be imported: {error}".splitlines()[0]


def by_name(name: str) -> type[Contender]:
    module, _, attribute = _PLACES[name].partition(":")
    contender: type[Contender] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return contender
