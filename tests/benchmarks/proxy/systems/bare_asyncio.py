"""A relay in TLS on asyncio's streams, which is no peer: how much is the price of Python, and how much is ours?"""

from __future__ import annotations

import sys
from pathlib import Path

from ..processes import Command
from .base import Site, System

_PROGRAM = str(Path(__file__).with_name("asyncio_relay.py"))


class AsyncioRelay(System):
    name = "asyncio-relay"

    def ends(self, site: Site) -> list[Command]:
        start = [sys.executable, _PROGRAM]
        return [
            Command("server", [*start, "server", str(site.listen), site.cert, site.key], site.listen),
            Command("client", [*start, "client", str(site.socks), str(site.server), site.ca], site.socks),
        ]
