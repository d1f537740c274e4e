"""Bulk data as cheaply as Python can: `sendfile` from memory, and reads that the kernel drops (MSG_TRUNC, tcp(7))."""

from __future__ import annotations

import os
import socket
import threading

from . import wire


class Sink:
    """Takes that many bytes of the pattern, and counts them while it does."""

    def __init__(self, stream: socket.socket, size: int, *, all_of_it: bool = False) -> None:
        self.count = 0
        self._stream = stream
        self._size = size
        self._sample_every = 0 if all_of_it else wire.SAMPLE_EVERY
        self._samples: list[tuple[int, bytes]] = []

    def run(self) -> None:
        """Ends early where the stream does."""
        buffer = bytearray(wire.READ_SIZE)
        next_sample = 0
        while self.count < self._size:
            left = self._size - self.count
            if self.count >= next_sample:
                data = self._stream.recv(min(left, wire.SAMPLE_SIZE))
                self._samples.append((self.count, data))
                next_sample = self.count + self._sample_every
                got = len(data)
            else:
                got = self._stream.recv_into(buffer, min(left, wire.READ_SIZE), socket.MSG_TRUNC)
            if not got:
                break
            self.count += got

    def is_right(self) -> bool:
        """Whether all came, and the samples are what was sent: not for the timed part."""
        return self.count == self._size and self.is_right_so_far()

    def is_right_so_far(self) -> bool:
        return all(wire.is_right(at, data) for at, data in self._samples)


class Together:
    """Transfers at the same time: how far was each when the first was there?"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sinks: list[Sink] = []
        self._shares: dict[Sink, int] = {}

    def begin(self, sink: Sink) -> None:
        with self._lock:
            self._sinks.append(sink)

    def finished(self, sink: Sink) -> int:
        with self._lock:
            if not self._shares:
                self._shares = {one: one.count for one in self._sinks}
            return self._shares.get(sink, 0)


def pour(stream: socket.socket, pattern: int, size: int) -> None:
    """Send that many bytes of the pattern, which is in this file."""
    sent = 0
    while sent < size:
        at = sent % wire.PATTERN_SIZE
        sent += os.sendfile(stream.fileno(), pattern, at, min(size - sent, wire.PATTERN_SIZE - at))
