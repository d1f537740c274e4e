"""What the network does to one connection. All of it is drawn from a generator when the connection begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

FOR_EVER = math.inf


_MOST_CUTS = 4


@dataclass(frozen=True)
class Storm:
    """How likely it is that something goes wrong, for a connection of each leg of the way."""

    tunnel: float
    application: float
    destination: float

    def chance(self, leg: str) -> float:
        return {"tunnel": self.tunnel, "application": self.application}.get(leg, self.destination)


@dataclass
class Course:
    """What one direction of a connection goes through. Offsets count its bytes."""

    rng: Random
    latency: float
    jitter: float
    largest_piece: int
    """What is written at once arrives in pieces of so many bytes at most."""
    capacity: int
    """Bytes on their way, those in the receiver's buffer among them; then a sender has to wait."""
    reset_at: float = FOR_EVER
    """The connection is reset in place of this byte."""
    stall_at: float = FOR_EVER
    """From this byte on, everything is late by `stall`."""
    stall: float = 0.0
    """`FOR_EVER`: a middlebox has forgotten the connection, and tells nobody."""

    def delay(self) -> float:
        # In steps: what arrives at the same time costs one turn of the event loop.
        return self.latency + self.jitter * self.rng.randrange(3)

    def cuts(self, size: int) -> list[int]:
        """Where so many bytes are cut into pieces, and their end. After a few pieces, the rest stays whole."""
        cuts = [0]
        while cuts[-1] < size:
            piece = self.rng.randint(1, self.largest_piece) if len(cuts) < _MOST_CUTS else size
            cuts.append(min(cuts[-1] + piece, size))
        return cuts[1:]


@dataclass
class Weather:
    """What a connection goes through."""

    answer: str
    """To the request for it: "yes", "refused", "unreachable", or "silence"."""
    there: Course
    back: Course
    forgotten_after: float = FOR_EVER
    """So long after its beginning, nothing gets through any more, in either direction."""
    reset_after: float = FOR_EVER
    """So long after its beginning, both sides see a reset."""
    forgets_unread: bool = False
    """What a receiver has not read when a reset arrives is lost, as on some systems; on others not."""

    def improve(self) -> None:
        """Nothing goes wrong from now on."""
        self.answer = "yes"
        self.forgotten_after = self.reset_after = FOR_EVER
        for course in (self.there, self.back):
            course.reset_at = course.stall_at = FOR_EVER


def weather(rng: Random, storm: Storm | None, leg: str) -> Weather:
    """Of one connection; without a storm it is slow, and cut in pieces, but works."""
    made = Weather("yes", _course(rng), _course(rng), forgets_unread=rng.random() < 0.5)
    if storm is not None and rng.random() < storm.chance(leg):
        _worsen(made, rng)
    return made


def _course(rng: Random) -> Course:
    return Course(
        rng,
        latency=rng.choice((0.0, 0.001, 0.02, 0.1)),
        jitter=rng.choice((0.0, 0.0, 0.0, 0.002, 0.02)),
        largest_piece=rng.choices((1, 16, 300, 1500, 65536), (1, 2, 3, 4, 6))[0],
        capacity=rng.choice((600, 4096, 65536)),
    )


def _worsen(made: Weather, rng: Random) -> None:
    course = rng.choice((made.there, made.back))
    # Most of what is interesting happens while a tunnel or a session begins, so at low offsets.
    offset = int(2 ** rng.uniform(0, 13)) - 1
    match rng.choice(("connect", "reset", "reset", "stall", "forget", "forget later", "reset later")):
        case "connect":
            made.answer = rng.choice(("refused", "unreachable", "silence"))
        case "reset":
            course.reset_at = offset
        case "stall":
            course.stall_at, course.stall = offset, 2 ** rng.uniform(-3, 5)
        case "forget":
            course.stall_at, course.stall = offset, FOR_EVER
        case "forget later":
            made.forgotten_after = 2 ** rng.uniform(-4, 5)
        case _:
            made.reset_after = 2 ** rng.uniform(-4, 5)
