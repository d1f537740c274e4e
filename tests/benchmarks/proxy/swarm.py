"""Many sessions at a time, in one thread: each asks one question, and has its answer."""

from __future__ import annotations

import select
import socket
import time

from . import socks, wire


class Visit:
    """One session: connected, greeted, through, answered."""

    def __init__(self, number: int, via: int | None, to: int) -> None:
        self.began = time.perf_counter()
        self.first_byte = 0.0
        self.ended = 0.0
        self.received = b""
        self.stream = socks.opened(to if via is None else via)
        self._number = number
        self._to = to
        if via is None:
            self._expect = wire.ANSWER_SIZE
            self._ask()
        else:
            self._expect = len(socks.METHOD)
            self.stream.send(socks.GREETING)

    def _ask(self) -> None:
        self.stream.send(wire.request(wire.ASK, self._number))

    def proceed(self) -> bool:
        """Something has come: whether that was all."""
        data = self.stream.recv(self._expect - len(self.received), socket.MSG_DONTWAIT)
        if not data:
            raise RuntimeError(f"the connection ended after {len(self.received)} of {self._expect} bytes")
        if self._expect == wire.ANSWER_SIZE and not self.received:
            self.first_byte = time.perf_counter()
        self.received += data
        if len(self.received) < self._expect:
            return False
        if self._expect == wire.ANSWER_SIZE:
            self.ended = time.perf_counter()
            return True
        self._next_step()
        return False

    def _next_step(self) -> None:
        if self._expect == len(socks.METHOD):
            socks.check_method(self.received)
            self._expect = socks.REPLY_SIZE
            self.stream.send(socks.request(self._to))
        else:
            socks.check_reply(self.received)
            self._expect = wire.ANSWER_SIZE
            self._ask()
        self.received = b""


class Swarm:
    def __init__(self, via: int | None, to: int, *, keep: bool = False) -> None:
        self.done: list[Visit] = []
        self._via = via
        self._to = to
        self._keep = keep
        self._started: list[Visit] = []
        self._open: dict[int, Visit] = {}

    @property
    def answers(self) -> list[bytes]:
        """By the number of the question."""
        return [visit.received for visit in self._started]

    def run(self, at_once: int, count: int, until: float) -> None:
        """Begin no more after that many, or that moment; and see all to their ends."""
        epoll = select.epoll()
        with epoll:
            for _ in range(min(at_once, count)):
                self._begin(epoll)
            while self._open:
                events = epoll.poll(socks.TIMEOUT)
                if not events:
                    raise TimeoutError(f"{len(self._open)} sessions wait for an answer")
                for descriptor, _ in events:
                    if self._proceed(epoll, descriptor) and len(self._started) < count and time.perf_counter() < until:
                        self._begin(epoll)

    def _begin(self, epoll: select.epoll) -> None:
        visit = Visit(len(self._started), self._via, self._to)
        self._started.append(visit)
        self._open[visit.stream.fileno()] = visit
        epoll.register(visit.stream.fileno(), select.EPOLLIN)

    def _proceed(self, epoll: select.epoll, descriptor: int) -> bool:
        visit = self._open[descriptor]
        if not visit.proceed():
            return False
        del self._open[descriptor]
        epoll.unregister(descriptor)
        if not self._keep:
            visit.stream.close()
        self.done.append(visit)
        return True

    def close(self) -> None:
        for visit in self._started:
            visit.stream.close()
