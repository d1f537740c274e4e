"""SHELL. What a stream owes the other tasks, and a pending cancellation, at a price that a busy stream can pay.

A checkpoint gives the loop a full turn: on asyncio some 14 µs, as much as encrypting 32 KiB. So an operation that the
kernel completes at once only looks for a cancellation, which costs 2 µs, until a certain amount of work has been done.
A turn comes before an operation: asyncio's `Task.cancel()` gets through any shield, and would end what is done already.
"""

from __future__ import annotations

from anyio import Event
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

# Bytes that may be moved without a turn for the other tasks, by all streams together, so that no loop over many of
# them starves anybody: a fraction of a millisecond. A new session beside a bulk transfer waits for a dozen turns.
_TURN = 128 * 1024
# What an operation counts for beside its bytes: its overhead takes about as long as moving so many.
_OPERATION = 16 * 1024


class _Work:
    """Done since the last turn."""

    bytes = 0


def moved(size: int) -> None:
    """So many bytes have been moved."""
    _Work.bytes += size


def had_turn() -> None:
    """The caller has just waited for something, and so did all others have their turn."""
    _Work.bytes = 0


async def take_turn() -> None:
    """Before an operation: a cancellation ends it here, with nothing done."""
    _Work.bytes += _OPERATION
    if _Work.bytes < _TURN:
        await checkpoint_if_cancelled()
    else:
        _Work.bytes = 0
        await checkpoint()


async def take_turn_if_due() -> None:
    """As `take_turn`, where a cancellation may wait until something has to be waited for, or a turn is due."""
    _Work.bytes += _OPERATION
    if _Work.bytes >= _TURN:
        _Work.bytes = 0
        await checkpoint()


async def give_turn() -> None:
    """In the middle of a long operation that must not be torn: a scope's cancellation has to wait for the next one."""
    if _Work.bytes >= _TURN:
        _Work.bytes = 0
        await cancel_shielded_checkpoint()


class WriteLock:
    """One writer at a time, first come first served: `anyio.Lock`, but a free one costs next to nothing, and not 4 µs.

    Who has acquired it may release it from any task.
    """

    __slots__ = ("_queue", "locked")

    def __init__(self) -> None:
        self.locked: bool = False
        # No deque: an empty one takes 800 bytes, and this is never long.
        self._queue: list[Event] = []

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
        mine = Event()
        self._queue.append(mine)
        try:
            await mine.wait()
        except BaseException:
            if mine.is_set():
                self.release()
            else:
                self._queue.remove(mine)
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
