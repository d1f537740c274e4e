"""What load generator and destination say to each other, and the data that they move.

A request has 200 bytes: what to do, a number, a size. The answer to `ASK` has 2 KiB; `DOWN` gives that many bytes of
the pattern; `UP` takes them. The data are random, so that no compression helps, and everybody knows what stands where.
"""

from __future__ import annotations

import os
import struct
from random import Random

ASK, DOWN, UP = b"A", b"D", b"U"
REQUEST_SIZE = 200
ANSWER_SIZE = 2048
PATTERN_SIZE = 1 << 22
PATTERN = Random(5).randbytes(PATTERN_SIZE)
# Twice, so that no slice wraps around.
_TWICE = PATTERN + PATTERN[: 1 << 20]
# After an upload: how much came, and how much of it when the first of its group was there. Then whether it was right.
RECEIPT = struct.Struct("!QQ")
RIGHT, WRONG = b"R", b"W"
_REQUEST = struct.Struct("!cQQQ")
READ_SIZE = 1 << 20
# Every so many bytes a part is really read, and compared later; the rest the kernel drops without a copy.
SAMPLE_EVERY = 1 << 25
SAMPLE_SIZE = 1 << 16


def request(what: bytes, number: int, size: int = 0, group: int = 0) -> bytes:
    return _REQUEST.pack(what, number, size, group).ljust(REQUEST_SIZE, b".")


def read_request(data: bytes | bytearray) -> tuple[bytes, int, int, int]:
    """What to do, the number, the size, the group."""
    found: tuple[bytes, int, int, int] = _REQUEST.unpack_from(data)
    return found


def answer(number: int) -> bytes:
    start = number % PATTERN_SIZE
    return number.to_bytes(8, "big") + _TWICE[start : start + ANSWER_SIZE - 8]


def is_right(offset: int, data: bytes) -> bool:
    """Whether these bytes, of 1 MiB at most, stand there in an endless pattern."""
    start = offset % PATTERN_SIZE
    return _TWICE[start : start + len(data)] == data


def pattern_file() -> int:
    """A file in memory with the pattern, for `sendfile`."""
    descriptor = os.memfd_create("pattern")
    os.write(descriptor, PATTERN)
    return descriptor
