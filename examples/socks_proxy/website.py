"""SHELL. Fetches from another website what a stranger asks the server end for, so that it looks like that site."""

from __future__ import annotations

import base64
import functools
import re
import ssl
from urllib.parse import SplitResult, unquote, urlsplit

import anyio
import h11
from anyio.abc import ByteStream

from wspool.websocket import Request, Response, TLSStream, connect_tcp, default_context

_TIMEOUT = 10.0
# Of what is fetched; a page larger than that is answered by an error.
_MAX_BODY = 8 * 1024 * 1024
# Of one connection, or made anew by the server (RFC 9110 section 7.6.1).
_OWN = frozenset(
    (b"connection", b"content-length", b"date", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_PASSED_ON = frozenset((b"accept", b"accept-language", b"user-agent", b"if-modified-since", b"if-none-match"))

_BAD_GATEWAY = Response(502, [("Content-Type", "text/plain; charset=utf-8")], b"Bad Gateway\n")


async def fetch(url: str, request: Request) -> Response:
    """The site's answer to this request, of a GET or HEAD; 502 if there is none in time, or a too large one."""
    try:
        with anyio.move_on_after(_TIMEOUT):
            return await _fetch(url, request)
    except (OSError, ValueError, h11.ProtocolError, anyio.BrokenResourceError, anyio.EndOfStream):
        pass  # ValueError: what cannot be passed on, such as a status of 999
    return _BAD_GATEWAY


@functools.cache
def _context() -> ssl.SSLContext:
    # Reading the system's certificates stops this thread for a tenth of a second: not for each stranger.
    return default_context()


def _target(site: SplitResult, request: Request) -> str:
    """What to ask the site for: never another host, nor what lies above the URL's own path."""
    if not request.path.startswith("/") or ".." in re.split(r"[/\\]", unquote(request.path)):
        raise ValueError(f"{request.target!r} is not below the site's URL")
    return site.path.rstrip("/") + request.path + (f"?{request.query}" if request.query else "")


async def _fetch(url: str, request: Request) -> Response:
    site = urlsplit(url)
    target = _target(site, request)
    secure = site.scheme == "https"
    host = site.hostname or ""
    stream: ByteStream = await connect_tcp(host, site.port or (443 if secure else 80))
    async with stream:
        if secure:
            stream = await TLSStream.wrap(stream, hostname=host, ssl_context=_context(), standard_compatible=False)
        headers = [(name, value) for name, value in request.headers if name in _PASSED_ON]
        headers += [(b"host", site.netloc.rpartition("@")[2].encode()), (b"connection", b"close")]
        if site.username is not None:
            secret = f"{unquote(site.username)}:{unquote(site.password or '')}".encode()
            headers.append((b"authorization", b"Basic " + base64.b64encode(secret)))
        asked = h11.Request(method=request.method, target=target, headers=headers)
        return await _exchange(stream, asked)


async def _exchange(stream: ByteStream, asked: h11.Request) -> Response:
    http = h11.Connection(h11.CLIENT)
    await stream.send((http.send(asked) or b"") + (http.send(h11.EndOfMessage()) or b""))
    answer: h11.Response | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            try:
                http.receive_data(await stream.receive())
            except anyio.EndOfStream:
                http.receive_data(b"")
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MAX_BODY:
                return _BAD_GATEWAY
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            # Bytes that are not ASCII cannot be sent on: rather a page without that header than none.
            headers = [pair for pair in answer.headers if pair[0] not in _OWN and pair[1].isascii()]
            return Response(answer.status_code, headers, bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            return _BAD_GATEWAY
