"""Our TLS stream: what every byte stream promises, and what anyio's does not."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import anyio
import anyio.streams.tls
import pytest
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import AnyByteStream, ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.stapled import StapledObjectStream
from anyio.streams.tls import TLSAttribute

from tests.stream_pairs import memory_pair, own_tcp_pair, tcp_pair
from tests.tls_pairs import HOST, tls_pair, wrap_both
from tests.websocket.conftest import Certificates
from wspool.testing import MemoryByteStream, check_byte_stream, memory_byte_streams, settle
from wspool.websocket._tls import TLSStream, default_context

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(params=[pytest.param(TLS_1_2, id="TLS 1.2"), pytest.param(TLS_1_3, id="TLS 1.3")])
def contexts(
    request: pytest.FixtureRequest, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> Contexts:
    """Of the client and of the server, for each version of TLS."""
    server_context.maximum_version = request.param
    return client_context, server_context


@pytest.fixture
def contexts_1_3(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Contexts:
    return client_context, server_context


async def receive_exactly(stream: ByteStream, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        received += await stream.receive(count - len(received))
    return bytes(received)


# --- The suite --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_transports", [memory_pair, tcp_pair, own_tcp_pair])
async def test_it_keeps_every_promise_of_a_byte_stream(
    make_transports: Callable[[], Awaitable[tuple[ByteStream, ByteStream]]], contexts: Contexts
) -> None:
    async def make_pair() -> tuple[ByteStream, ByteStream]:
        # A close that has to wait for a blocked sender takes that long.
        return await tls_pair(await make_transports(), *contexts, close_timeout=0.2)

    await check_byte_stream(make_pair, send_eof=False, concurrent_send=True)


async def test_it_runs_over_an_object_stream(contexts: Contexts) -> None:
    (to_server, at_server), (to_client, at_client) = (anyio.create_memory_object_stream[bytes](9) for _ in range(2))
    ends = StapledObjectStream(to_server, at_client), StapledObjectStream(to_client, at_server)
    client, server = await tls_pair(ends, *contexts)
    await client.send(b"hello")
    assert await server.receive() == b"hello"
    await client.aclose()
    await server.aclose()


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")])
async def test_many_megabytes_of_any_buffer_type_arrive(make: Callable[[bytes], Any], contexts: Contexts) -> None:
    data = bytes(range(256)) * 12_000  # about 3 MB, and no multiple of what is encrypted at a time
    client, server = await tls_pair(memory_byte_streams(100_000), *contexts)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, make(data))
        assert await receive_exactly(server, len(data)) == data
    await client.aclose()


async def test_a_large_send_waits_for_the_receiver(contexts: Contexts) -> None:
    transports = memory_byte_streams(1000)
    client, _server = await tls_pair(transports, *contexts)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(10_000_000))
        await settle()
        before = transports[0].sends
        await settle()
        assert transports[0].sends == before
        # Not more than one batch is encrypted ahead.
        assert client._outgoing.pending == 0
        tasks.cancel_scope.cancel()


# --- Records ----------------------------------------------------------------------------------------------


async def test_one_receive_returns_every_record_that_has_arrived(contexts_1_3: Contexts) -> None:
    transports = memory_byte_streams(1_000_000)
    client, server = await tls_pair(transports, *contexts_1_3)
    for _ in range(10):
        await client.send(bytes(16 * 1024))
    before = transports[1].receives
    assert len(await server.receive(1_000_000)) == 10 * 16 * 1024
    assert transports[1].receives == before + 1


async def test_a_receive_is_at_most_256_kib(contexts_1_3: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1_000_000), *contexts_1_3)
    await client.send(bytes(300 * 1024))
    sizes = [len(await server.receive(10_000_000)) for _ in range(2)]
    assert sum(sizes) <= 300 * 1024
    assert max(sizes) <= 256 * 1024
    assert sizes[0] > 200 * 1024


async def test_max_bytes_may_cut_a_record(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts)
    await client.send(b"abcdefgh")
    await client.send(b"ijkl")
    assert await server.receive(3) == b"abc"
    before = transports[1].receives
    assert await server.receive(7) == b"defghij"
    assert await server.receive(7) == b"kl"
    assert transports[1].receives == before


async def test_what_is_buffered_is_handed_out_after_a_turn_for_the_others(contexts_1_3: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(), *contexts_1_3)
    await client.send(b"ab")
    assert await server.receive(1) == b"a"
    with anyio.CancelScope() as scope:
        scope.cancel()
        await server.receive(1)
    assert scope.cancelled_caught
    assert await server.receive(1) == b"b"


async def test_a_conversation_survives_every_split(contexts: Contexts) -> None:
    for size in (1, 2, 3, 5, 7, 64, 1000):
        transports = memory_byte_streams()
        for transport in transports:
            transport.max_read = size
        client, server = await tls_pair(transports, *contexts)
        await client.send(b"question")
        assert await receive_exactly(server, 8) == b"question"
        await server.send(b"answer")
        assert await receive_exactly(client, 6) == b"answer"
        await client.aclose()
        with pytest.raises(EndOfStream):
            await server.receive()


async def test_records_split_at_every_byte_arrive_whole(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts)
    for split in range(1, 70):
        transports[1].max_read = split
        await client.send(b"first")
        await client.send(b"second")
        assert await receive_exactly(server, 11) == b"firstsecond"


# --- The handshake ----------------------------------------------------------------------------------------


async def wrap_expecting(error: type[BaseException], transport: AnyByteStream, **options: Any) -> BaseException:
    with pytest.raises(error) as caught:
        await TLSStream.wrap(transport, **options)
    return caught.value


async def test_the_attributes_are_those_of_anyio(contexts: Contexts) -> None:
    for context in contexts:
        context.set_alpn_protocols(["http/1.1"])
    ours = await tls_pair(await tcp_pair(), *contexts)
    theirs = await wrap_both(anyio.streams.tls.TLSStream, await tcp_pair(), *contexts)
    for our, their in zip(ours, theirs, strict=True):
        assert our.extra_attributes.keys() == their.extra_attributes.keys()
        for attribute in (
            TLSAttribute.alpn_protocol,
            TLSAttribute.cipher,
            TLSAttribute.peer_certificate,
            TLSAttribute.peer_certificate_binary,
            TLSAttribute.server_side,
            TLSAttribute.shared_ciphers,
            TLSAttribute.standard_compatible,
            TLSAttribute.tls_version,
        ):
            assert our.extra(attribute) == their.extra(attribute)
        assert isinstance(our.extra(TLSAttribute.ssl_object), ssl.SSLObject)
        assert isinstance(our.extra(TLSAttribute.channel_binding_tls_unique), bytes)
    assert ours[0].extra(TLSAttribute.alpn_protocol) == "http/1.1"
    for stream in (*ours, *theirs):
        await anyio.aclose_forcefully(stream)


async def test_an_untrusted_certificate_is_named_and_both_sides_are_told(server_context: ssl.SSLContext) -> None:
    client, server = memory_byte_streams()
    errors: list[BaseException] = []

    async def serve() -> None:
        errors.append(await wrap_expecting(ssl.SSLError, server, ssl_context=server_context))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await wrap_expecting(ssl.SSLCertVerificationError, client, hostname=HOST)
    assert "UNKNOWN_CA" in str(errors[0])
    assert client.closed
    assert server.closed


async def test_a_server_without_a_certificate_fails_by_default(client_context: ssl.SSLContext) -> None:
    client, server = memory_byte_streams()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wrap_expecting, ssl.SSLError, server)
        with pytest.raises(ssl.SSLError):
            await TLSStream.wrap(client, hostname=HOST, ssl_context=client_context)


async def test_a_failed_handshake_tells_its_own_reason_when_the_peer_is_gone(server_context: ssl.SSLContext) -> None:
    client, server = memory_byte_streams()
    await client.send(b"\x16\x03\x01\x00\x04" + bytes(4))  # no ClientHello, which deserves an alert
    await client.aclose()
    await wrap_expecting(ssl.SSLError, server, ssl_context=server_context)
    assert server.closed


@pytest.mark.parametrize("standard_compatible", [True, False])
async def test_an_end_during_the_handshake_is_an_error(
    standard_compatible: bool, client_context: ssl.SSLContext
) -> None:
    client, server = memory_byte_streams()
    await server.send_eof()
    await wrap_expecting(
        ssl.SSLError, client, hostname=HOST, ssl_context=client_context, standard_compatible=standard_compatible
    )
    assert client.closed


async def test_a_transport_that_breaks_in_the_handshake_is_closed(client_context: ssl.SSLContext) -> None:
    client, server = memory_byte_streams()
    await server.aclose()
    await wrap_expecting(BrokenResourceError, client, hostname=HOST, ssl_context=client_context)
    assert client.closed


async def test_a_cancelled_handshake_closes_the_transport(client_context: ssl.SSLContext) -> None:
    client, _server = memory_byte_streams()
    async with anyio.create_task_group() as tasks:

        async def wrap() -> None:
            await TLSStream.wrap(client, hostname=HOST, ssl_context=client_context)

        tasks.start_soon(wrap)
        await settle()
        tasks.cancel_scope.cancel()
    assert client.closed


async def test_a_name_to_check_is_never_left_out(client_context: ssl.SSLContext) -> None:
    client, _server = memory_byte_streams()
    await wrap_expecting(ValueError, client, server_side=False, ssl_context=client_context)
    assert client.closed


@pytest.mark.parametrize(
    ("name", "asked_for"),
    # That of 2003 makes "ss" of a "ß"; and neither has a place for an underscore.
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("my_host.example", "my_host.example"),
    ],
)
async def test_names_are_encoded_by_idna_2008_if_they_are_not_ascii(
    name: str, asked_for: str, contexts_1_3: Contexts
) -> None:
    client, server = memory_byte_streams()
    client_context, server_context = contexts_1_3
    client_context.check_hostname = False
    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            await TLSStream.wrap(server, ssl_context=server_context)

        tasks.start_soon(serve)
        stream = await TLSStream.wrap(client, hostname=name, ssl_context=client_context)
        assert stream.extra(TLSAttribute.ssl_object).server_hostname == asked_for


class ForeignContext(ssl.SSLContext):
    """As of a package that takes the system's certificates."""


