"""`python -m examples.socks_proxy`, two processes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from ..processes import Command, module
from .base import Site, System, no_environment, python_of

PROGRAM = "examples.socks_proxy"
# The environment without the extras: it masks in Python.
BARE = "proxy-bare"
# A thousand sessions are held open, and the default is a thousand tunnels.
SIZES = ("--max-size", "1100")
# The others log no sessions either.
QUIET = ("--log-level", "warning")


class Ours(System):
    is_ours = True

    def __init__(
        self,
        backend: str,
        *options: str,
        environment: str | None = None,
        name: str = "",
        only: tuple[str, ...] | None = None,
    ) -> None:
        self.name = name or f"wspool-{backend}{''.join(options).replace('--', '-')}"
        self.only = only
        self._backend = backend
        self._options = options
        self._environment = environment

    def missing(self) -> str | None:
        if self._environment:
            return no_environment(self._environment)
        package = "anyio" if self._backend == "asyncio" else self._backend
        return None if importlib.util.find_spec(package) else f"not installed: {package}"

    def ends(self, site: Site) -> list[Command]:
        common = ("--backend", self._backend, "--token-file", _token(site.folder), *QUIET)
        server = ("--listen", f"127.0.0.1:{site.listen}", "--cert", site.cert, "--key", site.key, "--allow-private")
        client = ("--listen", f"127.0.0.1:{site.socks}", "--ca-file", site.ca, *SIZES, *self._options, *site.extra)
        url = f"wss://localhost:{site.server}/"
        return [
            Command("server", self._command("server", *common, *server), site.listen),
            Command("client", self._command("client", *common, "--server", url, *client), site.socks),
        ]

    def _command(self, *arguments: str) -> list[str]:
        python = str(python_of(self._environment)) if self._environment else sys.executable
        return module(PROGRAM, *arguments, python=python)


def _token(folder: Path) -> str:
    file = folder / "token"
    file.write_text("a-token-for-benchmarks-only\n")
    return str(file)
