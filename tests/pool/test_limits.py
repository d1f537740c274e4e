"""Every number of a pool keeps its promise: sizes, queue, uses, ages, races and graces."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, Ends, use
from wspool import CloseReason, GetWaiting, Pool, Pooled, PoolEvent, PoolFull, PoolTimeout
from wspool.testing import FakeConnection, FakeConnector, Fault, ManualClock, check_invariants, prove_capacity, settle

# --- max_size -----------------------------------------------------------------------------------


async def test_no_more_than_max_size_are_ever_open_or_being_opened() -> None:
    connector = FakeConnector()
    async with Pool(connector, max_size=2) as pool, anyio.create_task_group() as tasks:
        callers = [Caller(tasks, pool) for _ in range(5)]
        await settle()
        assert len(connector.dials) == 2
        for dial in connector.pending:
            dial.succeed()
        served = 0
        while served < 5:
            await settle()
            holding = [caller for caller in callers if caller.handle is not None]
            assert len(holding) <= 2
            for caller in holding:
                caller.release()
                callers.remove(caller)
                served += 1
        assert len(connector.dials) == 2
        check_invariants(pool)


async def test_a_failed_dial_gives_its_place_to_the_next_in_the_same_step() -> None:
    connector = FakeConnector()
    async with Pool(connector, max_size=1) as pool, anyio.create_task_group() as tasks:
        first = Caller(tasks, pool)
        await settle()
        second = Caller(tasks, pool)
        (await connector.next_dial()).fail()
        (await connector.next_dial()).succeed()
        await settle()
        assert isinstance(first.error, ConnectionRefusedError)
        second.release()


async def test_a_connection_being_closed_still_counts() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1, clock=(clock := ManualClock())) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            handle.connection.on_close = Fault.HANG
            handle.discard()
            caller = Caller(tasks, pool)
            await settle()
            assert len(connector.dials) == 1
            await clock.advance(5)
            assert len(connector.dials) == 2
            caller.release()


async def test_without_a_max_size_everybody_gets_a_connection() -> None:
    async with Pool(FakeConnector.always(), max_size=None) as pool:
        await prove_capacity(pool, 300)
        assert pool.statistics().idle == 300


# --- max_idle -----------------------------------------------------------------------------------


async def test_what_is_released_over_max_idle_is_closed() -> None:
    ends = Ends()
    async with Pool(FakeConnector.always(), max_idle=2, on_event=ends) as pool:
        await prove_capacity(pool, 5)
        assert pool.statistics().idle == 2
        assert ends.reasons == [CloseReason.SURPLUS] * 3
        check_invariants(pool)


async def test_with_a_max_idle_of_nothing_no_connection_is_kept_but_waiters_are_served() -> None:
    connector = FakeConnector.always()
    async with Pool(connector, max_size=1, max_idle=0) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await settle()
        handle.release()
        await settle()
        assert caller.connection.number == 1
        caller.release()
        await settle()
        assert connector.connections[0].closes == 1


# --- min_idle -----------------------------------------------------------------------------------


async def test_a_pool_warms_up_to_min_idle_without_being_asked() -> None:
    async with Pool(FakeConnector.always(), min_idle=3) as pool:
        await settle()
        assert pool.statistics().idle == 3
        assert pool.statistics().dials_spare_unused == 3


async def test_what_is_taken_is_replaced_up_to_max_size() -> None:
    async with Pool(FakeConnector.always(), min_idle=2, max_size=3) as pool:
        await settle()
        first = await pool.get()
        await settle()
        assert (pool.statistics().held, pool.statistics().idle) == (1, 2)
        second = await pool.get()
        await settle()
        assert (pool.statistics().held, pool.statistics().idle) == (2, 1)
        first.release()
        second.release()
        check_invariants(pool)


async def warm(connector: FakeConnector, pool: Pool[FakeConnection]) -> list[Pooled[FakeConnection]]:
    """Answer the dials of the warm-up, and take what they have brought."""
    await settle()
    for dial in connector.pending:
        dial.succeed()
    await settle()
    return [pool.get_nowait() for _ in range(pool.statistics().idle)]


async def test_what_a_burst_has_taken_is_dialled_again_three_at_a_time() -> None:
    connector = FakeConnector()
    async with Pool(connector, min_idle=8) as pool:
        handles = await warm(connector, pool)
        for dialled in range(11, 17):
            await settle()
            assert (len(connector.dials), len(connector.pending)) == (dialled, 3)
            connector.pending[0].succeed()
            check_invariants(pool)
        for handle in handles:
            handle.release()
        await settle()
        assert len(connector.dials) == 16
        check_invariants(pool)


async def test_once_nothing_is_in_use_all_that_is_missing_is_dialled_at_once() -> None:
    connector = FakeConnector()
    async with Pool(connector, min_idle=8) as pool:
        for handle in await warm(connector, pool):
            handle.discard()
        await settle()
        assert len(connector.pending) == 8
        check_invariants(pool)


async def test_each_caller_beyond_what_is_idle_has_a_dial_at_once() -> None:
    connector = FakeConnector()
    async with Pool(connector, min_idle=4) as pool, anyio.create_task_group() as tasks:
        handles = await warm(connector, pool)
        callers = [Caller(tasks, pool) for _ in range(6)]
        await settle()
        assert len(connector.pending) == 6
        for dial in connector.pending:
            dial.succeed()
        await settle()
        for handle in handles:
            handle.release()
        for caller in callers:
            caller.release()
        check_invariants(pool)


async def test_failed_warm_up_dials_back_off_and_then_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)  # no jitter
    clock, connector = ManualClock(), FakeConnector()
    connector.answer = refuse
    async with Pool(connector, min_idle=1, clock=clock) as pool:
        dialled_at = []
        for _ in range(14):
            await settle()
            dialled_at.append((clock.now(), len(connector.dials)))
            await clock.advance(clock.deadlines[0] - clock.now())
        times = [at for at, _ in dialled_at]
        assert [count for _, count in dialled_at] == list(range(1, 15))
        pauses = [round(later - earlier, 3) for earlier, later in pairwise(times)]
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0, 30.0]
        connector.answer = connector.new_connection
        await clock.advance(30.0)
        assert pool.statistics().idle == 1
        check_invariants(pool)


def refuse() -> FakeConnection:
    raise ConnectionRefusedError


async def test_the_back_off_is_up_to_half_shorter_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.999)
    clock, connector = ManualClock(), FakeConnector(refuse)
    async with Pool(connector, min_idle=1, clock=clock) as pool:
        await settle()
        check_invariants(pool)
        assert clock.deadlines[0] - clock.now() == pytest.approx(0.05, rel=0.01)


async def test_a_caller_does_not_wait_for_the_back_off() -> None:
    clock, connector = ManualClock(), FakeConnector(refuse)
    async with Pool(connector, min_idle=1, clock=clock) as pool:
        await settle()
        connector.answer = connector.new_connection
        await use(pool)
        check_invariants(pool)


async def test_a_warm_up_dial_that_hangs_counts_as_failed_and_is_tried_again() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, min_idle=1, clock=clock) as pool:
        await connector.next_dial()
        await clock.advance(10.0)
        assert pool.statistics().dials_failed == 1
        await clock.advance(0.1)
        (await connector.next_dial()).succeed()
        await settle()
        assert pool.statistics().idle == 1


async def test_idle_connections_are_not_closed_below_min_idle() -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector.always(), min_idle=1, idle_timeout=60, on_event=ends, clock=clock) as pool:
        await prove_capacity(pool, 3)
        await clock.advance(600)
        assert pool.statistics().idle == 1
        assert ends.reasons == [CloseReason.IDLE] * (len(ends.reasons))
        await use(pool)
        await settle()
        assert pool.statistics().idle == 1
        check_invariants(pool)


# --- max_connecting -------------------------------------------------------------------------------


async def test_no_more_than_max_connecting_dials_run_at_once() -> None:
    connector = FakeConnector()
    async with Pool(connector, max_connecting=2) as pool, anyio.create_task_group() as tasks:
        callers = [Caller(tasks, pool) for _ in range(4)]
        await settle()
        assert len(connector.dials) == 2
        connector.pending[0].succeed()
        await settle()
        assert len(connector.dials) == 3
        connector.pending[0].fail()
        await settle()
        assert len(connector.dials) == 4
        while connector.pending:
            connector.pending[0].succeed()
            await settle()
        for caller in callers:
            if caller.handle is not None:
                caller.release()
        check_invariants(pool)


async def test_max_connecting_bounds_the_warm_up_too() -> None:
    connector = FakeConnector()
    async with Pool(connector, max_connecting=1, min_idle=3) as pool:
        for _ in range(3):
            dial = await connector.next_dial()
            assert len(connector.pending) == 1
            dial.succeed()
        await settle()
        assert pool.statistics().idle == 3


# --- max_waiting ----------------------------------------------------------------------------------


async def test_more_than_max_waiting_callers_are_turned_away_at_once() -> None:
    async with Pool(FakeConnector.always(), max_size=1, max_waiting=2) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            waiting = [Caller(tasks, pool) for _ in range(2)]
            await settle()
            with pytest.raises(PoolFull, match=r"2 waiting already.*max_waiting=2"):
                await pool.get()
            assert pool.statistics().rejected == 1
            handle.release()
            for _ in waiting:
                await settle()
                for caller in waiting:
                    if caller.handle is not None:
                        caller.release()
        await use(pool)


async def test_callers_that_a_dial_is_under_way_for_do_not_count_as_waiting_for_a_release() -> None:
    connector = FakeConnector()
    async with Pool(connector, max_size=3, max_waiting=0) as pool, anyio.create_task_group() as tasks:
        callers = [Caller(tasks, pool) for _ in range(3)]
        await settle()
        with pytest.raises(PoolFull):
            await pool.get()
        for dial in connector.pending:
            dial.succeed()
        await settle()
        for caller in callers:
            caller.release()


async def test_max_waiting_holds_while_dials_are_delayed() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=2, max_waiting=0, race_delay=1, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            callers = [Caller(tasks, pool) for _ in range(5)]
            await settle()
            assert sum(isinstance(caller.error, PoolFull) for caller in callers) == 4
            await clock.advance(1)
            (served,) = [caller for caller in callers if caller.handle is not None]
            served.release()
            handle.release()


async def test_a_caller_that_an_idle_connection_is_checked_for_does_not_count_as_waiting_for_a_release() -> None:
    async def validate(connection: FakeConnection) -> bool:
        return True

    async with Pool(
        FakeConnector.always(), validate=validate, max_size=1, max_waiting=0, validate_bypass_interval=0
    ) as pool:
        first = await use(pool)
        assert await use(pool) is first
        assert pool.statistics().rejected == 0


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_a_caller_whom_a_place_being_freed_will_serve_does_not_count_as_waiting_for_a_release(how: str) -> None:
    connector, clock = FakeConnector.always(), ManualClock()
    async with Pool(connector, reset=FakeConnection.reset, max_size=1, max_waiting=0, clock=clock) as pool:
        handle = await pool.get()
        if how == "reset":
            handle.connection.on_reset = Fault.HANG
        else:
            handle.connection.on_close = Fault.HANG
            handle.connection.die()
        handle.release()
        await settle()
        assert pool.statistics().resetting + pool.statistics().closing == 1
        async with anyio.create_task_group() as tasks:
            first = Caller(tasks, pool)
            await settle()
            assert first.error is None
            with pytest.raises(PoolFull):
                await pool.get()  # one place serves one caller
            await clock.advance(10)
            first.release()


async def test_a_caller_whom_a_dial_being_called_off_makes_room_for_does_not_count_either() -> None:
    connector, called_off = FakeConnector(), anyio.Event()

    async def connect() -> FakeConnection:
        try:
            return await connector()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await called_off.wait()
            raise

    async with Pool(connect, max_size=1, max_waiting=0, abandoned_dial_grace=0, clock=ManualClock()) as pool:
        async with anyio.create_task_group() as tasks:
            gone = Caller(tasks, pool)
            await settle()
            gone.scope.cancel()
            await settle()
            assert connector.dials[0].cancelled
            first = Caller(tasks, pool)
            second = Caller(tasks, pool)
            await settle()
            called_off.set()
            await settle()
            connector.pending[0].succeed()
            await settle()
            served, refused = (first, second) if second.error else (second, first)
            served.release()
            assert isinstance(refused.error, PoolFull), "one place serves one caller"


async def test_max_waiting_counts_live_callers_only() -> None:
    async with Pool(FakeConnector.always(), max_size=1, max_waiting=1) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            for _ in range(100):
                caller = Caller(tasks, pool)
                await settle()
                caller.scope.cancel()
                await settle()
                assert caller.cancelled
            check_invariants(pool)
            handle.release()


# --- max_uses, max_lifetime, idle_timeout ---------------------------------------------------------


async def test_a_connection_is_closed_after_max_uses() -> None:
    ends, connector = Ends(), FakeConnector.always()
    async with Pool(connector, max_uses=3, on_event=ends) as pool:
        numbers = [(await use(pool)).number for _ in range(7)]
        assert numbers == [1, 1, 1, 2, 2, 2, 3]
        await settle()
        assert ends.reasons == [CloseReason.USES] * 2


async def test_a_held_connection_past_its_lifetime_is_closed_on_release() -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector.always(), max_lifetime=100, lifetime_jitter=0, on_event=ends, clock=clock) as pool:
        async with pool.get() as connection:
            await clock.advance(150)
            assert not connection.closes
        await settle()
        assert ends.reasons == [CloseReason.LIFETIME]


async def test_an_idle_connection_is_closed_the_moment_its_lifetime_ends() -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector.always(), max_lifetime=100, lifetime_jitter=0, on_event=ends, clock=clock) as pool:
        await use(pool)
        await clock.advance(50)
        connection = await use(pool)
        await clock.advance(49.9)
        assert not connection.closes
        await clock.advance(0.1)
        assert ends.reasons == [CloseReason.LIFETIME]
        assert pool.statistics().size == 0


async def test_lifetimes_end_up_to_the_jitter_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.0, 0.5, 0.999])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, max_lifetime=100, lifetime_jitter=0.2, clock=clock) as pool:
        await prove_capacity(pool, 3)
        ends: list[float] = []
        for _ in range(400):
            await clock.advance(0.25)
            ends += [clock.now() - 1000.0] * (3 - len(ends) - len(connector.open))
    assert ends == [pytest.approx(80.25), pytest.approx(90.0), pytest.approx(100.0)]


async def test_an_idle_connection_is_closed_after_idle_timeout() -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector.always(), idle_timeout=60, on_event=ends, clock=clock) as pool:
        await use(pool)
        await clock.advance(59.9)
        assert pool.statistics().idle == 1
        await clock.advance(0.1)
        assert ends.reasons == [CloseReason.IDLE]
        assert pool.statistics().size == 0
        check_invariants(pool)


async def test_use_puts_off_idle_timeout() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), idle_timeout=60, clock=clock) as pool:
        for _ in range(10):
            assert (await use(pool)).number == 1
            await clock.advance(50)


async def test_the_oldest_idle_connections_expire_first() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, idle_timeout=60, clock=clock) as pool:
        await prove_capacity(pool, 3)
        await clock.advance(30)
        used = await use(pool)
        await clock.advance(30)
        assert connector.open == [used]


async def test_idle_connections_of_a_pool_without_idle_timeout_stay() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), idle_timeout=None, clock=clock) as pool:
        await use(pool)
        await clock.advance(1e9)
        assert pool.statistics().idle == 1


class StuckClock(ManualClock):
    """Its time moves by `jump`, but nobody who sleeps is woken: a timer that comes late."""

    def jump(self, seconds: float) -> None:
        self._now += seconds


async def test_what_has_expired_is_not_handed_out_even_if_the_timer_is_late() -> None:
    clock, ends = StuckClock(), Ends()
    async with Pool(FakeConnector.always(), idle_timeout=60, close=lambda _: None, on_event=ends, clock=clock) as pool:
        await use(pool)
        clock.jump(61)
        assert (await use(pool)).number == 2
        await settle()
        assert ends.reasons == [CloseReason.IDLE]


async def test_a_connection_past_its_lifetime_is_not_handed_out_even_if_the_timer_is_late() -> None:
    clock = StuckClock()
    async with Pool(FakeConnector.always(), max_lifetime=60, clock=clock) as pool:
        await use(pool)
        clock.jump(61)
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        assert (await use(pool)).number == 2


# --- the race -----------------------------------------------------------------------------------


async def test_with_a_race_delay_a_release_in_time_spares_the_dial() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, race_delay=0.5, clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await clock.advance(0.4)
        assert caller.waits
        handle.release()
        await settle()
        assert caller.connection.number == 1
        await clock.advance(1)
        assert len(connector.dials) == 1
        caller.release()


async def test_after_the_race_delay_a_dial_starts() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, race_delay=0.5, clock=clock) as pool, anyio.create_task_group() as tasks:
        handle = await pool.get()
        caller = Caller(tasks, pool)
        await clock.advance(0.4)
        check_invariants(pool)
        assert len(connector.dials) == 1
        await clock.advance(0.1)
        assert caller.connection.number == 2
        check_invariants(pool)
        handle.release()
        caller.release()


async def test_a_delayed_dial_is_not_forgotten_when_something_else_expires_before() -> None:
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, race_delay=5, clock=clock) as pool, anyio.create_task_group() as tasks:
        holder, slow = Caller(tasks, pool), Caller(tasks, pool)
        await settle()
        assert slow.handle is not None
        slow.connection.on_close = Fault.HANG
        slow.handle.discard()
        await clock.advance(2)
        caller = Caller(tasks, pool)
        await clock.advance(3)  # the close is given up
        assert pool.statistics().closed == 1
        assert caller.waits
        await clock.advance(2)
        assert caller.connection.number == 3
        caller.release()
        holder.release()


async def test_the_race_delay_is_not_waited_for_where_no_release_can_come() -> None:
    async with Pool(FakeConnector.always(), race_delay=60, clock=ManualClock()) as pool:
        assert (await use(pool)).number == 1


async def test_the_race_delay_ends_when_the_last_connection_that_could_come_back_is_taken_out() -> None:
    async with Pool(FakeConnector.always(), race_delay=60, clock=ManualClock()) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            caller = Caller(tasks, pool)
            await settle()
            assert caller.waits
            await handle.take().aclose()
            await settle()
            assert caller.connection.number == 2
            handle.release()
            caller.release()


@pytest.mark.parametrize("winner", ["release", "dial"])
async def test_whichever_comes_first_wins_and_the_other_is_kept(winner: str) -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool, anyio.create_task_group() as tasks:
        holder = Caller(tasks, pool)
        (await connector.next_dial()).succeed()
        await settle()
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        if winner == "release":
            holder.release()
        else:
            dial.succeed()
        await settle()
        assert caller.connection.number == (1 if winner == "release" else 2)
        if winner == "release":
            dial.succeed()
        else:
            holder.release()
        await settle()
        assert pool.statistics().idle == 1
        check_invariants(pool)
        caller.release()
        assert len(connector.dials) == 2
    assert pool.statistics().dials_won == (1 if winner == "release" else 2)


async def test_a_dial_whose_caller_was_cancelled_serves_the_next() -> None:
    connector = FakeConnector()
    async with Pool(connector) as pool, anyio.create_task_group() as tasks:
        gone = Caller(tasks, pool)
        dial = await connector.next_dial()
        gone.scope.cancel()
        await settle()
        assert dial.pending
        caller = Caller(tasks, pool)
        await settle()
        assert len(connector.dials) == 1
        dial.succeed()
        await settle()
        assert caller.connection.number == 1
        caller.release()


async def test_a_dial_that_nobody_waits_for_is_cancelled_after_its_grace() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, abandoned_dial_grace=2, clock=clock) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        caller.scope.cancel()
        await clock.advance(1.9)
        assert dial.pending
        await clock.advance(0.1)
        assert dial.cancelled
        assert pool.statistics().dials_abandoned == 1
        assert pool.statistics().size == 0
        check_invariants(pool)


async def test_the_grace_does_not_extend_connect_timeout() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, connect_timeout=3, clock=clock) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        await clock.advance(1)
        caller.scope.cancel()
        await clock.advance(2)
        assert dial.cancelled


async def test_a_dial_adopted_within_its_grace_goes_on_to_its_connect_timeout() -> None:
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, abandoned_dial_grace=2, clock=clock) as pool, anyio.create_task_group() as tasks:
        gone = Caller(tasks, pool)
        dial = await connector.next_dial()
        gone.scope.cancel()
        await clock.advance(1)
        caller = Caller(tasks, pool)
        await clock.advance(5)
        assert dial.pending
        dial.succeed()
        await settle()
        caller.release()


async def test_a_dial_whose_caller_is_served_before_its_task_begins_is_not_started() -> None:
    def release_at_once(event: PoolEvent) -> None:
        if isinstance(event, GetWaiting) and handles:
            handles.pop().release()

    handles: list[Pooled[FakeConnection]] = []
    connector = FakeConnector.always()
    async with Pool(connector, on_event=release_at_once) as pool:
        handles.append(await pool.get())
        assert (await use(pool)).number == 1
        await settle()
        assert len(connector.dials) == 1
        assert pool.statistics().dials_abandoned == 1
        check_invariants(pool)


async def test_a_dial_over_max_idle_that_nobody_waits_for_is_closed() -> None:
    connector, ends = FakeConnector(), Ends()
    async with Pool(connector, max_idle=0, on_event=ends) as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        dial = await connector.next_dial()
        caller.scope.cancel()
        await settle()
        connection = dial.succeed()
        await settle()
        assert connection.closes == 1
        assert ends.reasons == [CloseReason.SURPLUS]
        assert pool.statistics().dials_spare_wasted == 1


# --- acquire_timeout, fairness ------------------------------------------------------------------------


async def test_callers_are_served_in_the_order_of_their_arrival() -> None:
    async with Pool(FakeConnector.always(), max_size=1) as pool, anyio.create_task_group() as tasks:
        handle: Any = await pool.get()
        callers = []
        for _ in range(4):
            callers.append(Caller(tasks, pool))
            await settle()
        for caller in callers:
            assert caller.waits
            handle.release()
            await settle()
            assert caller.handle is not None
            handle = caller
        handle.release()


async def test_without_an_acquire_timeout_a_caller_waits_for_ever() -> None:
    clock = ManualClock()
    async with Pool(FakeConnector.always(), max_size=1, acquire_timeout=None, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            handle = await pool.get()
            caller = Caller(tasks, pool)
            await clock.advance(1e6)
            assert caller.waits
            handle.release()
            await settle()
            caller.release()


async def test_the_loops_own_clock_keeps_acquire_timeout_too() -> None:
    async with Pool(FakeConnector(), acquire_timeout=0.001) as pool:
        with pytest.raises(PoolTimeout, match=r"acquire_timeout=0\.001 s"):
            await pool.get()
