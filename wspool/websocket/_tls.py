"""SHELL. TLS over any byte stream: safe under cancellation, one writer, whole batches of records per read.

In place of `anyio.streams.tls.TLSStream`, with the same typed attributes. What differs:

- `receive` decrypts every record that has arrived, not one of 16 KiB (RFC 8446 section 5.1);
- all that is written goes through one lock, in the order in which it was encrypted;
- a send that is cancelled has written nothing, or the stream says that it is broken;
- `aclose` ends within its time limit.

The TLS engine (`ssl.SSLObject`) reads from `_incoming` and writes into `_outgoing`. Whoever encrypts holds the
lock until the transport has taken it. The reading side writes only what the protocol makes it answer
(authentication after the handshake; OpenSSL leaves the answer to a key update to the next write); it never waits
for a sender to do so, as two peers that each wait for the other to read would wait for ever.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

import anyio
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import AnyByteStream, ByteReceiveStream, ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute

from ._http import check_kind, check_limit
from ._scratch import SCRATCH_SIZE, scratch
from ._tcp import TCPStream
from ._turns import TURN, WriteLock, give_turn, take_turn, work

# What one read takes from the transport, one receive hands out at most, and one write encrypts at a time.
_BATCH = SCRATCH_SIZE
# What the reading side may owe the peer while a sender is blocked. An answer to a key update takes 27 bytes.
_MAX_OWED = 64 * 1024

_CANCELLED = "a send was cancelled after it had been encrypted: the peer could not decrypt what would follow"
_TRUNCATED = "the connection ended without a close_notify: what was received may have been cut off"
_FLOODED = "the peer asks for ever more answers and reads none"
_UNREAD = "the peer asked for an answer and did not read it in time"

_Failure: TypeAlias = tuple[str, BaseException | None]


class TLSStream(ByteStream):
    """A byte stream that is encrypted with TLS. Made by `wrap`.

    Several tasks may send at once: each item arrives whole. One task may receive at a time.
    The typed attributes are those of `anyio.streams.tls.TLSAttribute`, and those of the transport.
    """

    def __init__(
        self,
        transport: AnyByteStream,
        engine: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        *,
        standard_compatible: bool,
        close_timeout: float,
    ) -> None:
        """Before the handshake: use `wrap`."""
        self._transport = transport
        # It takes most writes without an await, and brings what it reads without a copy.
        self._tcp = transport if isinstance(transport, TCPStream) else None
        if self._tcp is not None:
            self._tcp.pour_into(incoming.write)
        self._engine = engine
        # With a buffer, it returns a count.
        self._decrypt_into = cast("Callable[[int, memoryview], int]", engine.read)
        self._incoming = incoming
        self._outgoing = outgoing
        self._standard_compatible = standard_compatible
        self._close_timeout = close_timeout
        self._lock = WriteLock()
        self._held = 0  # bytes at the head of _outgoing that need not go before the next send: session tickets
        self._receiving = False
        self._fed = True  # the engine may have something that has not been decrypted
        self._ended = False  # the peer's end of stream has been read
        self._closed = False
        self._failure: _Failure | None = None  # of both directions
        self._send_failure: _Failure | None = None  # what the peer has sent before may still be received
        self._torn = False  # something encrypted was lost: nothing more can be sent, not even a close_notify

    @classmethod
    async def wrap(
        cls,
        transport: AnyByteStream,
        *,
        server_side: bool | None = None,
        hostname: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        standard_compatible: bool = True,
        close_timeout: float = 5.0,
    ) -> TLSStream:
        """Do the TLS handshake over `transport`, which belongs to the TLS stream from now on.

        Args:
            transport: The byte stream to encrypt.
            server_side: Whether this is the server; by default, if there is no `hostname`.
            hostname: The name that the peer's certificate must have, and that it is asked for (SNI).
            ssl_context: By default `default_context`. The options of one that is passed are left as they are: if
                `ssl.OP_IGNORE_UNEXPECTED_EOF` is among them, a truncation looks like an end.
            standard_compatible: With False, no close_notify is sent, and a peer that sends none has ended the
                stream: for protocols that mark their end themselves.
            close_timeout: How many seconds `aclose` takes at most.

        Raises:
            ssl.SSLCertVerificationError: The peer's certificate is not to be trusted, or of another name.
            ssl.SSLError: The handshake failed for another reason. The peer is told.
            BrokenResourceError: The transport broke.
            ValueError: The context checks the name of the server, and there is no `hostname`; or an argument is wrong,
                TypeError alike.

        The transport is closed if this raises, or is cancelled. Set the time limit for it outside.
        """
        if server_side is None:
            server_side = not hostname
        try:
            check_kind("hostname", hostname, str | None, "a string or None")
            check_kind("ssl_context", ssl_context, ssl.SSLContext | None, "an ssl.SSLContext or None")
            close_timeout = check_limit("close_timeout", close_timeout)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = default_context(server_side=server_side) if ssl_context is None else ssl_context
            if context.check_hostname and not server_side and not hostname:
                # `SSLSocket` refuses this; `SSLObject` would accept the certificate of anybody.
                raise ValueError("the certificate cannot be checked without a hostname")
            make = partial(
                context.wrap_bio, incoming, outgoing, server_side=server_side, server_hostname=_encoded(hostname)
            )
            # Contexts of other packages may read the system's certificates at this point.
            engine = make() if type(context) is ssl.SSLContext else await anyio.to_thread.run_sync(make)
            stream = cls(
                transport,
                engine,
                incoming,
                outgoing,
                standard_compatible=standard_compatible,
                close_timeout=close_timeout,
            )
            await stream._handshake()
        except BaseException:
            await anyio.aclose_forcefully(transport)
            raise
        return stream

    async def _handshake(self) -> None:
        while True:
            try:
                self._engine.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._read_more()
                if self._ended:
                    self._incoming.write_eof()  # the engine words it
            except ssl.SSLError:
                await self._send_alert()
                raise
            else:
                break
        if self._engine.server_side and self._engine.version() == "TLSv1.3":
            # Session tickets go along with the first send, so that a client that never reads is not reset for
            # closing with something unread, and a server that waits for it is not blocked (trio does the same).
            self._held = self._outgoing.pending
        else:
            await self._flush()

    async def _send_alert(self) -> None:
        """Tell the peer why there will be no connection, if it can be told."""
        with anyio.move_on_after(self._close_timeout):
            try:
                await self._flush()
            except BrokenResourceError:
                pass  # the reason of our own is the one to raise

    # --- Receiving --------------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what has arrived, at least one byte; of all records, up to `max_bytes` and up to 256 KiB.

        Raises:
            EndOfStream: The peer has closed the stream.
            BrokenResourceError: The connection broke, or ended without a close_notify, or was tampered with, or a
                send on this stream was cancelled halfway. When only sending has failed, what the peer had sent before
                can still be received.
            ClosedResourceError: This stream was closed, perhaps meanwhile.
            BusyResourceError: Another task is receiving.
            ValueError: `max_bytes` is less than 1.

        Cancellation: nothing is lost; what had arrived is returned by the next call.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        await take_turn()
        return await self.receive_on(max_bytes)

    async def receive_on(self, max_bytes: int) -> bytes:
        """As `receive`, for one who has just taken a turn."""
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._receiving = True
        limit = min(max_bytes, _BATCH)
        try:
            while True:
                if self._ended and not self._closed:
                    raise EndOfStream
                if self._closed or self._failure is not None:
                    self._check_usable()
                if not self._fed:
                    await self._read_more()
                # Before the return nothing is awaited: data once decrypted cannot be lost to a cancellation.
                elif data := self._decrypt(limit):
                    return data
        finally:
            self._receiving = False

    def _decrypt(self, limit: int) -> bytes:
        """All whole records that are there. An error among them is kept until what was before it is received."""
        buffer = scratch()
        size = 0
        try:
            while size < limit:
                count = self._decrypt_into(limit - size, buffer[size:])
                if not count:
                    self._ended = True
                    break
                size += count
                # A read brings one record at most: if there was room for more, it was the whole of it.
                if size < limit and not self._incoming.pending:
                    self._fed = False  # another try would only raise SSLWantReadError, at some cost
                    break
        except ssl.SSLWantReadError:
            self._fed = False
        except ssl.SSLError as error:
            what = _TRUNCATED if is_truncation(error) else _worded("what was received is not valid TLS", error)
            self._fail(what, error)
        return bytes(buffer[:size])

    async def _read_more(self) -> None:
        """Hand the engine what the transport brings next, or its end."""
        if self._outgoing.pending > self._held and not self._torn:
            await self._answer()
        if work.moved >= TURN:  # there may be no end of records that bring nothing
            await give_turn()
        try:
            if self._tcp is not None:
                await self._tcp.receive_on(_BATCH)
            elif isinstance(self._transport, ByteReceiveStream):
                self._incoming.write(await self._transport.receive(_BATCH))
            else:  # an `ObjectStream[bytes]` chooses its sizes itself
                self._incoming.write(await self._transport.receive())
            self._fed = True
        except EndOfStream:
            self._fed = True
            if self._standard_compatible:
                self._incoming.write_eof()  # the engine knows whether there was a close_notify
            else:
                self._ended = True
        except (OSError, BrokenResourceError, ClosedResourceError) as error:
            self._check_usable()
            self._fail(_worded("the transport broke while receiving", error), error)
            self._check_usable()

    async def _answer(self) -> None:
        """Send what reading has made the engine write; a sender that is at work sends it along."""
        if self._lock.locked:
            if self._outgoing.pending > _MAX_OWED:
                self._fail(_FLOODED, None)
                self._check_usable()
            return
        # Shielded, as a cancelled receive must not break the stream. It is little, the transport takes it at once.
        scope = anyio.CancelScope(deadline=anyio.current_time() + self._close_timeout, shield=True)
        try:
            with scope:
                async with self._lock:
                    await self._flush()
        except BrokenResourceError:
            pass  # the peer takes nothing more; what it has sent may still be there
        if scope.cancelled_caught:
            self._failure = (_UNREAD, None)
            self._check_usable()

    # --- Sending ----------------------------------------------------------------------------------------------

    async def send(self, item: bytes | bytearray | memoryview) -> None:
        """Send all of `item`, after what other tasks send already.

        A large item is encrypted as fast as the transport takes it. Do not change it meanwhile.

        Raises:
            BrokenResourceError: The connection broke, or an earlier send was cancelled halfway.
            ClosedResourceError: This stream was closed, perhaps meanwhile.

        Cancellation: either nothing was written, or the stream is broken, and its next use says so.
        """
        await take_turn()
        await self.send_on(item)

    async def send_on(self, item: bytes | bytearray | memoryview) -> None:
        """As `send`, for one who has just taken a turn."""
        if self._lock.locked:
            await self._lock.acquire()
        else:
            self._lock.locked = True
        try:
            if self._closed or self._failure is not None or self._send_failure is not None:
                self._check_usable()
                self._raise(self._send_failure)
            for part in (item,) if type(item) is bytes and 0 < len(item) <= _BATCH else _parts(item):
                self._encrypt(part)
                await self._flush()
        finally:
            self._lock.release()

    def _encrypt(self, data: bytes | memoryview) -> None:
        try:
            self._engine.write(data)
        except ssl.SSLError as error:
            # Among them a peer that wants to renegotiate (TLS 1.2), which nobody should (RFC 9325 section 3.5).
            self._fail(_worded("TLS can send no more", error), error)
            self._check_usable()

    async def _flush(self) -> None:
        """Send all that the engine has written, and what the reading side adds meanwhile. Needs the lock."""
        while self._outgoing.pending:
            self._held = 0
            try:
                # Before the turn: what stays in there counts as what the reading side owes.
                data = self._outgoing.read()
                if work.moved >= TURN:  # it is sent in many parts
                    await give_turn()
                sent = 0 if self._tcp is None else self._tcp.send_nowait(data)
                if sent < len(data):
                    await self._transport.send(data[sent:])
            except (OSError, BrokenResourceError, ClosedResourceError) as error:
                self._torn = True
                self._check_usable()
                self._send_failure = (_worded("the transport broke while sending", error), error.with_traceback(None))
                self._raise(self._send_failure)
            except BaseException:
                self._torn = True
                self._fail(_CANCELLED, None)
                raise

    async def send_eof(self) -> None:
        """Not possible: TLS 1.2 has no half-close, and Python's `ssl` offers none for TLS 1.3.

        Raises:
            NotImplementedError: Always, as from anyio's own TLS stream.
        """
        raise NotImplementedError("a TLS stream cannot be closed for sending only: use aclose()")

    # --- Failing and closing ----------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedResourceError
        self._raise(self._failure)

    @staticmethod
    def _raise(failure: _Failure | None) -> None:
        if failure is not None:
            text, cause = failure
            raise BrokenResourceError(text) from cause

    def _fail(self, text: str, cause: BaseException | None) -> None:
        """Every use from now on raises this; the first failure is the one that is told."""
        if self._failure is None:
            # A traceback would keep the frames of this call alive, and this stream with them.
            self._failure = (text, cause and cause.with_traceback(None))

    async def aclose(self) -> None:
        """Send a close_notify if that can be done in time, and close the transport in any case.

        An item that another task is sending is finished first, if it can be in time; without that, no close_notify is
        sent, so that the peer can tell. The peer's close_notify is not waited for (RFC 8446 section 6.1). What it sent
        and nobody has received is lost. It takes `close_timeout` seconds at most. May be repeated.

        Cancellation: the transport is closed forcefully, and the cancellation goes on.
        """
        if self._closed:
            await checkpoint()
            return
        self._closed = True
        done = False
        try:
            with anyio.move_on_after(self._close_timeout):
                await self._send_close_notify()
                await self._transport.aclose()
                done = True
        finally:
            if not done:
                await anyio.aclose_forcefully(self._transport)

    async def _send_close_notify(self) -> None:
        async with self._lock:
            if self._torn or not self._standard_compatible:
                return
            try:
                self._engine.unwrap()
            except ssl.SSLError:
                pass  # it wants to read the peer's; or it has failed before, and an alert waits to be sent
            try:
                await self._flush()
            except ClosedResourceError:
                pass  # the peer is gone already; this stream counts as closed by now, so it is this error

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The typed attributes: `anyio.streams.tls.TLSAttribute`, and those of the transport."""
        engine = self._engine
        # Each attribute is declared with the type of its value, while the class holds the key.
        keys = cast("Any", TLSAttribute)
        return {
            **cast("Any", self._transport).extra_attributes,
            keys.alpn_protocol: engine.selected_alpn_protocol,
            keys.channel_binding_tls_unique: engine.get_channel_binding,
            keys.cipher: engine.cipher,
            keys.peer_certificate: lambda: engine.getpeercert(False),
            keys.peer_certificate_binary: lambda: engine.getpeercert(True),
            keys.server_side: lambda: engine.server_side,
            keys.shared_ciphers: lambda: engine.shared_ciphers() if engine.server_side else None,
            keys.ssl_object: lambda: engine,
            keys.standard_compatible: lambda: self._standard_compatible,
            keys.tls_version: engine.version,
        }


def default_context(*, server_side: bool = False, ca_file: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Python's own default, with TLS 1.2 at least, where an end without a close_notify is an error.

    It trusts the authorities in `ca_file`, else the system's. A context for a server still needs its certificate.
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server_side else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose, cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: nothing older
    # Should a version of Python set it, or a system-wide configuration; OpenSSL older than 3.0 does not have it.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.options |= ssl.OP_NO_RENEGOTIATION  # RFC 9325 section 3.5: a client may be asked for it, too
    return context


def is_truncation(error: ssl.SSLError) -> bool:
    """Whether the far end was gone without a close_notify. The earliest versions of 3.11 have no type for it."""
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


def _parts(item: bytes | bytearray | memoryview) -> list[memoryview]:
    data = memoryview(item).cast("B")
    return [data[start : start + _BATCH] for start in range(0, len(data), _BATCH)]


def _worded(what: str, error: BaseException) -> str:
    return f"{what}: {error}" if str(error) else what


def _encoded(hostname: str | None) -> str | bytes | None:
    """By IDNA 2008; `ssl` itself knows only that of 2003."""
    if hostname is None or hostname.isascii():
        return hostname
    import idna  # anyio needs it, so it is there

    return idna.encode(hostname, uts46=True)
