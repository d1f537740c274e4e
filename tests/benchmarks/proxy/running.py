"""Systems that run, and what moves data through them: what a workload is given."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import socks, wire
from .processes import ROOT, Command, Process, cpu_seconds, free_port, memory_kib, module
from .systems import Site, System

PACKAGE = __package__ or ""
# Of a system's ends, from when they listen: a session must work by then.
WORKS_TIMEOUT = 15.0
# Nothing done for so long: all tunnels that are opened in advance are there.
QUIET = 0.5


@dataclass(frozen=True)
class Certificates:
    ca: str
    cert: str
    key: str


def make_certificates(folder: Path) -> Certificates:
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = Certificates(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))
    authority.cert_pem.write_to_path(files.ca)
    issued.private_key_pem.write_to_path(files.key)
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(files.cert, append=number > 0)
    return files


class LoadProcess:
    """The load generator: one job at a time."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            module(f"{PACKAGE}.load"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, what: str, **arguments: Any) -> Any:
        assert self._popen.stdin
        assert self._popen.stdout
        print(json.dumps({"do": what, **arguments}), file=self._popen.stdin, flush=True)
        told = json.loads(self._popen.stdout.readline())
        if problem := told.get("problem"):
            raise RuntimeError(problem)
        return told["result"]

    def stop(self) -> None:
        self._popen.kill()
        self._popen.communicate()


class Running:
    """A system whose ends run."""

    def __init__(self, system: System, processes: list[Process], via: int | None, to: int) -> None:
        self.system = system
        # What the load generator is told: the port of the proxy, if there is one, and that of the destination.
        self.where: dict[str, Any] = {"via": via, "to": to}
        # Bytes a second in each direction, as the first transfer has found.
        self.pace: dict[str, float] = {}
        self._processes = processes

    @property
    def name(self) -> str:
        return self.system.name

    def cpu(self) -> float:
        return cpu_seconds([process.popen.pid for process in self._processes])

    def memory(self) -> int:
        return memory_kib([process.popen.pid for process in self._processes])

    def check(self) -> None:
        for process in self._processes:
            if process.popen.poll() is not None:
                raise RuntimeError(f"its {process.command.name} has ended: {process.last_words()}")

    def settle(self) -> None:
        """Wait until it has nothing more to do: no CPU time for a while."""
        ends = time.monotonic() + WORKS_TIMEOUT
        seen, since = self.cpu(), time.monotonic()
        while time.monotonic() < min(ends, since + QUIET):
            time.sleep(0.05)
            if (now := self.cpu()) > seen:
                seen, since = now, time.monotonic()


class Stage:
    """The destination, the load generator, certificates, and a folder for the files of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = make_certificates(folder)
        self.to = free_port()
        self.load = LoadProcess()
        self._destination = Process(
            Command("destination", module(f"{PACKAGE}.destination", str(self.to)), self.to), folder
        )
        self._destination.wait_ready()

    def close(self) -> None:
        self.load.stop()
        self._destination.stop()

    def site(self, system: System, server: int | None = None, extra: tuple[str, ...] = ()) -> Site:
        listen, near = free_port(), free_port()
        folder = self.folder / f"{system.name}-{listen}"
        folder.mkdir()
        files = self.certificates
        return Site(folder, listen, server or listen, near, files.ca, files.cert, files.key, extra)

    @contextmanager
    def running(self, system: System, extra: tuple[str, ...] = (), delay: float = 0.0) -> Iterator[Running]:
        """With so many seconds between its ends; without ends, between the load generator and the destination."""
        with ExitStack() as stack:
            way = free_port() if delay else None
            site = self.site(system, way, extra)
            ends = system.ends(site)
            if way:
                self._started(stack, far(way, site.listen if ends else self.to, delay))
            processes = [self._started(stack, command) for command in ends]
            to = way if way and not ends else self.to
            running = Running(system, processes, site.socks if ends else None, to)
            self.see_it_work(running)
            yield running

    def _started(self, stack: ExitStack, command: Command) -> Process:
        process = Process(command, self.folder)
        stack.callback(process.stop)
        process.wait_ready()
        return process

    def see_it_work(self, running: Running) -> None:
        ends = time.monotonic() + WORKS_TIMEOUT
        while True:
            running.check()
            try:
                with socks.connect(**running.where) as stream:
                    stream.sendall(wire.request(wire.ASK, 7))
                    if socks.receive(stream, wire.ANSWER_SIZE) == wire.answer(7):
                        return
            except (OSError, RuntimeError):
                if time.monotonic() > ends:
                    raise
            time.sleep(0.02)


def far(port: int, to: int, delay: float) -> Command:
    return Command("far", module(f"{PACKAGE}.far", str(port), str(to), str(delay)), port)
