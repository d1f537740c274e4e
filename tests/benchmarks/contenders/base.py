"""What a contender is: one pool behind the few calls that the scenarios make.

``use`` is written out by each contender in the words that its own users would write, so that the hot scenarios time
the pool and no adapter. ``take`` and ``give`` serve the scenarios in which a call more or less cannot be seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tests.benchmarks.fakes import Fake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.benchmarks.fakes import Dial

ALL_SCENARIOS = frozenset({"hit", "handoff", "race", "burst", "memory"})


class Contender(ABC):
    name: ClassVar[str]
    scenarios: ClassVar[frozenset[str]] = ALL_SCENARIOS
    # A reference is no pool: it is the least that the job can cost.
    is_reference: ClassVar[bool] = False
    # Said under the tables: what was measured differently from the others, and for whom that is good.
    note: ClassVar[str] = ""
    # The largest number of users (or connections) that ends within seconds, by scenario, and why.
    largest: ClassVar[Mapping[str, int]] = {}
    why_no_larger: ClassVar[str] = ""

    def make(self) -> Any:
        """A connection of the class that this pool demands."""
        return Fake()

    @abstractmethod
    async def open(self, size: int, dial: Dial) -> None:
        """Open a pool of at most ``size`` connections, with its own default settings otherwise."""

    @abstractmethod
    async def close(self) -> None: ...

    @asynccontextmanager
    async def opened(self, size: int, dial: Dial) -> AsyncIterator[None]:
        await self.open(size, dial)
        try:
            yield
        finally:
            await self.close()

    @abstractmethod
    async def use(self, times: int) -> None:
        """Get a connection and put it back, ``times`` times."""

    @abstractmethod
    async def take(self) -> Any: ...

    @abstractmethod
    async def give(self, taken: Any) -> None: ...

    def connection(self, taken: Any) -> Any:
        """The fake connection within what ``take`` returned."""
        return taken
