"""The log: one line for each session, whatever strangers put into it."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given, strategies as st

from examples.socks_proxy.addresses import Address, parse_host
from examples.socks_proxy.session_log import (
    JSONFormatter,
    SessionRecord,
    TextFormatter,
    log_session,
    log_unraisable,
    printable,
    start_logging,
)
from wspool.websocket import UpgradeFailed

FULL = SessionRecord(
    id=17,
    role="client",
    user=b"alice",
    destination=Address(parse_host("example.com"), 443),
    outcome="done",
    bytes_up=1234,
    bytes_down=5678901,
    pool_wait=0.00012,
    reused=True,
    dial_time=0.031,
    duration=1.5,
)


def lines(formatter: logging.Formatter, *records: SessionRecord) -> list[str]:
    """What is written for these sessions."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("wspool.proxy")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        for record in records:
            log_session(record)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    # Not splitlines(): the line ends that others know are among what is tested.
    return stream.getvalue().split("\n")[:-1]


class Careless:
    def __del__(self) -> None:
        raise ValueError("a stranger's \x1b[31m doing")


def test_what_can_be_raised_to_nobody_is_a_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", log_unraisable)
    Careless()
    (record,) = caplog.records
    assert "<function Careless.__del__" in record.getMessage()
    assert "doing" in record.getMessage()
    assert len(TextFormatter().format(record).splitlines()) == 1
    assert capsys.readouterr().err == ""


def log_record(message: str, *arguments: object) -> logging.LogRecord:
    record = logging.LogRecord("wspool.proxy", logging.WARNING, "file", 1, message, arguments, None)
    record.created, record.msecs = 1700000000.25, 250.0
    return record


def test_a_session_is_one_line_of_text() -> None:
    (line,) = lines(TextFormatter(), FULL)
    assert line.partition(" ")[2] == (
        "info session id=17 role=client user=alice destination=example.com:443 outcome=done bytes_up=1234 "
        "bytes_down=5678901 pool_wait=0.000 reused=yes dial_time=0.031 duration=1.500"
    )


def test_a_session_is_one_object_of_json() -> None:
    (line,) = lines(JSONFormatter(), FULL)
    entry = json.loads(line)
    del entry["time"]
    assert entry == {
        "level": "info",
        "logger": "wspool.proxy",
        "message": "session",
        "id": 17,
        "role": "client",
        "user": "alice",
        "destination": "example.com:443",
        "outcome": "done",
        "bytes_up": 1234,
        "bytes_down": 5678901,
        "pool_wait": 0.00012,
        "reused": True,
        "dial_time": 0.031,
        "duration": 1.5,
    }


def test_what_is_not_known_is_left_out() -> None:
    (line,) = lines(TextFormatter(), SessionRecord("t1/2", "server", reused=False))
    assert line.endswith("session id=t1/2 role=server bytes_up=0 bytes_down=0 reused=no duration=0.000")


def test_each_session_has_its_line() -> None:
    assert len(lines(TextFormatter(), FULL, FULL)) == len(lines(JSONFormatter(), FULL, FULL)) == 2


def test_a_destination_over_ipv6_is_readable() -> None:
    (line,) = lines(TextFormatter(), SessionRecord(1, "client", destination=Address(parse_host("::1"), 80)))
    assert " destination=[::1]:80 " in line


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("älice", '"älice"'),
        (b"\xff", '"\\\\xff"'),
        ("\n\x1b[31m", '"\\n\\u001b[31m"'),
        ("\x7f\x9b\u202e\u2028", '"\\x7f\\x9b\\u202e\\u2028"'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_a_name_cannot_be_taken_for_another_field_nor_for_a_command(user: str | bytes, text: str) -> None:
    (line,) = lines(TextFormatter(), SessionRecord(1, "client", user))
    assert f" user={text} " in line


@example("\x7f", "\x7f", "\x7f")
@given(st.text() | st.binary(), st.text(), st.text(min_size=1))
def test_nothing_that_strangers_send_makes_a_second_line(user: str | bytes, destination: str, outcome: str) -> None:
    session = SessionRecord(1, "client", user, destination, outcome)
    for formatter in (TextFormatter(), JSONFormatter()):
        (line,) = lines(formatter, session)
        assert line.isprintable() or formatter.__class__ is JSONFormatter
        assert not any(ord(one) < 0x20 or ord(one) == 0x7F for one in line)
    entry = json.loads(line)
    assert entry["outcome"] == outcome


def test_other_lines_are_escaped_too() -> None:
    record = log_record("from %s", "a\r\nfake \x1b[2J")
    assert TextFormatter().format(record) == "2023-11-14T22:13:20.250Z warning from a\\r\\nfake \\x1b[2J"
    assert json.loads(JSONFormatter().format(record)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "wspool.proxy",
        "message": "from a\r\nfake \x1b[2J",
    }


def test_a_traceback_looks_like_no_line_of_the_log() -> None:
    record = log_record("failed")
    error = ValueError("a\n2023-11-14T22:13:20.250Z info fake\x1b")
    record.exc_info = (ValueError, error, None)
    first, *rest = TextFormatter().format(record).split("\n")
    assert first.endswith("warning failed")
    assert rest == ["    ValueError: a", "    2023-11-14T22:13:20.250Z info fake\\x1b"]
    line = JSONFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["traceback"].startswith("ValueError: a")


def test_the_text_of_a_printable_line_is_untouched() -> None:
    assert printable("Grüße, 世界 'x' \\n") == "Grüße, 世界 'x' \\n"


# --- starting -------------------------------------------------------------------------------------


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    logger, ours = logging.getLogger(), logging.getLogger("wspool")
    handlers, level, our_level = logger.handlers[:], logger.level, ours.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    ours.setLevel(our_level)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_goes_to_its_stream_in_its_format(root: logging.Logger, log_format: str) -> None:
    stream = io.StringIO()
    start_logging(log_format, "info", stream)
    log_session(FULL)
    assert stream.getvalue().startswith("{") is (log_format == "json")


def test_the_level_is_that_of_our_own_log(root: logging.Logger) -> None:
    stream = io.StringIO()
    start_logging("text", "warning", stream)
    log_session(FULL)
    assert stream.getvalue() == ""
    start_logging("text", "debug", stream)
    logging.getLogger("wspool.proxy").debug("ours")
    logging.getLogger("asyncio").info("not ours")
    assert stream.getvalue().endswith(" debug ours\n")


def test_by_default_it_goes_to_standard_error(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    start_logging("text", "info")
    log_session(FULL)
    out, err = capsys.readouterr()
    assert out == ""
    assert " session id=17 " in err


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), UpgradeFailed("refused")])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_can_happen_to_any_network_has_no_traceback(error: Exception, log_format: str) -> None:
    stream = io.StringIO()
    start_logging(log_format, "info", stream)
    try:
        raise error
    except Exception:
        logging.getLogger("wspool").warning("a dial failed: %r", error, exc_info=True)
    assert "Traceback" not in stream.getvalue()
    assert "refused" in stream.getvalue()
