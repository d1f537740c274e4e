"""A storm: many thousands of users of pools, who are cancelled, failed, hung up on and robbed of their connections.

Everything is drawn from a seed, and time is virtual: nothing here waits, so a storm is as fast as the machine.
Whatever happens to a connection is written down, and the books must balance to the last connection in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel

from wspool import (
    CloseReason,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionReady,
    ConnectionReleased,
    Pool,
    PoolClosed,
    Pooled,
    PoolError,
    PoolEvent,
    PoolFull,
    PoolTimeout,
)
from wspool.testing import FakeConnection, Fault, check_invariants

checkpoint = anyio.lowlevel.checkpoint

USERS_OF_A_ROUND = 2_000
"""One round is one pool with settings of its own."""
_TURNS_BETWEEN_CHECKS = 40
_TURNS_FOR_A_TIMER = 5
"""After a jump of time, the pool's timer needs some turns until it has caught up."""
_QUIET_TURNS = 20_000


# --- virtual time --------------------------------------------------------------------------------------------------


class TimeMachine(asyncio.SelectorEventLoop):
    """asyncio's own loop, but its time passes by `jump` only."""

    _virtual = 1000.0

    def time(self) -> float:
        return self._virtual

    def jump(self, seconds: float) -> None:
        self._virtual += seconds


class EagerTimeMachine(TimeMachine):
    """The same with eager tasks."""

    def __init__(self) -> None:
        super().__init__()
        if sys.version_info >= (3, 12):
            self.set_task_factory(asyncio.eager_task_factory)


class SteppedClock:
    """A `Clock` for loops whose time cannot be had, as uvloop's: the same through `Pool(clock=...)`."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: dict[anyio.Event, float] = {}

    def now(self) -> float:
        return self._now

    async def sleep_until(self, deadline: float) -> None:
        if deadline <= self._now:
            return
        event = anyio.Event()
        self._sleepers[event] = deadline
        try:
            await event.wait()
        finally:
            del self._sleepers[event]

    def jump(self, seconds: float) -> None:
        self._now += seconds
        for event, deadline in self._sleepers.items():
            if deadline <= self._now:
                event.set()


@dataclass(frozen=True)
class Surroundings:
    """What a storm needs to know of its event loop."""

    jump: Callable[[float], None]
    clock: SteppedClock | None
    """What to give to the pool; None where the loop itself has virtual time."""
    has_tasks: bool
    """Whether a task can be cancelled without a scope."""


def run(backend: str, main: Callable[[Surroundings], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on "asyncio", "eager", "uvloop" or "trio", in virtual time."""
    if backend == "trio":
        import trio.testing

        clock = trio.testing.MockClock()
        anyio.run(main, Surroundings(clock.jump, None, False), backend="trio", backend_options={"clock": clock})
    elif backend == "uvloop":
        stepped = SteppedClock()
        anyio.run(main, Surroundings(stepped.jump, stepped, True), backend_options={"use_uvloop": True})
    else:
        loop = EagerTimeMachine() if backend == "eager" else TimeMachine()
        anyio.run(main, Surroundings(loop.jump, None, True), backend_options={"loop_factory": lambda: loop})


# --- what a round is made of ---------------------------------------------------------------------------------------


class Plain:
    """A connection that says nothing about itself: the pool's shortest path. Otherwise a `FakeConnection`."""

    __slots__ = ("aclose", "fake", "leave", "use")

    def __init__(self, fake: FakeConnection) -> None:
        self.fake = fake
        self.use = fake.use
        self.leave = fake.leave
        self.aclose = fake.aclose

    def __repr__(self) -> str:
        return f"plain {self.fake!r}"


Connection: TypeAlias = FakeConnection | Plain


@dataclass
class Climate:
    """How often what happens; each is a probability."""

    cancel: float = 0.35
    dial_fails: float = 0.12
    dial_hangs: float = 0.02
    hook_fails: float = 0.05
    hook_hangs: float = 0.01
    death: float = 0.05
    clear: float = 0.002
    resize: float = 0.004


