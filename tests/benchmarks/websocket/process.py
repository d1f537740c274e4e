"""One of the two processes of a pair: it reads a job a line, does it, and tells what it took.

Each job is a new connection in a new event loop, so that none is slowed down by what another has left.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from . import stream, tls

if TYPE_CHECKING:
    from .ends import Contender, End

LAYERS = {"tls": tls.CONTENDERS, "stream": stream.CONTENDERS}
# No job of a healthy contender comes near it; one that hangs must not hang the run.
JOB_TIMEOUT = 30.0
# Sent by the receiver when it is ready, and when all has come.
GO, DONE = b"go", b"done"


@dataclass(frozen=True)
class Job:
    client_sends: bool
    size: int
    count: int
    # Compare what comes with what was sent: for a job that is not timed.
    compare: bool = False
    # Where the server listens; the server's own job has 0.
    port: int = 0

    def as_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


async def _send(end: End, job: Job) -> dict[str, float]:
    payload = _payload(job.size)
    await _expect(end, GO)
    before, began = time.process_time(), time.perf_counter()
    for _ in range(job.count):
        await end.send(payload)
    await _expect(end, DONE)  # so that nothing is left in a buffer that somebody has yet to pay for
    return _spent(before, began)


async def _receive(end: End, job: Job) -> dict[str, float]:
    left = job.count * job.size
    kept = bytearray()
    before, began = time.process_time(), time.perf_counter()
    await end.send(GO)
    while left > 0:
        for part in await end.receive():
            left -= len(part)
            if job.compare:
                kept += part
    spent = _spent(before, began)
    assert not left, f"{-left} bytes more came than were sent"
    assert not job.compare or kept == _payload(job.size) * job.count, "what came is not what was sent"
    await end.send(DONE)
    # The sender hangs up first: to close here could overtake what has just been sent.
    try:
        await end.receive()
    except Exception:
        pass  # each has its own way of saying so
    return spent


def _payload(size: int) -> bytes:
    return Random(size).randbytes(size)


async def _expect(end: End, word: bytes) -> None:
    got = b""
    while len(got) < len(word):
        got += b"".join(await end.receive())
    assert got == word, got


def _spent(before: float, began: float) -> dict[str, float]:
    return {"cpu": time.process_time() - before, "seconds": time.perf_counter() - began}


async def _serve(contender: Contender, directory: str, job: Job) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{directory}/server.pem")
    done = anyio.Event()

    async def use(end: End) -> None:
        # A server of a library would log the error and go on, and nobody would be told.
        try:
            spent = await (_receive if job.client_sends else _send)(end, job)
        except Exception as error:
            _tell_problem(error)
        else:
            _tell(spent)
        finally:
            done.set()
            await end.close()

    await contender.serve(context, use, _tell, done)


async def _connect(contender: Contender, directory: str, job: Job) -> None:
    context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
    end = await contender.client(job.port, context)
    spent = await (_send if job.client_sends else _receive)(end, job)
    await end.close()
    _tell(spent)


def _tell(what: object) -> None:
    print(json.dumps(what), flush=True)


def _tell_problem(error: Exception) -> None:
    """The table has room for one: of two, one is often but the echo of the other."""
    worded = f"{type(error).__name__}: {error}"
    print(f"{' '.join(sys.argv[1:5])}: {worded}", file=sys.stderr, flush=True)
    _tell({"problem": worded})


def main(role: str, layer: str, backend: str, name: str, directory: str) -> None:
    (kind,) = (one for one in LAYERS[layer] if one.name == name)
    work = _serve if role == "server" else _connect
    loop: Any = {"backend_options": {"use_uvloop": True}} if backend == "uvloop" else {}
    for line in sys.stdin:
        gc.collect()
        faulthandler.dump_traceback_later(JOB_TIMEOUT, exit=True)
        try:
            anyio.run(
                work,
                kind(),
                directory,
                Job(**json.loads(line)),
                backend="trio" if backend == "trio" else "asyncio",
                **loop,
            )
        except Exception as error:
            _tell_problem(error)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(*sys.argv[1:])