async def test_a_foreign_context_may_block_while_it_is_asked(server_context: ssl.SSLContext) -> None:
    context = ForeignContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client, server = await tls_pair(memory_byte_streams(), context, server_context)
    await client.send(b"x")
    assert await server.receive() == b"x"


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"ssl_context": True}, TypeError, "ssl_context must be an ssl.SSLContext or None, got True"),
        ({"hostname": b"a"}, TypeError, "hostname must be a string or None, got b'a'"),
        ({"close_timeout": "5"}, TypeError, "close_timeout must be a number of seconds or None, got '5'"),
        ({"close_timeout": 0}, ValueError, "close_timeout must be more than 0 seconds, got 0"),
    ],
)
async def test_wrong_arguments_are_refused_and_the_transport_closed(
    arguments: Any, error: type[Exception], why: str
) -> None:
    transport, _ = memory_byte_streams()
    with pytest.raises(error, match=f"^{why}$"):
        await TLSStream.wrap(transport, **arguments)
    assert transport.closed


def test_default_contexts_want_tls_1_2_at_least_and_notice_truncation(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ssl.create_default_context

    def lax(*args: Any, **options: Any) -> ssl.SSLContext:
        context = original(*args, **options)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        return context

    monkeypatch.setattr(ssl, "create_default_context", lax)
    for server_side in (False, True):
        context = default_context(server_side=server_side)
        assert context.minimum_version == TLS_1_2
        assert not context.options & getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    assert default_context().check_hostname
    assert default_context().verify_mode == ssl.CERT_REQUIRED


async def test_session_tickets_go_along_with_the_first_send(contexts_1_3: Contexts) -> None:
    transports = memory_byte_streams()
    _client, server = await tls_pair(transports, *contexts_1_3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.receive)
        await settle()
        assert transports[0].buffered == 0
        tasks.cancel_scope.cancel()
    assert server._outgoing.pending > 0
    await server.send(b"x")
    assert server._outgoing.pending == 0


# --- The end of the stream --------------------------------------------------------------------------------


async def test_a_truncation_is_an_error(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts)
    await client.send(b"all I ")
    await transports[0].aclose()
    assert await server.receive() == b"all I "
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="without a close_notify"):
            await server.receive()
    with pytest.raises(BrokenResourceError, match="without a close_notify"):
        await server.send(b"x")


