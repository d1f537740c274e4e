"""Who is measured, in the order of the tables."""

from __future__ import annotations

from .base import Site, System
from .direct import Direct
from .ours import Ours
from .ssh import Ssh
from .v2ray import V2ray

__all__ = ["SYSTEMS", "Site", "System"]

SYSTEMS: tuple[System, ...] = (
    Direct(),
    Ours("asyncio"),
    Ours("uvloop"),
    Ours("trio"),
    V2ray(mux=False),
    V2ray(mux=True),
    Ssh(),
    Ssh("aes128-gcm@openssh.com"),
)
