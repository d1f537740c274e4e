"""A real browser through the proxy: headless Chromium with a page of many parts, each a session of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.socks_proxy.end_to_end.origins import HTTPHandler, HTTPOrigin, serving
from tests.socks_proxy.end_to_end.programs import environment

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on this machine"
)

# A browser that has not finished by then never will; on a quiet machine it takes 3 s.
LIMIT = 90

PARTS = 60
# The last of them fills several frames.
SIZES = [number * number * 40 for number in range(PARTS)]

# What would talk to other hosts is off, and it resolves no name itself: `localhost` is looked up at the far end.
FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # It would go to loopback addresses directly.
    "--proxy-bypass-list=<-loopback>",
]

# It tells what it saw by one last request.
PAGE = f"""<!DOCTYPE html>
<title>wspool</title>
<script>const told = {{ran: [], failed: []}};</script>
{"".join(f'<script src="/part/{n}" onerror="told.failed.push({n})" async></script>' for n in range(PARTS))}
<script>
addEventListener("load", () => fetch("/result?" + encodeURIComponent(JSON.stringify(told))));
</script>
"""


class Page(HTTPHandler):
    def do_GET(self) -> None:
        # So that the browser needs a connection for each part.
        self.close_connection = True
        if self.path == "/":
            self.answer_text(PAGE, "text/html")
        else:
            super().do_GET()

    def get_part(self, number: str) -> None:
        """A script that says how long it is."""
        filling = "x" * SIZES[int(number)]
        self.answer_text(f'told.ran.push([{number}, "{filling}".length]);', "text/javascript")

    def get_result(self) -> None:
        assert isinstance(self.origin, Site)
        self.origin.result = json.loads(unquote(self.path.partition("?")[2]))
        self.answer_text("")
        self.origin.done.set()


class Site(HTTPOrigin):
    def __init__(self) -> None:
        super().__init__(Page)
        self.result: dict[str, Any] = {}
        self.done = threading.Event()


@contextmanager
def browser(url: str, directory: Path, *flags: str) -> Generator[Path, None, None]:
    """Chromium at that page, with a profile of its own, in a process group that does not outlive the block."""
    assert CHROMIUM is not None
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root it refuses to start with one
    command = [CHROMIUM, *FLAGS, *root, *flags, f"--user-data-dir={directory / 'profile'}", url]
    with (directory / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(HOME=str(directory), TMPDIR=str(directory)),
            start_new_session=True,
        )
    try:
        yield directory / "browser.log"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_chromium_loads_a_page_of_sixty_parts_through_the_proxy(proxy: int, tmp_path: Path) -> None:
    site = Site()
    with serving(site):
        flag = f"--proxy-server=socks5://127.0.0.1:{proxy}"
        with browser(f"http://localhost:{site.port}/", tmp_path, flag) as log:
            assert site.done.wait(LIMIT), log.read_text(errors="replace")
    assert site.result["failed"] == []
    assert sorted(site.result["ran"]) == [[number, size] for number, size in enumerate(SIZES)]