async def test_a_truncated_record_is_an_error(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts)
    transports[1].truncate_after(transports[1]._received + 20)
    await client.send(b"all I have")
    with pytest.raises(BrokenResourceError, match="without a close_notify"):
        await server.receive()


async def test_a_truncation_is_an_end_when_told_so(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts, standard_compatible=False)
    await client.send(b"all I have")
    await client.aclose()
    assert await server.receive() == b"all I have"
    for _ in range(2):
        with pytest.raises(EndOfStream):
            await server.receive()
    assert transports[1].buffered == 0


@pytest.mark.skipif(not hasattr(ssl, "OP_IGNORE_UNEXPECTED_EOF"), reason="OpenSSL older than 3.0")
async def test_a_context_that_ignores_truncation_is_left_as_it_is(contexts: Contexts) -> None:
    contexts[1].options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    transports = memory_byte_streams()
    _client, server = await tls_pair(transports, *contexts)
    await transports[0].aclose()
    with pytest.raises(EndOfStream):
        await server.receive()


async def test_what_came_before_the_end_is_received_first(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(), *contexts)
    await client.send(b"last")
    await client.aclose()
    assert await server.receive(2) == b"la"
    assert await server.receive() == b"st"
    for _ in range(2):
        with pytest.raises(EndOfStream):
            await server.receive()


