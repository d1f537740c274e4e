"""pproxy: HTTP CONNECT in TLS between its ends, a connection for each session; its websocket speaks to itself only."""

from __future__ import annotations

from ..processes import Command, module
from .base import Site, System, no_environment, python_of


class Pproxy(System):
    name = "pproxy"
    is_python_peer = True

    def missing(self) -> str | None:
        return no_environment("pproxy")

    def ends(self, site: Site) -> list[Command]:
        python = str(python_of("pproxy"))
        server = ["-l", f"http+ssl://127.0.0.1:{site.listen}", "--ssl", f"{site.cert},{site.key}"]
        client = ["-l", f"socks5://127.0.0.1:{site.socks}", "-r", f"http+ssl://127.0.0.1:{site.server}"]
        return [
            Command("server", module("pproxy", *server, python=python), site.listen),
            Command("client", module("pproxy", *client, python=python), site.socks),
        ]
