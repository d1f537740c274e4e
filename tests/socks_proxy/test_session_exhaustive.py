"""Within small bounds, no order of events breaks a rule of the tunnel, and every state can recover."""

from __future__ import annotations

import os
from typing import Any

import pytest

from examples.socks_proxy.session import End, TunnelState
from tests.pool_state.explore import Exploration, explore
from tests.socks_proxy.world import Bounds, World

WORLDS = {
    "one session, two items each way": Bounds(1, up=2, down=2),
    "two sessions": Bounds(2),
    "two sessions, data upwards": Bounds(2, down=0),
    "three sessions without data": Bounds(3, up=0, down=0),
    "two sessions, going away": Bounds(2, up=0, down=0, goaway=True),
    "one session, lost": Bounds(1, up=1, down=1, losses=True),
    "two sessions, late dials": Bounds(2, up=0, down=0, late_dials=True),
}
# Recovery costs ten times as much as the rest, and the smaller worlds have the same ways to recover.
_WITHOUT_RECOVERY = {"two sessions"}
LIMIT = int(os.environ.get("WSPOOL_TUNNEL_STATES", "20000"))

_seen: dict[str, Exploration] = {}


@pytest.mark.parametrize("name", WORLDS)
def test_no_order_of_events_breaks_a_rule_and_every_state_recovers(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make: Any = lambda: World(WORLDS[name])  # noqa: E731  # the explorer was made for another world, and asks no more
    seen = explore(make, limit=LIMIT, recover=name not in _WITHOUT_RECOVERY)
    _seen[name] = seen
    with capsys.disabled():
        print(f"\n  {name}: all {seen.states} states, {seen.steps} steps")  # noqa: T201  # the count is a promise
    assert seen.complete


def test_the_transitions_seen_are_those_that_the_states_name() -> None:
    if len(_seen) < len(WORLDS):
        pytest.skip("needs the exploration of all worlds in the same run")
    seen = set[tuple[str, str]]().union(*(one.transitions for one in _seen.values()))
    assert seen == _documented(End) | _documented(TunnelState)


def _documented(states: type[End | TunnelState]) -> set[tuple[str, str]]:
    pairs = set[tuple[str, str]]()
    for state in states:
        _, _, following = state.value.partition("Next: ")
        names = following.rstrip(".").split(", ")
        pairs |= {(f"{states.__name__}.{state.name}", f"{states.__name__}.{name}") for name in names if name}
    return pairs
