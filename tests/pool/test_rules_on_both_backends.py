"""The rules of the pool hold through the real pool at every step, and no event loop makes a difference.

Hypothesis writes a script: what callers, dials, hooks, peers and the clock do, one step after the other. It is
performed on each event loop, and after each step everything that can be seen is written down: the events, what became
of each caller, all figures, the timers, the closes. The rules are checked in each step, and the records must be equal.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeAlias
from unittest.mock import patch

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import example, given, strategies as st

from tests.event_loops import eager_loop
from wspool import Pool, PoolClosed, Pooled, PoolEvent
from wspool.testing import FakeConnection, FakeConnector, FakeDial, Fault, ManualClock, check_invariants, settle

FakePool: TypeAlias = Pool[FakeConnection]
Act: TypeAlias = tuple[str, int]
"""What happens, and to which of those that it can happen to."""
Moment: TypeAlias = list[Act]
"""Acts between which no task gets to run."""
Record: TypeAlias = dict[str, Any]

HOOK_FAULTS: list[tuple[str, Any]] = [
    ("on_validate", False),
    ("on_validate", ConnectionResetError("validate, by the script")),
    ("on_validate", Fault.HANG),
    ("on_reset", ConnectionResetError("reset, by the script")),
    ("on_reset", Fault.HANG),
    ("on_close", ConnectionResetError("close, by the script")),
    ("on_close", Fault.HANG),
]
PAUSES = [0.05, 0.1, 0.5, 1.0, 5.0, 40.0]
LONG_ENOUGH = 100.0
"""For every time limit of every script to come."""


def _subject(event: str) -> str:
    """What an event is about. The order of those about different connections is the scheduler's, and trio draws it."""
    found = re.search(r"FakeConnection \d+|dial=\d+", event)
    return found[0] if found else ""


class Mishap(Exception):
    """What goes wrong in a user's block."""


@dataclass
class User:
    """One get, and what became of it."""

    number: int
    state: str = "waits"
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    pooled: Pooled[FakeConnection] | None = None
    """The handle of one that holds it by hand."""
    taken: FakeConnection | None = None
    leave: anyio.Event | None = None
    """Ends the block of one that uses a block."""
    mishap: bool = False
    connection: int = 0

    def seen(self) -> tuple[int, str, int]:
        return self.number, self.state, self.connection

    @property
    def holds(self) -> bool:
        return self.state == "holds"


