"""Pairs of processes, a server and a client of one contender each: what a sample is taken from."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .process import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
# Before the first sample, in each direction: imports, caches, and whether what comes is what was sent.
WARM_UP_SIZE, WARM_UP_COUNT = 64 * 1024, 16


@dataclass(frozen=True)
class Sample:
    """CPU seconds per GB of the one who sends and of the one who receives, and MB/s."""

    send: float
    receive: float
    rate: float


class Pair:
    """The processes stay; each sample is a new connection between them."""

    def __init__(self, *facts: str) -> None:
        self._server = self._start("server", *facts)
        self._client = self._start("client", *facts)

    def warm_up(self) -> None:
        for client_sends in (True, False):
            self._do(Job(client_sends=client_sends, size=WARM_UP_SIZE, count=WARM_UP_COUNT, compare=True))

    @staticmethod
    def _start(*facts: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"{__package__}.process", *facts]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def sample(self, *, client_sends: bool, size: int, total: int) -> Sample:
        job = Job(client_sends=client_sends, size=size, count=max(1, total // size))
        client, server = self._do(job)
        sender, receiver = (client, server) if client_sends else (server, client)
        moved = job.count * size
        return Sample(
            send=sender["cpu"] / moved * 1e9,
            receive=receiver["cpu"] / moved * 1e9,
            rate=moved / 1e6 / receiver["seconds"],
        )

    def _do(self, job: Job) -> tuple[Any, Any]:
        _order(self._server, job)
        _order(self._client, replace(job, port=_told(self._server)))
        return _told(self._client), _told(self._server)

    def close(self) -> None:
        for process in (self._server, self._client):
            process.kill()
            process.communicate()  # waits, and closes the pipes


def _order(process: subprocess.Popen[str], job: Job) -> None:
    assert process.stdin is not None
    process.stdin.write(job.as_line())
    process.stdin.flush()


def _told(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("its process has ended")
    told = json.loads(line)
    if isinstance(told, dict) and "problem" in told:
        raise RuntimeError(told["problem"])
    return told


class Pairs:
    """Those of one layer and backend, started when they are first needed."""

    def __init__(self, layer: str, backend: str, directory: str) -> None:
        self._layer, self._backend, self._directory = layer, backend, directory
        self._started: dict[str, Pair] = {}

    def sample(self, name: str, **what: Any) -> Sample:
        new = name not in self._started
        if new:
            self._started[name] = Pair(self._layer, self._backend, name, self._directory)
        try:
            if new:
                self._started[name].warm_up()
            return self._started[name].sample(**what)
        except Exception:
            # One of the two may still be at it; the next case starts afresh.
            self._started.pop(name).close()
            raise

    def close(self) -> None:
        for pair in self._started.values():
            pair.close()


@contextmanager
def open_pairs(layer: str, backend: str) -> Iterator[Pairs]:
    with TemporaryDirectory() as directory:
        _make_certificates(Path(directory))
        pairs = Pairs(layer, backend, directory)
        try:
            yield pairs
        finally:
            pairs.close()


def _make_certificates(directory: Path) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        directory / "server.pem"
    )
