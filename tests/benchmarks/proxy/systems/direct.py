"""No tunnel: what the load generator and the destination can do."""

from __future__ import annotations

from ..processes import Command
from .base import Site, System


class Direct(System):
    name = "direct"

    def ends(self, site: Site) -> list[Command]:
        return []
