"""SHELL. The log on its way out: it never waits for whoever reads it.

A pipe that nobody reads takes 64 KiB, a terminal that was stopped with Ctrl-S takes nothing. A write that waits for
either would stop all sessions. So each piece is written only if it fits; what does not is lost, and the log says so.
"""

from __future__ import annotations

import logging
import os
import select
from typing import TextIO

_logger = logging.getLogger("wspool.proxy")

# What is ready takes PIPE_BUF bytes at least (poll(2), pipe(7)), 4 KiB on Linux; POSIX grants 512.
_PIECE = min(getattr(select, "PIPE_BUF", 512), 4096)


class ImpatientHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream as far as that takes it at once. One that is no file, and any on Windows, is waited for."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._is_cut = False
        self._terminal: int | None = None
        self._poll = None
        try:
            self._descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):
            return  # it is in memory, or closed
        if hasattr(select, "poll"):
            self._terminal = _own_terminal(self._descriptor)
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as lost."""
        try:
            if self._lost and self._write(self.format(_loss(self._lost))):
                self._lost = 0
            self._lost += not self._write(self.format(record))
        except Exception:
            self.handleError(record)

    def _write(self, line: str) -> bool:
        """Whether all of it was written."""
        # What was cut off is still to be ended.
        text = "\n" * self._is_cut + line + self.terminator
        if self._poll is None:
            self.stream.write(text)
            self.flush()
            return True
        # Bytes: a character that has to be escaped takes ten.
        rest = text.encode(self.stream.encoding, self.stream.errors or "strict")
        while rest:
            written = self._write_nowait(rest[:_PIECE])
            if not written:
                return False
            rest = rest[written:]
            self._is_cut = bool(rest)
        return True

    def _write_nowait(self, piece: bytes) -> int:
        """The number of bytes that were written."""
        assert self._poll is not None
        if not self._poll.poll(0):
            return 0
        try:
            return os.write(self._descriptor if self._terminal is None else self._terminal, piece)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Write nothing any more."""
        super().close()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


def _own_terminal(descriptor: int) -> int | None:
    """The same terminal, opened anew so that no write waits: what is ready may have room for no more than a byte.

    To change the mode of what others have open, the shell for one, would change it for them.
    """
    try:
        return os.open(os.ttyname(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None  # it is none, or another user's


def _loss(lines: int) -> logging.LogRecord:
    text = "lines of the log that nobody has read were lost: %d"
    return _logger.makeRecord(_logger.name, logging.WARNING, __file__, 0, text, (lines,), None)