async def test_garbage_breaks_the_stream_after_what_came_before_it(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts)
    await client.send(b"good")
    await transports[0].send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert await server.receive() == b"good"
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="not valid TLS") as caught:
            await server.receive()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
    # The peer is told why.
    await server.aclose()
    with pytest.raises(BrokenResourceError, match="ALERT_BAD_RECORD_MAC"):
        await client.receive()


async def test_of_two_failures_the_first_one_is_told(contexts: Contexts) -> None:
    transports = memory_byte_streams(1000)
    client, _server = await tls_pair(transports, *contexts)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(100_000))
        await settle()
        await transports[1].send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(BrokenResourceError, match="not valid TLS"):
            await client.receive()
        tasks.cancel_scope.cancel()
    with pytest.raises(BrokenResourceError, match="not valid TLS"):
        await client.send(b"x")


async def test_a_transport_that_breaks_is_told_with_its_reason(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts)
    transports[1].fail_after(transports[1]._received)
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="the transport broke while receiving"):
            await server.receive()
    with pytest.raises(BrokenResourceError, match="the transport broke while sending"):
        await client.send(b"x")


async def test_send_eof_is_not_possible(contexts: Contexts) -> None:
    client, _server = await tls_pair(memory_byte_streams(), *contexts)
    with pytest.raises(NotImplementedError, match="aclose"):
        await client.send_eof()


# --- Sending ----------------------------------------------------------------------------------------------


async def test_a_send_that_was_cancelled_halfway_breaks_the_stream_and_says_so(contexts: Contexts) -> None:
    transports = memory_byte_streams(1000)
    client, server = await tls_pair(transports, *contexts)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(100_000))
        await settle()
        tasks.cancel_scope.cancel()
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="a send was cancelled"):
            await client.send(b"x")
        with pytest.raises(BrokenResourceError, match="a send was cancelled"):
            await client.receive()
    before = transports[0].sends
    await client.aclose()
    assert transports[0].sends == before
    assert transports[0].closed
    # No close_notify: the peer sees that it was cut off.
    with pytest.raises(BrokenResourceError):
        while True:
            await server.receive()


async def test_a_send_cancelled_while_it_waits_for_another_has_written_nothing(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *contexts)
    scope = anyio.CancelScope()

    async def second() -> None:
        with scope:
            await client.send(b"second")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(100_000))
        await settle()
        tasks.start_soon(second)
        await settle()
        scope.cancel()
        assert await receive_exactly(server, 100_000) == bytes(100_000)
    assert scope.cancelled_caught
    await client.send(b"third")
    assert await server.receive() == b"third"


