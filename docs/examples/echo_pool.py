"""200 users share 10 TCP connections to an echo server, all in this one process, on loopback.

    python docs/examples/echo_pool.py
    python docs/examples/echo_pool.py --backend trio

Every tenth user loses patience at some moment and is cancelled, in the queue or between question and answer.
"""

# ruff: noqa: T201  # a program may print

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import sys

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from wspool import Pool

USERS = 200
QUESTIONS = 5
MAX_SIZE = 10


class Connection:
    """One connection to the server. It carries many questions, but only one at a time."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.answers = BufferedByteReceiveStream(stream)
        self.asking = False

    async def ask(self, question: str) -> str:
        self.asking = True
        await self.stream.send(question.encode() + b"\n")
        answer = await self.answers.receive_until(b"\n", max_bytes=1000)
        self.asking = False
        return answer.decode()

    def is_reusable(self) -> bool:
        """For the pool: not while an answer is on its way, which the next user would take for its own."""
        return not self.asking

    async def aclose(self) -> None:
        await self.stream.aclose()


async def serve(stream: SocketStream) -> None:
    """Send back what comes, after a moment of thought."""
    async with stream:
        try:
            async for data in stream:
                await anyio.sleep(0.002)
                await stream.send(data)
        except anyio.BrokenResourceError:
            pass  # a client hung up before its answer


async def use(pool: Pool[Connection], user: int) -> None:
    for number in range(QUESTIONS):
        async with pool.get() as connection:
            question = f"question {number} of user {user}"
            answer = await connection.ask(question)
            assert answer == question, f"{question!r} got the answer to {answer!r}"


async def main() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    served = 0

    async def connect() -> Connection:
        return Connection(await anyio.connect_tcp("127.0.0.1", port))

    async def visit(user: int) -> None:
        nonlocal served
        patience = random.uniform(0.0, 0.2) if user % 10 == 0 else 60.0
        with anyio.move_on_after(patience):
            await use(pool, user)
            served += 1

    async with listener, anyio.create_task_group() as server:
        server.start_soon(listener.serve, serve)
        async with Pool(connect, max_size=MAX_SIZE, name="echo pool") as pool:
            async with anyio.create_task_group() as users:
                for user in range(1, USERS + 1):
                    users.start_soon(visit, user)
            statistics = pool.statistics()
            assert statistics.held == statistics.waiting == 0
            assert statistics.size <= MAX_SIZE
        server.cancel_scope.cancel()

    print(f"{served} of {USERS} users had all their answers; the others were cancelled.")
    for name, value in dataclasses.asdict(statistics).items():
        print(f"{name:20} {value}")
    print(f"{pool.statistics().size} places in use after the end of the pool.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="200 users share 10 connections to an echo server.")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    try:
        anyio.run(main, backend=parser.parse_args().backend)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has seen enough, as `head` does. What is left would be flushed at the exit, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
