"""The proxy's ends as processes: started, listened to, and never left behind."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

# What has not happened by then never will. A machine that does much else must not fail a test.
LIMIT = 60

ROOT = Path(__file__).parents[3]


def environment(**more: str) -> dict[str, str]:
    """What programs inherit: no proxy of the machine's, and no settings for ours, but those given."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("WSPOOL_", "GIT_", "PYTHON"))
    }
    return {**inherited, **more}


# What a program of ours must never write to its log: that it failed by an error of its own, or has lost something.
SIGNS_OF_A_BUG = (
    "Traceback",
    "by an error in this program",
    "Exception ignored",
    "never retrieved",
    "never awaited",
    "ResourceWarning",
)


class Program:
    """`python -m examples.socks_proxy …` as a process.

    Standard output is read by a thread, so that waiting for a line has a limit and the pipe never fills.
    Standard error goes to a file, which is shown when something fails. It may have `open_files`, if given.
    """

    def __init__(self, *arguments: str, log: Path, open_files: int | None = None, **more_environment: str) -> None:
        self.log = log
        self.arguments = arguments
        # So that SIGNS_OF_A_BUG are seen.
        command = [sys.executable, "-W", "always", "-m", "examples.socks_proxy", *arguments]
        if open_files is not None:
            command = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh", *command]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=environment(**more_environment),
                start_new_session=True,
                text=True,
            )
        self._ended_for_a_test = False
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __str__(self) -> str:
        return f"socks_proxy {' '.join(self.arguments)} (status {self.process.poll()})"

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put("")  # no more will come

    def ready(self, scheme: str) -> str:
        """Wait until it accepts connections: the URL that it prints, which must have that scheme."""
        try:
            while line := self._lines.get(timeout=LIMIT):
                if line.startswith(f"ready {scheme}://"):
                    return line.removeprefix("ready ")
        except queue.Empty:
            pass
        raise AssertionError(f"{self} did not get ready:\n{self.said()}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended by itself; what that should be is the caller's to know."""
        try:
            status = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} did not end:\n{self.said()}") from None
        self._ended_for_a_test = True
        return status

    def stop(self) -> None:
        """End it as a service manager does. It must take that well, and have said nothing of a bug."""
        if not self._ended_for_a_test:
            if self.process.poll() is None:
                self.signal(signal.SIGTERM)
            assert self.wait() == 0, f"{self}:\n{self.said()}"
        assert not any(sign in self.said() for sign in SIGNS_OF_A_BUG), f"{self}:\n{self.said()}"

    def kill(self) -> None:
        """Leave nothing of it, whatever state it is in."""
        self.process.kill()
        self.process.wait()
        self._reader.join(LIMIT)

    def said(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def wait_until(condition: Callable[[], object], otherwise: Callable[[], object]) -> None:
    """Other processes tell nobody: they are looked at, for as long as there is hope."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