async def test_a_send_cancelled_as_its_turn_comes_has_written_nothing(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *contexts)
    scope = anyio.CancelScope()

    async def first() -> None:
        await client.send(bytes(100_000))
        scope.cancel()  # the lock has been handed over just before

    async def second() -> None:
        with scope:
            await client.send(b"second")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await settle()
        tasks.start_soon(second)
        await settle()
        assert await receive_exactly(server, 100_000) == bytes(100_000)
    assert scope.cancelled_caught
    await client.send(b"third")
    assert await server.receive() == b"third"


async def test_items_of_many_senders_arrive_whole(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(10_000), *contexts)
    async with anyio.create_task_group() as tasks:
        for letter in b"abcd":
            tasks.start_soon(client.send, bytes([letter]) * 400_000)
        runs = [await receive_exactly(server, 400_000) for _ in b"abcd"]
        assert sorted(run[0] for run in runs) == list(b"abcd")
        assert all(run == run[:1] * 400_000 for run in runs)


async def test_when_sending_fails_what_the_peer_had_sent_is_still_received(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(), *contexts)
    await server.send(b"go away")
    await server.aclose()
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="the transport broke while sending"):
            await client.send(b"x")
    assert await client.receive() == b"go away"
    with pytest.raises(EndOfStream):
        await client.receive()


async def test_an_engine_that_can_send_no_more_breaks_the_stream(contexts: Contexts) -> None:
    client, _server = await tls_pair(memory_byte_streams(), *contexts)
    with pytest.raises(ssl.SSLError):
        client.extra(TLSAttribute.ssl_object).unwrap()  # behind the stream's back
    with pytest.raises(BrokenResourceError, match="TLS can send no more"):
        await client.send(b"x")


# --- What the reading side has to write -------------------------------------------------------------------


@pytest.fixture
def asking(contexts_1_3: Contexts, certificates: Certificates) -> Contexts:
    """The server may ask for a certificate after the handshake: Python's only way to make a reader write."""
    client_context, server_context = contexts_1_3
    client_context.post_handshake_auth = True
    certificates.client.configure_cert(client_context)
    # SSL_OP_NO_TX_CERTIFICATE_COMPRESSION, for which Python has no name: OpenSSL 3.2 and later would compress the
    # certificate (RFC 8879), and the answer would fit into the buffers of some tests.
    client_context.options |= 1 << 32
    server_context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_OPTIONAL
    return client_context, server_context


async def ask(server: TLSStream, data: bytes = b"who are you?") -> None:
    server.extra(TLSAttribute.ssl_object).verify_client_post_handshake()
    await server.send(data)


def has_answer(server: TLSStream) -> bool:
    return server.extra(TLSAttribute.peer_certificate_binary) is not None


async def test_a_reader_answers_before_it_waits(asking: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(), *asking)
    assert not has_answer(server)
    await ask(server)
    assert await client.receive() == b"who are you?"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.receive)
        await settle()
        assert client._outgoing.pending == 0
        tasks.start_soon(server.receive)
        await settle()
        tasks.cancel_scope.cancel()
    assert has_answer(server)


async def test_a_sender_at_work_sends_the_answer_along(asking: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *asking)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(10_000))
        await settle()
        tasks.start_soon(ask, server)
        assert await client.receive() == b"who are you?"
        tasks.start_soon(client.receive)
        await settle()
        assert client._outgoing.pending > 0
        assert await receive_exactly(server, 10_000) == bytes(10_000)
        tasks.start_soon(server.receive)
        await settle()
        assert client._outgoing.pending == 0
        assert has_answer(server)
        tasks.cancel_scope.cancel()


async def test_a_receive_cancelled_while_it_answers_breaks_nothing(asking: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *asking, close_timeout=60)
    await ask(server)
    await client.receive()
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def receive() -> None:
            with scope:
                await client.receive()

        tasks.start_soon(receive)
        await settle()  # the answer is larger than the buffer
        scope.cancel()
        await settle()
        assert not scope.cancelled_caught
        tasks.start_soon(server.receive)
        await settle()
        assert scope.cancelled_caught
        tasks.start_soon(client.receive)  # the server has new session tickets for it
        await client.send(b"x")
        await settle()
        assert has_answer(server)
        tasks.cancel_scope.cancel()


