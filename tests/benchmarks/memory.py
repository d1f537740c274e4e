"""Memory: what the pool itself needs for an idle connection, and for a waiter.

Counted by tracemalloc, each in an interpreter of its own, so that no table that an earlier sample grew is in it.
- Idle: everything allocated from before the pool was opened until all its connections lie idle, less the fake
  connections, which were made before; so what the pool writes on a connection is counted as the pool's.
- Waiter: everything allocated while the users come and queue, less the same number of the same tasks that wait for
  one common future: a task, its coroutine, and its place in that future's callbacks. The waiter's own future, timer
  and whatever else it waits with is thus the pool's.
"""

from __future__ import annotations

import _weakrefset
import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import contenders as registry
from .fakes import Dial
from .interleave import interleave
from .report import Table, add_missing, verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .backends import Backend
    from .contenders import Missing
    from .contenders.base import Contender

COUNT = 10_000
IDLE_TARGET = 64
WAITER_TARGET = 400
PROCESS_TIMEOUT = 60


def measure(contenders: Sequence[type[Contender]], missing: Sequence[Missing], backend: Backend, repeat: int) -> Table:
    def in_process(subject: str) -> Callable[[type[Contender]], float]:
        return lambda contender: _in_a_process(contender, subject, _count(contender, subject))

    idle = interleave("memory, idle", contenders, 1, in_process("idle"))
    waiting = interleave("memory, waiters", contenders, 1, in_process("waiter"))
    counts = {_count(contender, "waiter") for contender in contenders}
    alone = {count: _in_a_process(contenders[0], "task", count) for count in counts}
    table = Table(
        "Memory, bytes of pool for each (on asyncio's own loop)",
        ["pool", "idle connection", "waiter beyond its task", "task", "connections", "waiters", "target"],
    )
    failures = {**idle.failures, **waiting.failures}
    for contender in contenders:
        name = contender.name
        if name in failures:
            table.add_problem(name, failures[name])
            continue
        idle_bytes, task_bytes = idle.of(name)[0], alone[_count(contender, "waiter")]
        waiter_bytes = waiting.of(name)[0] - task_bytes
        table.add(
            name,
            f"{idle_bytes:.0f}",
            f"{waiter_bytes:.0f}",
            f"{task_bytes:.0f}",
            f"{_count(contender, 'idle'):,}",
            f"{_count(contender, 'waiter'):,}",
            _verdict(idle_bytes, waiter_bytes) if name == "wspool" else "",
        )
        table.data[name] = {"idle_bytes": idle_bytes, "waiter_bytes": waiter_bytes, "task_bytes": task_bytes}
        if contender.largest.get("idle"):
            table.notes.append(f"{name}: fewer, for it takes minutes otherwise: {contender.why_no_larger}")
    add_missing(table, missing)
    table.notes.append("idle: the fake connections themselves are not counted; what a pool writes on them is")
    table.notes.append(
        "waiter: less a task (shown) that waits for a future which is common to all: a future of its own,"
        " about 100 bytes, is counted as the pool's, though every pool here needs one"
    )
    table.notes.append(
        "tracemalloc, once, each in an interpreter of its own: runs differ by a few bytes;"
        " the set in which asyncio keeps its tasks is left out"
    )
    return table


def _verdict(idle: float, waiter: float) -> str:
    of_idle = verdict(idle <= IDLE_TARGET, f"<= {IDLE_TARGET}")
    of_waiter = verdict(waiter <= WAITER_TARGET, f"<= {WAITER_TARGET}")
    return f"{of_idle}, {of_waiter}"


def _count(contender: type[Contender], subject: str) -> int:
    return contender.largest.get(subject, COUNT)


def _in_a_process(contender: type[Contender], subject: str, count: int) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.memory", contender.name, subject, str(count)]
    root = Path(__file__).resolve().parents[2]
    # Hash seeds decide how full the tables of sets are.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ended = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=PROCESS_TIMEOUT, check=False
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip().splitlines()[-1] if ended.stderr else f"exit {ended.returncode}")
    return float(json.loads(ended.stdout))


async def idle(kind: type[Contender], count: int) -> float:
    await _warm_up(kind)
    pool = kind()
    dial = Dial(pool.make, asyncio.sleep)
    dial.prepare(count)
    before = _allocated()
    await pool.open(count, dial)
    taken = [await pool.take() for _ in range(count)]
    while taken:
        await pool.give(taken.pop())
    del taken
    after = _allocated()
    tracemalloc.stop()
    # All are there, and idle: they can all be taken again without a dial.
    again = [await pool.take() for _ in range(count)]
    _KEPT.append(again)
    assert dial.started == count, f"{dial.started} dials for {count} connections"
    assert len({id(pool.connection(one)) for one in again}) == count, "one connection twice"
    return (after - before) / count


async def waiter(kind: type[Contender], count: int) -> float:
    await _warm_up(kind)
    pool = kind()
    await pool.open(1, Dial(pool.make, asyncio.sleep))
    _KEPT.append([pool, await pool.take()])
    return await _bytes_of_tasks(lambda: pool.use(1), count)


async def task(kind: type[Contender], count: int) -> float:
    """What is nobody's but the task's own."""
    await _warm_up(kind)
    common: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def parked(times: int) -> None:
        for _ in range(times):
            await common

    return await _bytes_of_tasks(lambda: parked(1), count)


async def _warm_up(kind: type[Contender]) -> None:
    """Some import or cache on first use; that is no connection's and no waiter's."""
    pool = kind()
    await pool.open(1, Dial(pool.make, asyncio.sleep))
    await pool.give(await pool.take())
    users = [asyncio.ensure_future(pool.use(1)) for _ in range(3)]
    await asyncio.gather(*users)
    await pool.close()


async def _bytes_of_tasks(user: Callable[[], Awaitable[None]], count: int) -> float:
    tasks: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future()] * count
    before = _allocated()
    for number in range(count):
        tasks[number] = asyncio.ensure_future(user())
    for _ in range(5):
        await asyncio.sleep(0.02)  # nobody tells when all of them wait in a pool of somebody else
    after = _allocated()
    assert not any(task.done() for task in tasks), "a user did not wait"
    _KEPT.append(tasks)
    return (after - before) / count


# Until the end of the process: their going must not be measured as anybody's gain.
_KEPT: list[list[Any]] = []


# asyncio keeps its tasks in a WeakSet, whose table grows and shrinks by leaps: by 52 bytes a task, or not at all.
_NOBODYS = {_weakrefset.__file__, tracemalloc.__file__}


def _allocated() -> int:
    gc.collect()
    by_file = tracemalloc.take_snapshot().statistics("filename")
    return sum(one.size for one in by_file if one.traceback[0].filename not in _NOBODYS)


def _main() -> None:
    name, subject, count = sys.argv[1:]
    # Peers complain about the connections that are still out at the end.
    logging.disable(logging.CRITICAL)
    kind = registry.by_name(name)
    subjects = {"idle": idle, "waiter": waiter, "task": task}

    async def main() -> None:
        tracemalloc.start()
        print(await subjects[subject](kind, int(count)), flush=True)
        # Ten thousand waiters are not told that it is over.
        os._exit(0)

    asyncio.run(main())


if __name__ == "__main__":
    _main()