class Performance:
    """One performance of a script."""

    def __init__(self, settings: dict[str, Any], *, validate: bool, reset: bool) -> None:
        self.clock = ManualClock()
        self.connector = FakeConnector()
        self.users: list[User] = []
        self.events: list[str] = []
        self.records: list[Record] = []
        self.out: set[int] = set()
        """Numbers of the connections that were taken and not put back."""
        self.old: set[int] = set()
        """Numbers of the connections from before the last clear, and of those whose dial was."""
        self.old_dials: list[FakeDial] = []
        self.closing = False
        self.pool: FakePool = Pool(
            self.connector,
            clock=self.clock,
            on_event=self.observe,
            validate=FakeConnection.validate if validate else None,
            reset=FakeConnection.reset if reset else None,
            name="the pool",
            **settings,
        )
        self.tasks: TaskGroup

    def observe(self, event: PoolEvent) -> None:
        self.events.append(repr(event))

    # --- users ------------------------------------------------------------------------------------------------------

    async def hold_by_hand(self, user: User) -> None:
        user.pooled = await self.pool.get()
        self.arrive(user, user.pooled.connection)

    async def use_a_block(self, user: User) -> None:
        leave = user.leave = anyio.Event()
        # One connector serves all, so that the script can answer each dial: only the way there is another.
        async with self.pool.get(connect=self.connector.__call__) as connection:
            self.arrive(user, connection)
            await leave.wait()
            if user.mishap:
                raise Mishap

    def arrive(self, user: User, connection: FakeConnection) -> None:
        user.state, user.connection = "holds", connection.number
        assert connection.number not in self.old, f"S19: {connection} is from before clear()"
        assert connection.alive, f"S10: {connection} was handed out dead"
        connection.use(user)

    async def _run(self, get: Callable[[User], Any], user: User) -> None:
        try:
            with user.scope:
                await get(user)
        except (Mishap, Exception) as error:
            if isinstance(error, AssertionError):
                raise
            user.state = f"raised {type(error).__name__}: {error}"
            assert "this task holds" not in user.state, f"A3: no user of these gets twice: {user}"
            self.leave(user)
            return
        if user.scope.cancelled_caught:
            user.state = "was cancelled"
        elif user.pooled is None:
            user.state = "was served"
        if user.pooled is None:
            self.leave(user)

    def leave(self, user: User) -> None:
        if user.connection:
            self.connector.connections[user.connection - 1].leave()

    # --- acts -------------------------------------------------------------------------------------------------------

    def perform(self, moment: Moment) -> None:
        """Whom the acts meet is settled before the first of them; new users come last, after all else of the moment."""
        for act in sorted(self._cast(moment), key=lambda act: act[0]):
            act[1]()

    def _cast(self, moment: Moment) -> list[tuple[bool, Callable[[], object]]]:
        casts: list[tuple[bool, Callable[[], object]]] = []
        used: set[int] = set()
        for name, number in moment:
            candidates = [one for one in self._candidates(name) if id(one) not in used]
            if candidates:
                one = candidates[number % len(candidates)]
                if isinstance(one, User | FakeDial):
                    used.add(id(one))
                casts.append((name == "get", partial(getattr(self, f"do_{name}"), one)))
        return casts

    def _candidates(self, name: str) -> list[Any]:
        by_hand = [user for user in self.users if user.holds and user.pooled is not None and user.taken is None]
        in_blocks = [user for user in self.users if user.holds and user.pooled is None]
        emptied = [user for user in self.users if user.taken is not None]
        choices: dict[str, list[Any]] = {
            "get": [self.hold_by_hand, self.hold_by_hand, self.use_a_block],
            "get_nowait": [None],
            "cancel": [user for user in self.users if user.state == "waits"] + in_blocks,
            "release": by_hand + in_blocks,
            "discard": by_hand,
            "mishap": in_blocks,
            "take": by_hand,
            "insert": emptied,
            "insert_another": emptied,
            "release_place": emptied,
            "dial_succeeds": self.connector.pending,
            "dial_fails": self.connector.pending,
            "death": [connection for connection in self.connector.open if connection.number not in self.out],
            "fault": [(connection, *fault) for connection in self.connector.open for fault in HOOK_FAULTS],
            "clear": [None],
            "resize": [1, 2, 3],
            "close": [0.0, 0.5, 5.0],
        }
        return choices[name]

    def do_get(self, get: Callable[[User], Any]) -> None:
        user = User(len(self.users) + 1)
        self.users.append(user)
        self.tasks.start_soon(self._run, get, user, name=f"user {user.number}")

    def do_get_nowait(self, _: None) -> None:
        user = User(len(self.users) + 1)
        self.users.append(user)
        try:
            user.pooled = self.pool.get_nowait()
        except (anyio.WouldBlock, PoolClosed) as error:
            user.state = f"raised {type(error).__name__}"
        else:
            self.arrive(user, user.pooled.connection)

    def do_cancel(self, user: User) -> None:
        user.scope.cancel()

    def do_release(self, user: User) -> None:
        if user.leave is not None:
            user.leave.set()
            return
        self._let_go(user, "released")
        assert user.pooled is not None
        user.pooled.release()

    def do_discard(self, user: User) -> None:
        self._let_go(user, "discarded")
        assert user.pooled is not None
        user.pooled.discard()

    def _let_go(self, user: User, state: str) -> None:
        user.state = state
        self.leave(user)

    def do_mishap(self, user: User) -> None:
        assert user.leave is not None
        user.mishap = True
        user.leave.set()

    def do_take(self, user: User) -> None:
        assert user.pooled is not None
        try:
            user.taken = user.pooled.take()
        except PoolClosed:
            self.do_release(user)
            return
        self.out.add(user.taken.number)
        self._let_go(user, "took")

    def do_insert(self, user: User) -> None:
        assert user.taken is not None
        if user.taken.alive:
            self._insert(user, user.taken)

    def do_insert_another(self, user: User) -> None:
        self._insert(user, self.connector.new_connection())

    def _insert(self, user: User, connection: FakeConnection) -> None:
        assert user.pooled is not None
        self.out.add(connection.number)
        try:
            user.pooled.insert(connection)
        except PoolClosed:
            return
        self.out.remove(connection.number)
        self.old.discard(connection.number)
        user.taken = None
        self.arrive(user, connection)

    def do_release_place(self, user: User) -> None:
        assert user.pooled is not None
        user.state, user.taken = "released the place", None
        user.pooled.release()

    def do_dial_succeeds(self, dial: FakeDial) -> None:
        connection = dial.succeed()
        if dial in self.old_dials:
            self.old.add(connection.number)

    def do_dial_fails(self, dial: FakeDial) -> None:
        dial.fail()

    def do_death(self, connection: FakeConnection) -> None:
        connection.die()

    def do_fault(self, fault: tuple[FakeConnection, str, Any]) -> None:
        connection, hook, what = fault
        setattr(connection, hook, what)

    def do_clear(self, _: None) -> None:
        self.pool.clear()
        self.old.update(connection.number for connection in self.connector.connections)
        self.old_dials += self.connector.pending

    def do_resize(self, size: int) -> None:
        self.pool.resize(max_size=size)

    def do_close(self, grace: float) -> None:
        self.closing = True
        self.tasks.start_soon(lambda: self.pool.aclose(grace=grace), name="closer")

    # --- the script -------------------------------------------------------------------------------------------------

    async def run(self, script: list[Moment]) -> list[Record]:
        async with self.pool, anyio.create_task_group() as self.tasks:
            try:
                await self._step([])
                for moment in script:
                    await self._step(moment)
                await self._end()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.pool.aclose(grace=0)  # this clock stands still: any grace would be eternal
        await self._step([])
        for connection in self.connector.connections:
            expected = 0 if connection.number in self.out else 1
            assert connection.closes == expected, f"S2: {connection} was closed {connection.closes} times"
        return self.records

    async def _step(self, moment: Moment) -> None:
        waited = [user for user in self.users if user.state == "waits"]
        pauses = [act for act in moment if act[0] == "pause"]
        self.perform([act for act in moment if act[0] != "pause"])
        for _, number in pauses:
            await self.clock.advance(PAUSES[number % len(PAUSES)])
        await settle()
        check_invariants(self.pool)
        self._check_order(waited)
        self.records.append(self._record(moment))

    def _check_order(self, waited: list[User]) -> None:
        """L2: of two who waited, the one who came first is served first."""
        still_waits = False
        for user in waited:
            still_waits |= user.state == "waits"
            assert not (still_waits and user.holds), f"L2: {user} was served before one who came earlier"

    def _record(self, moment: Moment) -> Record:
        figures = asdict(self.pool.statistics())
        figures["last_dial_error"] = repr(figures["last_dial_error"])
        record: Record = {
            "moment": moment,
            "events": sorted(self.events, key=_subject),
            "users": [user.seen() for user in self.users],
            "figures": figures,
            "deadlines": self.clock.deadlines,
            "dials": [(dial.pending, dial.cancelled) for dial in self.connector.dials],
            "closes": [connection.closes for connection in self.connector.connections],
        }
        self.events = []
        return record

    async def _end(self) -> None:
        """All let go; then, if the pool was not closed, all that it is for is still there (L12)."""
        for user in self.users:
            if user.state == "waits":
                self.do_cancel(user)
        await self._step([])
        for user in self.users:
            if user.taken is not None:
                self.do_release_place(user)
            elif user.holds:
                self.do_release(user)
        self.connector.answer = self.connector.new_connection
        for dial in self.connector.pending:
            dial.fail()
        for connection in self.connector.open:
            connection.on_validate = connection.on_reset = connection.on_close = None
        await self._step([("pause", len(PAUSES) - 1)])
        await self.clock.advance(LONG_ENOUGH)
        await self._step([])
        figures = self.pool.statistics()
        left = figures.held + figures.reserved + figures.taken + figures.waiting
        assert left == 0, f"S2, S4: {figures}"
        if self.closing:
            assert figures.size == 0, f"L7: {figures}"
            return
        assert figures.max_size is not None
        for number in range(figures.max_size):
            await self._step([("get", 0)])
            await self._step([("pause", 2)])
            assert self.pool.statistics().held == number + 1, f"L12: {self.pool.statistics()}"
        for user in self.users:
            if user.holds:
                self.do_release(user)
        await self._step([])


