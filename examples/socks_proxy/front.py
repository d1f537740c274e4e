"""SHELL. What the server end answers to an HTTP request: a tunnel, to who knows path and token, or a page."""

from __future__ import annotations

import hmac
import logging
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import anyio

from wspool.websocket import Accept, Request, Response

from .packets import SUBPROTOCOL
from .website import fetch

_logger = logging.getLogger("wspool.proxy")

_PAGE = b"""<!doctype html>
<title>It works</title>
<h1>It works</h1>
<p>This server has nothing to show here.</p>
"""
_HTML = [("Content-Type", "text/html; charset=utf-8")]
# Files are read whole: a site as a front needs no larger ones.
_MAX_FILE = 8 * 1024 * 1024


class Front:
    """Decides what a request gets. To who does not know path and token, there is no tunnel to be seen."""

    def __init__(
        self, path: str, token: str | None, fallback_dir: str | None = None, fallback_url: str | None = None
    ) -> None:
        self._path = path.encode()
        self._token = None if token is None else token.encode()
        self._url = fallback_url
        self._root = None if fallback_dir is None else Path(fallback_dir).resolve()

    async def __call__(self, request: Request) -> Accept | Response:
        """The hook of `accept_websocket`."""
        if self._is_tunnel(request):
            return Accept(subprotocol=SUBPROTOCOL)
        return await self._page(request)

    def _is_tunnel(self, request: Request) -> bool:
        if not request.upgrade or SUBPROTOCOL not in request.subprotocols:
            return False
        # Both are compared, in constant time, whatever the first says.
        path = hmac.compare_digest(request.path.encode(), self._path)
        token = self._token is None or hmac.compare_digest(_bearer(request.headers), self._token)
        if path and token:
            return True
        # For who runs this end only: the client gets a page, as any visitor.
        _logger.info("a client that asked for a tunnel gets a page: its %s is wrong", "token" if path else "path")
        return False

    async def _page(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, [("Allow", "GET, HEAD")])
        if self._url is not None:
            return await fetch(self._url, request)
        if self._root is not None:
            return await self._file(self._root, request.path)
        return Response(200, _HTML, _PAGE) if request.path == "/" else Response(404, _HTML, b"<h1>Not Found</h1>\n")

    async def _file(self, root: Path, path: str) -> Response:
        try:
            target = (root / unquote(path).lstrip("/")).resolve()
            if target.is_dir():
                target = (target / "index.html").resolve()
            if not target.is_relative_to(root) or target.stat().st_size > _MAX_FILE:
                return Response(404, _HTML, b"<h1>Not Found</h1>\n")
            body = await anyio.Path(target).read_bytes()
        except (OSError, ValueError, RuntimeError):  # a null byte in the path; links in a circle, before 3.13
            return Response(404, _HTML, b"<h1>Not Found</h1>\n")
        kind = mimetypes.guess_type(target.name)[0] or "application/octet-stream"
        return Response(200, [("Content-Type", kind)], body)


def _bearer(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        scheme, _, token = value.partition(b" ")
        if name.lower() == b"authorization" and scheme.lower() == b"bearer":
            return token.strip()
    return b""
