"""SHELL. The server end: accepts tunnels, and dials what their sessions ask for."""

from __future__ import annotations

import itertools
import logging
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio.abc import ByteStream, TaskGroup

from wspool.websocket import (
    TCPStream,
    TLSStream,
    WebSocketConnection,
    WebSocketError,
    accept_websocket,
    listen_tcp,
)

from . import advice
from .codes import CloseCode, Code
from .dial import DialFailed, bound_address, dial
from .effects import Effect
from .front import Front
from .listening import accept_all, listening_on
from .liveness import SERVER_PING_AFTER
from .packets import Open
from .relay import GONE, Session
from .session import ServerTunnel
from .session_log import SessionRecord
from .sweeper import Sweeper
from .tunnel import WEBSOCKET_SETTINGS, Tunnel, new_machine
from .workers import Workers

if TYPE_CHECKING:
    from .settings import ServerSettings

_logger = logging.getLogger("wspool.proxy")

_HANDSHAKE_TIMEOUT = 10.0
"""Seconds for TLS, and again for the upgrade request."""
_RELOAD_INTERVAL = 2.0


class Reloadable(Protocol):
    """Something that is read from files, and may have changed."""

    def reload_if_changed(self) -> object:
        """Look at the files; use what they hold now, if it can be used."""
        ...


async def run_server(
    settings: ServerSettings,
    *,
    ready: Callable[[str], None],
    stop: anyio.Event,
    context: ssl.SSLContext | None = None,
    reload: Reloadable | None = None,
) -> None:
    """Serve until `stop`; then let running sessions finish within the grace.

    Args:
        settings: What was asked for.
        ready: Called once with the URL to connect to, when connections are accepted.
        stop: Set it to end.
        context: The TLS context of a server; None for `settings.plain`.
        reload: Looked at from time to time.
    """
    async with await listen_tcp(*settings.listen) as listener, anyio.create_task_group() as tasks:
        end = _ServerEnd(settings, context, tasks)
        tasks.start_soon(end.sweeper.run)
        if reload is not None:
            tasks.start_soon(_reload, reload)
        tasks.start_soon(accept_all, listener, end.handle, tasks)
        scheme = "ws" if context is None else "wss"
        ready(f"{scheme}://{listening_on(listener)}{settings.path}")
        await stop.wait()
        await listener.aclose()
        await end.drain()
        tasks.cancel_scope.cancel()


async def _reload(reload: Reloadable) -> None:
    while True:
        await anyio.sleep(_RELOAD_INTERVAL)
        await anyio.to_thread.run_sync(reload.reload_if_changed)


