"""A pool's state machine with users, a peer and a shell, all moved by hand: the explorer's playground.

A world is a pickle-able whole. `moves()` names everything that could happen next; `do(move)` lets it
happen and checks what must hold for any step. No clock runs: `tick` goes to the machine's own alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from wspool._entries import Entry, EntryState
from wspool._errors import PoolClosed, PoolFull
from wspool._events import CloseReason
from wspool._jobs import Effect, Job, JobKind
from wspool._pool_state import PoolState
from wspool._settings import PoolSettings
from wspool._wait_queue import FAILED, RESERVED, WAITING, Waiter, WaiterState
from wspool.testing._invariants import check_state

CONNECT, VALIDATE, RESET, CLOSE = JobKind
Move = tuple[Any, ...]


class Toy:
    """A connection: alive or dead, of some generation."""

    __slots__ = ("alive", "closes", "generation", "spoiled", "taken")

    def __init__(self, generation: int) -> None:
        self.alive = True
        self.generation = generation
        self.closes = 0
        self.taken = False
        self.spoiled = False
        """A hook failed on it."""


def toy_is_reusable(toy: Toy) -> bool:
    """What the machine is given as is_reusable."""
    return toy.alive


def no_jitter() -> float:
    """What the machine is given for randomness."""
    return 0.0


class User:
    """One caller: free, waiting (a waiter), holding (an entry), or with an emptied handle."""

    __slots__ = ("emptied", "entry", "waiter")

    def __init__(self) -> None:
        self.waiter: Waiter[Toy] | None = None
        self.entry: Entry[Toy] | None = None
        self.emptied = False

    @property
    def free(self) -> bool:
        """Whether it can begin a get."""
        return self.waiter is None and self.entry is None and not self.emptied


class World:
    """The machine and everything around it."""

    def __init__(
        self,
        *,
        users: int,
        settings: PoolSettings,
        deaths: bool = False,
        validates: bool = False,
        resets: bool = False,
        ticks: int = 0,
        clears: int = 0,
        sizes: tuple[int, ...] = (),
        closes: bool = False,
        takes: bool = False,
        machine: Callable[..., PoolState[Toy]] = PoolState,
    ) -> None:
        self.state: PoolState[Toy] = machine(
            settings,
            is_reusable=toy_is_reusable if deaths else None,
            validates=validates,
            resets=resets,
            jitter=no_jitter,
        )
        self.users = [User() for _ in range(users)]
        self.now = 0.0
        self.generation = 0
        self.deaths = deaths
        self.ticks = ticks
        self.clears = clears
        self.sizes = sizes
        self.may_close = closes
        self.takes = takes
        self.forced = False
        self.started: dict[Job[Toy], int] = {}
        """Jobs whose start was ordered, with the generation at that time; a dial that has begun is in `begun`."""
        self.begun: set[Job[Toy]] = set()
        self.transitions: set[tuple[str, str]] = set()
        self.state.warm_up(self.now)
        self._run_effects()
        check_state(self.state, self.now)

    # --- what can happen ------------------------------------------------------------------------

    def moves(self) -> Iterator[Move]:
        """Everything that could happen next. Users that are alike are not tried twice."""
        yield from self._user_moves()
        for index, job in enumerate(self.state.jobs):
            yield from self._job_moves(index, job)
        if self.deaths:
            for index, entry in enumerate(self.state.entries.all):
                if entry.connection.alive and entry.state in (EntryState.IDLE, EntryState.RESERVED):
                    yield ("die", index)
        yield from self._pool_moves()

    def _user_moves(self) -> Iterator[Move]:
        seen_free = False
        for index, user in enumerate(self.users):
            if user.free and not seen_free:
                seen_free = True
                yield ("get", index)
            if user.waiter is not None:
                yield ("cancel", index)
                if user.waiter.state is not WAITING:
                    yield ("resume", index)
            if user.entry is not None:
                yield ("release", index)
                yield ("discard", index)
                if self.deaths and user.entry.connection.alive:
                    yield ("release_broken", index)
                if self.takes:
                    yield ("take", index)
            if user.emptied:
                yield ("insert", index)
                yield ("drop", index)

    def _job_moves(self, index: int, job: Job[Toy]) -> Iterator[Move]:
        if job.kind is CONNECT:
            if job not in self.begun:
                yield ("begin", index)
                return
            yield ("dialled", index)
            yield ("dial_ended", index) if job.cancelled is not None else ("dial_failed", index)
        elif job.kind is VALIDATE:
            yield ("valid", index)
            yield ("invalid", index)
        elif job.kind is RESET:
            yield ("was_reset", index)
            yield ("reset_failed", index)
        else:
            yield ("closed", index)

    def _pool_moves(self) -> Iterator[Move]:
        if self.clears and not self.state.closing:
            yield ("clear",)
        for size in self.sizes:
            if size != self.state.settings.max_size and not self.state.closing:
                yield ("resize", size)
        if self.may_close and not self.state.closing:
            yield ("close",)
        if self.state.closing and not self.forced:
            yield ("force",)
        if self.ticks and self.state.alarm < float("inf"):
            yield ("tick",)

    # --- letting it happen ----------------------------------------------------------------------

    def do(self, move: Move) -> None:
        """Let it happen, as the shell would, and check the step."""
        before = {entry: (entry.state, entry.owner) for entry in self.state.entries.all}
        queued = {user.waiter: user.waiter.state for user in self.users if user.waiter is not None}
        waiting = [waiter for waiter in self.state.queue.waiters if waiter.state is WAITING]
        getattr(self, f"_do_{move[0]}")(*move[1:])
        self._run_effects()
        self._check_queue_order(waiting)
        self._note_transitions(before, queued)
        self._check_state()

    def _do_get(self, index: int) -> None:
        user = self.users[index]
        waiting = self.state.queue.waiting
        try:
            entry = self.state.take_idle(user, self.now)
            if entry is None:
                user.waiter = self.state.enter_queue(self.now)
                return
        except PoolFull:
            return
        except PoolClosed:
            assert self.state.closing, "refused while open"
            return
        assert not waiting, "L2: a newcomer overtook the queue"
        self._receive(user, entry)

    def _do_resume(self, index: int) -> None:
        user = self.users[index]
        waiter = user.waiter
        assert waiter is not None
        entry = self.state.collect(waiter, user, self.now)
        if entry is not None:
            user.waiter = None
            self._receive(user, entry)
        elif waiter.error is not None:
            waiter.error = None  # it is told
            self._do_cancel(index)

    def _do_cancel(self, index: int) -> None:
        user = self.users[index]
        waiter, user.waiter = user.waiter, None
        assert waiter is not None
        self.state.leave_queue(waiter, self.now)

    def _receive(self, user: User, entry: Entry[Toy]) -> None:
        toy = entry.connection
        assert not toy.spoiled, "S10: a connection was handed out on which a hook had failed"
        assert toy.alive, "S10: a dead connection was handed out"
        assert not toy.closes, "S7: a closed connection was handed out"
        assert toy.generation == self.generation, "S19: a connection from before clear() was handed out"
        assert not self.state.closing, "S8: handed out after closing began"
        assert entry not in [other.entry for other in self.users], "S7: two users hold one connection"
        user.entry = entry

    def _do_release(self, index: int) -> None:
        user = self.users[index]
        entry, user.entry = user.entry, None
        assert entry is not None
        self.state.give_back(entry, self.now)

    def _do_release_broken(self, index: int) -> None:
        entry = self.users[index].entry
        assert entry is not None
        entry.connection.alive = False
        self._do_release(index)

    def _do_discard(self, index: int) -> None:
        user = self.users[index]
        entry, user.entry = user.entry, None
        assert entry is not None
        self.state.discard(entry, self.now)

    def _do_take(self, index: int) -> None:
        user = self.users[index]
        entry, user.entry = user.entry, None
        assert entry is not None
        try:
            self.state.take(entry, self.now)
        except PoolClosed:
            assert self.forced, "take() refused although the connection was not closed under its holder"
            return
        entry.connection.taken = True
        user.emptied = True

    def _do_insert(self, index: int) -> None:
        user = self.users[index]
        try:
            user.entry = self.state.insert(Toy(self.generation), user, self.now)
        except PoolClosed:
            self._do_drop(index)
            return
        user.emptied = False

    def _do_drop(self, index: int) -> None:
        self.users[index].emptied = False
        self.state.drop_place(self.now)

    def _job(self, index: int) -> Job[Toy]:
        return list(self.state.jobs)[index]

    def _do_begin(self, index: int) -> None:
        job = self._job(index)
        unwanted = job in self.state.dials.abandoned
        if self.state.dial_may_start(job, self.now):
            assert not unwanted, "S12: a dial starts that nobody waits for"
            self.begun.add(job)
        else:
            self._run_effects()
            self._do_dial_ended(index)

    def _do_dialled(self, index: int) -> None:
        job = self._job(index)
        self.begun.discard(job)
        self.state.connect_succeeded(job, Toy(self.started.pop(job)), self.now)

    def _do_dial_failed(self, index: int) -> None:
        job = self._job(index)
        self.begun.discard(job)
        del self.started[job]
        owner = job.waiter
        error = ConnectionRefusedError()
        self.state.connect_failed(job, self.now, error=error)
        assert owner is None or owner.error is error, "L4: a failed dial did not reach who asked for it"

    def _do_dial_ended(self, index: int) -> None:
        job = self._job(index)
        self.begun.discard(job)
        del self.started[job]
        self.state.connect_failed(job, self.now)

    def _do_valid(self, index: int) -> None:
        self.state.check_ended(self._job(index), self.now, valid=True)

    def _do_invalid(self, index: int) -> None:
        job = self._job(index)
        self._spoil(job)
        self.state.check_ended(job, self.now, valid=False)

    @staticmethod
    def _spoil(job: Job[Toy]) -> None:
        assert job.entry is not None
        job.entry.connection.spoiled = True

    def _do_was_reset(self, index: int) -> None:
        self.state.reset_ended(self._job(index), self.now)

    def _do_reset_failed(self, index: int) -> None:
        job = self._job(index)
        self._spoil(job)
        self.state.reset_ended(job, self.now, error=OSError())

    def _do_closed(self, index: int) -> None:
        job = self._job(index)
        assert job.entry is not None
        toy = job.entry.connection
        toy.closes += 1
        assert toy.closes == 1, "S2: a connection was closed twice"
        assert not toy.taken, "a connection that was taken out was closed"
        self.state.close_ended(job, self.now)

    def _do_die(self, index: int) -> None:
        self.state.entries.all[index].connection.alive = False

    def _do_clear(self) -> None:
        self.clears -= 1
        self.generation += 1
        self.state.clear(self.now)

    def _do_resize(self, size: int) -> None:
        self.state.resize(self.state.settings.resized(max_size=size), self.now)

    def _do_close(self) -> None:
        self.state.begin_closing(self.now, 1000.0)

    def _do_force(self) -> None:
        self.forced = True
        self.state.force_close(self.now)

    def _do_tick(self) -> None:
        self.ticks -= 1
        self.now = max(self.now, self.state.alarm)
        self.state.expire(self.now)
        assert self.state.alarm > self.now, "L10: the timer is set to a time that has passed"
        limit = self.state.settings.acquire_timeout
        for waiter in self.state.queue.waiters:
            late = limit is not None and waiter.since + limit <= self.now
            assert waiter.state is not WAITING or not late, "L5: somebody waits beyond acquire_timeout"

    # --- checking the step ----------------------------------------------------------------------

    def _run_effects(self) -> None:
        """Do as the shell does, and refuse an order that makes no sense."""
        for effect, subject in self.state.effects:
            if effect is Effect.START:
                assert subject not in self.started, "a job was started twice"
                self.started[subject] = self.generation
            elif effect is Effect.WAKE:
                assert isinstance(subject, Waiter)
            elif effect is Effect.CANCEL:
                assert subject.cancelled is not None, "a job was cancelled without a reason"
                assert subject in self.started, "a job was cancelled that was never started"
        self.state.effects.clear()
        unheard = set(self.state.jobs) - set(self.started)
        assert not unheard, "a job was never started"
        for job in [job for job in self.started if job not in self.state.jobs]:
            del self.started[job]

    def _check_state(self) -> None:
        check_state(self.state, self.now)

    def _check_queue_order(self, waiting: list[Waiter[Toy]]) -> None:
        """Whoever was served in this step stood before all those who were not (L2)."""
        stood = [waiter for waiter in waiting if waiter.state in (WAITING, RESERVED)]
        served = [waiter.state is RESERVED for waiter in stood]
        assert served == sorted(served, reverse=True), "L2: a waiter was passed over"

    def _note_transitions(
        self, before: dict[Entry[Toy], tuple[EntryState, Any]], queued: dict[Waiter[Toy], WaiterState]
    ) -> None:
        now = {entry: entry.state for entry in self.state.entries.all}
        for entry, (old, owner) in before.items():
            new = now.get(entry, EntryState.GONE)
            passed_on = new is EntryState.RESERVED and entry.owner is not owner
            if new is not old or passed_on:
                self.transitions.add((f"Entry.{old.name}", new.name))
        for waiter, was in queued.items():
            if waiter.state is not was:
                self.transitions.add((f"Waiter.{was.name}", waiter.state.name))

    # --- recognising and finishing --------------------------------------------------------------

    def key(self) -> Any:
        """What makes this world different from another one: not the names of users, nor counts."""
        state = self.state
        jobs = list(state.jobs)
        place = {job: index for index, job in enumerate(jobs)}
        entries = list(state.entries.all)
        where = {entry: index for index, entry in enumerate(entries)}
        queue = [waiter for waiter in state.queue.waiters if waiter.state is WAITING]
        line = {waiter: index for index, waiter in enumerate(queue)}
        return (
            tuple(self._entry_key(entry, where) for entry in entries),
            tuple(where[entry] for entry in state.entries.stack()),
            tuple(self._rest(waiter.since) for waiter in queue),
            tuple(self._job_key(job, line) for job in jobs),
            tuple(place[job] for job in state.dials.spare),
            tuple(place[job] for job in state.dials.abandoned),
            self._rest(state.dials.retry_at),
            self._rest(state.alarm),
            tuple(sorted(self._user_key(user, where, line) for user in self.users)),
            (state.settings.max_size, state.closing, self.forced, self.ticks, self.clears),
        )

    def _rest(self, time: float) -> float:
        return round(time - self.now, 6) if self.ticks else 0.0

    def _entry_key(self, entry: Entry[Toy], where: dict[Entry[Toy], int]) -> Any:
        toy = entry.connection
        tracked = tuple(self._rest(getattr(entry, name, 0.0)) for name in ("retire_at", "fresh_until", "check_at"))
        return (
            entry.state.name,
            toy.alive,
            toy.spoiled,
            self.generation - toy.generation,
            entry in self.state._retired,
            entry in self.state._unused,
            self._rest(entry.since),
            getattr(entry, "uses", 0) if self.state.settings.max_uses else 0,
            tracked,
        )

    def _job_key(self, job: Job[Toy], line: dict[Waiter[Toy], int]) -> Any:
        owner = line[job.waiter] if job.waiter is not None else -1
        begun = job in self.begun
        age = self.generation - self.started[job]
        return (job.kind.name, str(job.cancelled), owner, begun, age, job.forced, self._rest(job.deadline))

    def _user_key(self, user: User, where: dict[Entry[Toy], int], line: dict[Waiter[Toy], int]) -> Any:
        waiter = user.waiter
        return (
            where.get(user.entry, -2) if user.entry is not None else -1,
            user.emptied,
            waiter.state.name if waiter is not None else "",
            line.get(waiter, -1) if waiter is not None else -1,
            where[waiter.entry] if waiter is not None and waiter.entry is not None else -1,
        )

    def prove_recovery(self) -> None:
        """Let everything end well from here: then everybody is served, and full capacity is there (L12)."""
        self.ticks = 1000
        self._finish()
        for user in self.users:
            assert user.free, "L4: somebody is never served"
        if self.state.closing:
            assert not self.state.entries.all, "L7: a connection is left after closing"
            assert self.state.is_empty(), "L7: closing never ends"
            return
        size = self.state.settings.max_size
        assert size is not None
        self.users = [User() for _ in range(size)]
        for index in range(size):
            self.do(("get", index))
        self._finish(releasing=False)
        assert all(user.entry is not None for user in self.users), "L12: capacity is lost"

    def _finish(self, *, releasing: bool = True) -> None:
        good = {"begin", "dialled", "dial_ended", "valid", "was_reset", "closed", "resume"}
        # Time passes only where nothing else is left to happen.
        if releasing:
            good |= {"release", "drop"}
        if self.state.closing:
            good.add("force")
        for _ in range(1000):
            move = next((move for move in self.moves() if move[0] in good), None)
            if move is None and self.state.queue.waiting:
                move = ("tick",)
            if move is None:
                return
            self.do(move)
        raise AssertionError("it never comes to rest")


__all__ = ["FAILED", "CloseReason", "Move", "Toy", "User", "World", "no_jitter", "toy_is_reusable"]
