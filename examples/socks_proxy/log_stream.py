"""SHELL. The log on its way out: it never waits for whoever reads it.

A pipe that nobody reads takes 64 KiB, a terminal that was stopped with Ctrl-S takes nothing. A write that waits for
either would stop all sessions. So each piece is written only if it fits; what does not is lost, and the log says so.
"""

from __future__ import annotations

import logging
import select
from typing import TextIO

_logger = logging.getLogger("wspool.proxy")

# What is ready takes PIPE_BUF bytes at least (poll(2), pipe(7)), 4 KiB on Linux; POSIX grants 512.
# A character takes 4 bytes at most.
_PIECE = min(getattr(select, "PIPE_BUF", 512), 4096) // 4


class ImpatientHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream as far as that takes it at once. One that is no file, and any on Windows, is waited for."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._is_cut = False
        self._poll = None
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):
            return  # it is in memory, or closed
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)

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
        for start in range(0, len(text), _PIECE):
            if self._poll is not None and not self._poll.poll(0):
                return False
            self.stream.write(text[start : start + _PIECE])
            self.flush()
            self._is_cut = start + _PIECE < len(text)
        return True


def _loss(lines: int) -> logging.LogRecord:
    text = "lines of the log that nobody has read were lost: %d"
    return _logger.makeRecord(_logger.name, logging.WARNING, __file__, 0, text, (lines,), None)
