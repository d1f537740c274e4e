"""SHELL. The log: one line for each session, as text or as JSON, with nothing secret in it.

Names, destinations and error texts come from strangers. What cannot be printed is escaped, so that nobody
writes a second line, nor commands for the terminal of whoever reads it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TextIO

from wspool.websocket import WebSocketError

from .addresses import Address
from .log_stream import ImpatientHandler

_logger = logging.getLogger("wspool.proxy")

_PLAIN = re.compile(r"[\w.:/@+*\[\]-]+", re.ASCII)
_ATTRIBUTE = "session"


@dataclass(slots=True)
class SessionRecord:
    """What is known of a session, filled in as it goes on. Durations are in seconds; None is not known, or not so."""

    id: int | str
    role: str
    """"client" or "server"."""
    user: str | bytes | None = None
    destination: Address | str | None = None
    outcome: str = ""
    bytes_up: int = 0
    """From the application to the destination."""
    bytes_down: int = 0
    pool_wait: float | None = None
    reused: bool | None = None
    """Whether the tunnel had carried another session before."""
    dial_time: float | None = None
    duration: float = 0.0


def log_session(record: SessionRecord) -> None:
    """Write its line, at the level info."""
    _logger.info("session", extra={_ATTRIBUTE: record})


def start_logging(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream`, by default standard error."""
    handler = ImpatientHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # The libraries below keep to warnings: their debugging would show requests with tokens.
    logging.getLogger("wspool").setLevel(level.upper())


def log_unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """In place of `sys.unraisablehook`, which prints a traceback past the log.

    A stranger can bring that about: by a server's name in a TLS handshake that is not ASCII, for example.
    """
    # From Python 3.14 on, the text has the object in it already.
    where = ignored.err_msg or "an error was ignored in"
    if ignored.object is not None:
        where = f"{where} {ignored.object!r}"
    _logger.warning("%s: %r", where, ignored.exc_value)


class TextFormatter(logging.Formatter):
    """`TIME LEVEL message`, of a session with `name=value` for all that is known."""

    def format(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        known = " ".join(f"{name}={_worded(value)}" for name, value in _session(record))
        line = f"{_time(record)} {record.levelname.lower()} {message}{' ' if known else ''}{known}"
        # Indented, no line of a traceback looks like one of the log.
        trace = [f"    {printable(row)}" for row in _traceback(self, record).split("\n") if row]
        return "\n".join([line, *trace])


class JSONFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_session(record)),
        }
        trace = _traceback(self, record)
        if trace:
            entry["traceback"] = trace
        # In ASCII, where every control character is escaped.
        return json.dumps(entry)


def printable(text: str) -> str:
    """The text with everything escaped that cannot be printed: control characters, line ends, changes of direction."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _session(record: logging.LogRecord) -> Iterator[tuple[str, str | int | float | bool]]:
    """What is known of the session that the record is about, if it is about one."""
    session = getattr(record, _ATTRIBUTE, None)
    if isinstance(session, SessionRecord):
        for one in fields(session):
            value = getattr(session, one.name)
            if value is not None and value != "":
                yield one.name, _simple(value)


def _simple(value: object) -> str | int | float | bool:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, bytes):
        # Of whatever encoding the client uses.
        return value.decode(errors="backslashreplace")
    return value if isinstance(value, int) else str(value)


def _worded(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    # Quoted where a value could be taken for another field.
    return text if _PLAIN.fullmatch(text) else printable(json.dumps(text, ensure_ascii=False))


def _time(record: logging.LogRecord) -> str:
    # UTC, as RFC 3339 has it: logs of several machines can be compared.
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info is None or isinstance(record.exc_info[1], OSError | WebSocketError):
        return ""  # what can happen to any network is said by the message
    return formatter.formatException(record.exc_info)