CALM = Climate(0, 0, 0, 0, 0, 0, 0, 0)


@dataclass
class Books:
    """What the storm knows by itself, to compare with what the pool says."""

    connections: list[Connection] = field(default_factory=list)
    dialled: int = 0
    inserted: int = 0
    taken: int = 0
    returned: set[int] = field(default_factory=set)
    """Numbers of the connections that were taken and put in again."""
    clears: int = 0
    born: dict[int, int] = field(default_factory=dict)
    """For each connection, how many clears there had been when its dial began, or when it was inserted."""
    users: Counter[str] = field(default_factory=Counter)
    forgotten: int = 0
    warned: int = 0
    """How often a handle warned that it was forgotten."""
    faults: list[str] = field(default_factory=list)
    """What went wrong in a hook or a callback, whose exceptions the pool would swallow."""
    life: dict[int, str] = field(default_factory=dict)
    """The last event of each connection, where the pool is observed."""
    reasons: Counter[CloseReason] = field(default_factory=Counter)


def _fake(connection: Connection) -> FakeConnection:
    return connection.fake if isinstance(connection, Plain) else connection


_COMES_AFTER: dict[type[PoolEvent], tuple[str, ...]] = {
    ConnectionReady: ("",),
    ConnectionAcquired: ("ConnectionReady", "ConnectionReleased"),
    ConnectionReleased: ("ConnectionAcquired",),
    ConnectionClosed: ("ConnectionReady", "ConnectionReleased"),
}


