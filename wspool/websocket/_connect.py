"""SHELL. Opens a websocket: TCP, a proxy perhaps, TLS perhaps, and the upgrade, each within a time limit."""

from __future__ import annotations

import errno
import functools
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias, TypeVar, cast

import anyio
from anyio import BrokenResourceError, CancelScope, EndOfStream, to_thread
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute

from ._connection import WebSocketConnection
from ._errors import ConnectFailed, ConnectTimeout, TLSFailed
from ._handshake import Agreement, ClientHandshake
from ._http import Headers, ProxyHandshake, check_kind, check_limit
from ._settings import WebSocketSettings, check_settings
from ._tcp import connect_tcp
from ._tls import TLSStream, default_context, is_truncation
from ._url import ProxyURL, WebSocketURL, check_host, parse_proxy_url, parse_websocket_url

T = TypeVar("T")
Path: TypeAlias = str | os.PathLike[str]
ClientCert: TypeAlias = Path | tuple[Path, Path]

_PATH = (str, bytes, os.PathLike, type(None))
# RFC 7301; h2 would carry no upgrade.
_ALPN = "http/1.1"

# Of this process, or of the machine: nothing that the far end could do anything about.
_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE))


async def connect_websocket(
    url: str,
    *,
    headers: Headers = (),
    subprotocols: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    ca_file: Path | None = None,
    client_cert: ClientCert | None = None,
    server_hostname: str | None = None,
    proxy: str | None = None,
    # As wspool's connect_timeout; the websockets library has 10 s, but for the whole.
    connect_timeout: float | None = 10.0,
    settings: WebSocketSettings | None = None,
) -> WebSocketConnection:
    """Connect to a websocket server as a client (RFC 6455 section 4.1).

    A name with several addresses is tried at all of them (RFC 8305). Redirects are not followed.

    Args:
        url: `ws://` or `wss://`. User name and password in it become Basic credentials.
        headers: Sent with the upgrade, as pairs or a mapping, in ASCII.
        subprotocols: Offered to the server, which must then choose one of them.
        ssl_context: Used as it is, with whatever it verifies; let it offer `http/1.1` by ALPN, or nothing.
            By default TLS 1.2 or later is spoken and the certificate verified. A context takes
            milliseconds to make: where many connections need their own `ca_file`, make one and give it here.
        ca_file: Certificates (PEM) to trust instead of the system's.
        client_cert: The file with the client's certificate and key (PEM), or a pair of files; keys
            with a password need an `ssl_context`.
        server_hostname: The name to ask for (SNI) and to verify, if it is not the URL's host.
        proxy: `http://user:password@host:port` of a proxy that is asked with CONNECT.
        connect_timeout: Seconds for each phase: TCP, proxy, TLS, upgrade. None for no limit.
        settings: Limits and times of the connection.

    Raises:
        InvalidURL: The URL, or the proxy's, is wrong.
        ValueError: Some other argument is, or a file holds no certificate; TypeError alike.
        ConnectFailed: No TCP connection came about, or the proxy refused.
        TLSFailed: The TLS handshake failed.
        UpgradeFailed: The server refused, with its status, headers and body, or is no websocket server.
        ConnectTimeout: A phase took too long; the text says which.
        OSError: A file of certificates cannot be read.

    Whatever is raised, and when it is cancelled, the transport has been closed.
    """
    target = parse_websocket_url(url)
    by_way_of = None if proxy is None else parse_proxy_url(proxy)
    handshake = ClientHandshake(target, headers=headers, subprotocols=subprotocols)
    limit = check_limit("connect_timeout", connect_timeout)
    settings = check_settings(settings)
    server_hostname = _check_tls(target, ssl_context, ca_file, client_cert, server_hostname)
    if target.secure and ssl_context is None:
        ssl_context = await to_thread.run_sync(_new_context, ca_file, client_cert)
    tcp = await _within(limit, *_tcp(target, by_way_of))
    try:
        if by_way_of is not None:
            tunnel = ProxyHandshake(by_way_of, target.address)
            await _within(limit, f"the answer of the proxy {by_way_of.address}", lambda: _pass_proxy(tcp, tunnel))
        stream: ByteStream = tcp
        if ssl_context is not None:
            tls = functools.partial(_start_tls, tcp, target, ssl_context, server_hostname)
            stream = await _within(limit, f"the TLS handshake with {target.address}", tls)
        upgrade = functools.partial(_upgrade, stream, handshake, target)
        agreement = await _within(limit, f"the upgrade by {target.address}", upgrade)
        return WebSocketConnection(
            stream, client=True, settings=settings, subprotocol=agreement.subprotocol, received=agreement.received
        )
    except BaseException:
        # At the bottom of the stack, and so without good-byes that might wait for somebody.
        with CancelScope(shield=True):
            await tcp.aclose()
        raise


