"""PURE. Whether the far end of a tunnel is still there.

Rules of this file:

1. Any byte received is a sign of life, a pong no better one: behind much data a pong may be late.
2. While this end does not read, because its sink is blocked, nothing can be heard, and no deadline runs.
3. After some silence one ping is due. If then nothing is heard for the patience, the tunnel is dead.
4. A suspect is pinged before it is used; what is heard afterwards clears it.

Times are in seconds on any monotonic clock.
"""

from __future__ import annotations

from enum import Enum

# Middleboxes end idle connections after 30 s and more: 20 s, varied by 10 %, stays below.
CLIENT_PING_AFTER = 20.0
# So that a server notices clients that vanish, without doubling the pings of those that do not.
SERVER_PING_AFTER = 45.0
PATIENCE = 10.0
FRESH = 5.0
"""So long a tunnel may have been silent and still be used without a ping."""
SUSPENDED = 10.0
"""A wall clock that gains more on the monotonic one tells that the machine was asleep, or the time was set."""


class Verdict(Enum):
    """What `expire` has found."""

    FINE = "Nothing is to be done."
    PING = "Silence: send a ping now, which counts as sent."
    DEAD = "A ping was answered by nothing: close the tunnel."


def reuse_patience(round_trip: float) -> float:
    """How long to wait for a byte after OPEN and PING on a tunnel that was idle: the dial may take longer.

    But no longer than leaves a session the time for another try, if the round trip was measured in a stall.
    """
    return min(max(1.0, 4 * round_trip + 0.25), 5.0)


class Liveness:
    """The silence of one tunnel."""

    __slots__ = ("_blocked_since", "_dies_at", "_patience", "_ping_after", "_quiet_since", "last_heard", "suspect")

    def __init__(self, now: float, *, ping_after: float = CLIENT_PING_AFTER, patience: float = PATIENCE) -> None:
        self.last_heard = now
        """When a byte came last; that of a dead tunnel says which of its siblings are suspect."""
        self.suspect = False
        """Whether something tells against it, so that it is to be pinged before it is used."""
        self._ping_after = ping_after
        self._patience = patience
        self._quiet_since = now
        self._dies_at: float | None = None
        """When the patience after a ping ends."""
        self._blocked_since: float | None = None

    def heard(self, now: float) -> None:
        """A byte has come, whatever it says."""
        self.last_heard = self._quiet_since = now
        self.suspect = False
        self._dies_at = None

    def pinged(self, now: float, patience: float | None = None) -> None:
        """A ping has gone out, by itself or with an OPEN. An earlier deadline stays."""
        dies_at = now + (self._patience if patience is None else patience)
        self._dies_at = dies_at if self._dies_at is None else min(self._dies_at, dies_at)

    def stop_reading(self, now: float) -> None:
        """From now on nothing is read, so nothing can be heard."""
        if self._blocked_since is None:
            self._blocked_since = now

    def go_on_reading(self, now: float) -> None:
        """Reading goes on; the deadlines move by the time that passed without it."""
        if self._blocked_since is not None:
            blocked, self._blocked_since = now - self._blocked_since, None
            self._quiet_since += blocked
            if self._dies_at is not None:
                self._dies_at += blocked

    def needs_ping(self, now: float) -> bool:
        """Whether a session may begin on it only with a ping beside its OPEN."""
        return self.suspect or now - self.last_heard > FRESH

    def suspect_if_older(self, dead: Liveness) -> None:
        """A sibling has died: what was last heard before it may have died of the same."""
        self.suspect |= self.last_heard <= dead.last_heard

    @property
    def next_deadline(self) -> float | None:
        """When to call `expire`; it changes with any fact. None while nothing is read."""
        if self._blocked_since is not None:
            return None
        return self._quiet_since + self._ping_after if self._dies_at is None else self._dies_at

    def expire(self, now: float) -> Verdict:
        """It is `now`: whether to ping, or to give it up."""
        deadline = self.next_deadline
        if deadline is None or now < deadline:
            return Verdict.FINE
        if self._dies_at is not None:
            return Verdict.DEAD
        self.pinged(now)
        return Verdict.PING


class SleepDetector:
    """Tells from two clocks that the machine was suspended, after which every idle tunnel is suspect."""

    def __init__(self, monotonic: float, wall: float) -> None:
        self._offset = wall - monotonic

    def was_suspended(self, monotonic: float, wall: float) -> bool:
        """Whether that has happened since the last time this was asked."""
        offset = wall - monotonic
        gained, self._offset = offset - self._offset, offset
        return gained > SUSPENDED
