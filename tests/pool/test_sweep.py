"""Whatever a caller does, it can be cancelled at each step of it, and the pool is as good as new afterwards."""

from __future__ import annotations

import asyncio
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from wspool import Pool, PoolClosed, Pooled, PoolFull
from wspool.testing import FakeConnection, FakeConnector, ManualClock, cancel_everywhere

FakePool: TypeAlias = Pool[FakeConnection]
Step: TypeAlias = Callable[[FakePool], Awaitable[object]]

checkpoint = anyio.lowlevel.checkpoint


# --- what callers do -------------------------------------------------------------------------------------------------


async def get_and_release(pool: FakePool) -> None:
    (await pool.get()).release()


async def fill_then_hit(pool: FakePool) -> None:
    await get_and_release(pool)
    for _ in range(3):
        await get_and_release(pool)


async def use_in_a_block(pool: FakePool) -> None:
    async with pool.get() as connection:
        connection.use("the scenario")
        try:
            await checkpoint()
        finally:
            connection.leave()


async def hold_two(pool: FakePool) -> None:
    async with pool.get() as first:
        async with pool.get() as second:
            assert first is not second
            await checkpoint()


async def take_and_insert(pool: FakePool) -> None:
    pooled = await pool.get()
    try:
        connection = pooled.take()
        try:
            await checkpoint()
        finally:
            pooled.insert(connection)
        await checkpoint()
    finally:
        pooled.release()


async def take_for_good(pool: FakePool) -> None:
    pooled = await pool.get()
    try:
        connection = pooled.take()
        try:
            await checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await connection.aclose()
    finally:
        pooled.release()


async def discard(pool: FakePool) -> None:
    pooled = await pool.get()
    try:
        await checkpoint()
    finally:
        pooled.discard()


async def discard_then_get(pool: FakePool) -> None:
    await discard(pool)
    await use_in_a_block(pool)


async def own_dial_fails(pool: FakePool) -> None:
    with pytest.raises(ConnectionRefusedError):
        await pool.get(connect=_refused)


async def own_dial_succeeds(pool: FakePool) -> None:
    async with pool.get(connect=FakeConnector.always()):
        await checkpoint()


async def _refused() -> FakeConnection:
    await checkpoint()
    raise ConnectionRefusedError("refused, by the test")


async def _refused_at_last() -> FakeConnection:
    for _ in range(50):
        await checkpoint()
    return await _refused()


async def fail_then_succeed(pool: FakePool) -> None:
    with suppress(ConnectionRefusedError):  # unless a release comes before it fails
        async with pool.get(connect=_refused):
            await checkpoint()
    await use_in_a_block(pool)


async def get_or_be_turned_away(pool: FakePool) -> None:
    for _ in range(3):
        try:
            await use_in_a_block(pool)
        except PoolFull:
            await checkpoint()


async def own_dial_is_late(pool: FakePool) -> None:
    """Served by a release meanwhile; the dial goes on, and is left to whoever comes next."""
    async with pool.get(connect=_refused_at_last):
        await checkpoint()


# --- what happens meanwhile ------------------------------------------------------------------------------------------


async def hold_all_for_a_while(pool: FakePool) -> None:
    """So that the scenario, which runs beside it, finds nothing and waits for a release."""
    async with AsyncExitStack() as held:
        for _ in range(pool.statistics().max_size or 0):
            await held.enter_async_context(pool.get())
        for _ in range(4):
            await checkpoint()


async def hold_one_for_a_while(pool: FakePool) -> None:
    """The scenario dials, and a release races with its dial."""
    async with pool.get():
        await checkpoint()


async def storm_of_releases(pool: FakePool) -> None:
    for _ in range(10):
        await get_and_release(pool)
        await checkpoint()


async def deaths(pool: FakePool) -> None:
    for _ in range(6):
        async with pool.get() as connection:
            await checkpoint()
            connection.die()


async def crowd(pool: FakePool) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(use_in_a_block, pool)


async def clear_now_and_then(pool: FakePool) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crowd, pool)
        for _ in range(6):
            await checkpoint()
            pool.clear()


