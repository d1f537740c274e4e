"""Codes: what SOCKS clients are told is the real reason."""

from __future__ import annotations

import errno

import pytest

from examples.socks_proxy.codes import Code, best_informed, code_of_errno, socks_reply

# The protocol `wspool.1`, "Codes".
REPLIES = {0x10: 4, 0x11: 4, 0x12: 6, 0x13: 2, 0x14: 1, 0x15: 1, 0x16: 1, 0x17: 1, 0x18: 1, 0x19: 1, 0x1A: 1, 0x1B: 1}


def test_each_code_has_the_reply_that_the_protocol_names() -> None:
    assert {int(code): int(socks_reply(code)) for code in Code if code > 8} == REPLIES


def test_the_replies_of_rfc_1928_stay_what_they_are() -> None:
    assert [int(socks_reply(code)) for code in range(9)] == list(range(9))


@pytest.mark.parametrize("code", [-1, 9, 0x0F, 0x1C, 255])
def test_a_code_of_a_later_version_is_a_general_failure(code: int) -> None:
    assert socks_reply(code) is Code.GENERAL_FAILURE


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ECONNREFUSED", 5),
        ("ENETUNREACH", 3),
        ("EHOSTUNREACH", 4),
        ("ETIMEDOUT", 0x12),
        ("EACCES", 2),
        ("EPERM", 2),
        ("EAFNOSUPPORT", 8),
        ("EMFILE", 1),
        ("ENFILE", 1),
        ("EADDRNOTAVAIL", 1),
        ("EIO", 1),
    ],
)
def test_an_error_of_the_system_has_its_code_by_number(name: str, code: int) -> None:
    assert code_of_errno(getattr(errno, name)) == code


def test_an_error_without_a_number_is_a_general_failure() -> None:
    assert code_of_errno(None) is Code.GENERAL_FAILURE


def test_of_several_errors_the_best_informed_counts() -> None:
    timed_out, refused = Code.TIMED_OUT, Code.CONNECTION_REFUSED
    unreachable, far = Code.NETWORK_UNREACHABLE, Code.HOST_UNREACHABLE
    assert best_informed([timed_out, unreachable, refused]) is refused
    assert best_informed([timed_out, unreachable]) is unreachable
    assert best_informed([timed_out, far]) is far
    assert best_informed([Code.DENIED, timed_out]) is timed_out
    assert best_informed([Code.DENIED, Code.NOT_ALLOWED]) is Code.DENIED
    assert best_informed([]) is Code.GENERAL_FAILURE
