"""SHELL. Tunnels that are about to be free: their sessions have said all, and wait only for the far end's FIN.

Who finds no tunnel idle had better wait for one of those. A new one takes three round trips, and its handshakes more
CPU time than a session, which in a burst is taken from the others.
"""

from __future__ import annotations

import anyio


def return_patience(round_trip: float) -> float:
    """How long a tunnel is hoped for: the destination may have more to say, until the idle time limit."""
    return 1.5 * round_trip + 0.05


class Returning:
    """The sessions whose tunnels are due, and those that wait for one. Times are in seconds on any monotonic clock."""

    def __init__(self) -> None:
        self._due: dict[object, float] = {}
        self._waiting: list[anyio.Event] = []

    def expect(self, session: object, until: float) -> None:
        """Its tunnel should be free by then; later nobody waits for it any more."""
        self._due[session] = until

    def ended(self, session: object) -> None:
        """It has left its tunnel: whoever waits first may look."""
        self._due.pop(session, None)
        self.tell_next()

    def tell_next(self) -> None:
        """Somebody who was told has left without a tunnel: it is the turn of the next."""
        if self._waiting:
            self._waiting.pop(0).set()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def wait(self, now: float) -> None:
        """Wait until one may be free. Not if none is due, or no more than others wait for already."""
        due = sorted(until for until in self._due.values() if until > now)
        place = self.waiting
        if place >= len(due):
            return
        mine = anyio.Event()
        self._waiting.append(mine)
        try:
            with anyio.move_on_after(due[place] - now):
                await mine.wait()
        finally:
            if not mine.is_set():
                self._waiting.remove(mine)
