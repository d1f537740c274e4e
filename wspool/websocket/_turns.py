"""SHELL. What a stream owes the other tasks, and a pending cancellation, at a price that a busy stream can pay.

A checkpoint gives the loop a full turn: on asyncio some 14 µs, as much as encrypting 32 KiB. So an operation that the
kernel completes at once only looks for a cancellation, which costs 2 µs, until a certain amount of work has been done.
A turn comes before an operation: asyncio's `Task.cancel()` gets through any shield, and would end what is done already.
"""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine

from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .._backend import in_trio
from ._event import Event, new_event

# Bytes that may be moved without a turn for the other tasks, by all streams together, so that no loop over many of
# them starves anybody: a fraction of a millisecond. A new session beside a bulk transfer waits for a dozen turns.
TURN = 128 * 1024
# What an operation counts for beside its bytes: its overhead takes about as long as moving so many.
_OPERATION = 16 * 1024


class _Work:
    """Of all streams together, since the last turn."""

    __slots__ = ("moved",)

    def __init__(self) -> None:
        self.moved = 0
        """Bytes, counted by whoever moves them; 0 after any wait, in which all others had their turn."""


# An object, as a module cannot share a number; no function, as this is counted several times for each message.
work = _Work()


async def take_turn() -> None:
    """Before an operation: a cancellation ends it here, with nothing done."""
    if turn_is_due():
        await turn()
    else:
        await checkpoint_if_cancelled()


async def turn() -> None:
    """A checkpoint: what anyio's does, at half the price on asyncio."""
    if in_trio():
        await checkpoint()
    else:
        await _one_turn()


@coroutine
def _one_turn() -> Generator[None, None, None]:
    yield


def turn_is_due() -> bool:
    """Before an operation: whether it has to begin with a checkpoint. It need not look for a cancellation else."""
    work.moved += _OPERATION
    if work.moved < TURN:
        return False
    work.moved = 0
    return True


async def give_turn() -> None:
    """In the middle of a long operation that must not be torn: a scope's cancellation has to wait for the next one.

    When `TURN` bytes were moved.
    """
    work.moved = 0
    await cancel_shielded_checkpoint()


class WriteLock:
    """One writer at a time, first come first served: `anyio.Lock`, but a free one costs next to nothing, and not 4 µs.

    Who has acquired it may release it from any task. A free one is acquired as well by setting `locked`.
    """

    __slots__ = ("_queue", "locked")

    def __init__(self) -> None:
        self.locked: bool = False
        # No deque, as an empty one takes 800 bytes, and this is never long; and no list before somebody waits.
        self._queue: list[Event] | None = None

    async def acquire(self) -> None:
        """Acquire it. Look for a cancellation before; one that comes while it is handed over is raised here."""
        if not self.locked:
            self.locked = True
            return
        await self._wait()
        try:
            await checkpoint_if_cancelled()
        except BaseException:
            self.release()
            raise

    async def _wait(self) -> None:
        mine = new_event()
        queue = self._queue = self._queue or []
        queue.append(mine)
        try:
            await mine.wait()
        except BaseException:
            if mine.is_set():
                self.release()
            else:
                queue.remove(mine)
            raise

    def release(self) -> None:
        """Hand it to the next one, or make it free."""
        if self._queue:
            self._queue.pop(0).set()
        else:
            self.locked = False

    async def __aenter__(self) -> None:
        await checkpoint_if_cancelled()
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()
