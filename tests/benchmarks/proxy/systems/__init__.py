"""Who is measured, in the order of the tables."""

from __future__ import annotations

from .bare_asyncio import AsyncioRelay
from .base import Site, System
from .direct import Direct
from .linksocks import Linksocks
from .ours import BARE, Ours
from .pproxy import Pproxy
from .ssh import Ssh
from .trojan import Trojan
from .v2ray import V2ray
from .websocket_peers import Pywssocks, Websocks

__all__ = ["SYSTEMS", "Site", "System"]

SYSTEMS: tuple[System, ...] = (
    Direct(),
    Ours("asyncio"),
    Ours("uvloop"),
    Ours("trio"),
    Ours("asyncio", "--fast-open", only=("sessions", "fifty", "beside", "far", "far-bulk")),
    Ours("asyncio", environment=BARE, name="wspool-bare"),
    V2ray(mux=False),
    V2ray(mux=True),
    Ssh(),
    Ssh("aes128-gcm@openssh.com"),
    Trojan(),
    Pproxy(),
    Pywssocks(deflate=False),
    Pywssocks(deflate=True),
    Websocks(deflate=False),
    Websocks(deflate=True),
    Linksocks(),
    AsyncioRelay(),
)
