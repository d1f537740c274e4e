"""Hypothesis drives the state machine with more users, all limits drawn, time, jitter and mishaps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
from hypothesis import settings as profile, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from wspool._entries import Entry, EntryState
from wspool._errors import PoolMisuse
from wspool._events import (
    CloseReason,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReady,
    ConnectionReleased,
    DialEnd,
    DialFailed,
    DialStarted,
    GetTimedOut,
    GetWaiting,
    PoolEvent,
)
from wspool._jobs import Effect, Job
from wspool._pool_state import PoolState
from wspool._settings import PoolSettings, time_limit
from wspool._wait_queue import WAITING, Waiter, WaiterState
from wspool.testing._invariants import check_state

from .world import CLOSE, CONNECT, RESET, VALIDATE, Move, Toy, User, World

COUNTS = [
    "acquired",
    "acquired_waiting",
    "timed_out",
    "failed",
    "cancelled",
    "rejected",
    "opened",
    "inserted",
    "closed",
    "takes",
    "dials",
    "dials_won",
    "dials_spare_used",
    "dials_spare_wasted",
    "dials_failed",
    "dials_abandoned",
    "dials_cancelled",
    "hook_errors",
]


class Frail(Toy):
    """A toy that remembers its life in the pool, and that may raise when it is asked."""

    __slots__ = ("curse", "handouts", "opened")

    def __init__(self, generation: int, now: float) -> None:
        super().__init__(generation)
        self.be_born(generation, now)

    def be_born(self, generation: int, now: float) -> None:
        """It enters the pool: for the first time, or again after it was closed or taken out."""
        self.alive = True
        self.generation = generation
        self.closes = 0
        self.taken = False
        self.spoiled = False
        self.curse: Exception | None = None
        self.handouts = 0
        self.opened = now


class SelfJudging(Frail):
    """A toy that is asked itself."""

    __slots__ = ()

    def is_reusable(self) -> bool:
        return judge(self)


def judge(toy: Toy) -> bool:
    assert isinstance(toy, Frail)
    if toy.curse is not None:
        raise toy.curse
    return toy.alive


class BigWorld(World):
    """A world with time, an observer, mishaps, and a model of what was promised over time."""

    def __init__(
        self,
        *,
        users: int,
        settings: PoolSettings,
        judges: str,
        validates: bool,
        resets: bool,
        observed: bool,
        jitters: list[float],
    ) -> None:
        jitter = cycle(jitters)

        def machine(settings: PoolSettings, **hooks: Any) -> PoolState[Toy]:
            hooks["jitter"] = lambda: next(jitter)
            hooks["is_reusable"] = judge if judges == "a hook" else None
            return PoolState(settings, observed=observed, **hooks)

        self.toy = SelfJudging if judges == "the toys" else Frail
        self.observed = observed
        self.toys: list[Frail] = []
        self.ended: list[Job[Toy]] = []
        self.departed: list[Waiter[Toy]] = []
        self.gets = 0
        self.force_at = math.inf
        self.rounds = 0
        """Of failed dials, since one has succeeded."""
        self.round: set[Job[Toy]] = set()
        """All dials that had begun when the newest round was noted."""
        self.dials: set[Job[Toy]] = set()
        """All that ever began."""
        self.brought_by: dict[Toy, Job[Toy]] = {}
        self.failed_at = -math.inf
        self.told: int | None = None
        """The newest round that was logged, since a dial has succeeded."""
        self.lines: list[str] = []
        """What the log has to say about dials in this step."""
        self.heard: list[str] = []
        """What it says."""
        self.woken: set[Waiter[Toy]] = set()
        self.cancelled: set[Job[Toy]] = set()
        self.new_dials: list[Job[Toy]] = []
        self.alarmed = False
        self.unwanted: dict[Job[Toy], float] = {}
        self.idle_since: dict[Toy, float] = {}
        self.dials_heard: dict[int, float] = {}
        self.stages: dict[Toy, str] = {}
        super().__init__(
            users=users,
            settings=settings,
            deaths=judges != "nobody",
            validates=validates,
            resets=resets,
            machine=machine,
        )

    # --- one step -------------------------------------------------------------------------------

    def do(self, move: Move) -> None:
        state = self.state
        alarm, places, counts = state.alarm, state.places, self._counts()
        had = {user.waiter: user.waiter.entry for user in self.users if user.waiter is not None}
        self.alarmed = False
        self.new_dials = []
        self.lines, self.heard = [], []
        super().do(move)
        assert self.heard == self.lines, "L4: a failed dial is told of twice, or to nobody"
        assert state.alarm >= alarm or self.alarmed, "L5: the timer is not told of an earlier alarm"
        limit = state.settings.max_size
        assert limit is None or state.places <= max(limit, places), "S3: more places than max_size"
        assert all(map(int.__le__, counts, self._counts())), "S15: a count went back"
        self._check_served(had)
        self._check_new_dials()
        self._check_statistics()
        self._watch_the_unwanted()
        if self.observed:
            self._check_observed()

    def _counts(self) -> list[int]:
        figures = self.state.statistics(self.now)
        return [getattr(figures, count) for count in COUNTS]

    def _run_effects(self) -> None:
        for effect, subject in self.state.effects:
            if effect is Effect.WAKE:
                assert subject.state is not WAITING or subject.entry is None
                self.woken.add(subject)
            elif effect is Effect.ALARM:
                self.alarmed = True
            elif effect is Effect.CANCEL:
                assert subject not in self.cancelled, "a job was cancelled twice"
                self.cancelled.add(subject)
            elif effect is Effect.START and subject.kind is CONNECT:
                self.new_dials.append(subject)
                self.dials.add(subject)
            elif effect is Effect.LOG_DIAL:
                self.heard.append("they fail" if subject else "they succeed")
            elif effect is Effect.NOTIFY:
                self._hear(subject)
        super()._run_effects()

    def _check_state(self) -> None:
        # What waits for a timer that is late is not overdue yet.
        check_state(self.state, min(self.now, math.nextafter(self.state.alarm, -math.inf)))

    def _check_served(self, had: dict[Waiter[Toy], Entry[Toy] | None]) -> None:
        """Whoever has to resume is woken, and whoever was served in this step stood first (L2)."""
        waiters = [user.waiter for user in self.users if user.waiter is not None]
        waiting = [waiter.ticket for waiter in waiters if waiter.state is WAITING]
        for waiter in waiters:
            if waiter.state is not WAITING:
                assert waiter in self.woken, "L1: a waiter that was served or failed is never woken"
            if waiter.entry is not None and waiter.entry is not had.get(waiter):
                assert waiter.ticket < min(waiting, default=math.inf), "L2: a waiter was passed over"

    def _check_new_dials(self) -> None:
        state = self.state
        live = [job for job in state.jobs if job.kind is CONNECT and job.cancelled is None]
        checks = sum(job.kind is VALIDATE and job.cancelled is None for job in state.jobs)
        wanted = max(0, state.queue.waiting - checks) + max(0, state.settings.min_idle - state.entries.idle)
        assert not self.new_dials or len(live) <= wanted, "S12: a dial was started although enough were pending"
        for job in self.new_dials:
            assert not state.closing, "S8: a dial was started after closing began"
            if job.waiter is not None:
                assert job.connect is job.waiter.connect, "a dial uses the connect of somebody else"
            else:
                assert self.now >= self.failed_at + self._pause() / 2, "S13: an automatic dial came too soon"
        if self.rounds:
            least, most = self.failed_at + self._pause() / 2, self.failed_at + self._pause()
            assert least <= state.dials.retry_at <= most, "S13: the pace of automatic dials is wrong"

    def _pause(self) -> float:
        return min(30.0, 0.1 * 2 ** (self.rounds - 1)) if self.rounds else 0.0

    def _check_statistics(self) -> None:
        """The sums that PoolStatistics documents, and one get, one outcome (S15)."""
        it = self.state.statistics(self.now)
        here = it.idle + it.held + it.reserved + it.validating + it.resetting + it.closing
        assert it.size == here + it.dialling + it.taken, "S15: size"
        assert it.opened + it.inserted == here + it.closed + it.takes, "S15: opened"
        ended = it.dials_won + it.dials_failed + it.dials_abandoned + it.dials_cancelled
        spares = it.dials_spare_unused + it.dials_spare_used + it.dials_spare_wasted
        assert it.dials == it.dialling + ended + spares, "S15: dials"
        outcomes = it.acquired + it.timed_out + it.failed + it.cancelled + it.rejected
        assert self.gets == outcomes + it.waiting + it.reserved, "S15: a get has no outcome, or two"
        assert it.acquired_waiting <= it.acquired, "S15: acquired_waiting"
        assert it.longest_held >= 0, "S15: longest_held"
        assert it.taken == sum(user.emptied for user in self.users), "S15: taken"

    def _watch_the_unwanted(self) -> None:
        """Remember since when a dial is abandoned, and a connection idle."""
        self.unwanted = {job: self.unwanted.get(job, self.now) for job in self.state.dials.abandoned}
        idle = [entry.connection for entry in self.state.entries.stack()]
        self.idle_since = {toy: self.idle_since.get(toy, self.now) for toy in idle}

    # --- users ----------------------------------------------------------------------------------

    def _do_get(self, index: int) -> None:
        state, user = self.state, self.users[index]
        limit, waiting, idle = state.settings.max_waiting, state.queue.waiting, state.entries.idle
        super()._do_get(index)
        if user.free and not state.closing:
            assert limit is not None, "PoolFull without a limit"
            able = state._supply() + state.entries.idle
            assert waiting - able >= limit, "PoolFull although something can serve"
            assert waiting - able >= limit + self._room_to_dial(), "PoolFull although dials can serve"
        if user.waiter is not None and limit is not None and not idle:
            assert state.queue.waiting - state._supply() <= limit + self._room_to_dial(), "more wait than max_waiting"
        self.gets += not (state.closing and user.free)

    def _room_to_dial(self) -> int:
        """In places that are free, or will be: nobody holds them, and no dial or check under way needs them."""
        limits, dials = self.state.settings, self.state.dials.running
        connecting = math.inf if limits.max_connecting is None else limits.max_connecting - dials
        ending = sum(job.cancelled is not None or job.kind in (RESET, CLOSE) for job in self.state.jobs)
        places = math.inf if limits.max_size is None else limits.max_size - self.state.places + ending
        return max(0, int(min(connecting, places, 100)))

    def _do_get_at_once(self, index: int) -> None:
        user = self.users[index]
        waiting = self.state.queue.waiting
        entry = self.state.take_idle(user, self.now)
        if entry is not None:
            assert not waiting, "L2: a newcomer overtook the queue"
            self.gets += 1
            self._receive(user, entry)

    def _receive(self, user: User, entry: Entry[Toy]) -> None:
        super()._receive(user, entry)
        toy, settings = entry.connection, self.state.settings
        assert isinstance(toy, Frail)
        assert toy not in [other.entry.connection for other in self.users if other.entry not in (None, entry)]
        toy.handouts += 1
        assert settings.max_uses is None or toy.handouts <= settings.max_uses, "handed out more than max_uses"
        if toy in self.idle_since:
            assert self.now < toy.opened + time_limit(settings.max_lifetime), "handed out after its max_lifetime"
            if not settings.min_idle:
                assert self.now < self.idle_since[toy] + time_limit(settings.idle_timeout), "handed out too late"

    def _do_resume(self, index: int) -> None:
        waiter = self.users[index].waiter
        assert waiter is not None
        self.woken.discard(waiter)
        entry, counts = waiter.entry, self.state._counts
        error = counts.last_dial_error
        super()._do_resume(index)
        if counts.last_dial_error is not error:
            self._check_blamed(entry)
        self._note_departure(index, waiter)

    def _check_blamed(self, entry: Entry[Toy] | None) -> None:
        """A dial is blamed for what it brought only if that was refused before its first use."""
        assert entry is not None
        toy = entry.connection
        assert isinstance(toy, Frail)
        assert not toy.handouts, "S13: a dial is blamed for a connection that was used"
        assert not toy.alive or toy.curse is not None, "S13: a dial is blamed for a living connection"
        self._note_failure(self.brought_by[toy], somebody_waits=True)

    def _do_cancel(self, index: int) -> None:
        waiter = self.users[index].waiter
        assert waiter is not None
        if isinstance(waiter.error, BaseException):
            self._leave_to_the_log()
        super()._do_cancel(index)
        self._note_departure(index, waiter)

    def _note_departure(self, index: int, waiter: Waiter[Toy]) -> None:
        if self.users[index].waiter is not waiter:
            assert waiter.state is WaiterState.GONE
            self.departed.append(waiter)
            self.woken.discard(waiter)

    def _do_insert(self, index: int, toy: Frail | None = None) -> None:
        user = self.users[index]
        toy = toy or self._new_toy()
        before = self._everything()
        if self.state.closing:
            super()._do_insert(index)
        elif self._is_inside(toy):
            with pytest.raises(PoolMisuse):
                self.state.insert(toy, user, self.now)
            assert self._everything() == before, "S18: a refused insert changed something"
        else:
            toy.be_born(self.generation, self.now)
            user.entry = self.state.insert(toy, user, self.now)
            user.emptied = False
            toy.handouts = 1
            self.toys.append(toy)

    def _is_inside(self, toy: Toy) -> bool:
        return any(entry.connection is toy for entry in self.state.entries.all)

    def _new_toy(self) -> Frail:
        return self.toy(self.generation, self.now)

    # --- jobs -----------------------------------------------------------------------------------

    def _do_dialled(self, index: int, toy: Frail | None = None) -> None:
        job = self._job(index)
        toy = toy or self._new_toy()
        if self._is_inside(toy):
            self._dial_twice(job, toy)
            return
        toy.be_born(self.started.pop(job), self.now)
        self.toys.append(toy)
        self.brought_by[toy] = job
        self.begun.discard(job)
        self._note_success()
        self.state.connect_succeeded(job, toy, self.now)
        self.ended.append(job)

    def _dial_twice(self, job: Job[Toy], toy: Frail) -> None:
        """The dial brings a connection that is inside already: that is an error of connect."""
        entries, owner = list(self.state.entries.all), job.waiter
        states = [entry.state for entry in entries]
        if job.cancelled is None:
            self._note_failure(job, somebody_waits=owner is not None)
        self.begun.discard(job)
        self.state.connect_succeeded(job, toy, self.now)
        self.ended.append(job)
        assert owner is None or isinstance(owner.error, PoolMisuse), "L4: a misuse did not reach who asked for it"
        if states.count(EntryState.IDLE) == 0:
            assert [entry.state for entry in entries] == states, "a connection brought twice was moved"

    def _do_dial_failed(self, index: int) -> None:
        job = self._job(index)
        if job.cancelled is not None:
            # The hook raised while it was being cancelled: whoever asked for it has been told.
            self.begun.discard(job)
            self.state.connect_failed(job, self.now, error=ConnectionRefusedError())
        else:
            self._note_failure(job, somebody_waits=job.waiter is not None)
            super()._do_dial_failed(index)
        self.ended.append(job)

    def _do_dial_ended(self, index: int) -> None:
        self.ended.append(self._job(index))
        super()._do_dial_ended(index)

    def _note_failure(self, job: Job[Toy], *, somebody_waits: bool) -> None:
        """Dials that had begun when a round was noted belong to it, or to one before: they count once."""
        if job not in self.round:
            self.rounds += 1
            self.round = self.dials.copy()
        if not somebody_waits:
            self._leave_to_the_log()
        self.failed_at = self.now

    def _leave_to_the_log(self) -> None:
        """Nobody else is told of a failed dial: of each round, one is logged."""
        if self.told != self.rounds:
            self.told = self.rounds
            self.lines.append("they fail")

    def _note_success(self) -> None:
        if self.told is not None:
            self.told = None
            self.lines.append("they succeed")
        self.rounds = 0
        self.round = set()
        self.failed_at = -math.inf

    def _do_valid(self, index: int) -> None:
        self.ended.append(self._job(index))
        super()._do_valid(index)

    def _do_invalid(self, index: int, error: Exception | None = None) -> None:
        job = self._job(index)
        self.ended.append(job)
        self._spoil(job)
        self.state.check_ended(job, self.now, valid=False, error=error)

    def _do_was_reset(self, index: int) -> None:
        self.ended.append(self._job(index))
        super()._do_was_reset(index)

    def _do_reset_failed(self, index: int) -> None:
        self.ended.append(self._job(index))
        super()._do_reset_failed(index)

    def _do_closed(self, index: int, error: Exception | None = None) -> None:
        job = self._job(index)
        self.ended.append(job)
        if error is None:
            super()._do_closed(index)
            return
        assert job.entry is not None
        job.entry.connection.closes += 1
        self.state.close_ended(job, self.now, error=error)

    def _do_die(self, index: int, curse: Exception | None = None) -> None:
        toy = self.state.entries.all[index].connection
        assert isinstance(toy, Frail)
        toy.alive, toy.curse = False, curse

    # --- the whole pool -------------------------------------------------------------------------

    def _do_resize(self, size: int | None, **others: int | None) -> None:
        self.state.resize(self.state.settings.resized(max_size=size, **others), self.now)

    def _do_resize_all(self, sizes: dict[str, int | None]) -> None:
        self.state.resize(self.state.settings.resized(**sizes), self.now)

    def _do_close(self, grace: float = 1000.0) -> None:
        self.force_at = min(self.force_at, self.now + grace)
        self.state.begin_closing(self.now, grace)
        waiters = [user.waiter for user in self.users if user.waiter is not None]
        assert all(waiter.state is WaiterState.FAILED for waiter in waiters), "L7: a waiter did not fail at once"

    def _do_forgotten(self, pick: int, well: bool) -> None:
        """Facts about what the machine has forgotten already: nothing may happen (S18)."""
        before = self._everything()
        if self.ended:
            self._report_again(self.ended[pick % len(self.ended)], well)
        if self.departed:
            self.state.leave_queue(self.departed[pick % len(self.departed)], self.now)
        assert self._everything() == before, "S18: a fact about something forgotten changed something"

    def _report_again(self, job: Job[Toy], well: bool) -> None:
        state, error = self.state, None if well else OSError()
        if job.kind is CONNECT:
            state.dial_may_start(job, self.now)
            if well:
                state.connect_succeeded(job, self._new_toy(), self.now)
            else:
                state.connect_failed(job, self.now, error=error)
        elif job.kind is VALIDATE:
            state.check_ended(job, self.now, valid=well, error=error)
        elif job.kind is RESET:
            state.reset_ended(job, self.now, error=error)
        else:
            state.close_ended(job, self.now, error=error)

    def _everything(self) -> Any:
        return (self.key(), self.state.statistics(self.now))

    # --- time -----------------------------------------------------------------------------------

    def _do_advance(self, seconds: float, timer: str) -> None:
        """Time passes; the timer may be late, or come for nothing."""
        self.now += seconds
        if timer == "spurious" or (timer == "punctual" and self.state.alarm <= self.now):
            self._do_expire()

    def _do_tick(self) -> None:
        self.ticks -= 1
        self.now = max(self.now, self.state.alarm)
        self._do_expire()

    def _do_expire(self) -> None:
        state, now = self.state, self.now
        known = set(state.jobs)
        timely = {job: job.waiter for job in state.jobs if job.kind is CONNECT and job.cancelled is None}
        # What an expiry causes may fall due at once (a grace of 0), but not without end.
        for _ in range(3):
            state.expire(now)
            if state.alarm > now:
                break
        if any(job.reason is CloseReason.IDLE for job in state.jobs if job not in known):
            assert state.entries.idle >= state.settings.min_idle, "L11: idle_timeout spares no min_idle"
        for job, waiter in timely.items():
            if job.cancelled is DialEnd.TIMEOUT:
                assert now >= job.started + time_limit(state.settings.connect_timeout), "a dial had not its time"
                self._note_failure(job, somebody_waits=waiter is not None)
        if self.force_at <= now:
            self.forced = True
        self._check_deadlines()

    def _check_deadlines(self) -> None:
        """After the timer has come, nothing is overdue."""
        state, settings, now = self.state, self.state.settings, self.now
        assert state.alarm > now, "L10: the timer comes again at once, for ever"
        for waiter in state.queue.waiters:
            if waiter.state is WAITING:
                assert now < waiter.since + time_limit(settings.acquire_timeout), "L5: a waiter past its time"
        limits = {
            CONNECT: time_limit(settings.connect_timeout),
            VALIDATE: settings.validate_timeout,
            RESET: settings.reset_timeout,
            CLOSE: settings.close_timeout,
        }
        for job in state.jobs:
            if job.cancelled is None:
                assert now < job.started + limits[job.kind], "L9: a job past its time goes on"
                since = self.unwanted.get(job)
                if since is not None and job in state.dials.abandoned:
                    assert now < since + settings.abandoned_dial_grace, "L8: an abandoned dial goes on"
        idle = [entry.connection for entry in state.entries.stack()]
        for toy in idle:
            assert isinstance(toy, Frail)
            assert now < toy.opened + time_limit(settings.max_lifetime), "idle past its max_lifetime"
        overdue = [toy for toy in idle if self.idle_since.get(toy, now) + time_limit(settings.idle_timeout) <= now]
        assert len(overdue) <= settings.min_idle, "idle past its idle_timeout"
        if self.forced:
            assert not state.entries.held(), "L7: a holder is left alone after the grace"
            assert all(job.cancelled is not None for job in state.jobs), "L7: a job takes its time after the grace"

    # --- the observer ---------------------------------------------------------------------------

    def _hear(self, event: PoolEvent) -> None:
        """Each event, in order (S20)."""
        assert self.observed, "an event although nobody observes"
        now, stages = self.now, self.stages
        if isinstance(event, DialStarted):
            assert event.dial not in self.dials_heard, "S20: a dial started twice"
            self.dials_heard[event.dial] = now
        elif isinstance(event, DialFailed):
            assert event.elapsed == now - self.dials_heard.pop(event.dial)
        elif isinstance(event, ConnectionReady):
            if event.dial:
                assert event.elapsed == now - self.dials_heard.pop(event.dial)
            assert event.connection not in stages, "S20: ready twice"
            stages[event.connection] = "ready"
        elif isinstance(event, ConnectionAcquired):
            assert stages[event.connection] in ("ready", "released"), "S20: acquired by two"
            assert event.waited >= 0
            stages[event.connection] = "acquired"
        elif isinstance(event, ConnectionReleased):
            assert stages[event.connection] == "acquired", "S20: released, but not acquired"
            assert event.held >= 0
            stages[event.connection] = "released"
        elif isinstance(event, ConnectionClosed):
            stage = stages.pop(event.connection)
            assert stage != "acquired" or event.reason is CloseReason.POOL_CLOSED, "S20: closed before released"
            self._check_reason(event)
        elif isinstance(event, GetWaiting):
            assert event.waiting >= 1
        else:
            assert isinstance(event, GetTimedOut)
            assert event.waited > 0

    def _check_reason(self, event: ConnectionClosed) -> None:
        toy, settings = event.connection, self.state.settings
        judged = {
            CloseReason.IDLE: settings.idle_timeout is not None,
            CloseReason.LIFETIME: settings.max_lifetime is not None,
            CloseReason.USES: toy.handouts == settings.max_uses,
            CloseReason.NOT_REUSABLE: not toy.alive,
            CloseReason.CLEARED: toy.generation < self.generation,
            CloseReason.POOL_CLOSED: self.state.closing,
            CloseReason.TAKEN: not toy.closes,
        }
        assert judged.get(event.reason, True), f"closed for the wrong reason, {event.reason}"

    def _check_observed(self) -> None:
        entries = list(self.state.entries.all)
        assert set(self.stages) == {entry.connection for entry in entries}, "S20: an event is missing"
        dials = {job.number for job in self.state.jobs if job.kind is CONNECT}
        assert set(self.dials_heard) == dials, "S20: the end of a dial was not told"
        for entry in entries:
            held = entry.state is EntryState.HELD
            told = self.stages[entry.connection] == "acquired"
            assert held == told or self.state.closing, "S20: an owner changed unseen"

    # --- the end --------------------------------------------------------------------------------

    def prove_recovery(self) -> None:
        """Everything ends well from here: everybody is served, and all is there or all is gone (L4, L7, L11, L12)."""
        self.ticks = 10_000
        self._finish()
        for user in self.users:
            assert user.free, "L4: somebody is never served"
        if self.state.closing:
            self._prove_gone()
        else:
            self._prove_warm()
            self._prove_capacity()
        for toy in self.toys:
            assert self._is_inside(toy) or toy.taken or toy.closes == 1, "S2: a connection was dropped unclosed"

    def _prove_gone(self) -> None:
        assert not self.state.entries.all, "L7: a connection is left after closing"
        assert not self.state.jobs, "L7: a job is left after closing"
        assert self.state.is_empty(), "L7: closing never ends"
        assert self.state.alarm == math.inf, "L10: a timer runs in a closed pool"

    def _prove_warm(self) -> None:
        for _ in range(100):
            if self.state.entries.idle >= self.state.settings.min_idle:
                return
            self.do(("tick",))
            self._finish()
        raise AssertionError("L11: min_idle is never reached")

    def _prove_capacity(self) -> None:
        settings = self.state.settings
        if settings.race_delay >= time_limit(settings.acquire_timeout):
            return  # nobody waits long enough for a second dial
        size = 8 if settings.max_size is None else settings.max_size
        self.users = [User() for _ in range(size)]
        for index in range(size):
            self.do(("get", index))
            self._finish(releasing=False)
        assert all(user.entry is not None for user in self.users), "L12: capacity is lost"


# --- what is drawn ------------------------------------------------------------------------------

picks = st.integers(0, 30)
times = st.sampled_from([0.05, 0.3, 1.0, 4.0])
times_or_none = st.none() | times
moments = st.sampled_from([0.0, 0.001, 0.05, 0.1, 0.25, 1.0, 4.0]) | st.floats(0.0005, 2)
errors = st.none() | st.builds(OSError)


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, int | None]:
    size = draw(st.none() | st.integers(1, 6))
    room = 6 if size is None else size
    idle = draw(st.none() | st.integers(0, room))
    least = draw(st.just(0) | st.integers(0, min(3, room if idle is None else idle)))
    return {"max_size": size, "max_idle": idle, "min_idle": least}


@st.composite
def all_settings(draw: st.DrawFn) -> PoolSettings:
    given: Any = draw(sizes())
    return PoolSettings(
        **given,
        max_connecting=draw(st.none() | st.integers(1, 4)),
        max_waiting=draw(st.none() | st.none() | st.integers(0, 6)),
        acquire_timeout=draw(times_or_none),
        connect_timeout=draw(times_or_none),
        idle_timeout=draw(times_or_none),
        max_lifetime=draw(times_or_none),
        lifetime_jitter=draw(st.sampled_from([0.0, 0.1, 0.9])),
        max_uses=draw(st.none() | st.integers(1, 3)),
        race_delay=draw(st.just(0.0) | times),
        abandoned_dial_grace=draw(st.just(0.0) | times),
        validate_timeout=draw(times),
        validate_bypass_interval=draw(st.just(0.0) | times),
        validate_interval=draw(times_or_none),
        reset_timeout=draw(times),
        close_timeout=draw(times),
    )


GOOD = ("begin", "dialled", "dial_ended", "valid", "was_reset", "closed", "resume")
TROUBLE = ("cancel", "die", "clear", "resize", "close", "late", "forgotten")

ARGUMENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "live": (picks, picks),
    "get": (st.integers(1, 5),),
    "get_at_once": (),
    "cancel": (picks,),
    "go_well": (st.integers(1, 15),),
    "die": (picks, errors),
    "clear": (),
    "resize": (sizes(),),
    "close": (st.just(0.0) | times | st.just(math.inf),),
    "forgotten": (picks, st.booleans()),
    "advance": (moments, st.sampled_from(["punctual", "late", "spurious"])),
    "tick": (),
}
# How often, compared with the others.
WEIGHTS = {
    "live": 16,
    "get": 4,
    "cancel": 4,
    "go_well": 2,
    "clear": 2,
    "resize": 2,
    "advance": 3,
    "tick": 3,
    "close": 2,
}


@st.composite
def steps(draw: st.DrawFn) -> Move:
    name = draw(st.sampled_from([name for name in ARGUMENTS for _ in range(WEIGHTS.get(name, 1))]))
    return (name, *map(draw, ARGUMENTS[name]))


def choice(things: list[Any], pick: int) -> Any:
    return things[pick % len(things)]


class PoolMachine(RuleBasedStateMachine):
    """One rule for all, since Hypothesis would switch half of the rules off, and with them the life of the pool.

    What is switched off for a whole run is some kinds of trouble.
    """

    world: BigWorld
    sound = False
    """No step has failed."""

    @initialize(
        users=st.integers(1, 12),
        settings=all_settings(),
        judges=st.sampled_from(["nobody", "a hook", "the toys"]),
        validates=st.booleans(),
        resets=st.booleans(),
        observed=st.booleans(),
        jitters=st.lists(
            st.sampled_from([0.0, 0.5, 0.999]) | st.floats(0, 1, exclude_max=True), min_size=1, max_size=3
        ),
        spared=st.sets(st.sampled_from(TROUBLE), max_size=3),
        lifespan=st.sampled_from([10, 40, 1000]),
    )
    def open(self, spared: set[str], lifespan: int, **drawn: Any) -> None:
        self.world = BigWorld(**drawn)
        self.sound = True
        self.spared = spared
        self.lifespan = lifespan
        """After so many steps it may be closed."""

    @rule(step=steps())
    def step(self, step: Move) -> None:
        self.lifespan -= 1
        name, *arguments = step
        if name not in self.spared:
            getattr(self, f"let_{name}")(*arguments)

    def do(self, name: str, *arguments: Any) -> None:
        self.sound = False
        self.world.do((name, *arguments))
        self.sound = True

    # --- users and jobs -------------------------------------------------------------------------

    def let_get(self, count: int) -> None:
        for index in self.users(lambda user: user.free)[:count]:
            self.do("get", index)

    def let_get_at_once(self) -> None:
        for index in self.users(lambda user: user.free)[:1]:
            self.do("get_at_once", index)

    def users(self, wanted: Callable[[User], bool]) -> list[int]:
        return [index for index, user in enumerate(self.world.users) if wanted(user)]

    def let_cancel(self, pick: int) -> None:
        waiting = self.users(lambda user: user.waiter is not None)
        if waiting:
            self.do("cancel", choice(waiting, pick))

    def let_live(self, who: int, how: int) -> None:
        """A user or a job does one of the things that it can do now."""
        ways = [self.user_ways(index, how) for index in range(len(self.world.users))]
        ways += [self.job_ways(job, how) for job in self.world.state.jobs]
        able = [some for some in ways if some]
        if able:
            self.do(*choice(choice(able, who), how))

    def user_ways(self, index: int, how: int) -> list[Move]:
        user = self.world.users[index]
        if user.waiter is not None:
            return [("resume", index)] if user.waiter.state is not WAITING else []
        if user.entry is not None:
            broken = "release_broken" if self.world.deaths else "discard"
            return [("release", index)] * 3 + [("discard", index), (broken, index), ("take", index)]
        if user.emptied:
            return [("insert", index), ("insert", index, self.known_toy(how)), ("drop", index)]
        return []

    def job_ways(self, job: Job[Toy], how: int) -> list[Move]:
        world, error = self.world, OSError()
        index = list(world.state.jobs).index(job)
        if job.kind is CONNECT and job not in world.begun:
            return [("begin", index)]
        if job.kind is CONNECT:
            ended = "dialled" if job.cancelled is None else "dial_ended"
            again = ("dialled", index, self.known_toy(how))
            return [("dialled", index), (ended, index), again, ("dial_failed", index)]
        if job.kind is VALIDATE:
            return [("valid", index)] * 3 + [("invalid", index), ("invalid", index, error)]
        if job.kind is RESET:
            return [("was_reset", index)] * 2 + [("reset_failed", index)]
        return [("closed", index)] * 2 + [("closed", index, error)]

    def known_toy(self, which: int) -> Frail | None:
        """One that the pool has seen, if any: perhaps it is inside, perhaps it was closed or taken out."""
        return choice(self.world.toys[::-1], which) if self.world.toys else None

    def let_go_well(self, count: int) -> None:
        """So many things of those that are under way go well, the oldest first."""
        for _ in range(count):
            move = next((move for move in self.world.moves() if move[0] in GOOD), None)
            if move is None:
                return
            self.do(*move)

    def let_die(self, pick: int, curse: Exception | None) -> None:
        entries = self.world.state.entries.all
        if self.world.deaths and entries:
            self.do("die", pick % len(entries), curse)

    # --- the whole pool, and time ---------------------------------------------------------------

    def let_clear(self) -> None:
        if not self.world.state.closing:
            self.do("clear")

    def let_resize(self, sizes: dict[str, int | None]) -> None:
        self.do("resize_all", sizes)

    def let_close(self, grace: float) -> None:
        if self.lifespan <= 0:
            self.do("close", grace)

    def let_forgotten(self, pick: int, well: bool) -> None:
        self.do("forgotten", pick, well)

    def let_advance(self, seconds: float, timer: str) -> None:
        self.do("advance", seconds, "punctual" if "late" in self.spared else timer)

    def let_tick(self) -> None:
        if self.world.state.alarm < math.inf:
            self.do("tick")

    def teardown(self) -> None:
        if self.sound:
            self.world.prove_recovery()


TestStateful = PoolMachine.TestCase
TestStateful.settings = profile(
    max_examples=2 * profile().max_examples, stateful_step_count=2 * profile().stateful_step_count
)
# What fails is shrunk for five minutes at most, and of use only then.
TestStateful = pytest.mark.timeout(300 + TestStateful.settings.max_examples)(TestStateful)
