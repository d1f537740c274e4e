"""An asyncio event loop whose tasks run at once until they first wait."""

from __future__ import annotations

import asyncio
import sys


def eager_loop() -> asyncio.AbstractEventLoop:
    """A new loop with eager tasks (Python 3.12 and later)."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop
