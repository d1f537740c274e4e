"""Types of arguments that more than one benchmark takes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def some_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Several of these, with commas between; in this order, whatever the order given."""

    def parse(text: str) -> tuple[str, ...]:
        asked = text.split(",")
        if unknown := set(asked) - set(names):
            raise argparse.ArgumentTypeError(f"none of {', '.join(names)}: {', '.join(sorted(unknown))}")
        return tuple(name for name in names if name in asked)

    return parse
