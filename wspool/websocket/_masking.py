"""PURE. Masking: the XOR of a payload with a four-byte key (RFC 6455 section 5.3), by the fastest means at hand.

Which one that is was measured (docs/decisions): the C function of the `websockets` package masks 15
to 37 GB/s, numpy nearly as much from a few KiB on, wsproto's own pure Python 0.2 to 0.6.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeAlias

from wsproto.frame_protocol import XorMaskerSimple

Buffer: TypeAlias = bytes | bytearray | memoryview
Masker: TypeAlias = Callable[[Buffer, bytes], bytes]

# Below this numpy's own overhead of some 3 µs costs more than it gains (tunnels with 1 KiB packets).
_NUMPY_FROM = 2048


def python_masker() -> Masker:
    """By wsproto's table look-ups."""

    def mask(data: Buffer, key: bytes) -> bytes:
        return bytes(XorMaskerSimple(key).process(bytearray(data)))

    return mask


def numpy_masker() -> Masker:
    """By numpy, four bytes at once. ImportError without it."""
    numpy: Any = import_module("numpy")
    small = python_masker()

    def mask(data: Buffer, key: bytes) -> bytes:
        size = len(data)
        if size < _NUMPY_FROM:
            return small(data, key)
        # Padded to whole words, so that there is no tail to treat apart.
        masked = bytearray(size + -size % 4)
        masked[:size] = data
        words = numpy.frombuffer(masked, numpy.uint32)
        words ^= numpy.frombuffer(key, numpy.uint32)
        return bytes(memoryview(masked)[:size])

    return mask


def c_masker() -> Masker:
    """By the C extension of the `websockets` package. ImportError without it."""
    mask: Masker = import_module("websockets.speedups").apply_mask
    return mask


MASKERS: dict[str, Callable[[], Masker]] = {
    "websockets.speedups": c_masker,
    "numpy": numpy_masker,
    "python": python_masker,
}
"""Fastest first."""


def fastest_masker() -> tuple[str, Masker]:
    """The first that can be imported, and its name."""
    for name in ("websockets.speedups", "numpy"):
        with suppress(ImportError):
            return name, MASKERS[name]()
    return "python", python_masker()


def masker() -> str:
    """Which masker is in use: "websockets.speedups" (install `wspool[speedups]`), "numpy" or "python"."""
    return _NAME


_NAME, mask = fastest_masker()