# --- the event loops -----------------------------------------------------------------------------------------------


class LoadedDice(random.Random):
    """trio throws dice about the order of what is ready to run; these leave it in the order in which it came."""

    def random(self) -> float:
        return 0.0


LOOPS: dict[str, tuple[str, dict[str, Any]]] = {"asyncio": ("asyncio", {}), "trio": ("trio", {})}
if importlib.util.find_spec("uvloop") is not None:
    LOOPS["uvloop"] = ("asyncio", {"use_uvloop": True})


@dataclass(frozen=True)
class Play:
    """A script and the pool that it is for."""

    settings: dict[str, Any]
    validate: bool
    reset: bool
    script: list[Moment]

    def perform_on(self, backend: str, options: dict[str, Any]) -> list[Record]:
        random.seed(1)  # the pool draws its jitter there
        performance = Performance(self.settings, validate=self.validate, reset=self.reset)
        with patch.multiple("trio._core._run", _r=LoadedDice(), _ALLOW_DETERMINISTIC_SCHEDULING=False):
            return anyio.run(performance.run, self.script, backend=backend, backend_options=options)


@st.composite
def settings_of_pools(draw: st.DrawFn) -> dict[str, Any]:
    size = draw(st.integers(1, 3))
    idle = draw(st.sampled_from([None, None, 0, 1]))
    return {
        "max_size": size,
        "max_idle": idle,
        "min_idle": 0 if idle == 0 else draw(st.sampled_from([0, 0, 1])),
        "max_connecting": draw(st.sampled_from([None, None, 1])),
        "max_waiting": draw(st.sampled_from([None, None, None, 0, 1])),
        "idle_timeout": draw(st.sampled_from([600.0, 3.0])),
        "max_lifetime": draw(st.sampled_from([None, None, 20.0])),
        "max_uses": draw(st.sampled_from([None, None, 1, 2])),
        "race_delay": draw(st.sampled_from([0.0, 0.0, 0.3])),
        "abandoned_dial_grace": draw(st.sampled_from([5.0, 0.0])),
        "validate_bypass_interval": draw(st.sampled_from([0.0, 1.0])),
    }