async def _within(limit: float, what: str, step: Callable[[], Awaitable[T]]) -> T:
    with anyio.move_on_after(limit):
        return await step()
    raise ConnectTimeout(f"{what} took longer than {limit:g} s; check the network, or give it more connect_timeout")


# ------------------------------------------------------------------------------------------- arguments


def _check_tls(
    target: WebSocketURL,
    ssl_context: ssl.SSLContext | None,
    ca_file: Path | None,
    client_cert: ClientCert | None,
    server_hostname: str | None,
) -> str | None:
    """The name to verify as TLS wants it, if one is given; ValueError or TypeError for what cannot be meant."""
    check_kind("ssl_context", ssl_context, ssl.SSLContext | None, "an ssl.SSLContext or None")
    check_kind("ca_file", ca_file, _PATH, "a path or None")
    parts = client_cert if isinstance(client_cert, tuple) and len(client_cert) == 2 else (client_cert,)
    for part in parts:
        check_kind("client_cert", part, _PATH, "a path, a pair of paths or None")
    files = {"ca_file": ca_file, "client_cert": client_cert}
    given = {"ssl_context": ssl_context, **files, "server_hostname": server_hostname}
    for name, value in given.items():
        if value is not None and not target.secure:
            raise ValueError(f"{name} is for wss:// only; the URL begins with ws://, which has no TLS")
    for name, value in files.items():
        if value is not None and ssl_context is not None:
            raise ValueError(f"{name} cannot be given together with ssl_context; load it into the context")
    if ssl_context is not None and ssl_context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("ssl_context is one for servers; make it with ssl.create_default_context()")
    return None if server_hostname is None else check_host(server_hostname)


def _new_context(ca_file: Path | None, client_cert: ClientCert | None) -> ssl.SSLContext:
    """A context for verified connections. It reads files: not for the event loop's thread."""
    if ca_file is None and client_cert is None:
        return _system_context()
    try:
        context = _client_context(ca_file)
    except ssl.SSLError as error:
        raise ValueError(f"ca_file {ca_file!r} holds no certificates in PEM that can be used: {error}") from error
    if client_cert is not None:
        certificate, key = client_cert if isinstance(client_cert, tuple) else (client_cert, None)
        try:
            # No password: OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(certificate, key, password=b"")
        except ssl.SSLError as error:
            raise ValueError(
                f"client_cert {client_cert!r} holds no certificate with its key in PEM that can be used: {error}"
            ) from error
    return context


@functools.cache
def _system_context() -> ssl.SSLContext:
    # Reading the system's certificates takes about 20 ms of CPU: once is enough.
    return _client_context(None)


def _client_context(ca_file: Path | None) -> ssl.SSLContext:
    context = default_context(ca_file=ca_file)
    context.set_alpn_protocols([_ALPN])
    return context


# -------------------------------------------------------------------------------------------- TCP, proxy


def _tcp(target: WebSocketURL, proxy: ProxyURL | None) -> tuple[str, Callable[[], Awaitable[ByteStream]]]:
    """What it is for a message, and the step itself."""
    to: WebSocketURL | ProxyURL = proxy or target
    what = f"the TCP connection to {to.address if proxy is None else f'the proxy {to.address}'}"

    async def connect() -> ByteStream:
        try:
            return await connect_tcp(to.host, to.port)
        except OSError as error:
            errors = _single_errors(error)
            reasons = ", ".join(dict.fromkeys(map(_worded, errors)))
            here = any(isinstance(one, OSError) and one.errno in _NO_DESCRIPTORS for one in errors)
            advice = "raise the limit (ulimit -n)" if here else "check host and port, and that it is running"
            raise ConnectFailed(f"{what} failed: {reasons}; {advice}") from error

    return what, connect


