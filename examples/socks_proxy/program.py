"""SHELL. The process while it runs: one end or both, until a signal asks it to stop.

The first SIGTERM or SIGINT asks for a graceful stop, a second one ends the process at once, with 130 or 143.
SIGHUP loads a server's certificate again.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeAlias, cast

import anyio
from anyio.abc import TaskStatus

from wspool.websocket import InvalidURL, WebSocketError

from .certificates import BadCertificate, ReloadingCertificate, ThrowAway, client_context, throw_away
from .settings import ClientSettings, ProgramSettings, ServerSettings, UsageError, warnings

_logger = logging.getLogger("wspool.proxy")


_Ready: TypeAlias = Callable[[str], None]
"""To be called with the URL of an end when it accepts connections."""
_End: TypeAlias = Callable[[_Ready], Awaitable[None]]


def _print(line: str) -> None:
    # At once, also into a pipe: somebody may wait for it.
    print(line, flush=True)


class Program:
    """One run. Closing `stack` removes what it has put into the file system; `say` gets lines for standard output."""

    def __init__(self, settings: ProgramSettings, stack: ExitStack, say: Callable[[str], None] = _print) -> None:
        self._settings = settings
        self._stack = stack
        self._say = say
        self._certificate: ReloadingCertificate | None = None

    async def run(self) -> None:
        """Return after a graceful stop. What does not let it start is a `UsageError`."""
        for warning in warnings(self._settings):
            _logger.warning("%s", warning)
        stop = anyio.Event()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._obey_signals, stop)
                await self._run_role(stop)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _most_telling(group) from None

    async def _run_role(self, stop: anyio.Event) -> None:
        client, server = self._settings.client, self._settings.server
        if client is not None and server is not None:
            await self._run_both(client, server, stop)
        elif client is not None:
            await self._run_client(client, stop)
        elif server is not None:
            await self._run_server(server, stop)

    # --- one end --------------------------------------------------------------------------------

    async def _run_client(self, settings: ClientSettings, stop: anyio.Event) -> None:
        from .client import run_client

        async def end(ready: _Ready) -> None:
            # What cannot be used is said now, and not when the first tunnel is opened.
            client_context(ca_file=settings.ca_file, cert=settings.cert, key=settings.key)
            await run_client(settings, ready=ready, stop=stop)

        await _run_end(end, settings.listen, self._say_ready)

    async def _run_server(self, settings: ServerSettings, stop: anyio.Event) -> None:
        from .server import run_server

        async def end(ready: _Ready) -> None:
            context = None
            if settings.cert is not None:
                self._certificate = ReloadingCertificate(settings.cert, settings.key, settings.client_ca)
                context = self._certificate.context
            await run_server(settings, ready=ready, stop=stop, context=context, reload=self._certificate)

        await _run_end(end, settings.listen, self._say_ready)

    # --- both -----------------------------------------------------------------------------------

    async def _run_both(self, client: ClientSettings, server: ServerSettings, stop: anyio.Event) -> None:
        certificate = _throw_away()
        token = secrets.token_urlsafe(32)
        # The server ends after the client, whose sessions it carries.
        stop_server = anyio.Event()
        async with anyio.create_task_group() as tasks:
            url = await tasks.start(self._serve, replace(server, token=token), certificate, stop_server)
            ca_file = self._written(certificate.authority)
            await self._run_near_end(replace(client, server=url, token=token, ca_file=ca_file), stop)
            stop_server.set()

    async def _serve(
        self, settings: ServerSettings, certificate: ThrowAway, stop: anyio.Event, *, task_status: TaskStatus[str]
    ) -> None:
        from .server import run_server

        async def end(ready: _Ready) -> None:
            await run_server(settings, ready=ready, stop=stop, context=certificate.context)

        def ready(url: str) -> None:
            self._say_ready(url)
            task_status.started(url)

        await _run_end(end, settings.listen, ready)

    def _written(self, authority: str) -> str:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="socks_proxy-"))
        ca_file = Path(folder, "ca.pem")
        ca_file.write_text(authority)
        return str(ca_file)

    async def _run_near_end(self, client: ClientSettings, stop: anyio.Event) -> None:
        """On another port, if nobody asked for this one and it is in use."""
        from .client import run_client

        async def end(ready: _Ready) -> None:
            await run_client(client, ready=ready, stop=stop)

        def ready(url: str) -> None:
            self._say_ready(url)
            self._explain(url, client)

        try:
            await _run_end(end, client.listen, ready)
        except _PortInUse as error:
            if not self._settings.any_port:
                raise
            self._say(f"{error}; taking a free port")
            client = replace(client, listen=(client.listen[0], 0))
            await _run_end(end, client.listen, ready)

    # --- what is said ---------------------------------------------------------------------------

    def _say_ready(self, url: str) -> None:
        self._say(f"ready {url}")

    def _explain(self, url: str, client: ClientSettings) -> None:
        user = "" if client.users is None else " --proxy-user NAME:PASSWORD"
        self._say("Both ends run in this process, over TLS, with a certificate and a token of this run only.")
        self._say(f"Try it:  curl --proxy {url.replace('socks5:', 'socks5h:', 1)}{user} https://example.com/")
        self._say("Ctrl-C stops it.")

    # --- signals --------------------------------------------------------------------------------

    async def _obey_signals(self, stop: anyio.Event, *, task_status: TaskStatus[None]) -> None:
        # A client has nothing to reload: it is to end with the terminal that it runs in.
        also = (signal.SIGHUP,) if self._settings.role == "server" else ()
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *also) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._reload()
                elif stop.is_set():
                    self._end_at_once(number)
                else:
                    grace = max(end.grace for end in (self._settings.client, self._settings.server) if end is not None)
                    told = "stopping, by %s: running sessions have %g s; a second signal ends at once"
                    _logger.info(told, number.name, grace)
                    stop.set()

    def _reload(self) -> None:
        if self._certificate is None:
            _logger.warning("SIGHUP: there is no certificate that could be loaded again")
        else:
            self._certificate.reload()

    def _end_at_once(self, number: int) -> NoReturn:
        try:
            self._stack.close()
            logging.shutdown()
        finally:
            # A cancellation could wait for whoever is shielded.
            os._exit(128 + number)


def _throw_away() -> ThrowAway:
    try:
        return throw_away()
    except ImportError:
        raise UsageError("the throw-away certificate needs trustme: pip install -e '.[proxy]'") from None


# --- what goes wrong ------------------------------------------------------------------------------


class _PortInUse(UsageError):
    """Another program listens there."""


_LISTEN_ADVICE = {
    errno.EADDRNOTAVAIL: "; it is no address of this machine",
    errno.EACCES: "; ports below 1024 may need a privilege",
}


async def _run_end(end: _End, listen: tuple[str, int], ready: _Ready) -> None:
    """Run it. What does not let it become ready is the user's to mend, and what happens afterwards is not."""
    is_ready = False

    def now_ready(url: str) -> None:
        nonlocal is_ready
        is_ready = True
        ready(url)

    try:
        await end(now_ready)
    except Exception as error:
        cause = _most_telling(error)
        if is_ready:
            raise
        if isinstance(cause, BadCertificate | InvalidURL):
            raise UsageError(str(cause)) from None
        if isinstance(cause, OSError) and not isinstance(cause, WebSocketError):
            kind = _PortInUse if cause.errno == errno.EADDRINUSE else UsageError
            advice = _LISTEN_ADVICE.get(cause.errno or 0, "")
            raise kind(f"cannot listen on {_shown(listen)}: {cause.strerror or cause}{advice}") from None
        raise


def _shown(listen: tuple[str, int]) -> str:
    host, port = listen
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _most_telling(error: BaseException) -> BaseException:
    """Of a group that stands for one error, that one; of several, a wrong usage, which explains the others."""
    leaves = list(_leaves(error))
    usage = [leaf for leaf in leaves if isinstance(leaf, UsageError)]
    return usage[0] if usage else leaves[0] if len(leaves) == 1 else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(member)
    else:
        yield error