class _ServerEnd:
    def __init__(self, settings: ServerSettings, context: ssl.SSLContext | None, tasks: TaskGroup) -> None:
        self._settings = settings
        self._context = context
        self._workers = Workers(tasks)
        self._front = Front(settings.path, settings.token, settings.fallback_dir, settings.fallback_url)
        self._numbers = itertools.count(1)
        self._connections = 0
        self._handshakes = 0
        self._sessions = 0
        self._draining = False
        self.sweeper = Sweeper()

    # --- tunnels ----------------------------------------------------------------------------------------

    async def handle(self, stream: TCPStream) -> None:
        """Serve one connection. Whatever happens to it happens to nobody else."""
        settings = self._settings
        if self._connections >= settings.max_connections or self._handshakes >= settings.max_handshakes:
            _logger.warning(
                "a connection was refused: there are %d, %d without a tunnel", self._connections, self._handshakes
            )
            await stream.aclose()
            return
        self._connections += 1
        tunnel: Tunnel | None = None
        try:
            async with stream:
                tunnel = await self._accept(stream)
                if tunnel is not None:
                    # Not by `watch`: a coroutine less that waits, for each tunnel.
                    self.sweeper.tunnels.add(tunnel)
                    await tunnel.run()
        except Exception:
            _logger.exception("a tunnel failed by an error in this program")
        finally:
            self._connections -= 1
            if tunnel is not None:
                self.sweeper.tunnels.discard(tunnel)

    async def _accept(self, stream: TCPStream) -> Tunnel | None:
        websocket = await self._accept_websocket(stream)
        if websocket is not None and self._draining:  # it was on its way when the end began
            await websocket.aclose(CloseCode.GOING_AWAY, "going away")
            return None
        return None if websocket is None else self._new_tunnel(websocket)

    async def _accept_websocket(self, stream: TCPStream) -> WebSocketConnection | None:
        self._handshakes += 1
        try:
            over: ByteStream = stream
            if self._context is not None:
                with anyio.move_on_after(_HANDSHAKE_TIMEOUT) as handshake:
                    over = await TLSStream.wrap(stream, server_side=True, ssl_context=self._context)
                if handshake.cancelled_caught:
                    raise TimeoutError(f"there was no TLS handshake within {_HANDSHAKE_TIMEOUT:g} s")
            return await accept_websocket(
                over, self._front, upgrade_timeout=_HANDSHAKE_TIMEOUT, settings=WEBSOCKET_SETTINGS
            )
        except (WebSocketError, OSError, anyio.EndOfStream, *GONE) as error:
            _logger.info("a connection brought no tunnel: %s", advice.of_accept(error))
            return None
        finally:
            self._handshakes -= 1

    def _new_tunnel(self, websocket: WebSocketConnection) -> Tunnel:
        return Tunnel(
            websocket,
            new_machine(ServerTunnel),
            ping_after=SERVER_PING_AFTER,
            idle_timeout=self._settings.idle_timeout,
            dial=self._start_dial,
        )

    async def drain(self) -> None:
        """Let no session begin, close idle tunnels, and wait for the others within the grace."""
        self._draining = True
        grace = self._settings.grace
        with anyio.move_on_after(grace):
            async with anyio.create_task_group() as goodbyes:
                for tunnel in list(self.sweeper.tunnels):
                    goodbyes.start_soon(self._say_goodbye, tunnel, int(grace * 1000))

    async def _say_goodbye(self, tunnel: Tunnel, grace_ms: int) -> None:
        await tunnel.say(tunnel.machine.go_away(Code.GOING_AWAY, grace_ms))
        await tunnel.idle()
        await tunnel.flush()
        await tunnel.say(tunnel.machine.close(CloseCode.GOING_AWAY, "going away"))

    # --- sessions ---------------------------------------------------------------------------------------

    async def _start_dial(self, tunnel: Tunnel, request: Open) -> None:
        record = SessionRecord(id=f"s{next(self._numbers)}", role="server", destination=request.address)
        session = Session(request.address, record, Code.RESET_BY_DESTINATION)
        tunnel.begin(session)
        # As a number: the request itself would be kept for as long as the session runs.
        self._workers.start_soon(self._session, tunnel, session, request.deadline / 10)

    async def _session(self, tunnel: Tunnel, session: Session, timeout: float) -> None:
        self._sessions += 1
        try:
            opened = await self._dial(tunnel, session, timeout)
            if opened:
                await self._say_opened(tunnel, session, opened)
                await (self._relay_early(tunnel, session, opened) if opened else session.carry())
        except Exception:
            _logger.exception("a session failed by an error in this program")
            self._conclude(session)
            await anyio.aclose_forcefully(tunnel.websocket)
        except BaseException:
            self._conclude(session)
            raise
        else:
            # Perhaps with the next OPEN only. No task waits for it.
            session.when_over(self._conclude)

    def _conclude(self, session: Session) -> None:
        self._sessions -= 1
        session.conclude()
        if session.local is not None:
            session.local.close()

    async def _say_opened(self, tunnel: Tunnel, session: Session, opened: list[Effect]) -> None:
        """OPENED goes out, and no longer is among the effects: what came early is left."""
        session.held = len(opened) > 1  # no data overtakes what came early
        await tunnel.say([opened.pop(0)])
        session.permit()

    async def _relay_early(self, tunnel: Tunnel, session: Session, early: list[Effect]) -> None:
        """What came early goes to the destination, and what that says to the client."""
        async with anyio.create_task_group() as tasks:
            # Meanwhile: a destination may take no more before it has been heard.
            tasks.start_soon(session.carry)
            await tunnel.say(early)
            tunnel.go_on(session)

    async def _dial(self, tunnel: Tunnel, session: Session, timeout: float) -> list[Effect]:
        """Dial, and tell the client of a failure; of a success, the effects. None if there is nothing to relay."""
        machine, settings, number = tunnel.machine, self._settings, session.number
        assert isinstance(machine, ServerTunnel)
        began = time.monotonic()
        try:
            if self._sessions > settings.max_sessions:
                raise DialFailed(Code.LIMIT_REACHED, f"there are {settings.max_sessions} sessions")
            timeout = min(settings.dial_timeout, timeout or settings.dial_timeout)
            with anyio.move_on_after(timeout) as session.dial_scope:
                if tunnel.runs(session):  # else it was cancelled before this task began
                    session.join(await dial(session.address, settings.policy, lookup_timeout=settings.lookup_timeout))
            if session.local is None and session.dial_scope.deadline <= anyio.current_time():
                raise DialFailed(Code.TIMED_OUT, f"no address of {session.address.host} answered within {timeout:g} s")
        except DialFailed as error:
            session.failed(error.code, str(error))
            await tunnel.say(machine.dial_failed(number, error.code, str(error), now=time.monotonic()))
            return []
        finally:
            session.dial_scope = None
            session.record.dial_time = time.monotonic() - began
        if session.local is None:
            session.failed(Code.CANCELLED, "the client went away")
            return []
        dial_ms = int(session.record.dial_time * 1000)
        effects = machine.dial_succeeded(number, dial_ms, bound_address(session.local))
        if tunnel.runs(session):
            return effects
        session.failed(Code.CANCELLED, "the client went away")
        session.abort()
        return []
