"""linksocks: Go in a package for Python, which multiplexes one websocket."""

from __future__ import annotations

from ..processes import Command
from .base import Site, System, no_environment


class Linksocks(System):
    """Its row says why it is not measured: where this was written it could not be installed, so nobody has tried."""

    name = "linksocks"

    def missing(self) -> str | None:
        return no_environment("linksocks") or "installed, but how to start it has yet to be written"

    def ends(self, site: Site) -> list[Command]:
        raise NotImplementedError
