"""PURE. The pool as a state machine: facts come in as method calls, orders go out as effects.

It awaits nothing, reads no clock, draws no random number, logs nothing and starts nothing. Time is
an argument (seconds on any monotonic clock) and the next wake-up is an attribute, `alarm`.

Rules of this file:

1. One public method per fact, named after the fact. Whatever it changes, it changes before it
   returns; then every invariant of `check_invariants` holds.
2. Two methods are hot, `take_idle` and `give_back`: they allocate nothing, and whatever is not
   needed on every hit stands behind the single flag `_careful`.
3. Rare consequences are appended to `effects` as `(Effect, subject)`. The shell runs them in order.
4. A connection is in exactly one container: `idle`, `lent` (held, or reserved for a waiter), or it
   is the subject of one job (validating, resetting, closing). See `EntryState`.
5. A waiter is handed a connection, never only woken. Whoever was served but does not collect,
   gives back in the same step (`leave_queue`). See `WaiterState`.
6. Whatever frees a connection or a place ends in `_rebalance`, which looks at the queue again.
7. User code is called in one place, `_close_if_unfit`, when no container holds the entry.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic

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
from ._pool_parts import (
    Effect,
    Entry,
    Job,
    JobKind,
    Refusal,
    T,
    TrackedEntry,
    Waiter,
    WaiterState,
)
from ._settings import PoolSettings, count_limit, time_limit
from ._statistics import PoolStatistics

# Bound once: a global is cheaper than an enum's attribute.
WAITING, RESERVED, FAILED, GONE = WaiterState
CONNECT, VALIDATE, RESET, CLOSE = JobKind
WAKE, START, CANCEL, ALARM, NOTIFY, LOG = Effect

NEVER = math.inf

# Times of going idle are rounded down to a thousandth of idle_timeout, so that idle entries share
# their float objects (24 bytes each otherwise) and the clock of a busy pool is armed rarely.
_GRAINS_PER_IDLE_TIMEOUT = 1024

# Automatic dials after failures: AsyncHTTPClient starts at 100 ms, HikariCP and bb8 double; 30 s as bb8.
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 30.0

# Departed waiters are swept out of the queue once they are the majority and more than this.
_FEW = 32


def _ask_poolable(connection: Any) -> bool:
    ask = getattr(connection, "is_reusable", None)
    return ask is None or bool(ask())


class PoolState(Generic[T]):
    """The state of one pool and the rules by which it changes."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        is_reusable: Callable[[T], object] | None = None,
        validates: bool = False,
        resets: bool = False,
        observed: bool = False,
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Begin empty.

        `jitter` returns numbers from 0 up to 1 and is asked for each lifetime, check and back-off.
        """
        self.settings = settings
        self.effects: list[tuple[Effect, Any]] = []
        self.alarm = NEVER
        """When `expire` has something to do next; the shell's timer is set to it by ALARM effects."""

        self._is_reusable = is_reusable
        self._check: Callable[[T], object] | None = is_reusable
        self._validates = validates
        self._resets = resets
        self._observed = observed
        self._jitter = jitter

        self.idle: deque[Entry[T]] = deque()
        """Newest right, in the order of `since`."""
        self.lent: dict[Entry[T], Any] = {}
        """Held ones with their holder, reserved ones with their waiter, in the order of `since`."""
        self.queue: deque[Waiter[T]] = deque()
        """Waiters in order of arrival. Those that left stay until they are swept."""
        self.jobs: dict[Job[T], None] = {}
        self.waiting = 0
        self.places = 0
        """Connections and dials in any state, and handles emptied by take(): at most max_size."""
        self.closing = False
        self._forced = False
        self._force_at = NEVER

        self._gone = 0
        """Waiters in `queue` that are not WAITING."""
        self._tickets = 0
        self._owned = 0
        """Pending dials whose waiter still waits. The others are in _spare or _abandoned."""
        self._spare: dict[Job[T], None] = {}
        self._abandoned: dict[Job[T], None] = {}
        self._dialling = 0
        """Dials under way, those being cancelled included."""
        self._checks = 0
        """Validations under way that have not been cancelled: each may serve a waiter."""
        self._closes = 0
        self._taken = 0
        self._retired: set[Entry[T]] = set()
        """Out of the idle stack when `clear()` came: to be closed when they come back."""
        self._unused: set[Entry[T]] = set()
        """Brought by dials that nobody waited for any more, and not used yet."""
        self._failures = 0
        self._retry_at = -NEVER

        self.acquired = 0
        self._acquired_waiting = self._timed_out = self._failed = self._cancelled = self._rejected = 0
        self._opened = self._inserted = self._closed = self._takes = 0
        self._dials = self._won = self._spare_used = self._spare_wasted = 0
        self._dials_failed = self._dials_abandoned = self._dials_cancelled = 0
        self._hook_errors = 0
        self._last_dial_error: BaseException | None = None
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
            or self._check is not None
            or self.settings.min_idle
        )

    def _surplus(self) -> int:
        """How many open or opening connections are too many, since `max_size` was made smaller."""
        return self.places - self._closes - self._max_size

    # --- hits -----------------------------------------------------------------------------------

    def take_idle(self, holder: object, now: float) -> Entry[T] | None:
        """Take the newest idle connection that can serve at once; None if the caller has to queue."""
        idle = self.idle
        if self.waiting or not idle:
            return None
        if self._careful or self._unused or idle[-1].since + self._idle_timeout <= now:
            return self._take_carefully(holder, now)
        entry = idle.pop()
        entry.since = now
        self.lent[entry] = holder
        self.acquired += 1
        return entry

    def _take_carefully(self, holder: object, now: float) -> Entry[T] | None:
        taken = None
        while taken is None and self.idle and not self.waiting and not self._needs_check(self.idle[-1], now):
            entry = self.idle.pop()
            if not self._close_if_unfit(entry, now, was_idle=True):
                self._lend(entry, holder, now)
                self.acquired += 1
                self._notify(ConnectionAcquired, entry.connection, 0.0)
                taken = entry
        self._rebalance(now)
        return taken

    def give_back(self, entry: Entry[T], now: float) -> None:
        """A holder returns its connection: to the first waiter, else to the idle ones, else it is closed."""
        try:
            del self.lent[entry]
        except KeyError:
            return  # the pool closed it under its holder
        if self._careful:
            self._receive(entry, now)
        elif self.waiting:
            self._reserve(entry, now)
        elif len(self.idle) >= self._idle_room:
            self._close(entry, CloseReason.SURPLUS, now)
        else:
            if now - self._stamp >= self._grain:
                self._restamp(now)
            entry.since = self._stamp
            self.idle.append(entry)

    def _receive(self, entry: Entry[T], now: float) -> None:
        self._notify(ConnectionReleased, entry.connection, now - entry.since)
        if isinstance(entry, TrackedEntry):
            entry.uses += 1
        if not self._close_if_unfit(entry, now):
            if self._resets:
                self._begin_reset(entry, now)
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
        if self.closing:
            raise PoolClosed("the pool is closing")
        if self.waiting - self._supply() >= self._max_waiting and not self._may_dial():
            self._rejected += 1
            raise PoolFull(f"{self.waiting} callers wait already (max_waiting={self.settings.max_waiting})")
        self._tickets += 1
        waiter: Waiter[T] = Waiter(self._tickets, now, connect)
        self.queue.append(waiter)
        self.waiting += 1
        self._arm(now + self._acquire_timeout)
        self._notify(GetWaiting, self.waiting)
        self._rebalance(now, newest=waiter)
        return waiter

    def collect(self, waiter: Waiter[T], holder: object, now: float) -> Entry[T] | None:
        """The waiter's task has resumed: hand it what is reserved for it.

        None if nothing is, or if that connection turns out unfit: then the waiter is back in the
        queue at its old place.
        """
        entry = waiter.entry
        if entry is None:
            return None
        if self._check is not None:
            del self.lent[entry]
            waiter.entry = None
            waiter.state = GONE
            if self._close_if_unfit(entry, now):
                self._requeue(waiter)
                self._rebalance(now)
                return None
        waiter.entry = None
        waiter.state = GONE
        self.lent[entry] = holder
        self.acquired += 1
        self._acquired_waiting += 1
        self._notify(ConnectionAcquired, entry.connection, now - waiter.since)
        return entry

    def leave_queue(self, waiter: Waiter[T], now: float) -> None:
        """The caller gives up, whyever: what was reserved for it moves on in this very step."""
        if waiter.state is WAITING:
            self._stop_waiting(waiter, GONE)
            self._gone += 1
            self._sweep_queue()
            self._cancelled += 1
            self._rebalance(now)
        elif waiter.entry is not None:
            entry, waiter.entry = waiter.entry, None
            del self.lent[entry]
            self._cancelled += 1
            if not self._close_if_unfit(entry, now):
                self._offer(entry, now)
            self._rebalance(now)
        waiter.state = GONE
        self._rest()

    def _sweep_queue(self) -> None:
        if self._gone > _FEW and self._gone * 2 > len(self.queue):
            self.queue = deque(waiter for waiter in self.queue if waiter.state is WAITING)
            self._gone = 0

    def _first_waiter(self) -> Waiter[T]:
        """The caller that has waited longest. Somebody must be waiting."""
        queue = self.queue
        while queue[0].state is not WAITING:
            queue.popleft()
            self._gone -= 1
        return queue[0]

    def _stop_waiting(self, waiter: Waiter[T], state: WaiterState) -> None:
        waiter.state = state
        self.waiting -= 1
        dial = waiter.dial
        if dial is not None:
            waiter.dial = dial.waiter = None
            self._owned -= 1
            self._spare[dial] = None

    def _requeue(self, waiter: Waiter[T]) -> None:
        """Back to its place by age, which is at or near the front."""
        waiter.state = WAITING
        self.waiting += 1
        place = 0
        while place < len(self.queue) and self.queue[place].ticket < waiter.ticket:
            place += 1
        self.queue.insert(place, waiter)
        self._arm(waiter.since + self._acquire_timeout)

    def _refuse(self, waiter: Waiter[T], error: BaseException | Refusal) -> None:
        waiter.error = error
        self.effects.append((WAKE, waiter))

    # --- where a connection goes ----------------------------------------------------------------

    def _offer(self, entry: Entry[T], now: float) -> None:
        """A fit connection is free."""
        if self.waiting:
            self._reserve(entry, now)
        elif len(self.idle) < self._idle_room:
            self._lay_idle(entry, now)
        else:
            self._close(entry, CloseReason.SURPLUS, now)

    def _reserve(self, entry: Entry[T], now: float) -> None:
        waiter = self._first_waiter()
        self.queue.popleft()
        if waiter.dial is None:
            waiter.state = RESERVED
            self.waiting -= 1
        else:
            self._stop_waiting(waiter, RESERVED)
        waiter.entry = entry
        self._lend(entry, waiter, now)
        self.effects.append((WAKE, waiter))
        if self._dialling:
            self._settle_dials(now)

    def _lend(self, entry: Entry[T], borrower: object, now: float) -> None:
        entry.since = now
        self.lent[entry] = borrower
        if entry in self._unused:
            self._unused.remove(entry)
            self._spare_used += 1

    def _lay_idle(self, entry: Entry[T], now: float) -> None:
        if now - self._stamp >= self._grain:
            self._restamp(now)
        entry.since = self._stamp
        self.idle.append(entry)
        self._arm_for_oldest()
        if isinstance(entry, TrackedEntry):
            self._note_fresh(entry, now)

    def _arm_for_oldest(self) -> None:
        if len(self.idle) > self.settings.min_idle:
            self._arm(self.idle[0].since + self._idle_timeout)

    def _note_fresh(self, entry: TrackedEntry[T], now: float) -> None:
        entry.fresh_until = now + self.settings.validate_bypass_interval
        if self._validates:
            # Up to a tenth earlier, so that connections opened together are not all checked together.
            entry.check_at = now + self._validate_interval * (1 - self._jitter() / 10)
        self._arm(min(entry.retire_at, entry.check_at))

    def _close_if_unfit(self, entry: Entry[T], now: float, *, was_idle: bool = False) -> bool:
        """Close an entry that is in no container, unless it can serve another user."""
        error: Exception | None = None
        reason = self._condemned(entry, now, was_idle=was_idle)
        if reason is None and self._check is not None:
            try:
                if self._check(entry.connection):
                    return False
            except Exception as caught:
                error = caught
                self._hook_failed(caught)
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
        job.entry = entry
        self.jobs[job] = None
        self.effects.append((START, job))
        self._arm(job.deadline)
        return job

    def _close(
        self, entry: Entry[T], reason: CloseReason, now: float, error: BaseException | None = None
    ) -> None:
        if self._retired:
            self._retired.discard(entry)
        if entry in self._unused:
            self._unused.remove(entry)
            self._spare_wasted += 1
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

    def _begin_reset(self, entry: Entry[T], now: float) -> None:
        self._begin(RESET, entry, self.settings.reset_timeout, now)

    def _begin_check(self, entry: Entry[T], now: float) -> None:
        self._checks += 1
        self._begin(VALIDATE, entry, self.settings.validate_timeout, now)

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
            self._detach_dial(job)

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
        entry = job.entry
        assert entry is not None
        if error is not None:
            self._hook_failed(error)
        if job.cancelled is not None:
            self._close(entry, CloseReason(job.cancelled), now, error)
        elif not valid:
            self._close(entry, CloseReason.INVALID, now, error)
        elif not self._close_if_unfit(entry, now):
            self._return_checked(entry, now)
        self._rebalance(now)

    def _return_checked(self, entry: Entry[T], now: float) -> None:
        if self.waiting or len(self.idle) >= self._idle_room:
            self._offer(entry, now)
            return
        # A check is not a use: the entry keeps its age, so that idle_timeout still comes.
        place = 0
        while place < len(self.idle) and self.idle[place].since < entry.since:
            place += 1
        self.idle.insert(place, entry)
        self._arm_for_oldest()
        assert isinstance(entry, TrackedEntry)
        self._note_fresh(entry, now)

    def reset_ended(self, job: Job[T], now: float, *, error: BaseException | None = None) -> None:
        """The reset hook ended well, raised, or was cancelled."""
        if not self._end(job):
            return
        entry = job.entry
        assert entry is not None
        if error is not None:
            self._hook_failed(error)
        if job.cancelled is not None:
            self._close(entry, CloseReason(job.cancelled), now, error)
        elif error is not None:
            self._close(entry, CloseReason.RESET_FAILED, now, error)
        elif not self._close_if_unfit(entry, now):
            self._offer(entry, now)
        self._rebalance(now)

    def close_ended(self, job: Job[T], now: float, *, error: BaseException | None = None) -> None:
        """The close hook ended, raised, or was cancelled: the connection is gone, its place is free."""
        if not self._end(job):
            return
        assert job.entry is not None
        if error is not None:
            self._hook_failed(error)
        self._closes -= 1
        self._closed += 1
        self._notify(ConnectionClosed, job.entry.connection, job.reason, job.error or error)
        self._free_place(now)

    def _free_place(self, now: float) -> None:
        self.places -= 1
        self._review_flags()
        self._rebalance(now)
        self._rest()

    # --- dials ----------------------------------------------------------------------------------

    def _supply(self) -> int:
        """How many dials and checks are under way that can serve a waiter."""
        return self._owned + len(self._spare) + len(self._abandoned) + self._checks

    def _may_dial(self) -> bool:
        return self._dialling < self._max_connecting and self.places < self._max_size and not self.closing

    def _rebalance(self, now: float, newest: Waiter[T] | None = None) -> None:
        """Find somebody to serve each waiter, as far as limits allow.

        `newest` is a waiter that has just queued at the end.
        """
        while self.idle and self.waiting > self._checks:
            self._serve_from_idle(self.idle.pop(), now)
        while self.waiting > self._supply() and self._may_dial():
            if newest is not None and self.waiting - self._owned == 1:
                waiter = newest
            else:
                waiter = self._first_undialled()
            if not self._is_ripe(waiter, now):
                self._arm(waiter.since + self.settings.race_delay)
                break
            self._dial(waiter, now)
        while self._lacks_idle() and self._may_dial():
            if now < self._retry_at:
                self._arm(self._retry_at)
                break
            self._dial(None, now)
        if self._dialling:
            self._settle_dials(now)

    def _serve_from_idle(self, entry: Entry[T], now: float) -> None:
        if self._needs_check(entry, now) and not self._condemned(entry, now, was_idle=True):
            self._begin_check(entry, now)
        elif not self._close_if_unfit(entry, now, was_idle=True):
            self._offer(entry, now)

    def _first_undialled(self) -> Waiter[T]:
        """The first waiter that no pending dial was started for. There is one."""
        return next(waiter for waiter in self.queue if waiter.state is WAITING and waiter.dial is None)

    def _is_ripe(self, waiter: Waiter[T], now: float) -> bool:
        """Whether its race_delay is over, or there is nothing that a release could come from."""
        if waiter.since + self.settings.race_delay <= now:
            return True
        return not self.lent and not any(job.kind is RESET for job in self.jobs)

    def _lacks_idle(self) -> bool:
        if not self.settings.min_idle or self.closing:
            return False
        return self._supply() + len(self.idle) < self.waiting + self.settings.min_idle

    def _dial(self, waiter: Waiter[T] | None, now: float) -> None:
        self.places += 1
        self._dialling += 1
        self._dials += 1
        job = self._begin(CONNECT, None, self._connect_timeout, now)
        job.number = self._dials
        if waiter is None:
            self._spare[job] = None
        else:
            self._owned += 1
            waiter.dial = job
            job.waiter = waiter
            job.connect = waiter.connect
        self._notify(DialStarted, job.number)

    def _settle_dials(self, now: float) -> None:
        """Mark as many dials abandoned as nobody waits for, and adopt them again when somebody does."""
        wanted = self.waiting - self._checks
        if self.settings.min_idle:
            wanted = max(wanted, 0) + max(0, self.settings.min_idle - len(self.idle))
        while self._spare and self._owned + len(self._spare) > wanted:
            job, _ = self._spare.popitem()
            job.deadline = min(job.deadline, now + self.settings.abandoned_dial_grace)
            self._abandoned[job] = None
            self._arm(job.deadline)
        while self._abandoned and self._owned + len(self._spare) < wanted:
            job, _ = self._abandoned.popitem()
            job.deadline = job.started + self._connect_timeout
            self._spare[job] = None

    def _detach_dial(self, job: Job[T]) -> None:
        """The dial can serve nobody any more."""
        waiter = job.waiter
        if waiter is not None:
            waiter.dial = job.waiter = None
            self._owned -= 1
        else:
            self._spare.pop(job, None)
            self._abandoned.pop(job, None)

    def dial_may_start(self, job: Job[T], now: float) -> bool:
        """The dial's task has begun: False if nobody waits for it any more, so that it need not start."""
        if job in self._abandoned:
            self._cancel_job(job, DialEnd.ABANDONED)
            self._rebalance(now)
        return job.cancelled is None

    def connect_succeeded(self, job: Job[T], connection: T, now: float) -> None:
        """A dial brought a connection: for the first waiter, else to keep, else to close."""
        if self._owns(connection):
            error = PoolMisuse(f"connect returned {connection!r}, which this pool has open already")
            self.connect_failed(job, now, error=error)
            return
        if not self._end(job):
            return
        self._dialling -= 1
        if job.cancelled is None:
            self._detach_dial(job)
        self._failures = 0
        self._retry_at = -NEVER
        self._last_dial_error = None
        self._opened += 1
        entry = self._admit(connection, job.number, now - job.started, now)
        if self.closing or job.cancelled is DialEnd.CLEARED:
            self._spare_wasted += 1
            self._close(entry, CloseReason.POOL_CLOSED if self.closing else CloseReason.CLEARED, now)
        elif self.waiting and self._surplus() <= 0:
            self._won += 1
            self._reserve(entry, now)
        else:
            self._unused.add(entry)
            if not self._close_if_unfit(entry, now):
                self._offer(entry, now)
        self._rebalance(now)

    def connect_failed(self, job: Job[T], now: float, *, error: BaseException | None = None) -> None:
        """A dial raised (`error`), or ended because it was cancelled (no error)."""
        if not self._end(job):
            return
        self._dialling -= 1
        waiter = job.waiter
        if job.cancelled is None:
            self._detach_dial(job)
            self._count_failure(error, now)
            assert error is not None
            if waiter is not None:
                self._failed += 1
                self._fail_waiter(waiter, error)
        elif job.cancelled is DialEnd.ABANDONED:
            self._dials_abandoned += 1
        elif job.cancelled is DialEnd.TIMEOUT:
            self._dials_failed += 1
        else:
            self._dials_cancelled += 1
        end = job.cancelled or DialEnd.ERROR
        self._notify(DialFailed, job.number, end, error, now - job.started)
        self._free_place(now)

    def _count_failure(self, error: BaseException | None, now: float) -> None:
        self._dials_failed += 1
        self._last_dial_error = error
        self._back_off(now)

    def _back_off(self, now: float) -> None:
        """Postpone automatic dials: twice as long after each failure, between half and the whole of it."""
        longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._retry_at = now + longest * (1 - self._jitter() / 2)

    def _fail_waiter(self, waiter: Waiter[T], error: BaseException | Refusal) -> None:
        self._stop_waiting(waiter, FAILED)
        self._gone += 1
        self._sweep_queue()
        self._refuse(waiter, error)

    def _admit(self, connection: T, number: int, elapsed: float, now: float) -> Entry[T]:
        """Make an entry for a connection that is new to the pool."""
        if self._check is None and hasattr(connection, "is_reusable"):
            self._check = _ask_poolable
            self._review_flags()
        entry: Entry[T] = (TrackedEntry if self._tracks else Entry)(connection)
        if isinstance(entry, TrackedEntry):
            entry.retire_at = now + self._max_lifetime * (1 - self.settings.lifetime_jitter * self._jitter())
            self._arm(entry.retire_at)
        self._notify(ConnectionReady, number, connection, elapsed)
        return entry

    def entries(self) -> Iterator[Entry[T]]:
        """Every open connection, wherever it is."""
        yield from self.idle
        yield from self.lent
        for job in self.jobs:
            if job.entry is not None:
                yield job.entry

    def _owns(self, connection: T) -> bool:
        return any(entry.connection is connection for entry in self.entries())

    # --- what a holder may do -------------------------------------------------------------------

    def judges_itself(self, connection: T) -> bool:
        """Whether there is somebody to say if a connection survived an exception of its user."""
        return self._is_reusable is not None or hasattr(connection, "is_reusable")

    def discard(self, entry: Entry[T], now: float, reason: CloseReason = CloseReason.DISCARDED) -> None:
        """A holder condemns its connection."""
        if entry not in self.lent:
            return  # the pool closed it under its holder
        del self.lent[entry]
        self._notify(ConnectionReleased, entry.connection, now - entry.since)
        self._close(entry, reason, now)
        self._rebalance(now)

    def take(self, entry: Entry[T], now: float) -> None:
        """A holder takes the connection for itself. Its place stays with the handle until `drop_place`."""
        if entry not in self.lent:
            raise PoolClosed("the pool has closed this connection already")
        del self.lent[entry]
        self._retired.discard(entry)
        self._takes += 1
        self._taken += 1
        self._review_flags()
        self._notify(ConnectionReleased, entry.connection, now - entry.since)
        self._notify(ConnectionClosed, entry.connection, CloseReason.TAKEN, None)

    def insert(self, connection: T, holder: object, now: float) -> Entry[T]:
        """A holder puts a connection into its emptied handle."""
        if self.closing:
            raise PoolClosed("the pool is closing: the connection stays yours, close it yourself")
        if self._owns(connection):
            raise PoolMisuse(f"{connection!r} is in this pool already")
        self._taken -= 1
        self._inserted += 1
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
            self.alarm = when
            self.effects.append((ALARM, None))

    def _rest(self) -> None:
        """Disarm the timer of a pool in which there is nothing left to expire."""
        if not self.places and not self.waiting and self._next_deadline() == NEVER and self.alarm != NEVER:
            self.alarm = NEVER
            self._stamp = -NEVER
            self.effects.append((ALARM, None))

    def expire(self, now: float) -> None:
        """Time has come to `now`: end whatever is overdue, and set the alarm anew. Harmless at any time."""
        if self._force_at <= now:
            self.force_close(now)
        while self.waiting and self._first_waiter().since + self._acquire_timeout <= now:
            self._time_out(self.queue[0], Refusal.ACQUIRE_TIMEOUT, now)
        for job in [job for job in self.jobs if job.deadline <= now]:
            self._expire_job(job, now)
        if not self.closing:
            self._expire_idle(now)
            self._rebalance(now)
        self.alarm = NEVER
        self._stamp = -NEVER
        self._arm(self._next_deadline())

    def _time_out(self, waiter: Waiter[T], refusal: Refusal, now: float) -> None:
        self._timed_out += 1
        self._fail_waiter(waiter, refusal)
        self._notify(GetTimedOut, now - waiter.since)

    def _expire_job(self, job: Job[T], now: float) -> None:
        if job.kind is not CONNECT:
            limit = job.deadline - job.started
            self._hook_failed(TimeoutError(f"{job.kind.name.lower()} took longer than {limit:g} s"))
            self._cancel_job(job, CloseReason.INVALID if job.kind is VALIDATE else CloseReason.RESET_FAILED)
        elif job in self._abandoned:
            self._cancel_job(job, DialEnd.ABANDONED)
        else:
            waiter = job.waiter
            self._cancel_job(job, DialEnd.TIMEOUT)
            self._back_off(now)
            if waiter is not None:
                self._time_out(waiter, Refusal.CONNECT_TIMEOUT, now)

    def _expire_idle(self, now: float) -> None:
        min_idle = self.settings.min_idle
        while len(self.idle) > min_idle and self.idle[0].since + self._idle_timeout <= now:
            self._close(self.idle.popleft(), CloseReason.IDLE, now)
        if not self._tracks:
            return
        for entry in [entry for entry in self.idle if isinstance(entry, TrackedEntry)]:
            if entry.retire_at <= now:
                self.idle.remove(entry)
                self._close(entry, CloseReason.LIFETIME, now)
            elif entry.check_at <= now:
                self.idle.remove(entry)
                self._begin_check(entry, now)

    def _next_deadline(self) -> float:
        """When the next thing falls due, if nothing else happens; NEVER if there is nothing."""
        due = [job.deadline for job in self.jobs]
        if self.closing and not self.is_empty():
            due.append(self._force_at)
        if self.waiting:
            due.append(self._first_waiter().since + self._acquire_timeout)
            if self.settings.race_delay and self._may_dial() and self.waiting > self._supply():
                due.append(self._first_undialled().since + self.settings.race_delay)
        if len(self.idle) > self.settings.min_idle:
            due.append(self.idle[0].since + self._idle_timeout)
        if self._tracks:
            for entry in self.idle:
                assert isinstance(entry, TrackedEntry)
                due.append(min(entry.retire_at, entry.check_at))
        if self._lacks_idle() and self._may_dial():
            due.append(self._retry_at)
        return min(due, default=NEVER)

    # --- the whole pool -------------------------------------------------------------------------

    def warm_up(self, now: float) -> None:
        """The pool has opened: dial what `min_idle` asks for."""
        self._rebalance(now)

    def clear(self, now: float) -> None:
        """Retire every connection opened, and every dial begun, before now."""
        while self.idle:
            self._close(self.idle.popleft(), CloseReason.CLEARED, now)
        for entry, borrower in list(self.lent.items()):
            if isinstance(borrower, Waiter):
                self._revoke(borrower, now)
                self._close(entry, CloseReason.CLEARED, now)
                self._requeue(borrower)
            else:
                self._retired.add(entry)
        for job in list(self.jobs):
            if job.kind is CONNECT:
                self._cancel_job(job, DialEnd.CLEARED)
            elif job.kind is not CLOSE:
                self._cancel_job(job, CloseReason.CLEARED)
        self._review_flags()
        self._rebalance(now)

    def _revoke(self, waiter: Waiter[T], now: float) -> None:
        """Take back what is reserved for a waiter that has not resumed."""
        assert waiter.entry is not None
        del self.lent[waiter.entry]
        waiter.entry = None

    def resize(self, settings: PoolSettings, now: float) -> None:
        """Other sizes: more room is used at once, less room closes the oldest idle ones at once."""
        self.settings = settings
        self._apply_settings()
        while self.idle and (self._surplus() > 0 or len(self.idle) > self._max_idle):
            self._close(self.idle.popleft(), CloseReason.SURPLUS, now)
        self._rebalance(now)
        self._arm(self._next_deadline())

    def begin_closing(self, now: float, grace: float) -> None:
        """Hand out nothing any more; holders have `grace` seconds. Called again, it can only hasten."""
        first, self.closing = not self.closing, True
        self._force_at = min(self._force_at, now + grace)
        self._arm(self._force_at)
        if not first:
            return
        self._review_flags()
        while self.idle:
            self._close(self.idle.popleft(), CloseReason.POOL_CLOSED, now)
        for entry, borrower in list(self.lent.items()):
            if isinstance(borrower, Waiter):
                self._revoke(borrower, now)
                self._close(entry, CloseReason.POOL_CLOSED, now)
                borrower.state = FAILED
                self._rejected += 1
                self._refuse(borrower, Refusal.CLOSED)
        while self.waiting:
            self._rejected += 1
            self._fail_waiter(self._first_waiter(), Refusal.CLOSED)
        for job in list(self.jobs):
            if job.kind is CONNECT:
                self._cancel_job(job, DialEnd.POOL_CLOSED)
            elif job.kind is not CLOSE:
                self._cancel_job(job, CloseReason.POOL_CLOSED)

    def force_close(self, now: float) -> None:
        """The grace is over: close under the holders, and let no close take its time."""
        self._force_at = NEVER
        self._forced = True
        for entry in list(self.lent):
            del self.lent[entry]
            self._close(entry, CloseReason.POOL_CLOSED, now)
        for job in self.jobs:
            if job.kind is CLOSE:
                self._force(job)

    def is_empty(self) -> bool:
        """Whether nothing is left that closing would have to wait for."""
        return self.places == self._taken and not self.jobs

    # --- telling --------------------------------------------------------------------------------

    def _notify(self, event: Callable[..., PoolEvent], *facts: Any) -> None:
        if self._observed:
            self.effects.append((NOTIFY, event(*facts)))

    def observer_failed(self, error: BaseException) -> None:
        """The observer raised. Its trouble is its own: count it and log it."""
        self._hook_failed(error)

    def _hook_failed(self, error: BaseException) -> None:
        self._hook_errors += 1
        self.effects.append((LOG, error))

    def statistics(self, now: float) -> PoolStatistics:
        """All figures of one moment."""
        reserved = sum(isinstance(borrower, Waiter) for borrower in self.lent.values())
        kinds = [job.kind for job in self.jobs]
        settings = self.settings
        return PoolStatistics(
            size=self.places,
            idle=len(self.idle),
            held=len(self.lent) - reserved,
            reserved=reserved,
            dialling=self._dialling,
            validating=kinds.count(VALIDATE),
            resetting=kinds.count(RESET),
            closing=self._closes,
            taken=self._taken,
            waiting=self.waiting,
            max_size=settings.max_size,
            max_idle=settings.max_idle,
            min_idle=settings.min_idle,
            acquired=self.acquired,
            acquired_waiting=self._acquired_waiting,
            timed_out=self._timed_out,
            failed=self._failed,
            cancelled=self._cancelled,
            rejected=self._rejected,
            opened=self._opened,
            inserted=self._inserted,
            closed=self._closed,
            takes=self._takes,
            dials=self._dials,
            dials_won=self._won,
            dials_spare_unused=len(self._unused),
            dials_spare_used=self._spare_used,
            dials_spare_wasted=self._spare_wasted,
            dials_failed=self._dials_failed,
            dials_abandoned=self._dials_abandoned,
            dials_cancelled=self._dials_cancelled,
            hook_errors=self._hook_errors,
            last_dial_error=self._last_dial_error,
            longest_held=self._longest_held(now),
        )

    def _longest_held(self, now: float) -> float:
        held = (entry.since for entry, borrower in self.lent.items() if not isinstance(borrower, Waiter))
        return now - next(held, now)