def _single_errors(error: BaseException) -> list[BaseException]:
    """What "all attempts to connect failed" stands for."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [single for member in group.exceptions for single in _single_errors(member)]
    if isinstance(error, OSError) and error.errno is None and error.__cause__ is not None:
        return _single_errors(error.__cause__)
    return [error]


def _worded(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


async def _pass_proxy(stream: ByteStream, handshake: ProxyHandshake) -> None:
    try:
        await stream.send(handshake.request)
        while not handshake.receive(await stream.receive()):
            pass
    except (EndOfStream, BrokenResourceError) as error:
        raise handshake.receive_eof() from error


# --------------------------------------------------------------------------------------------------- TLS


async def _start_tls(
    stream: ByteStream, target: WebSocketURL, context: ssl.SSLContext, server_hostname: str | None
) -> ByteStream:
    # Certificates have names without the dot at their end (RFC 6066 section 3).
    name = server_hostname or target.host.rstrip(".")
    try:
        tls = await TLSStream.wrap(stream, server_side=False, hostname=name, ssl_context=context)
    except (OSError, BrokenResourceError, EndOfStream) as error:
        raise _tls_failed(target, context, name, error) from error
    chosen = tls.extra(TLSAttribute.alpn_protocol, None)
    if chosen not in (None, _ALPN):
        raise TLSFailed(f"{target.address} chose {chosen} by ALPN; let ssl_context offer {_ALPN} only")
    return tls


def _tls_failed(target: WebSocketURL, context: ssl.SSLContext, name: str, error: BaseException) -> TLSFailed:
    verified = f"the name {name!r} verified" if context.check_hostname else f"the name {name!r} not verified"
    return TLSFailed(f"TLS with {target.address} failed ({verified}): {_tls_reason(error)}")


# By what X509_verify_cert calls them (openssl/x509_vfy.h).
_CERTIFICATE_ADVICE = {
    9: "wait until it is valid, or set the clock",
    10: "renew it on the server, or set the clock",
    18: "if you trust that certificate, give it as ca_file",
    19: "if you trust that authority, give its certificate as ca_file",
    20: "if you trust its authority, give that one's certificate as ca_file; or the server sends too few certificates",
    21: "if you trust its authority, give that one's certificate as ca_file; or the server sends too few certificates",
    62: "connect to a name that the certificate is for, or give such a name as server_hostname",
    64: "connect to a name that the certificate is for, or give such a name as server_hostname",
}
_PROTOCOL_ADVICE = (
    ("wrong version number", "what answers there is no TLS; use ws://, or the port that speaks TLS"),
    ("http request", "what answers there is no TLS; use ws://, or the port that speaks TLS"),
    ("no application protocol", "the server does not offer http/1.1 by ALPN"),
    ("protocol", "both ends have no version of TLS in common; the server should speak TLS 1.2 or 1.3"),
    ("certificate required", "the server wants a certificate of yours; give it as client_cert"),
    ("alert unknown ca", "the server does not trust your certificate; give one that it does as client_cert"),
    ("certificate", "the server does not accept your certificate; give another one as client_cert"),
    (
        "handshake failure",
        "both ends have no ciphers in common, or the server wants a certificate of yours (client_cert)",
    ),
    ("unrecognized name", "the server does not know that name; give the right one as server_hostname"),
)


def _tls_reason(error: BaseException) -> str:
    cause = _ssl_error(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE_ADVICE.get(cause.verify_code, "have the server's certificate replaced")
        return f"its certificate is not accepted, {cause.verify_message.rstrip('.')}; {advice}"
    if cause is None or is_truncation(cause):
        said = "" if cause is not None or isinstance(error, EndOfStream | BrokenResourceError) else f" ({error})"
        return f"the connection broke during the handshake{said}; check that TLS is spoken on that port"
    # Python does not know the names of all reasons of a newer OpenSSL, only their texts.
    reason = cause.reason or re.sub(r"^\[\w+\] | \(_ssl\.c:\d+\)$", "", str(cause.strerror))
    reason = reason.lower().replace("_", " ")
    advice = next(
        (advice for part, advice in _PROTOCOL_ADVICE if part in reason), "check the TLS settings of both ends"
    )
    return f"{reason}; {advice}"


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    """OpenSSL's own error behind that of a stream."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    return error


# ----------------------------------------------------------------------------------------------- upgrade


async def _upgrade(stream: ByteStream, handshake: ClientHandshake, target: WebSocketURL) -> Agreement:
    try:
        await stream.send(handshake.request)
        while True:
            agreement = handshake.receive(await stream.receive())
            if agreement is not None:
                return agreement
    except (EndOfStream, BrokenResourceError, ssl.SSLError) as error:
        cause = _ssl_error(error)
        if cause is not None and not is_truncation(cause):
            # In TLS 1.3 a server judges the client's certificate when the client has finished (RFC 8446 section 4.4).
            raise TLSFailed(f"TLS with {target.address} failed: {_tls_reason(cause)}") from error
        raise handshake.receive_eof() from error
