"""PURE. The errors that a pool raises of its own accord.

A dial's own exception is not among them: it reaches the caller that asked for the dial
unchanged. A cancellation is never turned into any of these.
"""

from __future__ import annotations


class PoolError(Exception):
    """Base of every error that the pool itself raises."""


class PoolClosed(PoolError):
    """The pool is closing or closed: it hands out nothing any more."""


class PoolTimeout(PoolError, TimeoutError):
    """No connection within `acquire_timeout`, or the caller's own dial exceeded `connect_timeout`.

    The text says why: limits, what is held, idle, being dialled or waited for, the longest holder,
    and whether the calling task holds a connection itself. The last dial error is the `__cause__`.
    """


class PoolFull(PoolError):
    """As many callers as `max_waiting` allows wait already: this one was turned away at once."""


class PoolMisuse(PoolError, RuntimeError):
    """A mistake in the calling code, found before any state changed.

    For example: a pool used before `async with`, a handle used after its release, a pool used
    from another thread or event loop, a connection inserted twice.
    """
