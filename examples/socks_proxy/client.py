"""SHELL. The client end: a SOCKS5 listener, and a pool of tunnels to the server."""

from __future__ import annotations

import itertools
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
from anyio import EndOfStream
from anyio.abc import TaskGroup

from wspool import Pool, Pooled, PoolError, PoolTimeout
from wspool.websocket import TCPStream, WebSocketError, connect_websocket, listen_tcp

from . import advice
from .certificates import client_context
from .codes import Code
from .effects import SessionOpened, SessionRefused
from .listening import accept_all, listening_on
from .liveness import CLIENT_PING_AFTER, FRESH, SleepDetector
from .packets import SUBPROTOCOL
from .relay import GONE, Session, send_all
from .returning import Returning, return_patience
from .session import MAX_AGE, ClientTunnel
from .session_log import SessionRecord
from .socks5 import NO_AUTHENTICATION, USERNAME_PASSWORD, Credentials, Refusal, Request, Socks5Server
from .sweeper import Sweeper
from .tunnel import WEBSOCKET_SETTINGS, Tunnel, new_machine
from .workers import Workers

if TYPE_CHECKING:
    from .settings import ClientSettings

_logger = logging.getLogger("wspool.proxy")

_NO_TUNNEL = (PoolError, WebSocketError, OSError)
"""What getting one raises."""
# The steps of opening one, each within --connect-timeout: TCP, an HTTP proxy, TLS, the upgrade.
_STEPS = 4
# Who waits for a step that takes too long is to hear which one it was.
_STEP_GRACE = 1.0
# After a refusal the client may read it: so long the connection stays open (RFC 1928 section 6 allows 10 s).
_LINGER = 2.0
# Who guesses passwords has to wait after each.
_GUESS_DELAY = 1.0
# The server is told how long it may dial; its answer may take so much longer.
_ANSWER_GRACE = 5.0
# Handshakes at once: some clients of a server fit into its --max-handshakes together.
_MAX_DIALS = 64
# What a burst has opened is closed again after so long; the newest tunnels are used first.
_IDLE_TIMEOUT = 600.0
# So long a dead tunnel may count as an idle one, and none is opened in its place.
_CHECK_INTERVAL = 2.0


async def run_client(
    settings: ClientSettings,
    *,
    ready: Callable[[str], None],
    stop: anyio.Event,
    ssl_context: ssl.SSLContext | None = None,
) -> None:
    """Serve until `stop`; then let running sessions finish within the grace.

    Args:
        settings: What was asked for.
        ready: Called once with the URL to use, when connections are accepted.
        stop: Set it to end.
        ssl_context: In place of one made from the settings.
    """
    async with await listen_tcp(*settings.listen) as listener, anyio.create_task_group() as tasks:
        end = _ClientEnd(settings, ssl_context, tasks)
        tasks.start_soon(end.sweeper.run)
        async with end.pool:
            async with anyio.create_task_group() as sessions:
                workers = Workers(sessions)
                tasks.start_soon(accept_all, listener, end.handle, workers)
                ready(f"socks5://{listening_on(listener)}")
                await stop.wait()
                await listener.aclose()
                workers.close()
                sessions.cancel_scope.deadline = anyio.current_time() + settings.grace
        tasks.cancel_scope.cancel()


def _context(settings: ClientSettings) -> ssl.SSLContext | None:
    if urlsplit(settings.server).scheme != "wss":
        return None
    return client_context(ca_file=settings.ca_file, cert=settings.cert, key=settings.key, insecure=settings.insecure)


def dial_deadline(seconds: float) -> int:
    """As OPEN has it: in tenths of a second and 16 bits, and 0 would be the server's own."""
    return min(max(1, round(seconds * 10)), 65535)


async def _is_reusable(tunnel: Tunnel) -> bool:
    return tunnel.is_reusable()


class TunnelFailed(WebSocketError):
    """A tunnel could not be opened; the text names the options of the program that matter."""


