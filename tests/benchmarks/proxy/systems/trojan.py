"""trojan: TLS, and a connection for each session."""

from __future__ import annotations

import json
from typing import Any

from ..processes import Command
from .base import Site, System, not_installed, program

_PASSWORD = "only-for-benchmarks"


class Trojan(System):
    name = "trojan"

    def missing(self) -> str | None:
        return not_installed("trojan")

    def ends(self, site: Site) -> list[Command]:
        server = {
            "run_type": "server",
            "local_port": site.listen,
            # Where it sends strangers.
            "remote_addr": "127.0.0.1",
            "remote_port": 1,
            "ssl": {"cert": site.cert, "key": site.key},
        }
        client = {
            "run_type": "client",
            "local_port": site.socks,
            "remote_addr": "127.0.0.1",
            "remote_port": site.server,
            "ssl": {"cert": site.ca, "sni": "localhost"},
        }
        return [_end(site, "server", server, site.listen), _end(site, "client", client, site.socks)]


def _end(site: Site, name: str, config: dict[str, Any], port: int) -> Command:
    file = site.folder / f"{name}.json"
    common = {"local_addr": "127.0.0.1", "password": [_PASSWORD], "log_level": 2}
    file.write_text(json.dumps({**common, **config}))
    return Command(name, [str(program("trojan")), "-c", str(file)], port)
