"""The byte-stream suite passes honest streams and finds each planted fault; the memory streams do as they are told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import BrokenResourceError, BusyResourceError, ClosedResourceError, EndOfStream
from anyio.abc import ByteStream

from tests.stream_pairs import memory_pair, own_tcp_pair, tcp_pair
from wspool.testing import MemoryByteStream, _byte_streams, check_byte_stream, memory_byte_streams, settle

# --- Honest streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_pair", [memory_pair, tcp_pair, own_tcp_pair])
async def test_an_honest_stream_passes(make_pair: Callable[[], Awaitable[tuple[ByteStream, ByteStream]]]) -> None:
    await check_byte_stream(make_pair)


@pytest.mark.parametrize("max_buffer", [1, 7, 4096])
async def test_a_small_buffer_passes(max_buffer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_byte_streams, "_CHUNK", 512)  # byte by byte, more would take long

    # Without the first, which sends some hundred thousand bytes.
    monkeypatch.setattr(_byte_streams, "_CHECKS", _byte_streams._CHECKS[1:])

    async def make_pair() -> tuple[ByteStream, ByteStream]:
        return memory_byte_streams(max_buffer)

    await check_byte_stream(make_pair)


# --- Planted faults ---------------------------------------------------------------------------------------


class Faulty(ByteStream):
    """Passes everything on, until a subclass does something wrong."""

    def __init__(self, stream: MemoryByteStream) -> None:
        self.stream = stream

    async def send(self, item: bytes) -> None:
        await self.stream.send(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.stream.receive(max_bytes)

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {}


class ReceivesTooMuch(Faulty):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.stream.receive(max_bytes + 1)


class Alters(Faulty):
    async def send(self, item: bytes) -> None:
        await self.stream.send(item[::-1])


class TakesAnyMaxBytes(Faulty):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.stream.receive(max_bytes if max_bytes > 0 else 1)


class SendsForNothing(Faulty):
    async def send(self, item: bytes) -> None:
        await self.stream.send(item or b"?")


class NeverEnds(Faulty):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            return await self.stream.receive(max_bytes)
        except EndOfStream:
            await anyio.sleep_forever()
            raise


class EndsWithNothing(Faulty):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            return await self.stream.receive(max_bytes)
        except EndOfStream:
            return b""


class EndsOnce(Faulty):
    ended = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            return await self.stream.receive(max_bytes)
        except EndOfStream:
            if self.ended:
                raise BrokenResourceError from None
            self.ended = True
            raise


class EndsBothWays(Faulty):
    async def send_eof(self) -> None:
        await self.stream.aclose()


class Disguised(Faulty):
    """Raises another error than it should."""

    async def send(self, item: bytes) -> None:
        try:
            await self.stream.send(item)
        except ClosedResourceError:
            raise RuntimeError("closed") from None


class DoesNotMindThatThePeerIsGone(Faulty):
    async def send(self, item: bytes) -> None:
        try:
            await self.stream.send(item)
        except BrokenResourceError:
            pass


class EndsAReceiveQuietly(Faulty):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        waiting = self.stream.closed
        try:
            return await self.stream.receive(max_bytes)
        except ClosedResourceError:
            if waiting:
                raise
            raise EndOfStream from None


class EndsASendQuietly(Faulty):
    async def send(self, item: bytes) -> None:
        try:
            await self.stream.send(item)
        except ClosedResourceError:
            pass


class ClosesOnlyWhenNotCancelled(Faulty):
    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        await self.stream.aclose()


class SecondReceiverWaits(Faulty):
    def __init__(self, stream: MemoryByteStream) -> None:
        super().__init__(stream)
        self.lock = anyio.Lock()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        async with self.lock:
            return await self.stream.receive(max_bytes)


class SecondReceiverSteals(Faulty):
    waiting = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        self.waiting += 1
        try:
            data = await self.stream.receive(max_bytes)
            return b"?" if self.waiting < 0 else data
        except BusyResourceError:
            self.waiting = -10
            raise
        finally:
            self.waiting -= 1


class SendsOfTwoMix(Faulty):
    def __init__(self, stream: MemoryByteStream) -> None:
        super().__init__(stream)
        self.lock = anyio.Lock()

    async def send(self, item: bytes) -> None:
        for start in range(0, len(item), 1024):
            async with self.lock:
                await self.stream.send(item[start : start + 1024])


class Buffers(Faulty):
    """Without a limit."""

    async def send(self, item: bytes) -> None:
        self.stream._outgoing.max_buffer += len(item)
        await self.stream.send(item)


class LosesWhatACancelledReceiveHad(Faulty):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self.stream.receive(max_bytes)
        await anyio.lowlevel.checkpoint()
        return data


class SendsWhatWasCancelled(Faulty):
    async def send(self, item: bytes) -> None:
        with anyio.CancelScope(shield=True):
            await self.stream.send(item)
        await anyio.lowlevel.checkpoint_if_cancelled()


class IgnoresCancellation(Faulty):
    async def send(self, item: bytes) -> None:
        with anyio.CancelScope(shield=True):
            await self.stream.send(item)


CHECKS = {check.__name__: check for check in _byte_streams._CHECKS}


@pytest.mark.parametrize(
    ("check", "fault", "text"),
    [
        ("_whole_and_in_order", ReceivesTooMuch, r"receive\(\d+\) returned"),
        ("_whole_and_in_order", Alters, "other bytes"),
        ("_max_bytes_is_kept", ReceivesTooMuch, "first byte"),
        ("_bad_max_bytes", TakesAnyMaxBytes, "not done after"),
        ("_empty_send", SendsForNothing, "was received"),
        ("_end_of_stream", NeverEnds, "not done after"),
        ("_end_of_stream", EndsWithNothing, "the first receive after the end raised nothing"),
        ("_end_of_stream", EndsOnce, "the second receive after the end raised BrokenResourceError"),
        ("_half_close", EndsBothWays, "ClosedResourceError"),
        ("_use_after_close", Disguised, "RuntimeError.*expected ClosedResourceError"),
        ("_peer_gone", DoesNotMindThatThePeerIsGone, "a send to nobody raised nothing"),
        ("_close_ends_a_receive", EndsAReceiveQuietly, "the pending receive raised EndOfStream"),
        ("_close_ends_a_send", Disguised, "the pending send raised RuntimeError"),
        ("_close_ends_a_send", EndsASendQuietly, "the pending send raised nothing"),
        ("_cancelled_close", ClosesOnlyWhenNotCancelled, "a send after a cancelled aclose"),
        ("_two_receivers", SecondReceiverWaits, "not done after"),
        ("_two_receivers", SecondReceiverSteals, "the first receive got"),
        ("_two_senders", SendsOfTwoMix, "came in between"),
        ("_backpressure", Buffers, "although nobody received any"),
        ("_cancelled_receive", LosesWhatACancelledReceiveHad, "not done after|were received"),
        ("_cancelled_send", SendsWhatWasCancelled, "was received"),
        ("_cancelled_send", IgnoresCancellation, "was not cancelled"),
    ],
)
async def test_each_fault_is_found(check: str, fault: type[Faulty], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_byte_streams, "_TIME_LIMIT", 0.5)
    monkeypatch.setattr(_byte_streams, "_CHECKS", (CHECKS[check],))

    async def make_pair() -> tuple[ByteStream, ByteStream]:
        here, there = memory_byte_streams(16 * 1024)
        return fault(here), fault(there)

    with pytest.raises(AssertionError, match=f"{re.escape(str(CHECKS[check].__doc__))}.*({text})"):
        await check_byte_stream(make_pair, max_buffered=1024 * 1024)


async def test_a_half_close_that_is_missing_must_be_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_byte_streams, "_CHECKS", (_byte_streams._half_close,))
    with pytest.raises(AssertionError, match=r"send_eof\(\) raised nothing"):
        await check_byte_stream(memory_pair, send_eof=False)


async def test_concurrent_sends_that_are_promised_must_be_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_byte_streams, "_CHECKS", (_byte_streams._two_senders,))
    with pytest.raises(AssertionError, match="the second send was refused"):
        await check_byte_stream(memory_pair, concurrent_send=True)


async def test_the_suite_itself_can_be_cancelled() -> None:
    async def make_pair() -> tuple[ByteStream, ByteStream]:
        scope.cancel()
        return memory_byte_streams()

    with anyio.CancelScope() as scope:
        await check_byte_stream(make_pair)
    assert scope.cancelled_caught


# --- Streams in memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_buffer", [0, -1])
def test_a_buffer_has_room_for_a_byte(max_buffer: int) -> None:
    with pytest.raises(ValueError, match="max_buffer"):
        memory_byte_streams(max_buffer)


async def test_reads_are_fragmented_when_told() -> None:
    here, there = memory_byte_streams()
    there.max_read = 2
    await here.send(b"abcde")
    assert there.buffered == 5
    assert [await there.receive() for _ in range(3)] == [b"ab", b"cd", b"e"]
    assert (here.sends, there.receives) == (1, 3)


async def test_a_stall_holds_back_data_and_the_end() -> None:
    here, there = memory_byte_streams()
    there.stall()
    await here.send(b"late")
    await here.aclose()
    received: list[bytes] = []

    async def receive() -> None:
        received.append(await there.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await settle()
        assert received == []
        there.resume()
    assert received == [b"late"]
    with pytest.raises(EndOfStream):
        await there.receive()


async def test_a_truncation_ends_the_stream_and_swallows_the_rest() -> None:
    here, there = memory_byte_streams(8)
    there.truncate_after(3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.send, b"abcdefghijkl")
        assert await there.receive() == b"abc"
        with pytest.raises(EndOfStream):
            await there.receive()
    assert there.buffered == 0
    await here.send(bytes(100))
    await there.send(b"back")
    assert await here.receive() == b"back"


async def test_a_failure_breaks_both_ways() -> None:
    here, there = memory_byte_streams()
    there.fail_after(3)
    await here.send(b"abcd")
    assert await there.receive() == b"abc"
    for stream in (there, here):
        with pytest.raises(BrokenResourceError):
            await stream.receive()
        with pytest.raises(BrokenResourceError):
            await stream.send(b"x")


async def test_a_failure_reaches_a_pending_receive() -> None:
    _here, there = memory_byte_streams()

    async def receive() -> None:
        with pytest.raises(BrokenResourceError):
            await there.receive()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await settle()
        there.fail_after(0)


async def test_a_second_task_is_refused() -> None:
    here, _there = memory_byte_streams(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.send, b"ab")
        tasks.start_soon(here.receive)
        await settle()
        with pytest.raises(BusyResourceError):
            await here.send(b"c")
        with pytest.raises(BusyResourceError):
            await here.receive()
        tasks.cancel_scope.cancel()
