"""Framing alone: frames made, and frames read, in one process and without I/O.

What is read has been made by wsproto, with a key of its own for each frame, and comes in pieces of 64 KiB that no
frame begins or ends with, except by chance.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from ..interleave import interleave
from ..report import Table, middle, ratios
from .framers import MASKED, UNMASKED, Wsproto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..interleave import Outcome
    from .ends import Buffer
    from .framers import Framer

# Payload made or read between two looks at the clock.
BLOCK = 1024 * 1024
PIECE = 64 * 1024
# One sample, of making or of reading, takes so much CPU time.
SECONDS = 0.05
WAYS = ("encode", "decode")


@dataclass(frozen=True)
class Speed:
    # CPU seconds per GB of payload.
    cpu: float
    frames_per_second: float
    megabytes_per_second: float


@dataclass(frozen=True)
class Task:
    size: int
    masked: bool

    @property
    def frames(self) -> int:
        return BLOCK // self.size

    def payload(self) -> bytes:
        return Random(self.size).randbytes(self.size)

    def pieces(self) -> list[bytes]:
        """A block of frames as the far end would send it, cut regardless of them."""
        encode = Wsproto().encoder(client=self.masked)
        payload = self.payload()
        wire = joined([joined(encode(payload)) for _ in range(self.frames)])
        return [wire[start : start + PIECE] for start in range(0, len(wire), PIECE)]

    def __str__(self) -> str:
        return f"Framing without I/O, {self.size // 1024} KiB, {'masked' if self.masked else 'not masked'}"


def measure(sizes: Sequence[int], rounds: int) -> Iterator[Table]:
    for size in sizes:
        for masked in (True, False):
            task = Task(size, masked)
            framers = MASKED if masked else UNMASKED
            sample = partial(_sample, task, task.pieces())
            yield _table(task, interleave(str(task), framers, rounds, sample))


def _sample(task: Task, pieces: list[bytes], framer: Framer) -> dict[str, Speed]:
    """The client masks: so it makes what is masked, and the server reads it."""
    with framer.in_use():
        _check(task, pieces, framer)
        encode, payload = framer.encoder(client=task.masked), task.payload()
        decode = framer.decoder(client=not task.masked)
        return {
            "encode": _timed(task, lambda: _encode(encode, payload, task.frames)),
            "decode": _timed(task, lambda: _decode(decode, pieces)),
        }


def _encode(encode: Callable[[bytes], object], payload: bytes, frames: int) -> int:
    for _ in range(frames):
        encode(payload)
    return frames * len(payload)


def _decode(decode: Callable[[bytes], Sequence[Buffer]], pieces: list[bytes]) -> int:
    count = 0
    for piece in pieces:
        for part in decode(piece):
            count += len(part)
    return count


def _timed(task: Task, block: Callable[[], int]) -> Speed:
    assert block() == BLOCK  # not timed: the first has its own costs
    moved, cpu = 0, 0.0
    before, began = time.process_time(), time.perf_counter()
    while cpu < SECONDS:
        moved += block()
        cpu = time.process_time() - before
    seconds = time.perf_counter() - began
    return Speed(cpu / moved * 1e9, moved / task.size / seconds, moved / 1e6 / seconds)


def _check(task: Task, pieces: list[bytes], framer: Framer) -> None:
    """wsproto reads what it makes, and it reads what wsproto makes."""
    sent = task.payload() * task.frames
    decode = framer.decoder(client=not task.masked)
    assert b"".join(part for piece in pieces for part in decode(piece)) == sent, "it reads wrong"
    encode, payload = framer.encoder(client=task.masked), task.payload()
    wire = joined([joined(encode(payload)) for _ in range(task.frames)])
    read = Wsproto().decoder(client=not task.masked)(wire)
    assert joined(read) == sent, "it makes what wsproto reads otherwise"


def joined(buffers: Buffer | Sequence[Buffer]) -> bytes:
    return bytes(buffers) if isinstance(buffers, (bytes, bytearray, memoryview)) else b"".join(buffers)


def _table(task: Task, outcome: Outcome[dict[str, Speed]]) -> Table:
    reference = Wsproto.name
    table = Table(
        str(task),
        [
            "library",
            *(f"{way}{what}" for way in WAYS for what in (", CPU s/GB", ", frames/s", ", MB/s", f", x {reference}")),
        ],
    )
    base = {way: _cpu(outcome, reference, way) for way in WAYS}
    for name in outcome.names():
        if problem := outcome.failures.get(name):
            table.add_problem(name, problem)
            continue
        table.add(name, *(cell for way in WAYS for cell in _cells(outcome, name, way, base[way])))
        table.data[name] = {
            number: {way: asdict(speed) for way, speed in both.items()}
            for number, both in outcome.samples[name].items()
        }
    return table


def _cells(outcome: Outcome[dict[str, Speed]], name: str, way: str, base: dict[int, float]) -> list[str]:
    cpu = _cpu(outcome, name, way)
    speeds = [both[way] for both in outcome.of(name)]
    over = ratios(cpu, base)
    return [
        middle(list(cpu.values())),
        f"{statistics.median(one.frames_per_second for one in speeds):,.0f}",
        f"{statistics.median(one.megabytes_per_second for one in speeds):,.0f}",
        f"{statistics.median(over):.2f}" if over else "-",
    ]


def _cpu(outcome: Outcome[dict[str, Speed]], name: str, way: str) -> dict[int, float]:
    return {number: both[way].cpu for number, both in outcome.samples.get(name, {}).items()}
