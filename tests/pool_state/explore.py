"""Breadth-first exploration of worlds: every reachable state, every move in every state.

A violation is reported with a shortest trace that leads to it.
"""

from __future__ import annotations

import copyreg
import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wspool._entries import Bottom

from .world import Move, World

# The machine compares with the one BOTTOM that there is.
copyreg.pickle(Bottom, lambda _: "BOTTOM")


@dataclass
class Exploration:
    """What was seen."""

    states: int = 0
    steps: int = 0
    complete: bool = True
    transitions: set[tuple[str, str]] = field(default_factory=set)


class Violation(AssertionError):
    """An invariant broke; the text has the shortest trace."""


def explore(make: Callable[[], World], *, limit: int, recover: bool = True) -> Exploration:
    """Visit every reachable state up to `limit` of them, nearest first, and try every move in each."""
    seen = Exploration()
    try:
        first = make()
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error} at the very start") from error
    known = {first.key()}
    todo: deque[tuple[bytes, Any]] = deque([(_freeze(first), None)])
    while todo:
        frozen, trace = todo.popleft()
        seen.states += 1
        if recover:
            _try(pickle.loads(frozen), ("recover",), trace)
        for move in list(pickle.loads(frozen).moves()):
            world: World = pickle.loads(frozen)
            _try(world, move, trace)
            seen.steps += 1
            seen.transitions |= world.transitions
            world.transitions = set()
            key = world.key()
            if key not in known:
                if len(known) >= limit:
                    seen.complete = False
                    continue
                known.add(key)
                todo.append((_freeze(world), (trace, move)))
    return seen


def _freeze(world: World) -> bytes:
    return pickle.dumps(world, pickle.HIGHEST_PROTOCOL)


def _try(world: World, move: Move, trace: Any) -> None:
    try:
        if move == ("recover",):
            world.prove_recovery()
        else:
            world.do(move)
    except Exception as error:
        moves = [move]
        while trace is not None:
            trace, earlier = trace
            moves.append(earlier)
        steps = " > ".join(" ".join(map(str, one)) for one in reversed(moves))
        raise Violation(f"{type(error).__name__}: {error} after: {steps}") from error
