"""A dial that failed leaves a trace: with the caller who waits for it, else in the log, always in the statistics."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.pool.caller import Caller, Ends
from wspool import DialEnd, Pool, PoolTimeout
from wspool._explain import describe
from wspool.testing import FakeConnection, FakeConnector, ManualClock, check_invariants, settle

TOO_SLOW = "connect did not finish within 10 s (connect_timeout)"


def last_error(pool: Pool[Any]) -> BaseException:
    error = pool.statistics().last_dial_error
    assert error is not None
    return error


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since the last call."""
    logged = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return logged


def refusing(why: str) -> Callable[[], FakeConnection]:
    def refuse() -> FakeConnection:
        raise ConnectionRefusedError(why)

    return refuse


# --- connect_timeout ----------------------------------------------------------------------------


async def test_a_dial_that_took_too_long_is_told_though_nobody_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector(), min_idle=1, on_event=ends, name="toys", clock=clock) as pool:
        await clock.advance(10)
        error = last_error(pool)
        assert isinstance(error, TimeoutError)
        assert str(error) == TOO_SLOW
        assert [(event.reason, event.error) for event in ends.seen] == [(DialEnd.TIMEOUT, error)]
        assert lines(caplog) == [
            f"WARNING toys: connect failed in the background: {TOO_SLOW}; the same again is logged at level DEBUG"
        ]
        check_invariants(pool)


async def test_a_peer_that_swallows_packets_is_not_dialled_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)  # no jitter
    clock, connector = ManualClock(), FakeConnector()
    async with Pool(connector, min_idle=2, clock=clock) as pool:
        for pause in (0.1, 0.2, 0.4, 0.8):
            await settle()
            assert len(connector.pending) == 2
            await clock.advance(10)
            assert not connector.pending
            check_invariants(pool)
            until_next = min(clock.deadlines) - clock.now()
            assert until_next == pytest.approx(pause)
            await clock.advance(until_next)


async def test_a_caller_whose_own_time_ends_with_that_of_its_dial_is_told_why(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    async with (
        Pool(FakeConnector(), max_size=1, acquire_timeout=10, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        first = Caller(tasks, pool)
        await settle()
        second = Caller(tasks, pool)
        await clock.advance(10)
        for caller, limit in ((first, "connect_timeout"), (second, "acquire_timeout")):
            assert isinstance(caller.error, PoolTimeout)
            assert f"no connection after 10 s ({limit}=10 s)" in caller.text
            assert TOO_SLOW in caller.text
            assert caller.error.__cause__ is last_error(pool)
        check_invariants(pool)
    assert not caplog.records, "its caller was told"


async def test_what_connect_raises_when_its_time_is_over_is_the_cause() -> None:
    clock, ends, better = ManualClock(), Ends(), ConnectionError("no answer to the client hello")

    async def connect() -> FakeConnection:
        try:
            await anyio.sleep_forever()
        except BaseException:
            raise better from None
        raise AssertionError

    async with (
        Pool(connect, on_event=ends, clock=clock) as pool,
        anyio.create_task_group() as tasks,
    ):
        caller = Caller(tasks, pool)
        await clock.advance(10)
        assert isinstance(caller.error, PoolTimeout)
        error = last_error(pool)
        assert caller.error.__cause__ is error
        assert error.__cause__ is better
        assert [event.error for event in ends.seen] == [error]
        assert pool.statistics().dials_failed == 1
        check_invariants(pool)


async def test_a_dial_that_reaches_its_limit_within_its_grace_took_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """Its caller had less time than it, and cannot be told any more."""
    clock, ends = ManualClock(), Ends()
    async with Pool(FakeConnector(), acquire_timeout=8, on_event=ends, clock=clock) as pool:
        async with anyio.create_task_group() as tasks:
            Caller(tasks, pool)
            await clock.advance(10)
        assert [event.reason for event in ends.seen] == [DialEnd.TIMEOUT]
        assert TOO_SLOW in caplog.text
        figures = pool.statistics()
        assert (figures.dials_failed, figures.dials_abandoned) == (1, 0)
        check_invariants(pool)


# --- the log ------------------------------------------------------------------------------------

DOWN = "toys: connect failed in the background: no room at the inn; the same again is logged at level DEBUG"


async def test_a_server_that_is_down_is_one_warning_and_one_line_for_debugging_each_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "wspool")
    clock, connector = ManualClock(), FakeConnector(refusing("no room at the inn"))
    async with Pool(connector, min_idle=3, name="toys", clock=clock) as pool:
        await settle()
        assert lines(caplog) == [f"WARNING {DOWN}"]
        for dialled in (6, 9, 12):
            await clock.advance(min(clock.deadlines) - clock.now())
            assert len(connector.dials) == dialled
            assert lines(caplog) == [f"DEBUG {DOWN}"]
        check_invariants(pool)


async def test_another_cause_is_a_warning_again(caplog: pytest.LogCaptureFixture) -> None:
    clock, connector = ManualClock(), FakeConnector(refusing("no room at the inn"))
    async with Pool(connector, min_idle=2, name="toys", clock=clock):
        await settle()
        assert lines(caplog) == [f"WARNING {DOWN}"]
        connector.answer = refusing("the inn has burned down")
        await clock.advance(0.1)
        assert lines(caplog) == [f"WARNING {DOWN.replace('no room at the inn', 'the inn has burned down')}"]


async def test_a_server_that_is_up_again_is_one_line_and_its_next_trouble_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wspool")
    clock, connector = ManualClock(), FakeConnector.always()
    async with Pool(connector, min_idle=2, name="toys", clock=clock) as pool:
        await settle()
        assert lines(caplog) == [], "it works, and has worked"
        for _ in range(2):
            connector.answer = refusing("no room at the inn")
            pool.clear()
            await settle()
            assert lines(caplog) == [f"WARNING {DOWN}"]
            connector.answer = connector.new_connection
            await clock.advance(0.1)
            assert pool.statistics().idle == 2
            assert lines(caplog) == ["INFO toys: connect works again"]


async def test_a_dial_that_nobody_waits_for_is_logged_though_a_caller_was_told_of_another_in_its_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connector = FakeConnector()
    async with Pool(connector, name="toys") as pool, anyio.create_task_group() as tasks:
        caller = Caller(tasks, pool)
        await settle()
        pool.resize(min_idle=2)
        await settle()
        for dial in connector.pending:
            dial.fail(ConnectionRefusedError("no room at the inn"))
            await settle()
        assert len(connector.dials) == 3
        assert caller.text == "no room at the inn"
        assert lines(caplog) == [f"WARNING {DOWN}"]


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (ValueError("no room at the inn"), "no room at the inn"),
        (KeyError("host"), "KeyError('host')"),
        (TimeoutError(), "TimeoutError()"),
        (Mute("no room at the inn"), "Mute()"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_in_its_own_words_or_by_name_if_it_has_too_few(error: Exception, words: str) -> None:
    assert describe(error) == words


async def test_an_error_that_cannot_tell_its_text_does_not_disturb_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> FakeConnection:
        raise Mute

    async with Pool(FakeConnector(refuse), min_idle=1) as pool:
        await settle()
        assert isinstance(last_error(pool), Mute)
        assert "in the background: Mute()" in caplog.text
        check_invariants(pool)
