"""PURE. The numbers: commands, why a session ended, why a tunnel was closed, and how they map to SOCKS replies."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum


class Command(IntEnum):
    """What a client asks for, in SOCKS5 and in OPEN alike."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Code(IntEnum):
    """Why a session failed or ended. Up to 8 they are the replies of RFC 1928 section 6; the tunnel knows more."""

    SUCCEEDED = 0x00
    GENERAL_FAILURE = 0x01
    NOT_ALLOWED = 0x02
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    CONNECTION_REFUSED = 0x05
    TTL_EXPIRED = 0x06
    COMMAND_NOT_SUPPORTED = 0x07
    ADDRESS_TYPE_NOT_SUPPORTED = 0x08
    NAME_NOT_FOUND = 0x10
    NAME_LOOKUP_FAILED = 0x11
    TIMED_OUT = 0x12
    DENIED = 0x13
    LIMIT_REACHED = 0x14
    GOING_AWAY = 0x15
    INTERNAL_ERROR = 0x16
    BAD_REQUEST = 0x17
    CANCELLED = 0x18
    RESET_BY_DESTINATION = 0x19
    IDLE_TOO_LONG = 0x1A
    LOCAL_CLIENT_GONE = 0x1B


class CloseCode(IntEnum):
    """Of the websocket's Close frame (RFC 6455 section 7.4); those from 4000 are the tunnel's own."""

    DONE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    IDLE = 4000
    WRONG_SESSION = 4001
    DRAIN_BUDGET_SPENT = 4002
    TOO_OLD = 4003


# What SOCKS5 has no number for. ETIMEDOUT as "TTL expired" is what microsocks and dante say too.
_REPLIES: dict[int, Code] = {
    Code.NAME_NOT_FOUND: Code.HOST_UNREACHABLE,
    Code.NAME_LOOKUP_FAILED: Code.HOST_UNREACHABLE,
    Code.TIMED_OUT: Code.TTL_EXPIRED,
    Code.DENIED: Code.NOT_ALLOWED,
}

_ERRNOS = {
    errno.ECONNREFUSED: Code.CONNECTION_REFUSED,
    errno.ENETUNREACH: Code.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Code.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Code.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Code.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Code.TIMED_OUT,
    errno.EACCES: Code.NOT_ALLOWED,
    errno.EPERM: Code.NOT_ALLOWED,
    errno.EAFNOSUPPORT: Code.ADDRESS_TYPE_NOT_SUPPORTED,
}

# Who was refused has reached the host; who found no route knows more than who heard nothing.
_BEST_INFORMED = (
    Code.CONNECTION_REFUSED,
    Code.HOST_UNREACHABLE,
    Code.NETWORK_UNREACHABLE,
    Code.TIMED_OUT,
)


def socks_reply(code: int) -> Code:
    """The SOCKS5 reply for a code of the tunnel; 1 for one that this version does not know."""
    if 0 <= code <= Code.ADDRESS_TYPE_NOT_SUPPORTED:
        return Code(code)
    return _REPLIES.get(code, Code.GENERAL_FAILURE)


def code_of_errno(number: int | None) -> Code:
    """The code for an error of the operating system: by its number, never by its text."""
    return _ERRNOS.get(number or 0, Code.GENERAL_FAILURE)


def best_informed(codes: Iterable[Code]) -> Code:
    """Of what several addresses of one name have failed with, what says most about the destination."""
    codes = list(codes)
    for code in _BEST_INFORMED:
        if code in codes:
            return code
    return codes[0] if codes else Code.GENERAL_FAILURE


def code_name(code: int) -> str:
    """For the log, in words; a number that this version does not know as it is."""
    return Code(code).name.lower().replace("_", " ") if code in Code._value2member_map_ else f"code {code:#04x}"
