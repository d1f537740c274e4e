"""PURE. The pool as a state machine: facts come in as method calls, orders go out as effects.

It awaits nothing, reads no clock, draws no random number, logs nothing and starts nothing. Time is
an argument (seconds on any monotonic clock) and the next wake-up is an attribute, `alarm`.

Rules of this file:

1. One public method per fact, named after the fact. Whatever it changes, it changes before it
   returns; then every invariant of `check_invariants` holds.
2. Two methods are hot, `take_idle` and `give_back`: they allocate nothing, and whatever is not
   needed on every hit stands behind the single flag `_careful`.
3. Rare consequences are appended to `effects` as `(Effect, subject)`. The shell runs them in order.
4. Each open connection has one owner, which says its state. See `_entries`.
5. A waiter is handed a connection, never only woken. Whoever was served but does not collect,
   gives back in the same step (`leave_queue`). See `_wait_queue`.
6. Whatever frees a connection or a place ends in `_rebalance`, which looks at the queue again.
7. User code is called in one place, `_close_if_unfit`, when the entry belongs to nobody else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ._counters import Counters
from ._dial_book import DialBook
from ._entries import BOTTOM, Entries, Entry, EntryState, TrackedEntry
from ._errors import PoolClosed, PoolError, PoolFull, PoolMisuse
from ._events import (
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
from ._jobs import Effect, Job, JobKind
from ._settings import PoolSettings, count_limit, time_limit
from ._statistics import PoolStatistics
from ._wait_queue import FAILED, GONE, WAITING, Refusal, Waiter, WaiterState, WaitQueue

T = TypeVar("T")

# Bound once: a global is cheaper than an enum's attribute.
CONNECT, VALIDATE, RESET, CLOSE = JobKind
WAKE, START, CANCEL, ALARM, NOTIFY, LOG, LOG_DIAL = Effect

NEVER = math.inf

# Times of going idle are rounded down to a thousandth of idle_timeout, so that idle entries share
# their float objects (24 bytes each otherwise) and the clock of a busy pool is armed rarely.
_GRAINS_PER_IDLE_TIMEOUT = 1024
# What a burst has taken from `min_idle` is dialled again three at a time, as psycopg_pool and r2d2 do it: handshakes by
# the dozen would take from the burst itself the time that it was to save, and what it has taken may soon be back.
_REFILLS_AT_ONCE = 3


def _has_judgement(connection: object) -> bool:
    """Whether it may be a `Poolable`. A look-up that raises is user code as well: it will be asked, and fail."""
    try:
        return hasattr(connection, "is_reusable")
    except Exception:
        return True


def _ask_poolable(connection: Any) -> bool:
    ask = getattr(connection, "is_reusable", None)
    return True if ask is None else ask()


def _truth(answer: Any) -> bool:
    """What `is_reusable` meant by an answer that is not just True. TypeError for a coroutine, which is always true."""
    if hasattr(answer, "__await__"):
        if hasattr(answer, "close"):
            answer.close()  # so that it is not reported as never awaited as well
        raise TypeError("is_reusable must not be async: use validate for what has to be awaited")
    return bool(answer)


class PoolState(Generic[T]):
    """The state of one pool and the rules by which it changes."""

    # More than 30 attributes would be kept in a plain dictionary, and a hit would take a sixth longer.
    __slots__ = (
        "_acquire_timeout",
        "_careful",
        "_check",
        "_checks",
        "_closes",
        "_connect_timeout",
        "_counts",
        "_force_at",
        "_forced",
        "_grain",
        "_idle_room",
        "_idle_timeout",
        "_is_reusable",
        "_jitter",
        "_max_connecting",
        "_max_idle",
        "_max_lifetime",
        "_max_size",
        "_max_uses",
        "_max_waiting",
        "_name",
        "_newborn",
        "_observed",
        "_resets",
        "_retired",
        "_stamp",
        "_stray",
        "_taken",
        "_tracks",
        "_unused",
        "_validate_interval",
        "_validates",
        "acquired",
        "alarm",
        "closing",
        "dials",
        "effects",
        "entries",
        "jobs",
        "places",
        "queue",
        "settings",
    )

    def __init__(
        self,
        settings: PoolSettings,
        *,
        name: str = "the pool",
        is_reusable: Callable[[T], bool] | None = None,
        validates: bool = False,
        resets: bool = False,
        observed: bool = False,
        jitter: Callable[[], float] = lambda: 0.0,
        stray: type[BaseException] = Exception,
    ) -> None:
        """Begin empty.

        `jitter` returns numbers from 0 up to 1 and is asked for each lifetime, check and back-off.
        `stray` is no exception, and yet is no interrupt when a hook that is not async raises it.
        """
        self.settings = settings
        self.effects: list[tuple[Effect, Any]] = []
        self.alarm = NEVER
        """When `expire` has something to do next; the shell's timer is set to it by ALARM effects."""

        self._name = name
        self._is_reusable = is_reusable
        self._check: Callable[[T], bool] | None = is_reusable
        self._validates = validates
        self._resets = resets
        self._observed = observed
        self._jitter = jitter
        self._stray = stray

        self.entries: Entries[T] = Entries()
        self.queue: WaitQueue[T] = WaitQueue()
        self.dials: DialBook[T] = DialBook()
        self.jobs: dict[Job[T], None] = {}
        self.places = 0
        """Connections and dials in any state, and handles emptied by take(): at most max_size."""
        self.closing = False
        self._forced = False
        self._force_at = NEVER
        self._checks = 0
        """Validations under way that have not been cancelled: each may serve a waiter."""
        self._closes = 0
        self._taken = 0
        self._retired: set[Entry[T]] = set()
        """Not idle when `clear()` came: to be closed when they come back."""
        self._unused: set[Entry[T]] = set()
        """Brought by dials that nobody waited for any more, and not used yet."""
        self._newborn: set[Entry[T]] = set()
        """Brought by a dial for a waiter who has not collected it yet."""
        self.acquired = 0
        self._counts = Counters()
        self._apply_settings()

    def _apply_settings(self) -> None:
        settings = self.settings
        self._max_size = count_limit(settings.max_size)
        self._max_idle = count_limit(settings.max_idle)
        self._max_connecting = count_limit(settings.max_connecting)
        self._max_waiting = count_limit(settings.max_waiting)
        self._max_uses = count_limit(settings.max_uses)
        self._acquire_timeout = time_limit(settings.acquire_timeout)
        self._connect_timeout = time_limit(settings.connect_timeout)
        self._idle_timeout = time_limit(settings.idle_timeout)
        self._max_lifetime = time_limit(settings.max_lifetime)
        self._validate_interval = time_limit(settings.validate_interval)
        # Of entries that nobody may expire while idle, the exact time is of no use either.
        self._grain = self._idle_timeout / _GRAINS_PER_IDLE_TIMEOUT
        self._stamp = -NEVER
        self._tracks = self._validates or settings.max_lifetime is not None or settings.max_uses is not None
        self._review_flags()

    def _review_flags(self) -> None:
        """Recompute what the hot methods look at, after anything that it depends on."""
        surplus = self._surplus() > 0
        self._idle_room = 0 if self.closing or surplus else self._max_idle
        self._careful = bool(
            surplus
            or self.closing
            or self._observed
            or self._tracks
            or self._resets
            or self._retired
            or self._unused
            or self._check is not None
            or self.settings.min_idle
        )

    def _surplus(self) -> int:
        """How many open or opening connections are too many, since `max_size` was made smaller."""
        return self.places - self._closes - self._max_size

    # --- hits -----------------------------------------------------------------------------------

    def take_idle(self, holder: object, now: float) -> Entry[T] | None:
        """Take the newest idle connection that can serve at once; None if the caller has to queue."""
        entries = self.entries
        entry = entries.top
        if entry is BOTTOM or self.queue.waiting:
            return None
        if self._careful or self.alarm <= now:
            return self._take_carefully(holder, now)
        entries.top = entry.owner
        entries.idle -= 1
        entry.owner = holder
        entry.since = now
        self.acquired += 1
        return entry

    def _take_carefully(self, holder: object, now: float) -> Entry[T] | None:
        taken = None
        entries = self.entries
        while taken is None and entries.idle and not self.queue.waiting and not self._needs_check(entries.top, now):
            entry = entries.pop()
            if not self._close_if_unfit(entry, now, was_idle=True):
                self._lend(entry, holder, now)
                self.acquired += 1
                self._notify(ConnectionAcquired, entry.connection, 0.0)
                taken = entry
        self._rebalance(now)
        return taken

    def give_back(self, entry: Entry[T], now: float) -> None:
        """A holder returns its connection: to the first waiter, else to the idle ones, else it is closed."""
        entries = self.entries
        if self._careful:
            self._receive(entry, now)
        elif self.queue.waiting:
            self._reserve(entry, now)
        elif entries.idle >= self._idle_room:
            self._close(entry, CloseReason.SURPLUS, now)
        else:
            if now - self._stamp >= self._grain:
                self._restamp(now)
            entry.since = self._stamp
            entry.owner = entries.top
            entries.top = entry
            entries.idle += 1

    def _receive(self, entry: Entry[T], now: float) -> None:
        if entry.state is not EntryState.HELD:
            return  # the pool closed it under its holder
        self._notify(ConnectionReleased, entry.connection, now - entry.since)
        entry.owner = None
        if isinstance(entry, TrackedEntry):
            entry.uses += 1
        if not self._close_if_unfit(entry, now):
            if self._resets:
                self._begin(RESET, entry, self.settings.reset_timeout, now)
            else:
                self._offer(entry, now)
        self._rebalance(now)

    def _restamp(self, now: float) -> None:
        self._stamp = now
        self._arm(now + self._idle_timeout)

    # --- callers that queue ---------------------------------------------------------------------

    def enter_queue(self, now: float, connect: Callable[[], Any] | None = None) -> Waiter[T]:
        """A caller found nothing idle: it queues, and where limits allow, a dial starts for it.

        Raises PoolClosed or PoolFull before anything has changed.
        """
        queue = self.queue
        if self.closing:
            raise PoolClosed(f"{self._name} is closed")
        if queue.waiting >= self._max_waiting:
            self._check_room(queue.waiting)
        waiter = queue.enter(now, connect)
        deadline = now + self._acquire_timeout
        if deadline < self.alarm:
            self._set_alarm(deadline)
        if self._observed:
            self._notify(GetWaiting, queue.waiting)
        if self.places < self._max_size or self.entries.idle or self.dials.running:
            self._rebalance(now, newest=waiter)
        return waiter

    def _check_room(self, waiting: int) -> None:
        """Turn a caller away if too many wait for a release: more than checks and dials can serve.

        That is, those that have begun, and those that may still begin, now or when what is being reset, closed or
        called off has made room. (Idle connections are left to a caller who queues only if they have to be checked
        first.)
        """
        places = self._max_size - self.places + len(self.jobs) - self._supply()
        room = max(0, min(self._max_connecting - self.dials.running, places))
        if waiting - self._supply() - self.entries.idle - room >= self._max_waiting:
            self._counts.rejected += 1
            limit = self.settings.max_waiting
            raise PoolFull(
                f"{self._name}: {waiting} waiting already, and max_waiting={limit}: try again later, or allow more"
            )

    def collect(self, waiter: Waiter[T], holder: object, now: float) -> Entry[T] | None:
        """The waiter's task has resumed: hand it what is reserved for it.

        None if nothing is, or if that connection turns out unfit: then the waiter is back in the
        queue at its old place.
        """
        entry = waiter.entry
        if entry is None:
            return None
        waiter.entry = None
        waiter.state = GONE
        if self._check is not None:
            entry.owner = None
            if self._close_if_unfit(entry, now):
                self._serve_again(waiter, entry, now)
                return None
        entry.owner = holder
        if self._newborn:
            self._newborn.discard(entry)
        self.acquired += 1
        self._counts.acquired_waiting += 1
        if self._observed:
            self._notify(ConnectionAcquired, entry.connection, now - waiter.since)
        return entry

    def leave_queue(self, waiter: Waiter[T], now: float) -> None:
        """The caller gives up, whyever: what was reserved for it moves on in this very step."""
        if waiter.state is WAITING:
            self._counts.cancelled += 1
            self._stop_waiting(waiter, GONE)
            self._rebalance(now)
        elif isinstance(waiter.error, BaseException):
            # The caller was cancelled in the step in which its dial failed: nobody else will tell of it.
            self._tell(waiter.error)
            waiter.error = None
        elif waiter.entry is not None:
            self._counts.cancelled += 1
            entry = self._revoke(waiter)
            if not self._close_if_unfit(entry, now):
                self._offer(entry, now)
            self._rebalance(now)
        waiter.state = GONE
        self._rest()

    def _stop_waiting(self, waiter: Waiter[T], state: WaiterState) -> None:
        self.dials.disown(waiter)
        self.queue.leave(waiter, state)

    def _serve_again(self, waiter: Waiter[T], unfit: Entry[T], now: float) -> None:
        """What it was to collect was unfit, and is being closed. Of a dial's own work, that is the dial's failure."""
        newborn = unfit in self._newborn
        self._newborn.discard(unfit)
        self._wait_again(waiter, now)
        if newborn and waiter.state is WAITING and unfit.owner.reason is CloseReason.NOT_REUSABLE:
            # This dial has succeeded, so it began before whatever failure has been noted since: number 0 will do.
            self._blame(0, waiter, self._refused(unfit), now)
        self._rebalance(now)

    def _wait_again(self, waiter: Waiter[T], now: float) -> None:
        self.queue.re_enter(waiter)
        deadline = waiter.since + self._acquire_timeout
        if deadline <= now:
            self._time_out(waiter, Refusal.ACQUIRE_TIMEOUT, now)
        else:
            self._arm(deadline)

    def _revoke(self, waiter: Waiter[T]) -> Entry[T]:
        """Take back what is reserved for a waiter."""
        entry = waiter.entry
        assert entry is not None
        waiter.entry = entry.owner = None
        self._newborn.discard(entry)
        return entry

    def _fail_waiter(self, waiter: Waiter[T], error: BaseException | Refusal) -> None:
        self._stop_waiting(waiter, FAILED)
        waiter.error = error
        self.effects.append((WAKE, waiter))

    def _time_out(self, waiter: Waiter[T], refusal: Refusal, now: float) -> None:
        self._counts.timed_out += 1
        self._fail_waiter(waiter, refusal)
        self._notify(GetTimedOut, now - waiter.since)

    # --- where a connection goes ----------------------------------------------------------------

    def _offer(self, entry: Entry[T], now: float) -> None:
        """A fit connection is free."""
        if self.queue.waiting:
            self._reserve(entry, now)
        elif self.entries.idle < self._idle_room:
            self._lay_idle(entry, now)
        else:
            self._close(entry, CloseReason.SURPLUS, now)

    def _reserve(self, entry: Entry[T], now: float) -> None:
        waiter = self.queue.serve()
        if waiter.dial is not None:
            self.dials.disown(waiter)
        waiter.entry = entry
        entry.since = now
        entry.owner = waiter
        if self._unused:
            self._note_use(entry)
        self.effects.append((WAKE, waiter))
        if self.dials.running:
            self._settle_dials(now)

    def _lend(self, entry: Entry[T], borrower: object, now: float) -> None:
        entry.since = now
        entry.owner = borrower
        self._note_use(entry)

    def _note_use(self, entry: Entry[T]) -> None:
        if entry in self._unused:
            self._counts.dials_spare_used += 1
            self._unused.remove(entry)
            self._review_flags()

    def _lay_idle(self, entry: Entry[T], now: float) -> None:
        if now - self._stamp >= self._grain:
            self._restamp(now)
        entry.since = self._stamp
        self.entries.push(entry)
        self._arm_for_oldest()
        if isinstance(entry, TrackedEntry):
            self._note_fresh(entry, now)

    def _arm_for_oldest(self) -> None:
        """One more is idle: so the oldest may expire, if there are just more than min_idle now.

        (With no min_idle, the timer was armed when the first of this grain became idle.)
        """
        if self.entries.idle == self.settings.min_idle + 1:
            self._arm(self.entries.oldest().since + self._idle_timeout)

    def _note_fresh(self, entry: TrackedEntry[T], now: float) -> None:
        entry.fresh_until = now + self.settings.validate_bypass_interval
        if self._validates:
            # Up to a tenth earlier, so that connections opened together are not all checked together.
            entry.check_at = now + self._validate_interval * (1 - self._jitter() / 10)
        self._arm(min(entry.retire_at, entry.check_at))

    def _close_if_unfit(self, entry: Entry[T], now: float, *, was_idle: bool = False) -> bool:
        """Close an entry that nobody has now, unless it can serve another user."""
        error: BaseException | None = None
        reason = self._condemned(entry, now, was_idle=was_idle)
        if reason is None and self._check is not None:
            try:
                answer = self._check(entry.connection)
                if answer is True or _truth(answer):
                    return False
            except (Exception, self._stray) as caught:
                error = caught
                self._hook_failed("is_reusable", caught)
            except BaseException:
                self._close(entry, CloseReason.NOT_REUSABLE, now)
                raise
            reason = CloseReason.NOT_REUSABLE
        if reason is None:
            return False
        self._close(entry, reason, now, error)
        return True

    def _condemned(self, entry: Entry[T], now: float, *, was_idle: bool) -> CloseReason | None:
        """Why this entry must not serve again, from what the pool itself knows."""
        if self.closing:
            return CloseReason.POOL_CLOSED
        if entry in self._retired:
            return CloseReason.CLEARED
        if isinstance(entry, TrackedEntry):
            if entry.retire_at <= now:
                return CloseReason.LIFETIME
            if entry.uses >= self._max_uses:
                return CloseReason.USES
        if was_idle and not self.settings.min_idle and entry.since + self._idle_timeout <= now:
            return CloseReason.IDLE
        if self._surplus() > 0:
            return CloseReason.SURPLUS
        return None

    def _needs_check(self, entry: Entry[T], now: float) -> bool:
        return self._validates and isinstance(entry, TrackedEntry) and entry.fresh_until <= now

    # --- jobs -----------------------------------------------------------------------------------

    def _begin(self, kind: JobKind, entry: Entry[T] | None, limit: float, now: float) -> Job[T]:
        job: Job[T] = Job(kind, now, now + limit)
        if entry is not None:
            job.entry = entry
            entry.owner = job
        self.jobs[job] = None
        self.effects.append((START, job))
        self._arm(job.deadline)
        return job

    def _begin_check(self, entry: Entry[T], now: float) -> None:
        self._checks += 1
        self._begin(VALIDATE, entry, self.settings.validate_timeout, now)

    def _close(self, entry: Entry[T], reason: CloseReason, now: float, error: BaseException | None = None) -> None:
        self._retired.discard(entry)
        if entry in self._unused:
            self._counts.dials_spare_wasted += 1
            self._unused.remove(entry)
        self._closes += 1
        job = self._begin(CLOSE, entry, self.settings.close_timeout, now)
        job.reason = reason
        job.error = error
        if self._forced:
            self._force(job)
        self._review_flags()

    def _force(self, job: Job[T]) -> None:
        job.forced = True
        self._cancel_job(job, CloseReason.POOL_CLOSED)

    def _cancel_job(self, job: Job[T], why: DialEnd | CloseReason) -> None:
        """Order the job's task to end. Until it reports, its place stays counted."""
        if job.cancelled is not None:
            return
        job.cancelled = why
        job.deadline = NEVER
        self.effects.append((CANCEL, job))
        if job.kind is VALIDATE:
            self._checks -= 1
        elif job.kind is CONNECT:
            self.dials.strike(job)

    def _end(self, job: Job[T]) -> bool:
        """Take note that a job has ended; False if it is not known (any more)."""
        if job not in self.jobs:
            return False
        del self.jobs[job]
        if job.kind is VALIDATE and job.cancelled is None:
            self._checks -= 1
        return True

    def check_ended(self, job: Job[T], now: float, *, valid: bool, error: BaseException | None = None) -> None:
        """The validate hook said yes, said no, raised, or was cancelled."""
        if not self._end(job):
            return
        entry = _worked_on(job)
        if error is not None:
            self._hook_failed("validate", error)
        if job.cancelled is not None or not valid:
            self._close(entry, CloseReason(job.cancelled or CloseReason.INVALID), now, error)
        elif not self._close_if_unfit(entry, now):
            self._return_checked(entry, now)
        self._rebalance(now)

    def _return_checked(self, entry: Entry[T], now: float) -> None:
        if self.queue.waiting or self.entries.idle >= self._idle_room:
            self._offer(entry, now)
            return
        # A check is not a use: the entry keeps its age, so that idle_timeout still comes.
        self.entries.insert(entry)
        if self.entries.idle > self.settings.min_idle:
            self._arm(self.entries.oldest().since + self._idle_timeout)
        assert isinstance(entry, TrackedEntry)
        self._note_fresh(entry, now)

    def reset_ended(self, job: Job[T], now: float, *, error: BaseException | None = None) -> None:
        """The reset hook ended well, raised, or was cancelled."""
        if not self._end(job):
            return
        entry = _worked_on(job)
        if error is not None:
            self._hook_failed("reset", error)
        if job.cancelled is not None or error is not None:
            self._close(entry, CloseReason(job.cancelled or CloseReason.RESET_FAILED), now, error)
        elif not self._close_if_unfit(entry, now):
            self._offer(entry, now)
        self._rebalance(now)

    def close_ended(self, job: Job[T], now: float, *, error: BaseException | None = None) -> None:
        """The close hook ended, raised, or was cancelled: the connection is gone, its place is free."""
        if not self._end(job):
            return
        entry = _worked_on(job)
        if error is not None:
            self._hook_failed("close", error)
        self._closes -= 1
        self._counts.closed += 1
        self.entries.all.remove(entry)
        assert job.reason is not None
        self._notify(ConnectionClosed, entry.connection, job.reason, job.error or error)
        self._free_place(now)

    def _free_place(self, now: float) -> None:
        self.places -= 1
        self._review_flags()
        self._rebalance(now)
        self._rest()

    # --- serving the queue ----------------------------------------------------------------------

    def _supply(self) -> int:
        """How many dials and checks are under way that can serve a waiter."""
        return self.dials.pending + self._checks

    def _may_dial(self) -> bool:
        return self.dials.running < self._max_connecting and self.places < self._max_size and not self.closing

    def _rebalance(self, now: float, newest: Waiter[T] | None = None) -> None:
        """Find somebody to serve each waiter, and what `min_idle` lacks, as far as limits allow.

        `newest` is a waiter that has just queued at the end.
        """
        while self.entries.idle and self.queue.waiting > self._checks:
            self._serve_from_idle(self.entries.pop(), now)
        while self.queue.waiting and self.queue.waiting > self._supply() and self._may_dial():
            waiter = self._next_to_dial_for(newest)
            if not self._is_ripe(waiter, now):
                self._arm(waiter.since + self.settings.race_delay)
                break
            self._dial(waiter, now)
        while self._may_refill():
            if now < self.dials.retry_at:
                self._arm(self.dials.retry_at)
                break
            self._dial(None, now)
        if self.dials.running:
            self._settle_dials(now)

    def _serve_from_idle(self, entry: Entry[T], now: float) -> None:
        if self._needs_check(entry, now) and self._condemned(entry, now, was_idle=True) is None:
            self._begin_check(entry, now)
        elif not self._close_if_unfit(entry, now, was_idle=True):
            self._offer(entry, now)

    def _next_to_dial_for(self, newest: Waiter[T] | None) -> Waiter[T]:
        """The first waiter without a dial. There is one; if there is only one, it is the newest."""
        if newest is not None and self.queue.waiting - self.dials.owned == 1:
            return newest
        return self.queue.first_without_dial()

    def _is_ripe(self, waiter: Waiter[T], now: float) -> bool:
        """Whether its race_delay is over, or there is nothing that a release could come from."""
        return waiter.since + self.settings.race_delay <= now or not self._in_use()

    def _in_use(self) -> bool:
        """Whether there is something that a release could come from."""
        return len(self.entries.all) > self.entries.idle + self._closes

    def _lacks_idle(self) -> bool:
        # The commonest first: each release asks.
        lacking = self.queue.waiting + self.settings.min_idle - self.entries.idle
        return lacking > 0 and self.settings.min_idle > 0 and not self.closing and lacking > self._supply()

    def _may_refill(self) -> bool:
        """Whether `min_idle` lacks something for which a dial may be started."""
        if not self._lacks_idle() or not self._may_dial():
            return False
        return len(self.dials.spare) < _REFILLS_AT_ONCE or not self._in_use()

    def _settle_dials(self, now: float) -> None:
        wanted = max(0, self.queue.waiting - self._checks)
        wanted += max(0, self.settings.min_idle - self.entries.idle)
        self._arm(self.dials.settle(wanted, now, self.settings.abandoned_dial_grace, self._connect_timeout))

    # --- dials ----------------------------------------------------------------------------------

    def _dial(self, waiter: Waiter[T] | None, now: float) -> None:
        self.places += 1
        job = self._begin(CONNECT, None, self._connect_timeout, now)
        self.dials.add(job, waiter)
        self._notify(DialStarted, job.number)

    def dial_may_start(self, job: Job[T], now: float) -> bool:
        """The dial's task has begun: False if nobody waits for it any more, so that it need not start."""
        if job in self.dials.abandoned:
            self._cancel_job(job, DialEnd.ABANDONED)
            self._rebalance(now)
        return job.cancelled is None

    def connect_succeeded(self, job: Job[T], connection: T, now: float) -> None:
        """A dial brought a connection: for the first waiter, else to keep, else to close."""
        if self._owns(connection):
            error = PoolMisuse(f"{self._name}: connect returned {connection!r}, which this pool has open already")
            self.connect_failed(job, now, error=error)
            return
        if not self._end(job):
            return
        waiter = job.waiter
        self.dials.running -= 1
        self.dials.strike(job)
        self._counts.opened += 1
        entry = self._admit(connection, job.number, now - job.started, now)
        if job.cleared:
            self._retired.add(entry)
        won = self.queue.waiting > 0 and not self._condemned(entry, now, was_idle=False)
        if won:
            self._counts.dials_won += 1
        else:
            self._unused.add(entry)
        unfit = self._close_if_unfit(entry, now)
        if unfit and entry.owner.reason is CloseReason.NOT_REUSABLE:
            if won:
                self._counts.dials_won -= 1
                self._counts.dials_failed += 1
            self._blame(job.number, waiter, self._refused(entry), now)
        else:
            if self.dials.note_success():
                self.effects.append((LOG_DIAL, None))
            self._counts.last_dial_error = None
        if not unfit:
            if won:
                self._newborn.add(entry)
            self._offer(entry, now)
        self._review_flags()
        self._rebalance(now)

    def _refused(self, entry: Entry[T]) -> PoolError:
        """A new connection that cannot be used is no better than none: else it would be dialled again at once."""
        error = PoolError(f"{self._name}: connect brought {entry.connection!r}, which is_reusable refuses")
        error.__cause__ = entry.owner.error
        return error

    def connect_failed(self, job: Job[T], now: float, *, error: BaseException | None = None) -> None:
        """A dial raised (`error`), or ended because it was cancelled (no error)."""
        if not self._end(job):
            return
        self.dials.running -= 1
        counts = self._counts
        if job.cancelled is DialEnd.ABANDONED:
            counts.dials_abandoned += 1
        elif job.cancelled is DialEnd.TIMEOUT or job.cancelled is None:
            counts.dials_failed += 1
        else:
            counts.dials_cancelled += 1
        if job.cancelled is None:
            assert error is not None
            waiter = job.waiter
            self.dials.strike(job)
            self._blame(job.number, waiter, error, now)
        elif job.error is not None:
            job.error.__cause__ = error  # what it raises when it is cancelled may say what it was at
            error, job.error = job.error, None  # no cycle with the traceback
        self._notify(DialFailed, job.number, job.cancelled or DialEnd.ERROR, error, now - job.started)
        self._free_place(now)

    def _blame(self, dial: int, waiter: Waiter[T] | None, error: BaseException, now: float) -> None:
        """A dial failed by itself: its error is for the waiter that it was started for, else for the log."""
        self._note_failure(dial, error, now)
        if waiter is None:
            self._tell(error)
        else:
            self._counts.failed += 1
            self._fail_waiter(waiter, error)

    def _note_failure(self, dial: int, error: BaseException, now: float) -> None:
        self.dials.note_failure(dial, now, self._jitter())
        self._counts.last_dial_error = error

    def _tell(self, error: BaseException) -> None:
        """Nobody else is told of this failed dial."""
        if self.dials.tell():
            self.effects.append((LOG_DIAL, error))

    def _admit(self, connection: T, number: int, elapsed: float, now: float) -> Entry[T]:
        """Make an entry for a connection that is new to the pool."""
        if self._check is None and _has_judgement(connection):
            self._check = _ask_poolable
            self._review_flags()
        entry: Entry[T] = (TrackedEntry if self._tracks else Entry)(connection, now)
        if isinstance(entry, TrackedEntry):
            entry.retire_at = now + self._max_lifetime * (1 - self.settings.lifetime_jitter * self._jitter())
        self.entries.all.append(entry)
        self._notify(ConnectionReady, number, connection, elapsed)
        return entry

    def _owns(self, connection: T) -> bool:
        return any(entry.connection is connection for entry in self.entries.all)

    # --- what a holder may do -------------------------------------------------------------------

    def judges_itself(self, connection: T) -> bool:
        """Whether there is somebody to say if a connection survived an exception of its user."""
        return self._is_reusable is not None or _has_judgement(connection)

    def discard(self, entry: Entry[T], now: float, reason: CloseReason = CloseReason.DISCARDED) -> None:
        """A holder condemns its connection."""
        if entry.state is not EntryState.HELD:
            return  # the pool closed it under its holder
        self._notify(ConnectionReleased, entry.connection, now - entry.since)
        self._close(entry, reason, now)
        self._rebalance(now)

    def take(self, entry: Entry[T], now: float) -> None:
        """A holder takes the connection for itself. Its place stays with the handle until `drop_place`."""
        if entry.state is not EntryState.HELD:
            raise PoolClosed(f"{self._name} has closed this connection already")
        self.entries.all.remove(entry)
        self._retired.discard(entry)
        self._counts.takes += 1
        self._taken += 1
        self._review_flags()
        self._notify(ConnectionReleased, entry.connection, now - entry.since)
        self._notify(ConnectionClosed, entry.connection, CloseReason.TAKEN, None)
        self._rebalance(now)  # perhaps no release can come any more that a race_delay would wait for
        self._rest()

    def insert(self, connection: T, holder: object, now: float) -> Entry[T]:
        """A holder puts a connection into its emptied handle."""
        if self.closing:
            raise PoolClosed(f"{self._name} is closed: the connection stays yours, close it yourself")
        if self._owns(connection):
            raise PoolMisuse(f"{self._name}: {connection!r} is in this pool already")
        self._taken -= 1
        self._counts.inserted += 1
        entry = self._admit(connection, 0, 0.0, now)
        self._lend(entry, holder, now)
        self._notify(ConnectionAcquired, connection, 0.0)
        return entry

    def drop_place(self, now: float) -> None:
        """An emptied handle is released: its place is free."""
        self._taken -= 1
        self._free_place(now)

    # --- time -----------------------------------------------------------------------------------

    def _arm(self, when: float) -> None:
        if when < self.alarm:
            self._set_alarm(when)

    def _rearm(self) -> None:
        """Set the timer to what comes next, be it later than before."""
        self._stamp = -NEVER
        self._set_alarm(self._next_deadline())

    def _set_alarm(self, when: float) -> None:
        self.alarm = when
        self.effects.append((ALARM, None))

    def _rest(self) -> None:
        """Disarm the timer of a pool in which there is nothing left to expire."""
        if self.places == self._taken and not self.queue.waiting and self.alarm != NEVER:
            self._rearm()

    def expire(self, now: float) -> None:
        """Time has come to `now`: end whatever is overdue, and set the alarm anew. Harmless at any time."""
        if self._force_at <= now:
            self.force_close(now)
        # Dials first: of a caller whose own time is up as well, its dial's limit is the better reason.
        for job in [job for job in self.jobs if job.deadline <= now]:
            self._expire_job(job, now)
        while self.queue.waiting and self.queue.first().since + self._acquire_timeout <= now:
            self._time_out(self.queue.first(), Refusal.ACQUIRE_TIMEOUT, now)
        if self.alarm <= now:
            self._expire_idle(now)
        self._rebalance(now)
        self._rearm()

    def _expire_job(self, job: Job[T], now: float) -> None:
        if job.kind is not CONNECT:
            limit = job.deadline - job.started
            error = TimeoutError(f"{job.kind.name.lower()} took longer than {limit:g} s")
            self._hook_failed(job.kind.name.lower(), error)
            self._cancel_job(job, CloseReason.INVALID if job.kind is VALIDATE else CloseReason.RESET_FAILED)
        elif job.started + self._connect_timeout <= now:
            self._expire_dial(job, now)
        else:
            self._cancel_job(job, DialEnd.ABANDONED)

    def _expire_dial(self, job: Job[T], now: float) -> None:
        waiter = job.waiter
        job.error = TimeoutError(f"connect did not finish within {self._connect_timeout:g} s (connect_timeout)")
        self._cancel_job(job, DialEnd.TIMEOUT)
        self._note_failure(job.number, job.error, now)
        if waiter is None:
            self._tell(job.error)
        else:
            self._time_out(waiter, Refusal.CONNECT_TIMEOUT, now)

    def _expire_idle(self, now: float) -> None:
        kept: list[Entry[T]] = []
        for entry in self.entries.drain():
            tracked = entry if isinstance(entry, TrackedEntry) else None
            if tracked is not None and tracked.retire_at <= now:
                self._close(entry, CloseReason.LIFETIME, now)
            elif len(kept) >= self.settings.min_idle and entry.since + self._idle_timeout <= now:
                self._close(entry, CloseReason.IDLE, now)
            elif tracked is not None and tracked.check_at <= now:
                self._begin_check(entry, now)
            else:
                kept.append(entry)
        for entry in reversed(kept):
            self.entries.push(entry)

    def _next_deadline(self) -> float:
        """When the next thing falls due, if nothing else happens; NEVER if there is nothing."""
        due = [job.deadline for job in self.jobs]
        if self.closing and not self.is_empty():
            due.append(self._force_at)
        if self.queue.waiting:
            due.append(self.queue.first().since + self._acquire_timeout)
            if self._may_dial() and self.queue.waiting > self._supply():
                due.append(self.queue.first_without_dial().since + self.settings.race_delay)
        if self.entries.idle > self.settings.min_idle:
            due.append(self.entries.oldest().since + self._idle_timeout)
        if self._tracks:
            for entry in self.entries.stack():
                assert isinstance(entry, TrackedEntry)
                due.append(min(entry.retire_at, entry.check_at))
        if self._may_refill():
            due.append(self.dials.retry_at)
        return min(due, default=NEVER)

    # --- the whole pool -------------------------------------------------------------------------

    def warm_up(self, now: float) -> None:
        """The pool has opened: dial what `min_idle` asks for."""
        self._rebalance(now)

    def clear(self, now: float) -> None:
        """Retire every connection opened, and every dial begun, before now."""
        while self.entries.idle:
            self._close(self.entries.pop(), CloseReason.CLEARED, now)
        for entry in self.entries.reserved():
            waiter = entry.owner
            self._close(self._revoke(waiter), CloseReason.CLEARED, now)
            self._wait_again(waiter, now)
        self._retired.update(self.entries.held())
        for job in list(self.jobs):
            if job.kind is not CLOSE:
                job.cleared = True
                self._cancel_job(job, DialEnd.CLEARED if job.kind is CONNECT else CloseReason.CLEARED)
        self._review_flags()
        self._rebalance(now)

    def resize(self, settings: PoolSettings, now: float) -> None:
        """Other sizes: more room is used at once, less room closes the oldest idle ones at once."""
        self.settings = settings
        self._apply_settings()
        room = min(self._max_idle, self.entries.idle - max(0, self._surplus()))
        kept = self.entries.drain()
        while len(kept) > max(0, room):
            self._close(kept.pop(), CloseReason.SURPLUS, now)
        for entry in reversed(kept):
            self.entries.push(entry)
        self._rebalance(now)
        self._rearm()

    def begin_closing(self, now: float, grace: float) -> None:
        """Hand out nothing any more; holders have `grace` seconds. Called again, it can only hasten."""
        first, self.closing = not self.closing, True
        self._force_at = min(self._force_at, now + grace)
        if first:
            self._review_flags()
            self._refuse_all(now)
            while self.entries.idle:
                self._close(self.entries.pop(), CloseReason.POOL_CLOSED, now)
            for job in list(self.jobs):
                if job.kind is not CLOSE:
                    self._cancel_job(job, DialEnd.POOL_CLOSED if job.kind is CONNECT else CloseReason.POOL_CLOSED)
        self._rearm()

    def _refuse_all(self, now: float) -> None:
        """Every waiter fails, also one that has a connection to collect."""
        for entry in self.entries.reserved():
            waiter = entry.owner
            self._close(self._revoke(waiter), CloseReason.POOL_CLOSED, now)
            self.queue.re_enter(waiter)
        while self.queue.waiting:
            self._counts.rejected += 1
            self._fail_waiter(self.queue.first(), Refusal.CLOSED)

    def force_close(self, now: float) -> None:
        """The grace is over: close under the holders, and let no close take its time."""
        self._force_at = NEVER
        self._forced = True
        for entry in self.entries.held():
            self._close(entry, CloseReason.POOL_CLOSED, now)
        for job in self.jobs:
            if job.kind is CLOSE:
                self._force(job)

    def is_empty(self) -> bool:
        """Whether nothing is left that closing would have to wait for."""
        return self.places == self._taken

    # --- telling --------------------------------------------------------------------------------

    def _notify(self, event: Callable[..., PoolEvent], *facts: Any) -> None:
        if self._observed:
            self.effects.append((NOTIFY, event(*facts)))

    def observer_failed(self, error: BaseException) -> None:
        """The observer raised. Its trouble is its own: count it and log it."""
        self._hook_failed("on_event", error)

    def _hook_failed(self, hook: str, error: BaseException) -> None:
        self._counts.hook_errors += 1
        self.effects.append((LOG, (hook, error)))

    def statistics(self, now: float) -> PoolStatistics:
        """All figures of one moment."""
        states = [entry.state for entry in self.entries.all]
        settings, counts = self.settings, self._counts
        return PoolStatistics(
            size=self.places,
            idle=self.entries.idle,
            held=states.count(EntryState.HELD),
            reserved=states.count(EntryState.RESERVED),
            dialling=self.dials.running,
            validating=states.count(EntryState.VALIDATING),
            resetting=states.count(EntryState.RESETTING),
            closing=self._closes,
            taken=self._taken,
            waiting=self.queue.waiting,
            max_size=settings.max_size,
            max_idle=settings.max_size if settings.max_idle is None else settings.max_idle,
            min_idle=settings.min_idle,
            acquired=self.acquired,
            acquired_waiting=counts.acquired_waiting,
            timed_out=counts.timed_out,
            failed=counts.failed,
            cancelled=counts.cancelled,
            rejected=counts.rejected,
            opened=counts.opened,
            inserted=counts.inserted,
            closed=counts.closed,
            takes=counts.takes,
            dials=self.dials.started,
            dials_won=counts.dials_won,
            dials_spare_unused=len(self._unused),
            dials_spare_used=counts.dials_spare_used,
            dials_spare_wasted=counts.dials_spare_wasted,
            dials_failed=counts.dials_failed,
            dials_abandoned=counts.dials_abandoned,
            dials_cancelled=counts.dials_cancelled,
            hook_errors=counts.hook_errors,
            last_dial_error=counts.last_dial_error,
            longest_held=now - min((entry.since for entry in self.entries.held()), default=now),
        )


def _worked_on(job: Job[T]) -> Entry[T]:
    assert job.entry is not None, "a dial has no connection yet"
    return job.entry
