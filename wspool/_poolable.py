"""PURE. What a connection may implement so that the pool can ask it how it is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Poolable(Protocol):
    """A connection that knows whether it can serve another user.

    The name and the idea are hyper-util's `Poolable`; it is so small that tests can pool toy objects.
    A connection type that you cannot change is adapted by `Pool(is_reusable=...)` instead.
    """

    def is_reusable(self) -> bool:
        """Say whether this connection can be used again, from what is known already.

        Asked when the connection is new, when it comes back, and again in the very step in which
        it is handed out. A new one that it refuses counts as a failed dial: the caller whose dial
        it was gets a `PoolError`. Must be synchronous and cheap, and must not call the pool. An exception counts as
        `False` and is logged.
        """
        ...
