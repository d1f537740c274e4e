"""Every wrong argument is refused at once, by its name and with its value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from wspool import Pool
from wspool.testing import FakeConnection, FakeConnector, check_invariants

COUNTS_FROM_ONE = ["max_size", "max_connecting", "max_uses"]
COUNTS_FROM_ZERO = ["max_idle", "min_idle", "max_waiting"]
TIMES_FROM_ZERO = ["race_delay", "abandoned_dial_grace", "validate_bypass_interval"]
TIMES_OR_NONE = ["acquire_timeout", "connect_timeout", "idle_timeout", "max_lifetime", "validate_interval"]
TIMES = ["validate_timeout", "reset_timeout", "close_timeout"]
HOOKS = ["is_reusable", "validate", "reset", "close", "on_event"]
NOT_NONE = ["min_idle", "lifetime_jitter", *TIMES_FROM_ZERO, *TIMES]


def new_pool(**arguments: Any) -> Pool[FakeConnection]:
    return Pool(FakeConnector(), **arguments)


def refused(error: type[Exception], text: str, **arguments: Any) -> None:
    with pytest.raises(error, match=re.escape(text) + "$"):
        new_pool(**arguments)


@pytest.mark.parametrize("name", COUNTS_FROM_ONE)
@pytest.mark.parametrize("value", [0, -1])
def test_a_count_of_what_must_exist_is_at_least_one(name: str, value: int) -> None:
    refused(ValueError, f"{name} must be at least 1, got {value}", **{name: value})
    new_pool(**{name: 1})


@pytest.mark.parametrize("name", COUNTS_FROM_ZERO)
def test_other_counts_are_not_negative(name: str) -> None:
    refused(ValueError, f"{name} must be at least 0, got -1", **{name: -1})
    new_pool(**{name: 0})


@pytest.mark.parametrize("name", [*COUNTS_FROM_ONE, *COUNTS_FROM_ZERO])
@pytest.mark.parametrize("value", [1.0, "1", True, math.inf], ids=repr)
def test_a_count_is_a_whole_number(name: str, value: object) -> None:
    or_none = "" if name in NOT_NONE else " or None"
    refused(TypeError, f"{name} must be a whole number{or_none}, got {value!r}", **{name: value})


@pytest.mark.parametrize("name", [*TIMES, *TIMES_OR_NONE])
@pytest.mark.parametrize("value", [0, -1.5, math.nan])
def test_a_time_limit_is_more_than_nothing(name: str, value: float) -> None:
    refused(ValueError, f"{name} must be more than 0 seconds, got {value}", **{name: value})
    new_pool(**{name: 0.001})


@pytest.mark.parametrize("name", TIMES_FROM_ZERO)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_delay_is_finite_and_not_negative(name: str, value: float) -> None:
    refused(ValueError, f"{name} must be a finite number of seconds from 0, got {value}", **{name: value})
    new_pool(**{name: 0})


@pytest.mark.parametrize("name", [*TIMES, *TIMES_OR_NONE, *TIMES_FROM_ZERO, "lifetime_jitter"])
@pytest.mark.parametrize("value", ["1", True, 1j], ids=repr)
def test_a_time_is_a_number(name: str, value: object) -> None:
    or_none = "" if name in NOT_NONE else " or None"
    refused(TypeError, f"{name} must be a number{or_none}, got {value!r}", **{name: value})


@pytest.mark.parametrize("name", NOT_NONE)
def test_none_is_refused_where_no_limit_would_mean_nothing(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be a (whole )?number, got None"):
        new_pool(**{name: None})


@pytest.mark.parametrize("name", [*TIMES_OR_NONE, "max_size", "max_idle", "max_connecting", "max_waiting", "max_uses"])
def test_none_means_no_limit(name: str) -> None:
    new_pool(**{name: None})


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_the_lifetime_jitter_is_a_part_of_one(value: float) -> None:
    refused(ValueError, f"lifetime_jitter must be from 0 up to below 1, got {value}", lifetime_jitter=value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"min_idle": 3, "max_idle": 2}, "min_idle must not exceed max_idle, got 3 > 2"),
        ({"min_idle": 3, "max_size": 2}, "min_idle must not exceed max_size, got 3 > 2"),
        ({"max_idle": 3, "max_size": 2}, "max_idle must not exceed max_size, got 3 > 2"),
        ({"min_idle": 3, "max_idle": 2, "max_size": None}, "min_idle must not exceed max_idle, got 3 > 2"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(arguments: dict[str, Any], text: str) -> None:
    refused(ValueError, text, **arguments)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_must_be_callable(hook: str) -> None:
    refused(TypeError, f"{hook} must be callable, got 42", **{hook: 42})


@pytest.mark.parametrize("connect", [None, 42, "connect"])
def test_connect_must_be_callable(connect: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"connect must be callable, got {connect!r}")):
        Pool(connect)


def test_the_connect_of_one_get_must_be_callable() -> None:
    with pytest.raises(TypeError, match="connect must be callable, got 42"):
        new_pool().get(connect=42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="max_sise"):
        new_pool(max_sise=1)


@pytest.mark.parametrize("value", [-1, math.nan])
async def test_the_grace_of_aclose_is_not_negative(value: float) -> None:
    async with new_pool() as pool:
        with pytest.raises(ValueError, match=f"grace must be a number of seconds from 0, got {value}"):
            await pool.aclose(grace=value)
        pool.clear()  # it is open still


@pytest.mark.parametrize("value", [None, "5", 1j], ids=repr)
async def test_the_grace_of_aclose_is_a_number(value: Any) -> None:
    async with new_pool() as pool:
        with pytest.raises(TypeError, match="grace must be a number"):
            await pool.aclose(grace=value)
        pool.clear()


@pytest.mark.parametrize("clock", [42, object()], ids=["number", "object"])
def test_a_clock_must_be_one(clock: Any) -> None:
    with pytest.raises(TypeError, match="clock must"):
        new_pool(clock=clock)


def test_a_name_is_a_text() -> None:
    with pytest.raises(TypeError, match="name must be a string or None, got 42"):
        new_pool(name=42)


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (ValueError, "max_size must be at least 1, got 0", {"max_size": 0}),
        (ValueError, "max_idle must not exceed max_size, got 11 > 10", {"max_idle": 11}),
        (ValueError, "min_idle must not exceed max_idle, got 6 > 5", {"min_idle": 6}),
        (TypeError, "min_idle must be a whole number, got None", {"min_idle": None}),
        (TypeError, "max_size must be a whole number or None, got 2.5", {"max_size": 2.5}),
    ],
)
async def test_a_refused_resize_changes_nothing(error: type[Exception], text: str, arguments: dict[str, Any]) -> None:
    async with new_pool(max_size=10, max_idle=5) as pool:
        with pytest.raises(error, match=text):
            pool.resize(**arguments)
        figures = pool.statistics()
        assert (figures.max_size, figures.max_idle, figures.min_idle) == (10, 5, 0)
        check_invariants(pool)


async def connect_to_toys() -> FakeConnection:
    return FakeConnection()


class Connector:
    async def __call__(self) -> FakeConnection:
        return FakeConnection()

    def __repr__(self) -> str:
        return "<a connector>"


@pytest.mark.parametrize(
    ("connect", "name"),
    [(connect_to_toys, "pool of connect_to_toys"), (Connector(), "pool of <a connector>")],
    ids=["function", "object"],
)
def test_without_a_name_a_pool_is_called_after_its_connect(connect: Callable[[], Any], name: str) -> None:
    assert Pool(connect).name == name
    assert Pool(connect, name="toys").name == "toys"


@pytest.mark.parametrize("name", ["acquire_timeout", "race_delay", "max_lifetime"])
def test_a_time_is_one_that_a_float_can_hold(name: str) -> None:
    arguments: dict[str, Any] = {name: 10**400}
    with pytest.raises(ValueError, match=f"{name} must be a number that a float can hold"):
        Pool(FakeConnector(), **arguments)