class Storm:
    """One round: a pool with settings from the seed, and its users."""

    def __init__(self, seed: int, users: int, surroundings: Surroundings) -> None:
        self.random = random.Random(seed)
        self.users = users
        self.surroundings = surroundings
        self.climate = Climate()
        self.books = Books()
        self.turn = 0
        self.due: dict[int, list[Callable[[], object]]] = {}
        """What to cancel at which turn."""
        self.over = False
        self.left = users
        self.handed_over: list[tuple[Pooled[Connection], Connection]] = []
        """Handles that somebody else has to release."""
        self.plain = self.random.random() < 0.3
        self.hooks = not self.plain and self.random.random() < 0.6
        self.closing = False
        self.closes_early = self.random.random() < 0.15
        self.settings = self._draw_settings()
        self.max_size: int | None = self.settings["max_size"]
        self.pool: Pool[Connection] = Pool(self.connect, **self.settings, clock=surroundings.clock)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _draw_settings(self) -> dict[str, Any]:
        choose = self.random.choice
        size = choose([1, 2, 3, 5, 8, 8, 20, None])
        most_idle = size if size is not None else 10
        idle = choose([None, None, 0, most_idle // 2, most_idle])
        settings: dict[str, Any] = {
            "max_size": size,
            "max_idle": idle,
            "max_connecting": choose([None, None, 1, 2]),
            "max_waiting": choose([None, None, None, 5]),
            "acquire_timeout": 1.0,
            "connect_timeout": 0.4,
            "idle_timeout": choose([None, 600.0, 0.2]),
            "race_delay": choose([0.0, 0.0, 0.05]),
            "abandoned_dial_grace": choose([0.0, 0.05, 5.0]),
            "close_timeout": 0.1,
        }
        if self.chance(0.3):
            settings["on_event"] = self.observe
        if not self.plain:
            settings["close"] = self.close
            most_kept = most_idle if idle is None else idle
            settings["min_idle"] = choose([0, 0, min(1, most_kept), most_kept])
            settings["max_lifetime"] = choose([None, None, 1.0])
            settings["max_uses"] = choose([None, None, 1, 7])
        if self.hooks:
            settings |= {
                "validate": self.validate if self.chance(0.8) else None,
                "validate_timeout": 0.1,
                "validate_bypass_interval": choose([0.0, 0.05]),
                "validate_interval": choose([None, 0.1]),
                "reset": self.reset if self.chance(0.8) else None,
                "reset_timeout": 0.1,
            }
        return settings

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.settings.items() if value is not None and not callable(value)}
        hooks = [name for name, value in self.settings.items() if callable(value)]
        return f"{self.pool!r}, {'plain, ' * self.plain}{shown} with {hooks}, in turn {self.turn}"

    # --- what the pool calls ----------------------------------------------------------------------------------------

    async def connect(self) -> Connection:
        clears = self.books.clears
        for _ in range(self.random.randrange(3)):
            await checkpoint()
        if self.chance(self.climate.dial_hangs):
            await anyio.sleep_forever()
        if self.chance(self.climate.dial_fails):
            raise ConnectionRefusedError("refused, by the storm")
        self.books.dialled += 1
        return self.new_connection(clears)

    def new_connection(self, clears: int) -> Connection:
        fake = FakeConnection(len(self.books.connections) + 1)
        self.books.born[fake.number] = clears
        connection = Plain(fake) if self.plain else fake
        self.books.connections.append(connection)
        return connection

    def _fault(self) -> Fault | Exception | None:
        if self.chance(self.climate.hook_hangs):
            return Fault.HANG
        if self.chance(self.climate.hook_fails):
            return ConnectionResetError("hook failed, by the storm")
        return None

    @contextlib.contextmanager
    def _alone(self, connection: Connection, user: str) -> Generator[None]:
        try:
            connection.use(user)
        except AssertionError as error:
            self.books.faults.append(str(error))
        try:
            yield
        finally:
            connection.leave()

    async def validate(self, connection: Connection) -> bool:
        fake = _fake(connection)
        fake.on_validate = False if self.chance(self.climate.hook_fails) else self._fault()
        with self._alone(connection, "validate"):
            return await fake.validate()

    async def reset(self, connection: Connection) -> None:
        fake = _fake(connection)
        fake.on_reset = self._fault()
        with self._alone(connection, "reset"):
            await fake.reset()

    async def close(self, connection: Connection) -> None:
        fake = _fake(connection)
        fake.on_close = self._fault()
        if not self.closing:  # then it is closed under its holder, after the grace
            with self._alone(connection, "close"):
                pass
        await fake.aclose()

    def observe(self, event: PoolEvent) -> None:
        """Each connection: ready, then acquired and released in turn, then closed once (S20)."""
        if not isinstance(event, ConnectionReady | ConnectionAcquired | ConnectionReleased | ConnectionClosed):
            return
        books, number = self.books, _fake(event.connection).number
        last = books.life.get(number, "")
        comes_back = isinstance(event, ConnectionReady) and number in books.returned
        cut_short = isinstance(event, ConnectionClosed) and self.closing
        if last not in _COMES_AFTER[type(event)] and not comes_back and not cut_short:
            books.faults.append(f"S20: {event} came after {last or 'nothing'}")
        books.life[number] = type(event).__name__
        if isinstance(event, ConnectionClosed):
            books.reasons[event.reason] += 1

    # --- the users --------------------------------------------------------------------------------------------------

    async def visit(self) -> None:
        """One user, from the get to the release."""
        use = self.random.choice(USES)
        try:
            await use(self)
        except PoolTimeout:
            self.books.users["timed out"] += 1
        except PoolFull:
            self.books.users["turned away"] += 1
            for _ in range(20):
                await checkpoint()
        except PoolClosed:
            self.books.users["closed"] += 1
            if not self.closes_early:
                raise
        except (ConnectionRefusedError, PoolError):  # refused, or dead before it was collected
            self.books.users["refused"] += 1
        except anyio.WouldBlock:
            self.books.users["would block"] += 1

    def note_arrival(self, connection: Connection) -> None:
        books, fake = self.books, _fake(connection)
        books.users["served"] += 1
        assert self.plain or fake.alive, f"S10: {connection} was handed out dead"
        assert books.born[fake.number] == books.clears, f"S19: {connection} is from before clear()"

    async def dwell(self) -> None:
        for _ in range(self.random.randrange(4)):
            await checkpoint()

    async def use(self, connection: Connection) -> None:
        """Work with a connection that is one's own."""
        self.note_arrival(connection)
        connection.use(self)
        try:
            await self.dwell()
            if self.chance(self.climate.death):
                _fake(connection).die()
        finally:
            connection.leave()

    async def worker(self) -> None:
        while self.left > 0 and not self.over:
            self.left -= 1
            if not self.chance(self.climate.cancel):
                await self.visit()
            elif self.surroundings.has_tasks and self.chance(0.5):
                await self.visit_in_a_task()
            else:
                with anyio.CancelScope() as scope:
                    self.cancel_soon(scope.cancel)
                    await self.visit()

    async def visit_in_a_task(self) -> None:
        """To be cancelled by a bare `Task.cancel()`, which respects no scope."""
        task = asyncio.create_task(self.visit())
        self.cancel_soon(task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def cancel_soon(self, cancel: Callable[[], object]) -> None:
        turn = self.turn + 1 + min(int(self.random.expovariate(0.3)), 200)
        self.due.setdefault(turn, []).append(cancel)

    # --- the weather ------------------------------------------------------------------------------------------------

    async def blow(self) -> None:
        """Turn after turn: time passes, users are cancelled, connections die, sizes change."""
        while not self.over:
            await checkpoint()
            self.turn += 1
            self.surroundings.jump(self.random.random() * 0.01)
            for cancel in self.due.pop(self.turn, ()):
                cancel()
            while self.handed_over:
                self.release_for_another()
            if self.climate is not CALM:
                self.change_weather()
            if self.turn % _TURNS_BETWEEN_CHECKS == 0:
                for _ in range(_TURNS_FOR_A_TIMER):
                    await checkpoint()
                check_invariants(self.pool)
                assert not self.books.faults, self.books.faults
                figures = self.pool.statistics()
                assert self.max_size is None or figures.size <= self.max_size, f"S3: {figures}"

    def release_for_another(self) -> None:
        pooled, connection = self.handed_over.pop()
        connection.leave()
        pooled.release()

    def change_weather(self) -> None:
        climate, connections = self.climate, self.books.connections
        if connections and self.chance(climate.death):
            _fake(connections[-self.random.randrange(1, min(len(connections), 20) + 1)]).die()
        if self.chance(climate.clear):
            self.pool.clear()
            self.books.clears += 1
        if self.max_size is not None and self.chance(climate.resize):
            least = max(1, self.settings.get("min_idle", 0), self.settings["max_idle"] or 0)
            self.pool.resize(max_size=self.random.randint(least, max(least, self.max_size)))

    # --- the round --------------------------------------------------------------------------------------------------

    async def round(self) -> None:
        async with self.pool as pool:
            async with anyio.create_task_group() as weather:
                weather.start_soon(self.blow)
                async with anyio.create_task_group() as workers:
                    for _ in range(25 if self.max_size is None else min(25, self.max_size * 3 + 2)):
                        workers.start_soon(self.worker)
                    if self.closes_early:
                        workers.start_soon(self.close_early)
                self.climate = CALM
                if not self.closing:
                    await self.prove()
                await pool.aclose()
                self.over = True
            check_invariants(pool)

    async def close_early(self) -> None:
        """Close in the middle of it all. What is held after the grace is closed under its holders."""
        while self.left > self.users // 10:
            await checkpoint()
        with contextlib.suppress(PoolTimeout, PoolFull, ConnectionRefusedError):
            async with self.pool.get():
                self.books.users["served"] += 1
                await self.close_in_time()
        if not self.closing:
            await self.close_in_time()
        self.left = 0

    async def close_in_time(self) -> None:
        grace = self.random.choice([0.0, 0.02, 5.0])
        self.closing = True
        with anyio.fail_after(grace + 10):  # seconds of the machine, where time is not virtual
            await self.pool.aclose(grace=grace)

    async def prove(self) -> None:
        """Nobody holds or waits any more, and everything that the pool is for is still there."""
        pool = self.pool
        if self.max_size is not None:
            pool.resize(max_size=self.max_size)
        figures = pool.statistics()
        for _ in range(_QUIET_TURNS):
            if not (figures.held or figures.reserved or figures.taken or figures.waiting):
                break
            await checkpoint()
            figures = pool.statistics()
        else:
            raise AssertionError(f"S2, S4: somebody still holds or waits: {figures}")
        check_invariants(pool)
        count = self.max_size if self.max_size is not None else 30
        await self.hold(count)
        self.books.users["served"] += count

    async def hold(self, count: int) -> None:
        """As `wspool.testing.prove_capacity`, which waits until all is quiet: here time must go on."""
        async with contextlib.AsyncExitStack() as held:
            if self.settings["max_waiting"] is not None:
                for _ in range(count):
                    await held.enter_async_context(self.pool.get())
                return
            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(held.enter_async_context, self.pool.get())

    def balance(self) -> None:
        """The books, to the last connection."""
        books, figures = self.books, self.pool.statistics()
        assert not books.faults, books.faults
        closes = Counter(_fake(connection).closes for connection in books.connections)
        assert set(closes) <= {1}, f"S2: closed so often: {closes}"
        assert figures.size == figures.waiting == figures.idle == figures.held == 0, f"after the end: {figures}"
        assert figures.opened == books.dialled, f"{books.dialled} dials succeeded: {figures}"
        assert figures.inserted == books.inserted, f"{books.inserted} were inserted: {figures}"
        assert figures.takes == books.taken, f"{books.taken} were taken: {figures}"
        assert figures.opened + figures.inserted == figures.closed + figures.takes, f"S1: {figures}"
        # A handle that was on its way through wait_for when that was cancelled is lost by wait_for, and recovered.
        lost = books.warned - books.forgotten
        assert figures.acquired == books.users["served"] + lost, f"{books.users} and {lost} lost: {figures}"
        assert lost == 0 or self.surroundings.has_tasks, f"{lost} handles were lost"
        # Some were cancelled before they saw what had become of them.
        assert figures.timed_out >= books.users["timed out"], f"{books.users}: {figures}"
        assert figures.failed >= books.users["refused"], f"{books.users}: {figures}"
        if self.settings.get("on_event") is not None:
            assert set(books.life.values()) <= {"ConnectionClosed"}, "S20: a connection has no end"
            assert sum(books.reasons.values()) == figures.closed + figures.takes, f"{books.reasons}: {figures}"
            if not self.closing:
                assert books.reasons[CloseReason.FORGOTTEN] == books.warned, f"{books.reasons}: {books.warned}"


# --- what users do -------------------------------------------------------------------------------------------------


class Mishap(Exception):
    """What goes wrong in a user."""


async def use_in_a_block(storm: Storm) -> None:
    async with storm.pool.get() as connection:
        await storm.use(connection)


async def use_by_hand(storm: Storm) -> None:
    pooled = await storm.pool.get()
    try:
        await storm.use(pooled.connection)
    finally:
        pooled.release()
        pooled.release()


async def get_at_once(storm: Storm) -> None:
    pooled = storm.pool.get_nowait()
    try:
        await storm.use(pooled.connection)
    finally:
        pooled.release()


async def fail(storm: Storm) -> None:
    try:
        async with storm.pool.get() as connection:
            await storm.use(connection)
            raise Mishap
    except Mishap:
        pass


async def discard(storm: Storm) -> None:
    pooled = await storm.pool.get()
    try:
        await storm.use(pooled.connection)
    finally:
        pooled.discard()


async def forget(storm: Storm) -> None:
    pooled = await storm.pool.get()
    storm.note_arrival(pooled.connection)
    storm.books.forgotten += 1
    del pooled


async def leave_it_to_another(storm: Storm) -> None:
    pooled = await storm.pool.get()
    connection = pooled.connection
    storm.note_arrival(connection)
    connection.use("another")
    storm.handed_over.append((pooled, connection))


async def take_for_good(storm: Storm) -> None:
    pooled = await storm.pool.get()
    try:
        storm.note_arrival(pooled.connection)
        connection = pooled.take()
        storm.books.taken += 1
        try:
            await storm.dwell()
        finally:
            with anyio.CancelScope(shield=True):
                await close_oneself(connection)
    finally:
        pooled.release()


async def take_and_insert(storm: Storm) -> None:
    pooled = await storm.pool.get()
    try:
        storm.note_arrival(pooled.connection)
        connection = pooled.take()
        storm.books.taken += 1
        if storm.chance(0.5):
            await close_oneself(connection)
            connection = storm.new_connection(0)
        try:
            await storm.dwell()
        finally:
            await insert(storm, pooled, connection)
    finally:
        pooled.release()


async def insert(storm: Storm, pooled: Pooled[Connection], connection: Connection) -> None:
    number = _fake(connection).number
    storm.books.returned.add(number)
    storm.books.born[number] = storm.books.clears
    try:
        pooled.insert(connection)
    except PoolClosed:
        await close_oneself(connection)
    else:
        storm.books.inserted += 1


async def close_oneself(connection: Connection) -> None:
    """Without a checkpoint, so that nothing can come between."""
    fake = _fake(connection)
    assert not fake.closes, f"{fake} was closed by the pool that gave it away"
    fake.closes += 1


async def bring_a_dial(storm: Storm) -> None:
    async with storm.pool.get(connect=partial(storm.connect)) as connection:
        await storm.use(connection)


async def hold_two(storm: Storm) -> None:
    async with storm.pool.get() as connection:
        storm.note_arrival(connection)
        async with storm.pool.get() as other:
            await storm.use(other)


async def be_impatient(storm: Storm) -> None:
    with anyio.move_on_after(storm.random.random() * 0.05):
        await use_in_a_block(storm)


async def wait_for(storm: Storm) -> None:
    if not storm.surroundings.has_tasks:
        await be_impatient(storm)
        return
    try:
        pooled = await asyncio.wait_for(storm.pool.get(), storm.random.random() * 0.05)
    except PoolTimeout:
        raise
    except TimeoutError:
        return
    try:
        # No look at its health: turns may have passed between the pool's hand and ours, in wait_for.
        storm.books.users["served"] += 1
        await storm.dwell()
    finally:
        pooled.release()


USES: list[Callable[[Storm], Awaitable[None]]] = [
    *[use_in_a_block] * 6,
    *[use_by_hand] * 3,
    *[fail] * 2,
    *[be_impatient] * 2,
    get_at_once,
    discard,
    forget,
    leave_it_to_another,
    take_for_good,
    take_and_insert,
    bring_a_dial,
    hold_two,
    wait_for,
]


# --- the storm -----------------------------------------------------------------------------------------------------


def rage(backend: str, seed: int, users: int) -> Counter[str]:
    """As many rounds as it takes for so many users; each can be repeated alone by its own seed.

    Returns what became of the users.
    """
    total: Counter[str] = Counter()
    while users > 0:
        count = min(users, USERS_OF_A_ROUND)
        total += _round(backend, seed, count)
        users -= count
        seed += 1
    return total


def _round(backend: str, seed: int, users: int) -> Counter[str]:
    storms: list[Storm] = []

    async def main(surroundings: Surroundings) -> None:
        storms.append(Storm(seed, users, surroundings))
        await storms[0].round()

    def note_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        books = storms[0].books
        if "was never released" in str(message):
            books.warned += 1
        else:
            books.faults.append(f"warned: {category.__name__}: {message}")

    logger = logging.getLogger("wspool")
    before = random.getstate()
    logger.disabled = True  # thousands of failures are on purpose
    random.seed(seed)  # the pool draws its jitter there
    if backend == "trio":
        from trio._core import _run

        _run._r.seed(seed)  # trio shuffles what is ready to run
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", ResourceWarning)
            warnings.showwarning = note_warning
            run(backend, main)
            storms[0].balance()
    except BaseException as error:
        error.add_note(f"to repeat it: WSPOOL_STORM_SEED={seed} WSPOOL_STORM_USERS={users}, on {backend}: {storms}")
        raise
    finally:
        logger.disabled = False
        random.setstate(before)
    return storms[0].books.users