ACTS = [
    *["get"] * 6,
    *["release"] * 3,
    *["dial_succeeds"] * 4,
    *["pause"] * 2,
    *["cancel"] * 2,
    *["get_nowait", "discard", "mishap", "take", "insert", "insert_another", "release_place"],
    *["dial_fails", "death", "fault", "clear", "resize"],
]
acts = st.tuples(st.sampled_from(ACTS), st.integers(0, 20))
moments = st.one_of(st.lists(acts, min_size=1, max_size=1), st.lists(acts, min_size=2, max_size=3))
ends = st.sampled_from([[], [], [], [[("close", 0)]], [[("close", 1)], [("pause", 1)]], [[("close", 2)]]])


@st.composite
def plays(draw: st.DrawFn, steps: st.SearchStrategy[Moment] = moments) -> Play:
    script = draw(st.lists(steps, min_size=5, max_size=40))
    script += draw(ends) + draw(st.lists(steps, max_size=3))
    return Play(draw(settings_of_pools()), draw(st.booleans()), draw(st.booleans()), script)


def assert_equal_records(expected: list[Record], got: list[Record], name: str) -> None:
    """As far as the schedulers leave it to the pool."""
    for step, (one, other) in enumerate(zip(expected, got, strict=True)):
        if {"clear", "cancel"} <= {act for act, _ in one["moment"]}:
            # Who was handed a connection, had it taken away and is cancelled, before it ran even once, leaves one round
            # of asyncio's loop later than on trio. A dial for it may have been counted by then, and is called off.
            return
        for what, value in one.items():
            assert other[what] == value, f"{what} on {name}, in step {step}, {one['moment']}"


@pytest.fixture(autouse=True, scope="module")
def _no_logs() -> Iterator[None]:
    """Of failures that were written into the script."""
    logger = logging.getLogger("wspool")
    logger.disabled = True
    yield
    logger.disabled = False


PLAIN = {"max_size": 1, "race_delay": 0.0, "validate_bypass_interval": 0.0}

# With max_waiting=0, and all places taken by an idle connection that had to be validated, everybody was turned away.
IDLE_BUT_UNCHECKED = Play({**PLAIN, "max_waiting": 0}, True, False, [[("get", 0)], [("dial_succeeds", 0)]])
# take() left nobody to wait for, but the next caller waited out its race_delay.
TAKEN_FROM_A_WAITER = Play(
    {**PLAIN, "max_size": 2, "race_delay": 0.3},
    False,
    False,
    [[("get", 0)], [("dial_succeeds", 0)], [("get", 0)], [("take", 0)]],
)
# The task that had got the connection had ended, and another at its address was accused of holding it.
HELD_FOR_AN_ENDED_TASK = Play(
    PLAIN, False, False, [[("get", 0)], [("dial_succeeds", 0)], [("get", 0)], [("get", 0)], [("pause", 5)]]
)
# Handed over, taken away and cancelled in one moment: each loop's own order, but the rules hold on both.
REVOKED_AND_CANCELLED = Play(
    PLAIN,
    False,
    False,
    [[("get", 0)], [("get", 0)], [("dial_succeeds", 0)], [("release", 0), ("clear", 0), ("cancel", 0)]],
)


@given(plays())
@example(IDLE_BUT_UNCHECKED)
@example(TAKEN_FROM_A_WAITER)
@example(HELD_FOR_AN_ENDED_TASK)
@example(REVOKED_AND_CANCELLED)
def test_the_rules_hold_in_each_step_and_no_event_loop_makes_a_difference(play: Play) -> None:
    records = {name: play.perform_on(*loop) for name, loop in LOOPS.items()}
    for name, record in records.items():
        assert_equal_records(records["asyncio"], record, name)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
@given(plays(st.lists(acts, min_size=1, max_size=1)))
def test_the_rules_hold_with_eager_tasks_and_they_make_no_difference(play: Play) -> None:
    """One act at a moment: an eager task runs between two acts of a moment, and others do not."""
    expected = play.perform_on("asyncio", {})
    assert_equal_records(expected, play.perform_on("asyncio", {"loop_factory": eager_loop}), "eager asyncio")
