"""pywssocks, which multiplexes one websocket, and websocks, which keeps a few for one session after another each."""

from __future__ import annotations

from pathlib import Path

from ..processes import Command
from .base import Site, System, no_environment, python_of

_IN_WSS = str(Path(__file__).with_name("in_wss.py"))


class _InWss(System):
    is_python_peer = True
    peer: str

    def __init__(self, *, deflate: bool) -> None:
        self.name = f"{self.peer}+deflate" if deflate else self.peer
        self._deflate = "on" if deflate else "off"

    def missing(self) -> str | None:
        return no_environment(self.peer)

    def _end(self, role: str, site: Site, *arguments: str) -> Command:
        start = [str(python_of(self.peer)), _IN_WSS, self.peer, role, site.cert, site.key, self._deflate]
        port = site.listen if role == "server" else site.socks
        return Command(role, [*start, *arguments], port, {"SSL_CERT_FILE": site.ca})


class Pywssocks(_InWss):
    peer = "pywssocks"

    def ends(self, site: Site) -> list[Command]:
        token = ("--token", "only-for-benchmarks")
        server = ("--ws-host", "127.0.0.1", "--ws-port", str(site.listen))
        client = ("--url", f"wss://localhost:{site.server}", "--socks-port", str(site.socks))
        return [self._end("server", site, *token, *server), self._end("client", site, *token, *client)]


class Websocks(_InWss):
    peer = "websocks"

    def ends(self, site: Site) -> list[Command]:
        server = ("--userpass", "user:word", "127.0.0.1", str(site.listen))
        upstream = ("--proxy-policy", "PROXY", "--tcp-server", f"wss://user:word@localhost:{site.server}")
        client = (*upstream, "127.0.0.1", str(site.socks))
        return [self._end("server", site, *server), self._end("client", site, *client)]
