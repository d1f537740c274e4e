"""What lies behind the tunnels: ``python -m tests.benchmarks.proxy.destination PORT``.

One thread answers the small requests of all; a transfer has a thread of its own, which mostly is in the kernel.
"""

from __future__ import annotations

import select
import socket
import sys
import threading

from . import wire
from .transfers import Sink, Together, pour


class Destination:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._epoll = select.epoll()
        self._streams: dict[int, tuple[socket.socket, bytearray]] = {}
        self._pattern = wire.pattern_file()
        self._groups: dict[int, Together] = {}
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def run(self) -> None:
        accepting = self._listener.fileno()
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == accepting:
                    self._accept()
                else:
                    self._read(descriptor)

    def _accept(self) -> None:
        stream, _ = self._listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams[stream.fileno()] = (stream, bytearray())
        self._epoll.register(stream.fileno(), select.EPOLLIN)

    def _read(self, descriptor: int) -> None:
        stream, received = self._streams[descriptor]
        try:
            data = stream.recv(wire.REQUEST_SIZE - len(received), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(descriptor).close()
            return
        received += data
        if len(received) == wire.REQUEST_SIZE:
            what, number, size, group = wire.read_request(received)
            received.clear()
            if what == wire.ASK:
                _say(stream, wire.answer(number))
            else:
                self._forget(descriptor)
                work = self._give if what == wire.DOWN else self._take
                threading.Thread(target=work, args=(stream, size, group, bool(number)), daemon=True).start()

    def _forget(self, descriptor: int) -> socket.socket:
        self._epoll.unregister(descriptor)
        return self._streams.pop(descriptor)[0]

    def _give(self, stream: socket.socket, size: int, group: int, all_of_it: bool) -> None:
        with stream:
            try:
                pour(stream, self._pattern, size)
                stream.recv(1)  # until the other end has all, and hangs up
            except OSError:
                pass  # it has hung up before: its own decision

    def _take(self, stream: socket.socket, size: int, group: int, all_of_it: bool) -> None:
        together = self._groups.setdefault(group, Together())
        sink = Sink(stream, size, all_of_it=all_of_it)
        together.begin(sink)
        with stream:
            try:
                sink.run()
                _say(stream, wire.RECEIPT.pack(sink.count, together.finished(sink)))
                _say(stream, wire.RIGHT if sink.is_right() else wire.WRONG)
                stream.recv(1)
            except OSError:
                pass


def _say(stream: socket.socket, data: bytes) -> None:
    try:
        stream.sendall(data)
    except OSError:
        pass  # who has hung up is seen by the next read


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096) as listener:
        Destination(listener).run()


if __name__ == "__main__":
    main()
