"""SHELL. `python -m examples.socks_proxy`: reads the settings, runs, and turns what goes wrong into an exit status.

0 after a graceful stop, 1 after an error while it ran, 2 if it could not start, 130 or 143 after a second signal.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import anyio

try:
    from .command_line import PROGRAM_NAME
    from .descriptors import fitted, raise_limit
    from .program import Program
    from .session_log import log_unraisable, printable, start_logging
    from .settings import UsageError, parse
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]
    print(f"the proxy needs {missing}, which is not installed: pip install -e '.[proxy]'", file=sys.stderr)
    sys.exit(2)

_logger = logging.getLogger("wspool.proxy")

_FAILED = 1
_CANNOT_START = 2


def main(
    argv: Sequence[str] | None = None, *, open_files: int | None = None, leave: Callable[[], object] = lambda: None
) -> int:
    """Run until it is told to stop.

    Args:
        argv: The command line, without the program's name.
        open_files: How many files may be open; None for any number.
        leave: Called when all is done, before the event loop ends.

    Returns:
        The exit status.
    """
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ)
        backend, options = _backend(settings.backend)
        start_logging(settings.log_format, settings.log_level)
        with ExitStack() as stack:
            program = Program(fitted(settings, open_files), stack)

            async def run() -> None:
                await program.run()
                stack.close()
                leave()

            anyio.run(run, backend=backend, backend_options=options)
    except UsageError as error:
        print(f"{PROGRAM_NAME}: error: {printable(str(error))}", file=sys.stderr)
        return _CANNOT_START
    except KeyboardInterrupt:
        # Before or after the time in which signals are waited for.
        return 128 + signal.SIGINT
    except Exception as error:
        _logger.critical("the program failed: %s", str(error) or type(error).__name__, exc_info=True)
        return _FAILED
    return 0


def _collect_less() -> None:
    """Sessions leave next to no cycles behind: at Python's own rate, looking for them takes a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(20_000)


def _keep_freed_buffers() -> None:
    """Have glibc keep up to 4 MiB of what is freed: else it gives buffers back, and their pages are faulted in anew.

    That takes up to a third of the time of a download. A block of 2 MiB, once freed, moves the bound (mallopt(3),
    M_MMAP_THRESHOLD).
    """
    bytes(2 << 20)


def _backend(name: str) -> tuple[str, dict[str, Any]]:
    """As anyio wants it."""
    if name in ("trio", "uvloop") and not _is_installed(name):
        raise UsageError(f"--backend {name}: it is not installed; pip install {name}")
    if name == "trio":
        return "trio", {}
    return "asyncio", {"use_uvloop": name == "uvloop" or (name == "auto" and _is_installed("uvloop"))}


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _leave() -> None:
    """Do not wait for threads that look up a name for nobody: it may take them minutes."""
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    _collect_less()
    _keep_freed_buffers()
    sys.unraisablehook = log_unraisable
    sys.exit(main(open_files=raise_limit(), leave=_leave))