async def shrink_and_grow(pool: FakePool) -> None:
    size = pool.statistics().max_size
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crowd, pool)
            for _ in range(4):
                await checkpoint()
                pool.resize(max_size=1, max_idle=1)
                await checkpoint()
                pool.resize(max_size=size, max_idle=size)
    finally:
        pool.resize(max_size=size, max_idle=size)


# --- the pools -------------------------------------------------------------------------------------------------------


async def _true(_: object) -> bool:
    await checkpoint()
    return True


async def _false_once(connection: FakeConnection) -> bool:
    """What was used before is invalid: the caller has to get another."""
    await checkpoint()
    return connection.validations < 0


async def _reset(connection: FakeConnection) -> None:
    await connection.reset()


async def _broken_reset(_: object) -> None:
    await checkpoint()
    raise ConnectionResetError("reset, by the test")


def _pool(**settings: Any) -> FakePool:
    """A small pool, so that there is competition."""
    settings = {"max_size": 2, "acquire_timeout": 10.0} | settings
    return Pool(FakeConnector.always(), **settings)


def _unfit_at_hand_out() -> FakePool:
    """Each connection is fit when it is new and when it comes back, and found dead at every other hand-out."""
    asked = Counter[object]()

    def is_reusable(connection: object) -> bool:
        asked[connection] += 1
        return asked[connection] % 4 != 0

    return _pool(is_reusable=is_reusable)


@dataclass(frozen=True)
class Scenario:
    """Something to cancel, and in which pool."""

    name: str
    victim: Step
    background: Step | None = None
    make_pool: Callable[[], FakePool] = _pool
    capacity: int | None = None


_checked = partial(_pool, validate=_true, validate_bypass_interval=0)
_invalid = partial(_pool, validate=_false_once, validate_bypass_interval=0)
_reset_pool = partial(_pool, reset=_reset)

