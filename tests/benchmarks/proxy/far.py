"""The way between the ends, made long: ``python -m tests.benchmarks.proxy.far PORT TO SECONDS``.

A relay that hands on every byte that many seconds after it came, in both directions. That a connection is opened is
hidden from who opens it: loopback says so at once. So what the opener says first waits for the round trip that this
takes in truth.
"""

from __future__ import annotations

import heapq
import select
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

_READ_SIZE = 1 << 18
# On the way at once, in one direction of a connection: what a large window of TCP allows.
_WINDOW = 16 << 20


@dataclass
class Way:
    """One direction of a connection."""

    source: socket.socket
    target: socket.socket
    not_before: float = 0.0
    on_the_way: int = 0
    paused: bool = False
    read_to_its_end: bool = False
    ended: bool = False
    back: Way | None = None


@dataclass(order=True)
class Parcel:
    due: float
    number: int
    way: Way = field(compare=False)
    data: bytes = field(compare=False)


class Relay:
    """One thread reads, and notes when; the other writes, when it is time."""

    def __init__(self, listener: socket.socket, to: int, delay: float) -> None:
        self._listener = listener
        self._to = to
        self._delay = delay
        self._epoll = select.epoll()
        self._ways: dict[int, Way] = {}
        self._changed = threading.Condition()
        self._parcels: list[Parcel] = []
        self._number = 0

    def run(self) -> None:
        threading.Thread(target=self._deliver, daemon=True).start()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._collect(descriptor)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        up = Way(near, far, not_before=time.monotonic() + 3 * self._delay)
        down = Way(far, near, back=up)
        up.back = down
        for way in (up, down):
            way.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways[way.source.fileno()] = way
            self._epoll.register(way.source.fileno(), select.EPOLLIN)

    def _collect(self, descriptor: int) -> None:
        way = self._ways[descriptor]
        try:
            data = way.source.recv(_READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        due = max(time.monotonic() + self._delay, way.not_before)
        with self._changed:
            way.on_the_way += len(data)
            way.read_to_its_end = not data
            way.paused = bool(data) and way.on_the_way > _WINDOW
            if way.paused or way.read_to_its_end:
                self._epoll.unregister(descriptor)
            self._number += 1
            parcel = Parcel(due, self._number, way, data)
            heapq.heappush(self._parcels, parcel)
            if self._parcels[0] is parcel:
                self._changed.notify()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while (wait := self._wait()) is None or wait > 0:
                    self._changed.wait(wait)
                parcel = heapq.heappop(self._parcels)
            self._hand_over(parcel.way, parcel.data)

    def _wait(self) -> float | None:
        """Until the next one is due, if there is one."""
        return self._parcels[0].due - time.monotonic() if self._parcels else None

    def _hand_over(self, way: Way, data: bytes) -> None:
        try:
            if data:
                way.target.sendall(data)
            else:
                way.target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # who does not listen any more hangs up, too
        with self._changed:
            way.on_the_way -= len(data)
            if not data:
                self._end(way)
            elif way.paused and way.on_the_way < _WINDOW // 2:
                way.paused = False
                self._epoll.register(way.source.fileno(), select.EPOLLIN)

    def _end(self, way: Way) -> None:
        way.ended = True
        assert way.back
        if way.back.ended:
            for one in (way, way.back):
                del self._ways[one.source.fileno()]
                one.source.close()


def main() -> None:
    port, to, delay = sys.argv[1:]
    with socket.create_server(("127.0.0.1", int(port)), backlog=4096) as listener:
        Relay(listener, int(to), float(delay)).run()


if __name__ == "__main__":
    main()
