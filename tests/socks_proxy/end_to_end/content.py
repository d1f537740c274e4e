"""Bytes of any length that both ends can make and check without keeping them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import cache

BLOCK = 65_536
_FILLING = random.Random("wspool").randbytes(BLOCK - 8)


def blocks(size: int) -> Iterator[bytes]:
    """No two are alike, so a part that is lost, doubled or out of its place changes the digest."""
    for start in range(0, size, BLOCK):
        yield (start.to_bytes(8, "big") + _FILLING)[: size - start]


def content(size: int) -> bytes:
    return b"".join(blocks(size))


@cache
def digest(size: int) -> str:
    """SHA-256 of the whole, in hexadecimal."""
    sha256 = hashlib.sha256()
    for block in blocks(size):
        sha256.update(block)
    return sha256.hexdigest()