async def test_a_sender_that_comes_while_a_receiver_answers_waits_for_it(
    asking: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports = memory_byte_streams(1000)
    client, server = await tls_pair(transports, *asking, close_timeout=60)
    one_at_a_time, send = anyio.ResourceGuard("sending to"), transports[0].send

    async def guarded_send(item: bytes) -> None:
        with one_at_a_time:
            await send(item)

    monkeypatch.setattr(transports[0], "send", guarded_send)
    await ask(server)
    await client.receive()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.receive)
        await settle()  # the answer is larger than the buffer
        tasks.start_soon(client.send, bytes(10_000))
        await settle()
        assert await receive_exactly(server, 10_000) == bytes(10_000)
        assert has_answer(server)
        tasks.cancel_scope.cancel()


async def test_an_answer_that_the_peer_does_not_read_breaks_the_stream_in_time(asking: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *asking, close_timeout=0.01)
    await ask(server)
    await client.receive()
    with pytest.raises(BrokenResourceError, match="did not read it in time"):
        await client.receive()
    with pytest.raises(BrokenResourceError, match="did not read it in time"):
        await client.send(b"x")


async def test_a_flood_of_questions_behind_a_blocked_sender_breaks_the_stream(contexts_1_3: Contexts) -> None:
    client, _server = await tls_pair(memory_byte_streams(1000), *contexts_1_3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(100_000))
        await settle()
        client._outgoing.write(bytes(65 * 1024))  # as if it had read so many
        with pytest.raises(BrokenResourceError, match="ever more answers"):
            await client.receive()
        tasks.cancel_scope.cancel()


async def test_when_the_answer_cannot_be_sent_the_rest_is_still_received(asking: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(), *asking)
    await ask(server)
    assert await client.receive(3) == b"who"
    await server.send(b" And more.")
    await server.aclose()
    assert await receive_exactly(client, 19) == b" are you? And more."
    for _ in range(2):
        with pytest.raises(EndOfStream):
            await client.receive()


# --- Closing ----------------------------------------------------------------------------------------------


async def test_a_close_does_not_wait_for_the_peer(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, server = await tls_pair(transports, *contexts, close_timeout=60)
    with anyio.fail_after(5):
        await client.aclose()
    assert transports[0].closed
    with pytest.raises(EndOfStream):
        await server.receive()


async def test_a_close_lets_a_sender_finish(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *contexts, close_timeout=60)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(1_000_000))
        await settle()
        tasks.start_soon(client.aclose)
        assert await receive_exactly(server, 1_000_000) == bytes(1_000_000)
        with pytest.raises(EndOfStream):
            await server.receive()


async def test_a_close_waits_no_longer_than_its_limit_for_a_blocked_sender(contexts: Contexts) -> None:
    transports = memory_byte_streams(1000)
    client, server = await tls_pair(transports, *contexts, close_timeout=0.01)
    ended: list[str] = []

    async def send(name: str) -> None:
        with pytest.raises(ClosedResourceError):
            await client.send(bytes(1_000_000))
        ended.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, "blocked")
        await settle()
        tasks.start_soon(send, "queued")
        await settle()
        await client.aclose()
    assert transports[0].closed
    assert ended == ["blocked", "queued"]
    with pytest.raises(BrokenResourceError):
        while True:
            await server.receive()


async def test_a_close_that_the_peer_does_not_let_through_ends_in_time(contexts: Contexts) -> None:
    transports = memory_byte_streams(1000)
    client, _server = await tls_pair(transports, *contexts, close_timeout=0.01)
    await transports[0].send(bytes(1000 - transports[1].buffered))  # the buffer is full
    await client.aclose()
    assert transports[0].closed


