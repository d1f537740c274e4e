"""Within small bounds, no order of events breaks an invariant, and every state can recover."""

from __future__ import annotations

import pytest

from wspool._entries import EntryState
from wspool._wait_queue import WaiterState

from .bounds import STATES, WORLDS, make_world
from .explore import Exploration, explore

# What time alone tells apart makes these worlds too large to visit whole; the others are.
_ENDLESS = {"everything and hooks", "time", "time, with checks and lifetimes", "time, with min_idle"}

_seen: dict[str, Exploration] = {}


@pytest.mark.parametrize("name", WORLDS)
def test_no_order_of_events_breaks_an_invariant_and_every_state_recovers(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = explore(lambda: make_world(name), limit=STATES)
    _seen[name] = seen
    with capsys.disabled():
        whole = "all" if seen.complete else "the nearest"
        print(f"\n  {name}: {whole} {seen.states} states, {seen.steps} steps")  # noqa: T201  # the count is a promise
    assert seen.complete or name in _ENDLESS or STATES < 4000


def test_the_transitions_seen_are_those_that_the_states_name() -> None:
    """The texts of EntryState and WaiterState, from which the documentation is made, are true."""
    if len(_seen) < len(WORLDS):
        pytest.skip("needs the exploration of all worlds in the same run")
    seen = set[tuple[str, str]]().union(*(one.transitions for one in _seen.values()))
    assert seen == _documented("Entry", EntryState) | _documented("Waiter", WaiterState)


def _documented(subject: str, states: type[EntryState | WaiterState]) -> set[tuple[str, str]]:
    pairs = set[tuple[str, str]]()
    for state in states:
        _, _, following = state.value.partition("Next: ")
        pairs |= {(f"{subject}.{state.name}", name) for name in following.rstrip(".").split(", ") if name}
    return pairs
