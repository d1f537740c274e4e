"""SHELL. Answers a client that asks for a websocket, on any byte stream."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

import anyio
from anyio import BrokenResourceError, CancelScope, ClosedResourceError, EndOfStream, aclose_forcefully
from anyio.abc import ByteStream

from ._connection import WebSocketConnection
from ._errors import ConnectTimeout, UpgradeFailed
from ._handshake import (
    BODY_LIMIT,
    Accept,
    Refusal,
    Request,
    Response,
    ServerHandshake,
    default_decision,
)
from ._http import check_headers, check_kind, check_limit, check_subprotocols, described
from ._settings import WebSocketSettings, check_settings

Decision: TypeAlias = Accept | Response | None
Handler: TypeAlias = Callable[[Request], Decision | Awaitable[Decision]]
"""Sees the request and says what to answer; None for what would be answered without a handler."""

# After a refusal the client's bytes are read for so long and no longer, lest a TCP reset overtakes the
# answer (RFC 9112 section 9.6). nginx: lingering_timeout 5 s.
_LINGER_TIME = 1.0
_LINGER_BYTES = 256 * 1024

# What streams raise when the far end is gone, those of TLS included.
_BROKEN = (BrokenResourceError, ClosedResourceError, OSError)

_INTERNAL_ERROR = Response(500, [("Content-Type", "text/plain; charset=utf-8")], b"Internal Server Error\n")


async def accept_websocket(
    stream: ByteStream,
    handler: Handler | None = None,
    *,
    subprotocols: Iterable[str] = (),
    # Apache's RequestReadTimeout 20 s, nginx's client_header_timeout 60; the websockets library's open_timeout 10.
    upgrade_timeout: float | None = 10.0,
    settings: WebSocketSettings | None = None,
) -> WebSocketConnection:
    """Make a websocket of a stream on which a client is about to ask for one (RFC 6455 section 4.2).

    The stream may be TCP, TLS, a Unix socket or anything else. It carries one request: whatever is
    answered but an acceptance, the stream is closed after it.

    Args:
        stream: Taken over: it is the connection's, or closed.
        handler: Sees the request and returns an `Accept`, perhaps with one of the subprotocols
            offered and more headers; a `Response`, which refuses, or answers plain HTTP such as a
            health check; or None, for what happens without a handler. It may be asynchronous. It
            is not asked about requests that break the rules of HTTP or RFC 6455: those get 400,
            405, 426, 431, 501 or 505. Who may connect, and from which Origin, is for it to decide.
        subprotocols: Without a handler's word, every upgrade is accepted, with the first subprotocol
            that the client offers and that is among these; anything else is answered with 426.
        upgrade_timeout: Seconds for it all: the request, the handler and the answer. None for no limit.
        settings: Limits and times of the connection.

    Raises:
        UpgradeFailed: Something else was answered, with the status, or the client went away, with none.
        ConnectTimeout: It took too long; the text says at what.
        ValueError: An argument is wrong, or the handler accepted what cannot be; TypeError alike.
        Exception: What the handler raised, after a 500 has been answered.

    Whatever is raised, and when it is cancelled, the stream has been closed; after an answer this
    may take a second more.
    """
    try:
        limit = check_limit("upgrade_timeout", upgrade_timeout)
        settings = check_settings(settings)
        check_kind("handler", handler, Callable | None, "a function or None")
        outcome = await _Upgrade(stream, handler, check_subprotocols(subprotocols), limit).run()
        if isinstance(outcome, Accept):
            return WebSocketConnection(stream, client=False, settings=settings, subprotocol=outcome.subprotocol)
    except BaseException:
        await _drop(stream)
        raise
    raise outcome


class _Upgrade:
    """One upgrade, and how far it is."""

    def __init__(
        self, stream: ByteStream, handler: Handler | None, subprotocols: tuple[str, ...], limit: float
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._subprotocols = subprotocols
        self._limit = limit
        self._handshake = ServerHandshake()
        self._what = "the client's request"
        self._acceptance = b""

    async def run(self) -> Accept | Exception:
        """What has been accepted; or the error to raise, after another answer and with the stream closed."""
        outcome: Accept | tuple[Response, Exception] | None = None
        with anyio.move_on_after(self._limit) as scope:
            outcome = await self._decide()
            if isinstance(outcome, Accept):
                await self._send_acceptance()
                return outcome
        if outcome is None or isinstance(outcome, Accept):
            raise ConnectTimeout(f"{self._what} took longer than upgrade_timeout allows, {self._limit:g} s")
        response, error = outcome
        # An answer that is ready gets its chance.
        with CancelScope(deadline=max(scope.deadline, anyio.current_time() + _LINGER_TIME)):
            await _send(self._stream, self._handshake.answer(response))
        await _hang_up(self._stream)
        return error

    async def _decide(self) -> Accept | tuple[Response, Exception]:
        request = await self._receive_request()
        if isinstance(request, Refusal):
            return request.response, _answered(request.response, request.reason)
        self._what = "the handler"
        try:
            decision = await self._ask_handler(request)
            if isinstance(decision, Accept):
                # Here, so that an acceptance that cannot be is the handler's fault.
                self._acceptance = self._handshake.accept(decision)
                return decision
        except Exception as error:
            return _INTERNAL_ERROR, error
        # Not from the target's query on: it may hold a secret.
        return decision, _answered(decision, f"{request.method} {request.path[:100]!r}")

    async def _receive_request(self) -> Request | Refusal:
        try:
            while True:
                request = self._handshake.receive(await self._stream.receive())
                if request is not None:
                    return request
        except (EndOfStream, *_BROKEN) as error:
            raise UpgradeFailed(self._handshake.receive_eof()) from error

    async def _ask_handler(self, request: Request) -> Accept | Response:
        decision: object = self._handler and self._handler(request)
        if inspect.isawaitable(decision):
            decision = await decision
        if decision is None:
            return default_decision(request, self._subprotocols)
        # Handlers without a type checker.
        if not isinstance(decision, Accept | Response):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"handler must return an Accept, a Response or None, got {decision!r}")
        return decision

    async def _send_acceptance(self) -> None:
        self._what = "sending the answer"
        try:
            await self._stream.send(self._acceptance)
        except _BROKEN as error:
            raise UpgradeFailed("the client went away before it was answered") from error


def _answered(response: Response, what: str) -> UpgradeFailed:
    return UpgradeFailed(
        f"no websocket was opened; the client was answered {described(response.status)}: {what}",
        status=response.status,
        headers=check_headers(response.headers),
        body=response.body[:BODY_LIMIT],
    )


async def _send(stream: ByteStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except _BROKEN:
        pass  # a client that does not wait for its answer


async def _hang_up(stream: ByteStream) -> None:
    """Close so that the answer arrives, and within a time limit."""
    with anyio.move_on_after(_LINGER_TIME):
        try:
            await stream.send_eof()
            left = _LINGER_BYTES
            while left > 0:
                left -= len(await stream.receive())
        except (EndOfStream, NotImplementedError, *_BROKEN):
            pass  # TLS has no half-close
    with anyio.move_on_after(_LINGER_TIME):
        try:
            await stream.aclose()
        except _BROKEN:
            pass


async def _drop(stream: ByteStream) -> None:
    """Close at once, whatever the stream says to it: another error is on its way."""
    with CancelScope(shield=True):
        try:
            await aclose_forcefully(stream)
        except _BROKEN:
            pass
