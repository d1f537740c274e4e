"""SHELL. A buffer for what is consumed before anything is awaited: a new one for each read costs far more."""

from __future__ import annotations

import threading

# asyncio's own TLS has the same bound (`asyncio.constants.SSL_READ_MAX_SIZE`).
SCRATCH_SIZE = 256 * 1024

_scratches = threading.local()


def scratch() -> memoryview:
    """This thread's buffer."""
    buffer: memoryview | None = getattr(_scratches, "buffer", None)
    if buffer is None:
        buffer = _scratches.buffer = memoryview(bytearray(SCRATCH_SIZE))
    return buffer
