"""SHELL. How many files the process may have open, sockets among them, and so how many tunnels an end can have.

An end that has more tunnels than it can have sessions is worse off than one with fewer: where idle tunnels hold all
descriptors, none is left to connect to a destination with. So it knows its limit, as HAProxy does (ulimit-n, maxconn).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace

from .settings import ProgramSettings

_logger = logging.getLogger("wspool.proxy")

# A session's tunnel, and its connection to the application or the destination.
_OF_A_SESSION = 2
# Listeners, the event loop, the log, lookups of names, and the other addresses that are tried while one is dialled.
_OTHERS = 64


def raise_limit() -> int | None:
    """Use all that the system grants, as Go does: the soft limit is made for select(2), and the hard one is meant.

    Returns:
        How many files may be open; None if that is not limited.
    """
    try:
        import resource
    except ModuleNotFoundError:  # on Windows, where sockets are no files
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS has a limit of its own, below what it calls the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return None if soft == resource.RLIM_INFINITY else soft


def fitted(settings: ProgramSettings, limit: int | None) -> ProgramSettings:
    """The settings with as many tunnels as `limit` files are enough for; if those are fewer, the log says so.

    What both ends of one process have is the client's to limit: no one else has tunnels to that server.
    """
    if limit is None:
        return settings
    client, server = settings.client, settings.server
    ends = sum(end is not None for end in (client, server))
    most = max(1, (limit - min(_OTHERS, limit // 2)) // (ends * _OF_A_SESSION))
    told = "%d open files (ulimit -n) are enough for %d tunnels: %s is as many, not %d"
    if client is not None:
        if client.max_size > most:
            _logger.warning(told, limit, most, "--max-size", client.max_size)
        sizes = {name: min(getattr(client, name), most) for name in ("max_size", "max_idle", "min_idle")}
        return replace(settings, client=replace(client, **sizes))
    assert server is not None, "there is an end"
    if server.max_connections > most:
        _logger.warning(told, limit, most, "--max-connections", server.max_connections)
    return replace(settings, server=replace(server, max_connections=min(server.max_connections, most)))