class _ClientEnd:
    def __init__(self, settings: ClientSettings, context: ssl.SSLContext | None, tasks: TaskGroup) -> None:
        self._settings = settings
        self._context = context or _context(settings)
        self._tasks = tasks
        self._methods = (NO_AUTHENTICATION,) if settings.users is None else (USERNAME_PASSWORD,)
        self._sleep = SleepDetector(time.monotonic(), time.time())
        self._numbers = itertools.count(1)
        self.returning = Returning()
        self.sweeper = Sweeper()
        self.pool = Pool(
            self._dial,
            max_idle=settings.max_idle,
            max_size=settings.max_size,
            min_idle=settings.min_idle,
            max_connecting=_MAX_DIALS,
            connect_timeout=_STEPS * settings.connect_timeout + _STEP_GRACE,
            acquire_timeout=settings.connect_timeout + _STEP_GRACE,
            idle_timeout=_IDLE_TIMEOUT,
            # Whoever gets one asks `is_reusable`; this is for those that have died or grown too old while nobody did.
            validate=_is_reusable,
            validate_bypass_interval=2 * MAX_AGE,
            validate_interval=_CHECK_INTERVAL,
            close_timeout=WEBSOCKET_SETTINGS.close_timeout,
            name="tunnels",
        )

    async def _dial(self) -> Tunnel:
        settings = self._settings
        headers = list(settings.headers)
        if settings.token is not None:
            headers.append(("Authorization", f"Bearer {settings.token}"))
        try:
            websocket = await connect_websocket(
                settings.server,
                headers=headers,
                subprotocols=[SUBPROTOCOL],
                ssl_context=self._context,
                server_hostname=settings.sni,
                proxy=settings.via,
                connect_timeout=settings.connect_timeout,
                settings=WEBSOCKET_SETTINGS,
            )
        except WebSocketError as error:
            raise TunnelFailed(advice.of_dial(error, secure=self._context is not None)) from error
        machine = new_machine(ClientTunnel)
        tunnel = Tunnel(websocket, machine, ping_after=CLIENT_PING_AFTER, idle_timeout=settings.idle_timeout)
        self._tasks.start_soon(self.sweeper.watch, tunnel, name="tunnel")
        # Its answer tells how long a round trip takes, before that matters.
        try:
            await tunnel.say(machine.ping(time.monotonic()))
        except BaseException:
            tunnel.lost = "opening it was cancelled"
            await anyio.aclose_forcefully(websocket)
            raise
        return tunnel

    # --- one connection of an application ---------------------------------------------------------------

    async def handle(self, stream: TCPStream) -> None:
        """Serve one application. Whatever happens to it happens to nobody else."""
        session: Session | None = None
        try:
            socks = Socks5Server(self._methods)
            self.sweeper.close_at[stream] = time.monotonic() + self._settings.greeting_timeout
            session = await self._negotiate(stream, socks)
            del self.sweeper.close_at[stream]
            if session is not None:
                await self._serve(session, socks, stream)
        except (EndOfStream, *GONE):
            pass  # it went away before it was served
        except Exception:
            _logger.exception("a session failed by an error in this program")
        finally:
            self.sweeper.close_at.pop(stream, None)
            if session is not None:
                session.conclude()
            stream.close()

    async def _negotiate(self, stream: TCPStream, socks: Socks5Server) -> Session | None:
        record = SessionRecord(id=f"c{next(self._numbers)}", role="client")
        while True:
            event = socks.next_event()
            if isinstance(event, Credentials):
                users = self._settings.users
                admitted = users is not None and users.admits(event.name, event.password)
                record.user = event.name.decode("utf-8", "replace")
                socks.answer_credentials(admitted)
                if not admitted:
                    await anyio.sleep(_GUESS_DELAY)
                    event = Refusal("wrong user name or password")
            out = socks.data_to_send()
            if out:
                await send_all(stream, out)
            if isinstance(event, Refusal):
                _logger.info("a client was refused: %s", event.reason)
                await _hang_up(stream)
                return None
            if isinstance(event, Request):
                record.destination = event.address
                return Session(event.address, record, Code.LOCAL_CLIENT_GONE, stream)
            if event is None and socks.wants_data:  # after a password, the request may be there already
                socks.receive_data(await stream.receive_on(4096))

    async def _serve(self, session: Session, socks: Socks5Server, stream: TCPStream) -> None:
        if self._settings.fast_open:
            socks.reply(Code.SUCCEEDED)
            await _tell(session, socks, stream)
        session.unsaid = socks.take_rest()
        session.on_opened = partial(self._opened, session, socks, stream)
        try:
            pooled = await self._check_out(session)
        except _NO_TUNNEL as error:
            await self._refused(session, socks, stream, self._without_tunnel(session, error))
        else:
            if pooled is None:
                return
            try:
                refusal = None if session.given_up else await self._run(session, pooled)
                if refusal is None:
                    return
                await self._refused(session, socks, stream, refusal)
                # Of a server that has not answered, the tunnel may still hear.
                await session.until(lambda: session.over)
            finally:
                pooled.release()
                self.returning.ended(session)
        await _hang_up(stream)

    async def _opened(self, session: Session, socks: Socks5Server, stream: TCPStream, answer: SessionOpened) -> None:
        session.record.dial_time = answer.dial_ms / 1000
        if not self._settings.fast_open:
            socks.reply(Code.SUCCEEDED, answer.bound)
            await _tell(session, socks, stream)
        session.on_opened = None  # it knows the session
        session.permit()

    async def _refused(self, session: Session, socks: Socks5Server, stream: TCPStream, answer: SessionRefused) -> None:
        # Whatever the server calls it, it was no success.
        code = answer.code or Code.GENERAL_FAILURE
        session.failed(code, answer.text)
        if self._settings.fast_open:
            session.abort()  # it has been told of a success
        elif not session.given_up:
            socks.reply(code)
            await _tell(session, socks, stream)

    # --- a session on its tunnel ------------------------------------------------------------------------

    async def _check_out(self, session: Session) -> Pooled[Tunnel] | None:
        """A tunnel that is idle, at once; or one that takes its time, while it is noticed if nobody waits any more.

        None if so, and none was asked for yet.
        """
        began, session.record.pool_wait = time.monotonic(), 0.0
        try:
            return self.pool.get_nowait()
        except anyio.WouldBlock:
            asked_for: list[Pooled[Tunnel]] = []
        try:
            await session.watched(partial(self._wait, asked_for))
        except BaseException:
            for pooled in asked_for:
                pooled.release()
            raise
        finally:
            session.record.pool_wait = time.monotonic() - began
        return asked_for[0] if asked_for else None

    async def _wait(self, asked_for: list[Pooled[Tunnel]]) -> None:
        try:
            await self.returning.wait(time.monotonic())
            asked_for.append(self.pool.get())
            await asked_for[0].__aenter__()
        except BaseException:
            self.returning.tell_next()
            raise

    async def _run(self, session: Session, pooled: Pooled[Tunnel]) -> SessionRefused | None:
        """Run the session on a tunnel; if it turns out to be dead or going away, once more on a fresh one.

        Returns when it is over, or what the application is to be told.
        """
        tunnel = pooled.connection
        session.record.reused = tunnel.sessions > 0
        if await self._begin(session, tunnel):
            await session.carried(self._all_said)
        refusal = session.refusal
        if refusal is None or not refusal.retry_is_safe or session.committed:
            return refusal
        if tunnel.lost:
            self._suspect_siblings(tunnel)
        _logger.info("%s: tried again on a fresh tunnel: %s", session.record.id, refusal.text)
        session.restart()  # from now on nothing goes to the tunnel that failed
        self._tasks.start_soon(pooled.take().aclose)
        try:
            await session.watched(partial(self._dial_into, pooled))
        except _NO_TUNNEL as error:
            return self._without_tunnel(session, error)
        session.record.reused = False
        if not session.given_up and await self._begin(session, pooled.connection):
            await session.carried(self._all_said)
        return session.refusal

    async def _dial_into(self, pooled: Pooled[Tunnel]) -> None:
        pooled.insert(await self._dial())

    async def _begin(self, session: Session, tunnel: Tunnel) -> bool:
        """Begin the session on this tunnel, if it still can; else it was refused."""
        now = time.monotonic()
        if tunnel.may_begin(now):
            await self._open(session, tunnel, now)
            return True
        # It has ended since the pool asked, or since it was opened.
        why = tunnel.lost or "the tunnel has ended"
        session.answer = SessionRefused(0, Code.GENERAL_FAILURE, why, retry_is_safe=True)
        session.finish()  # in case that there is no other attempt: no tunnel will tell
        return False

    def _all_said(self, session: Session) -> None:
        assert session.tunnel is not None
        self.returning.expect(session, time.monotonic() + return_patience(session.tunnel.machine.round_trip))

    async def _open(self, session: Session, tunnel: Tunnel, now: float) -> None:
        if self._sleep.was_suspended(now, time.time()):
            for each in self.sweeper.tunnels:
                each.liveness.suspect = True
        machine, timeout = tunnel.machine, self._settings.connect_timeout
        assert isinstance(machine, ClientTunnel)
        effects = machine.open(session.address, deadline=dial_deadline(timeout), now=now)
        tunnel.begin(session)
        session.answer_by = now + timeout + _ANSWER_GRACE
        if tunnel.liveness.needs_ping(now):
            effects += tunnel.ask(now)
        if self._settings.fast_open:
            session.may_relay = True
            effects += session.take_unsaid(tunnel)
        else:
            # With early data it could not be tried again, and a server that has much of it reads no PING.
            session.ask_at = now + FRESH
        await tunnel.say(effects)

    def _without_tunnel(self, session: Session, error: Exception) -> SessionRefused:
        session.finish()
        why = self._why_none(error) if isinstance(error, PoolTimeout) else str(error)
        return SessionRefused(0, Code.GENERAL_FAILURE, f"no tunnel: {why}", retry_is_safe=False)

    def _why_none(self, error: PoolTimeout) -> str:
        figures, settings = self.pool.statistics(), self._settings
        if figures.size >= settings.max_size and not figures.idle and not figures.dialling:
            return f"all {settings.max_size} are in use; more are possible with --max-size"
        last = f"; the last one that was tried: {error.__cause__}" if error.__cause__ is not None else ""
        return f"none was ready within {settings.connect_timeout:g} s (--connect-timeout){last}"

    def _suspect_siblings(self, dead: Tunnel) -> None:
        for tunnel in self.sweeper.tunnels:
            tunnel.liveness.suspect_if_older(dead.liveness)


async def _tell(session: Session, socks: Socks5Server, stream: TCPStream) -> None:
    """Send the reply."""
    try:
        await send_all(stream, socks.data_to_send())
    except GONE as error:
        await session.give_up(Code.LOCAL_CLIENT_GONE, str(error))


async def _hang_up(stream: TCPStream) -> None:
    """Close when the application has read what it was told (RFC 1928 section 6: within 10 s)."""
    await stream.send_eof()
    with anyio.move_on_after(_LINGER):
        while True:
            await stream.receive()
