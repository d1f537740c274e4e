"""What one seed does: who asks for what and when, and what goes wrong. Drawn at once, before anything begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal, TypeAlias

from .applications import Role
from .weather import Storm

Way: TypeAlias = Literal["stop", "kill", "power"]
Door: TypeAlias = Literal["open", "refused", "unreachable", "silence", "no name"]


@dataclass(frozen=True)
class Visit:
    """One session that an application asks for."""

    number: int
    after: float
    """Seconds of pause before it."""
    door: Door
    """What becomes of a request for a connection to the destination."""
    by_name: bool
    near: Role
    """The application's."""
    far: Role
    """The destination's."""
    early: int = 0
    """So many bytes go out with the request, in --fast-open."""

    @property
    def is_polite(self) -> bool:
        """Whether it ends well if nothing goes wrong: somebody ends first, and everybody reads all."""
        ends = {self.near.ending, self.far.ending if not self.far.echoes else "answer"}
        waits = self.far.waits and self.near.ending != "end"
        return self.near.is_polite and self.far.is_polite and "end" in ends and not waits


@dataclass(frozen=True)
class Trouble:
    """Something that happens to one of the ends."""

    at: float
    whom: Literal["client", "server"]
    way: Way
    pause: float
    """Seconds until it is started again."""


@dataclass(frozen=True)
class Plan:
    seed: int
    storm: Storm | None
    fast_open: bool
    max_size: int
    min_idle: int
    idle_timeout: float
    sweep_interval: float
    applications: tuple[tuple[Visit, ...], ...]
    troubles: tuple[Trouble, ...]

    @property
    def is_calm(self) -> bool:
        """Nothing goes wrong with the network or the ends."""
        return self.storm is None and not self.troubles

    @property
    def visits(self) -> list[Visit]:
        return [visit for application in self.applications for visit in application]

    @property
    def is_polite(self) -> bool:
        """Everybody behaves, too: no tunnel has a reason to end."""
        return self.is_calm and all(visit.is_polite and visit.door == "open" for visit in self.visits)

    @property
    def is_contended(self) -> bool:
        """There may be no tunnel for somebody in time."""
        return self.max_size < len(self.applications)


def draw(seed: int) -> Plan:
    rng = Random(seed)
    storm = None if rng.random() < 0.25 else Storm(*(rng.choice((0.0, 0.15, 0.4)) for _ in range(3)))
    only_polite = storm is None and rng.random() < 0.5
    troubles = () if only_polite or rng.random() < 0.6 else _troubles(rng)
    fast_open = rng.random() < 0.25
    applications = tuple(
        tuple(_visit(rng, 10 * application + number, fast_open, only_polite) for number in range(rng.randint(1, 3)))
        for application in range(rng.randint(2, 5))
    )
    return Plan(
        seed,
        storm,
        fast_open,
        max_size=rng.choice((1, 2, 20, 20, 20)),
        min_idle=rng.choice((0, 0, 0, 1)),
        # Looking at the clock is half of what a run costs.
        sweep_interval=rng.choice((0.25, 1.0, 1.0)),
        idle_timeout=rng.choice((10.0, 30.0)),
        applications=applications,
        troubles=troubles,
    )


def _troubles(rng: Random) -> tuple[Trouble, ...]:
    return tuple(
        Trouble(
            at=rng.choice((0.5, 3.0, 15.0)) * rng.random(),
            whom=rng.choice(("client", "server", "server")),
            way=rng.choice(("stop", "kill", "power")),
            pause=rng.choice((0.0, 0.3, 5.0)),
        )
        for _ in range(rng.randint(1, 3))
    )


def _visit(rng: Random, number: int, fast_open: bool, only_polite: bool) -> Visit:
    near, far = _dialogue(rng)
    door: Door = "open"
    if not only_polite:
        door = rng.choices(("open", "refused", "unreachable", "silence", "no name"), (14, 1, 1, 1, 1))[0]
        if rng.random() < 0.3:
            near, far = _spoiled(rng, near, far)
    if near.size + far.size > 10_000:
        # What takes longer than the idle time to arrive is given up by who has said it.
        near, far = replace(near, read_pause=0.0), replace(far, read_pause=0.0)
    return Visit(
        number,
        # More than 5 s: the next OPEN has a PING with it. More than 20 s: an idle tunnel is pinged.
        after=rng.choice((0.0, rng.random(), 6 * rng.random(), 6.0)) if rng.random() < 0.95 else 25.0,
        door=door,
        by_name=rng.random() < 0.3,
        near=near,
        far=far,
        early=rng.choice((0, min(near.size, 30))),
    )


def _dialogue(rng: Random) -> tuple[Role, Role]:
    """Of two that behave."""
    match rng.choice(("echo", "echo", "upload", "download", "both")):
        case "echo":
            return _talker(rng), replace(_talker(rng), echoes=True, ending="end")
        case "upload":
            return _talker(rng), replace(_talker(rng), waits=True, ending="end")
        case "download":
            return replace(_talker(rng), size=rng.choice((0, 100)), ending="answer"), _talker(rng)
        case _:
            return _talker(rng), _talker(rng)


def _talker(rng: Random) -> Role:
    size = 0 if rng.random() < 0.1 else int(2 ** rng.uniform(0, 11))
    if rng.random() < 0.02:
        size = 50_000
    chunk = rng.choice((1 + size // 3, 1000, 65536))
    pause = rng.choice((0.0, 0.0, 0.0, 0.01, 0.7)) if size < 20 * chunk else 0.0
    return Role(size, chunk, pause, read_pause=pause if rng.random() < 0.2 else 0.0)


def _spoiled(rng: Random, near: Role, far: Role) -> tuple[Role, Role]:
    """Somebody does not behave. An application that does not wait for an end has no patience for ever."""
    match rng.choice(("impatient", "near", "far", "deaf", "deaf near", "mute")):
        case "impatient":
            near = replace(near, patience=2 ** rng.uniform(-5, 3))
        case "near":
            near = replace(near, ending=rng.choice(("close", "reset")))
        case "far":
            far = replace(far, echoes=False, ending=rng.choice(("close", "reset")))
        case "deaf":
            far = replace(far, reads=rng.choice((0, 50)))
        case "deaf near":
            near, far = replace(near, reads=rng.choice((0, 50)), patience=8.0), replace(far, size=50_000, chunk=65536)
        case _:
            far = replace(far, size=0, ending="nothing")
    return near, far