async def test_a_cancelled_close_closes_and_stays_cancelled(contexts: Contexts) -> None:
    transports = memory_byte_streams(1000)
    client, _server = await tls_pair(transports, *contexts, close_timeout=60)
    await transports[0].send(bytes(1000 - transports[1].buffered))
    scope = anyio.CancelScope()

    async def close() -> None:
        with scope:
            await client.aclose()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(close)
        await settle()
        scope.cancel()
    assert scope.cancelled_caught
    assert transports[0].closed


async def test_closing_when_the_peer_is_gone_is_no_error(contexts: Contexts) -> None:
    transports = memory_byte_streams()
    client, _server = await tls_pair(transports, *contexts)
    await transports[1].aclose()
    await client.aclose()
    await client.aclose()
    assert transports[0].closed


async def test_a_receive_that_gets_data_as_the_stream_is_closed_ends_as_closed(contexts: Contexts) -> None:
    client, server = await tls_pair(memory_byte_streams(1000), *contexts, close_timeout=60)
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(ClosedResourceError):
                await client.receive()

        tasks.start_soon(client.send, bytes(10_000))
        tasks.start_soon(receive)
        await settle()
        tasks.start_soon(client.aclose)  # waits for the sender
        await settle()
        await server.send(b"too late")
        await settle()
        assert await receive_exactly(server, 10_000) == bytes(10_000)


class Unclosable(MemoryByteStream):
    async def aclose(self) -> NoReturn:
        await super().aclose()
        raise OSError("cannot close")


async def test_an_error_in_closing_the_transport_is_passed_on(contexts: Contexts) -> None:
    left, right = memory_byte_streams()
    client, _server = await tls_pair((Unclosable(left._incoming, left._outgoing), right), *contexts)
    with pytest.raises(OSError, match="cannot close"):
        await client.aclose()


# --- What anyio's own stream does ---------------------------------------------------------------------------


async def cancelled_before_it_began(stream: ByteStream) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.send(b"cancelled")


async def test_of_anyio_a_cancelled_send_kills_the_stream_and_ours_goes_on(contexts: Contexts) -> None:
    theirs, _ = await wrap_both(anyio.streams.tls.TLSStream, memory_byte_streams(), *contexts)
    await cancelled_before_it_began(theirs)
    with pytest.raises(BrokenResourceError):
        await theirs.send(b"x")

    client, server = await tls_pair(memory_byte_streams(), *contexts)
    await cancelled_before_it_began(client)
    await client.send(b"x")
    assert await server.receive() == b"x"


async def second_sender(client: ByteStream, server: ByteStream) -> bytes:
    received: list[bytes] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.send, bytes(100_000))
        await settle()
        tasks.start_soon(client.send, b"second")
        await settle()
        received.append(await receive_exactly(server, 100_006))
    return received[0]


async def test_of_anyio_two_senders_collide_and_kill_the_stream_and_ours_take_turns(contexts: Contexts) -> None:
    theirs = await wrap_both(anyio.streams.tls.TLSStream, memory_byte_streams(1000), *contexts)
    with pytest.raises(BaseExceptionGroup) as caught:
        await second_sender(*theirs)
    assert caught.value.subgroup(BusyResourceError)
    with pytest.raises(BrokenResourceError):
        await theirs[0].send(b"x")

    ours = await tls_pair(memory_byte_streams(1000), *contexts)
    assert (await second_sender(*ours)).endswith(b"\0second")


async def test_of_anyio_a_receive_is_one_record(contexts_1_3: Contexts) -> None:
    client, server = await wrap_both(anyio.streams.tls.TLSStream, memory_byte_streams(1_000_000), *contexts_1_3)
    for _ in range(10):
        await client.send(bytes(16 * 1024))
    assert len(await server.receive(1_000_000)) == 16 * 1024


async def test_of_anyio_a_close_waits_for_the_peer_without_limit(contexts: Contexts) -> None:
    theirs, _ = await wrap_both(anyio.streams.tls.TLSStream, memory_byte_streams(), *contexts)
    async with anyio.create_task_group() as tasks:
        closed = anyio.Event()

        async def close() -> None:
            await theirs.aclose()
            closed.set()

        tasks.start_soon(close)
        await settle()
        await checkpoint()
        assert not closed.is_set()
        tasks.cancel_scope.cancel()