SCENARIOS = [
    Scenario("hit", fill_then_hit),
    Scenario("first dial", get_and_release),
    Scenario("a block with a body that waits", use_in_a_block),
    Scenario("wait for a release", use_in_a_block, hold_all_for_a_while),
    Scenario("wait for a release, one place", use_in_a_block, hold_all_for_a_while, partial(_pool, max_size=1)),
    Scenario("release races with a dial", use_in_a_block, hold_one_for_a_while),
    Scenario("release before a delayed dial", use_in_a_block, hold_one_for_a_while, partial(_pool, race_delay=0.001)),
    Scenario("nothing is kept idle", use_in_a_block, hold_one_for_a_while, partial(_pool, max_idle=0)),
    Scenario("validated on hand-out", fill_then_hit, None, _checked),
    Scenario("validated on hand-out, with competition", fill_then_hit, storm_of_releases, _checked),
    Scenario("invalid on hand-out", fill_then_hit, None, _invalid),
    Scenario("invalid on hand-out, with competition", fill_then_hit, storm_of_releases, _invalid),
    Scenario("reset on release", fill_then_hit, None, _reset_pool),
    Scenario("reset on release, with competition", use_in_a_block, hold_all_for_a_while, _reset_pool),
    Scenario("reset fails", fill_then_hit, None, partial(_pool, reset=_broken_reset)),
    Scenario("the own dial fails", own_dial_fails),
    Scenario("the own dial fails, the next succeeds", fail_then_succeed, storm_of_releases),
    Scenario("the own dial is late, and fails", own_dial_is_late, hold_one_for_a_while),
    Scenario("connect override", own_dial_succeeds),
    Scenario("get two", hold_two),
    Scenario("get two, with competition", hold_two, storm_of_releases, partial(_pool, max_size=3)),
    Scenario("take and insert", take_and_insert, hold_one_for_a_while),
    Scenario("take for good", take_for_good, storm_of_releases),
    Scenario("discard", discard_then_get),
    Scenario("discard, with competition", discard_then_get, storm_of_releases, partial(_pool, max_size=1)),
    Scenario("not reusable at hand-out", fill_then_hit, storm_of_releases, _unfit_at_hand_out),
    Scenario("connections die", use_in_a_block, deaths, partial(_pool, max_size=1)),
    Scenario("a crowd", use_in_a_block, crowd),
    Scenario("a crowd, one place", fill_then_hit, crowd, partial(_pool, max_size=1)),
    Scenario("clear meanwhile", use_in_a_block, clear_now_and_then),
    Scenario("resize meanwhile", use_in_a_block, shrink_and_grow, partial(_pool, max_size=3)),
    Scenario("turned away", get_or_be_turned_away, get_or_be_turned_away, partial(_pool, max_size=1, max_waiting=0)),
    Scenario("min_idle", use_in_a_block, storm_of_releases, partial(_pool, min_idle=1)),
    Scenario("every use is the last", fill_then_hit, storm_of_releases, partial(_pool, max_uses=1)),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_a_caller_cancelled_at_any_step_costs_no_capacity(scenario: Scenario) -> None:
    report = await cancel_everywhere(
        scenario.make_pool, scenario.victim, background=scenario.background, capacity=scenario.capacity
    )
    # A sweep that cancels nothing proves nothing: each way must have hit the scenario at least once.
    assert report.delivered > 0


# --- the sweep finds faults ------------------------------------------------------------------------------------------


async def test_the_sweep_finds_a_scenario_that_keeps_its_connection_when_cancelled() -> None:
    kept: list[Pooled[FakeConnection]] = []

    async def careless(pool: FakePool) -> None:
        kept.append(await pool.get())
        await checkpoint()
        kept[-1].release()

    with pytest.raises(AssertionError, match="S2: somebody still holds"):
        await cancel_everywhere(partial(_pool, clock=ManualClock()), careless)  # whose pool waits for no holder
    kept[-1].release()


async def test_cancellations_of_the_scenarios_own_are_not_taken_for_the_sweeps() -> None:
    """As anyio.connect_tcp cancels the attempts that have lost: nothing of that is swallowed."""

    async def scenario(pool: FakePool) -> None:
        with anyio.CancelScope() as own:
            own.cancel()
            await checkpoint()
        async with pool.get():
            await checkpoint()

    report = await cancel_everywhere(_pool, scenario)
    assert report.delivered < report.runs


async def test_the_sweep_finds_a_scenario_that_swallows_the_cancellation() -> None:
    async def stubborn(pool: FakePool) -> None:
        async with pool.get():
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class():
                pass

    with pytest.raises(AssertionError, match="S5: the cancellation was swallowed"):
        await cancel_everywhere(_pool, stubborn)


async def test_the_sweep_finds_that_less_can_be_handed_out_than_before() -> None:
    async def shrink(pool: FakePool) -> None:
        async with pool.get():
            pool.resize(max_size=1)

    with pytest.raises(AssertionError, match="no connection after"):
        await cancel_everywhere(partial(_pool, acquire_timeout=0.25), shrink, capacity=2)


# --- the whole pool is cancelled -------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """Opens connections and remembers them. A dial that is cut off has opened nothing."""

    opened: list[FakeConnection] = field(default_factory=list)
    closed: int = 0
    """How many closes came to their end."""

    async def connect(self) -> FakeConnection:
        await checkpoint()
        self.opened.append(FakeConnection(len(self.opened) + 1))
        return self.opened[-1]

    async def close(self, connection: FakeConnection) -> None:
        await connection.aclose()
        await checkpoint()
        self.closed += 1


Victim: TypeAlias = Callable[[Ledger], Coroutine[Any, Any, None]]


async def one_user(ledger: Ledger) -> None:
    async with Pool(ledger.connect, close=ledger.close, max_size=2) as pool:
        await use_in_a_block(pool)


async def several_users(ledger: Ledger) -> None:
    async with Pool(ledger.connect, close=ledger.close, max_size=2, max_idle=1, min_idle=1) as pool:
        await crowd(pool)
        await discard_then_get(pool)


async def users_of_hooks(ledger: Ledger) -> None:
    async with Pool(
        ledger.connect,
        close=ledger.close,
        max_size=2,
        validate=_true,
        validate_bypass_interval=0,
        reset=FakeConnection.reset,
    ) as pool:
        await crowd(pool)


async def a_body_that_closes(ledger: Ledger) -> None:
    async with Pool(ledger.connect, close=ledger.close, max_size=2) as pool:
        async with anyio.create_task_group() as tasks:
            pooled = await pool.get()
            tasks.start_soon(pool.aclose)
            try:
                await checkpoint()
                with pytest.raises(PoolClosed):
                    await pool.get()
            finally:
                pooled.release()


async def a_body_closed_under_its_users(ledger: Ledger) -> None:
    async with Pool(ledger.connect, close=ledger.close, max_size=2) as pool:
        async with pool.get(), pool.get():
            await pool.aclose(grace=0)
            await checkpoint()


async def a_body_that_closes_at_once(ledger: Ledger) -> None:
    async with Pool(ledger.connect, close=ledger.close, max_size=2) as pool:
        await fill_then_hit(pool)
        pool.clear()
        await pool.aclose(grace=0)


@types.coroutine
def counted(coroutine: Coroutine[Any, Any, None], count: Callable[[], None]) -> Generator[Any, Any, None]:
    """Run the coroutine, and call `count` before each of its suspensions."""
    resume: Callable[[], Any] = partial(coroutine.send, None)
    while True:
        try:
            message = resume()
        except StopIteration:
            return
        count()
        try:
            resume = partial(coroutine.send, (yield message))
        except BaseException as error:
            resume = partial(coroutine.throw, error)


Way: TypeAlias = Literal["steps", "turns"]
"""Count suspensions of the victim, or turns of the event loop: those fall between steps of the pool's tasks too."""


class Blow:
    """Cancels a victim when its count is full: by a scope, or by a bare `Task.cancel()`."""

    def __init__(self, way: Way, after: int, *, bare: bool) -> None:
        self.way = way
        self.after = self.left = after
        self.bare = bare
        self.scope = anyio.CancelScope()
        self.cancel: Callable[[], object] = self.scope.cancel
        self.ended = False
        self.landed = False

    def __str__(self) -> str:
        return f"cancelled by {'its task' if self.bare else 'a scope'} after {self.after} {self.way}"

    def count(self) -> None:
        self.left -= 1
        if self.left == 0 and not self.ended:
            self.cancel()

    async def strike(self, victim: Coroutine[Any, Any, None]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, victim)
            if self.way == "turns":
                tasks.start_soon(self._tick)

    async def _run(self, victim: Coroutine[Any, Any, None]) -> None:
        if self.bare:
            task = asyncio.current_task()
            assert task is not None
            self.cancel = task.cancel
        try:
            with self.scope:
                await (counted(victim, self.count) if self.way == "steps" else victim)
        except asyncio.CancelledError:
            self.landed = True
            raise
        finally:
            self.ended = True
            self.landed |= self.scope.cancelled_caught

    async def _tick(self) -> None:
        while self.left > 0 and not self.ended:
            await checkpoint()
            self.count()


BLOCKS: list[Victim] = [
    one_user,
    several_users,
    users_of_hooks,
    a_body_that_closes,
    a_body_that_closes_at_once,
    a_body_closed_under_its_users,
]
HASTY = BLOCKS[-2:]
"""They give no grace, so that closes are cut off."""


@pytest.mark.parametrize("way", ["steps", "turns"])
@pytest.mark.parametrize("victim", BLOCKS, ids=lambda victim: victim.__name__)
async def test_a_pool_cancelled_at_any_moment_closes_each_connection_exactly_once(
    victim: Victim, way: Way, anyio_backend_name: str
) -> None:
    for bare in (False, True) if anyio_backend_name == "asyncio" else (False,):
        landed, opened = 0, 0
        for after in range(1, 1000):
            blow, ledger = Blow(way, after, bare=bare), Ledger()
            await blow.strike(victim(ledger))
            closes = {connection.number: connection.closes for connection in ledger.opened}
            assert set(closes.values()) <= {1}, f"{blow}: closed so often: {closes}"
            if not bare and victim not in HASTY:
                assert ledger.closed == len(ledger.opened), f"{blow}: a close was cut off"
            landed += blow.landed
            opened += len(ledger.opened)
            if blow.left > 0:
                break
        assert landed, "the sweep was vacuous"
        assert opened, "the sweep was vacuous"
