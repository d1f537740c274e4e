"""v2ray: VLESS over websocket and TLS, which encrypts once; with its multiplexing, and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..processes import Command
from .base import Site, System, not_installed, program

USER = "c4a7b4e0-9a51-4d0e-8f4e-2f4d8b7f3c11"


class V2ray(System):
    def __init__(self, *, mux: bool) -> None:
        self.name = "v2ray+mux" if mux else "v2ray"
        self._mux = mux

    def missing(self) -> str | None:
        return not_installed("v2ray")

    def ends(self, site: Site) -> list[Command]:
        return [
            _end("server", _server(site), site.folder, site.listen),
            _end("client", _client(site, mux=self._mux), site.folder, site.socks),
        ]


def _end(name: str, config: dict[str, Any], folder: Path, port: int) -> Command:
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"log": {"access": "none", "loglevel": "warning"}, **config}))
    return Command(name, [str(program("v2ray")), "-config", str(file)], port)


def _server(site: Site) -> dict[str, Any]:
    certificate = {"certificateFile": site.cert, "keyFile": site.key}
    inbound = {
        "listen": "127.0.0.1",
        "port": site.listen,
        "protocol": "vless",
        "settings": {"clients": [{"id": USER}], "decryption": "none"},
        "streamSettings": _websocket(certificates=[certificate]),
    }
    return {"inbounds": [inbound], "outbounds": [{"protocol": "freedom"}]}


def _client(site: Site, *, mux: bool) -> dict[str, Any]:
    inbound = {"listen": "127.0.0.1", "port": site.socks, "protocol": "socks", "settings": {"auth": "noauth"}}
    users = [{"id": USER, "encryption": "none"}]
    authority = {"usage": "verify", "certificate": Path(site.ca).read_text().splitlines()}
    outbound = {
        "protocol": "vless",
        "settings": {"vnext": [{"address": "127.0.0.1", "port": site.server, "users": users}]},
        "streamSettings": _websocket(serverName="localhost", certificates=[authority]),
        "mux": {"enabled": mux},
    }
    return {"inbounds": [inbound], "outbounds": [outbound]}


def _websocket(**tls: Any) -> dict[str, Any]:
    return {"network": "ws", "security": "tls", "wsSettings": {"path": "/tunnel"}, "tlsSettings": tls}
