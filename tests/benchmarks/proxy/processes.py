"""Processes that are started, waited for, charged and ended: from /proc, so on Linux only."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# What is not ready by then never will be.
READY_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# Below the range from which the kernel takes ports for outgoing connections: none of those can be in the way.
_PORTS = range(12_000, 32_000)


@dataclass(frozen=True)
class Command:
    """One end: how it is started, and the port that accepts connections when it is ready."""

    name: str
    arguments: list[str]
    port: int
    environment: dict[str, str] = field(default_factory=dict)


class Process:
    """An end, or what stands beside the ends. What it says goes to a file."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command = command
        self.log = folder / f"{command.name}-{command.port}.log"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                command.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**environment(), **command.environment},
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        ends = time.monotonic() + READY_TIMEOUT
        while not _accepts(self.command.port):
            if self.popen.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"{self.command.name} did not get ready: {self.last_words()}")
            time.sleep(0.002)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"status {self.popen.poll()}, {lines[-1] if lines else 'nothing said'}"

    def stop(self) -> None:
        """Its whole process group is its own, with the children that it has made."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, number)
            except ProcessLookupError:
                pass
            try:
                self.popen.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                continue


def environment() -> dict[str, str]:
    """What programs inherit: no proxy of the machine's, and no settings for ours."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("WSPOOL_", "PYTHON"))
    }


def module(name: str, *arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", name, *arguments]


def free_port() -> int:
    """One on which nobody listens; it is taken a moment later."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def cpu_seconds(roots: list[int]) -> float:
    """User and system, of these processes and all below them, those that have ended included."""
    return sum(sum(_stat(pid)[1]) for pid in _tree(roots)) / _TICKS


def memory_kib(roots: list[int]) -> int:
    """Proportional set size: a page that several processes share is shared out among them."""
    return sum(_pss(pid) for pid in _tree(roots))


def _tree(roots: list[int]) -> set[int]:
    parents = {int(entry): _stat(int(entry))[0] for entry in os.listdir("/proc") if entry.isdigit()}
    found = {pid for pid in roots if pid in parents}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _stat(pid: int) -> tuple[int, list[int]]:
    """The parent, and utime, stime, cutime, cstime in ticks (proc(5)); nothing of one that has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, []
    return int(fields[1]), [int(one) for one in fields[11:15]]


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
