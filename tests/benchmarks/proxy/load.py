"""The load generator, a process of its own: it reads a job a line, does it, and tells what it took.

Verified outside of the timed part: that all came and no more, that answers belong to their questions, and samples of
what was transferred.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from . import socks, wire
from .swarm import Swarm
from .transfers import Sink, Together, pour

_PATTERN = wire.pattern_file()
_ENDLESS = 1 << 50


@dataclass
class Moved:
    """One transfer: when it ended, how far it was when the first ended, and what tells whether it was right."""

    ended: float
    share: int
    is_right: Callable[[], bool]


def bulk(via: int | None, to: int, direction: str, sessions: int, size: int, all_of_it: bool = False) -> dict[str, Any]:
    """So many sessions at once, that many bytes each; timed from when all are connected until the last has ended."""
    streams = [socks.connect(via, to) for _ in range(sessions)]
    group = Together()
    number = time.time_ns()

    def move(stream: socket.socket) -> Moved:
        if direction == "down":
            return _down(stream, group, Sink(stream, size, all_of_it=all_of_it), size)
        return _up(stream, number, size, all_of_it=all_of_it)

    began = time.perf_counter()
    with ThreadPoolExecutor(sessions) as threads:
        moved = list(threads.map(move, streams))
    if not all(one.is_right() for one in moved):
        raise RuntimeError("what came is not what was sent")
    for stream in streams:
        stream.close()
    seconds = max(one.ended for one in moved) - began
    return {"seconds": seconds, "bytes": size * sessions, "shares": [one.share for one in moved]}


def _down(stream: socket.socket, group: Together, sink: Sink, size: int) -> Moved:
    group.begin(sink)
    stream.sendall(wire.request(wire.DOWN, 0, size))
    sink.run()
    ended = time.perf_counter()
    return Moved(ended, group.finished(sink), sink.is_right)


def _up(stream: socket.socket, group: int, size: int, *, all_of_it: bool) -> Moved:
    stream.sendall(wire.request(wire.UP, int(all_of_it), size, group))
    pour(stream, _PATTERN, size)
    count, share = wire.RECEIPT.unpack(socks.receive(stream, wire.RECEIPT.size))
    ended = time.perf_counter()
    verdict = socks.receive(stream, len(wire.RIGHT))
    return Moved(ended, share, lambda: count == size and verdict == wire.RIGHT)


def sessions(via: int | None, to: int, seconds: float, least: int = 5) -> dict[str, Any]:
    """New ones, one after another, each with a question and its answer."""
    times: list[float] = []
    answers: list[bytes] = []
    began = time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        with socks.connect(via, to) as stream:
            stream.sendall(wire.request(wire.ASK, len(answers)))
            answers.append(socks.receive(stream, wire.ANSWER_SIZE))
        times.append(time.perf_counter() - start)
    took = time.perf_counter() - began
    _check(answers)
    return {"times": times, "seconds": took}


def _check(answers: list[bytes]) -> None:
    wrong = [number for number, found in enumerate(answers) if found != wire.answer(number)]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(answers)} answers are wrong, the first is number {wrong[0]}")


def many(via: int | None, to: int, at_once: int, seconds: float = 0.0, count: int = 0) -> dict[str, Any]:
    """So many new sessions at a time, for that long or until there were that many."""
    swarm = Swarm(via, to)
    began = time.perf_counter()
    swarm.run(at_once, count or _ENDLESS, began + (seconds or socks.TIMEOUT))
    took = time.perf_counter() - began
    _check(swarm.answers)
    first = [visit.first_byte - visit.began for visit in swarm.done]
    times = [visit.ended - visit.began for visit in swarm.done]
    return {"first_byte": first, "times": times, "seconds": took}


class Background:
    """A download that goes on until it is told to stop; a session that is aborted at its end."""

    def __init__(self, via: int | None, to: int) -> None:
        self._stream = socks.connect(via, to)
        self._sink = Sink(self._stream, _ENDLESS)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stream.sendall(wire.request(wire.DOWN, 0, _ENDLESS))
        self._thread.start()

    def _run(self) -> None:
        try:
            self._sink.run()
        except OSError:
            pass  # it was told to stop

    def count(self) -> int:
        return self._sink.count

    def stop(self) -> None:
        self._stream.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._stream.close()
        if not self._sink.is_right_so_far():
            raise RuntimeError("what came is not what was sent")


class Load:
    def __init__(self) -> None:
        self._background: Background | None = None
        self._held: Swarm | None = None

    def background(self, via: int | None, to: int) -> None:
        self._background = Background(via, to)

    def background_count(self) -> int:
        assert self._background
        return self._background.count()

    def stop_background(self) -> None:
        assert self._background
        self._background.stop()

    def hold(self, via: int | None, to: int, count: int) -> None:
        """Open that many sessions, each used once, and let them stand open."""
        self._held = Swarm(via, to, keep=True)
        self._held.run(min(count, 50), count, time.perf_counter() + socks.TIMEOUT)
        _check(self._held.answers)
        if len(self._held.answers) != count:
            raise RuntimeError(f"{len(self._held.answers)} of {count} sessions could be opened")

    def let_go(self) -> None:
        assert self._held
        self._held.close()

    def do(self, job: dict[str, Any]) -> Any:
        what = job.pop("do")
        functions: dict[str, Callable[..., Any]] = {"bulk": bulk, "sessions": sessions, "many": many}
        function = functions.get(what) or getattr(self, what)
        return function(**job)


def main() -> None:
    load = Load()
    for line in sys.stdin:
        before = os.times()
        try:
            result = load.do(json.loads(line))
        except BlockingIOError:
            told: dict[str, Any] = {"problem": f"nothing came for {socks.TIMEOUT} s"}
        except Exception as error:
            kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
            told = {"problem": f"{kind}{error}"}
        else:
            after = os.times()
            told = {"result": result, "cpu": after.user + after.system - before.user - before.system}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
