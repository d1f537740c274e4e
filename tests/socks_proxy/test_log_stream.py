"""The way of the log: nobody who does not read it can stop the program."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Generator
from contextlib import suppress
from typing import Any, TextIO

import pytest

from examples.socks_proxy.log_stream import ImpatientHandler

LOSS = "lines of the log that nobody has read were lost: "

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files cannot be asked there whether they are ready")


class Pipe:
    """A log, and who reads it."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self.stream: TextIO = os.fdopen(writing, "w", encoding="utf-8")
        self.handler = ImpatientHandler(self.stream)

    def log(self, text: str) -> None:
        self.handler.handle(logging.LogRecord("log", logging.INFO, __file__, 1, text, None, None))

    def read(self) -> list[str]:
        """The lines that are there; the last is empty if none was cut off."""
        read = b""
        while True:
            try:
                part = os.read(self._reading, 1 << 20)
            except BlockingIOError:
                return read.decode().split("\n")
            read += part

    def read_no_more(self) -> None:
        os.close(self._reading)

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self.stream.close()
        with suppress(OSError):
            self.read_no_more()


@pytest.fixture
def pipe() -> Generator[Pipe, None, None]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_what_is_read_is_written_whole(pipe: Pipe) -> None:
    for size in (0, 1, 1023, 1024, 5000, 30_000):
        pipe.log("é" * size)
        assert pipe.read() == ["é" * size, ""]


def test_who_does_not_read_loses_lines_and_is_told_how_many(pipe: Pipe) -> None:
    for number in range(10_000):
        pipe.log(f"line {number}")
    read = pipe.read()
    assert read[:-1] == [f"line {number}" for number in range(len(read) - 1)]
    assert read[-1] == ""
    assert len(read) > 1000
    pipe.log("and on")
    assert pipe.read() == [f"{LOSS}{10_000 - len(read) + 1}", "and on", ""]
    pipe.log("once")
    assert pipe.read() == ["once", ""]


def test_what_is_too_long_is_cut_off_and_counts_as_lost(pipe: Pipe) -> None:
    pipe.log("x" * 1_000_000)
    (cut,) = pipe.read()
    assert 0 < len(cut) < 1_000_000
    assert set(cut) == {"x"}
    pipe.log("y")
    assert pipe.read() == ["", f"{LOSS}1", "y", ""]


def until(master: int, last: str) -> list[str]:
    """What comes out of a terminal, up to and with that line: the kernel brings it piece by piece."""
    rows = ""
    while f"{last}\r\n" not in rows:
        rows += os.read(master, 1 << 20).decode()
    return rows.split("\r\n")


def test_a_terminal_that_was_stopped_stops_nothing() -> None:
    """As Ctrl-S does."""
    import pty
    import termios

    master, terminal = pty.openpty()
    stream = os.fdopen(terminal, "w")
    handler = ImpatientHandler(stream)
    termios.tcflow(terminal, termios.TCOOFF)
    handler.handle(logging.LogRecord("log", logging.INFO, __file__, 1, "lost", None, None))
    termios.tcflow(terminal, termios.TCOON)
    handler.handle(logging.LogRecord("log", logging.INFO, __file__, 1, "seen", None, None))
    assert until(master, "seen") == [f"{LOSS}1", "seen", ""]
    handler.close()
    stream.close()
    os.close(master)


def test_a_terminal_that_nobody_reads_stops_nothing() -> None:
    """As that of a connection that hangs: it has room for something, but not for a line."""
    import pty

    master, terminal = pty.openpty()
    stream = os.fdopen(terminal, "w")
    handler = ImpatientHandler(stream)
    for number in range(2000):
        handler.handle(logging.LogRecord("log", logging.INFO, __file__, 1, f"{number:0100}", None, None))
    written = 2000 - handler._lost
    assert 10 < written < 2000
    assert until(master, f"{written - 1:0100}")[:written] == [f"{number:0100}" for number in range(written)]
    while handler._lost:  # the kernel takes a moment to see that there is room again
        handler.handle(logging.LogRecord("log", logging.INFO, __file__, 1, "seen", None, None))
    *_, loss, seen, end = until(master, "seen")
    assert (loss.startswith(LOSS), seen, end) == (True, "seen", "")
    handler.close()
    stream.close()
    os.close(master)


def test_a_character_that_is_escaped_into_many_stops_nothing(pipe: Pipe) -> None:
    """As on a standard error that is not UTF-8."""
    stream: Any = pipe.stream
    stream.reconfigure(encoding="ascii", errors="backslashreplace")
    for _ in range(20):
        pipe.log("\N{GRINNING FACE}" * 1000)
    *read, cut = pipe.read()
    assert set(read) == {"\\U0001f600" * 1000}
    assert cut != read[0]
    assert read[0].startswith(cut)


def test_a_stream_in_memory_takes_everything() -> None:
    stream = io.StringIO()
    ImpatientHandler(stream).handle(logging.LogRecord("log", logging.INFO, __file__, 1, "x" * 100_000, None, None))
    assert stream.getvalue() == "x" * 100_000 + "\n"


def test_a_reader_who_is_gone_costs_nothing(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    pipe.read_no_more()
    pipe.log("for nobody")
