"""Every Python block of README.md and docs/ runs, on asyncio and on trio.

The blocks of one document run from top to bottom, in one namespace and one event loop. A block may use `await`,
`async with` and `async for` at its top level. Two names are there from the start:

- `connect` opens a toy connection (`ToyConnection` below);
- `pool` is an open `Pool(connect)`.

A block that starts an event loop of its own, by `anyio.run(...)`, is a whole program and runs in a thread.
"""

from __future__ import annotations

import ast
import functools
import inspect
import types
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from sybil import Document, Example
from sybil.parsers.myst import CodeBlockParser

from wspool import Pool

ROOT = Path(__file__).parent.parent
PATHS = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]

# Far more than any document needs: one that hangs must fail by itself, with the line where it hung.
TIMEOUT = 60


class ToyConnection:
    """What `connect` of the documents opens: it echoes, and knows whether it is open."""

    def __init__(self) -> None:
        self.is_open = True
        self._received: list[bytes] = []

    async def send(self, data: bytes) -> None:
        assert self.is_open
        await anyio.lowlevel.checkpoint()
        self._received.append(data)

    async def receive(self) -> bytes:
        assert self.is_open
        await anyio.lowlevel.checkpoint()
        return self._received.pop(0)

    async def ping(self) -> None:
        assert self.is_open
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.is_open = False


async def connect() -> ToyConnection:
    await anyio.lowlevel.checkpoint()
    return ToyConnection()


def examples(path: Path) -> list[Example]:
    parser = CodeBlockParser("python", evaluator=lambda example: None)
    return list(Document.parse(str(path), parser).examples())


def compiled(example: Example) -> types.CodeType:
    # The empty lines make tracebacks name the line of the document.
    source = "\n" * (example.line + example.parsed.line_offset) + example.parsed
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: types.CodeType = compile(source, example.path, "exec", flags=flags, dont_inherit=True)
    return code


def is_program(example: Example) -> bool:
    tree = ast.walk(ast.parse(example.parsed))
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) == "anyio.run" for node in tree)


async def run_block(example: Example, namespace: dict[str, Any]) -> None:
    code = compiled(example)
    if is_program(example):
        await anyio.to_thread.run_sync(exec, code, namespace)
        return
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        await result


async def run_blocks(blocks: list[Example]) -> None:
    with anyio.fail_after(TIMEOUT):
        async with Pool(connect) as pool:
            namespace: dict[str, Any] = {"__name__": "__main__", "connect": connect}
            for example in blocks:
                namespace["pool"] = pool  # the block before may have opened and closed one of its own by this name
                await run_block(example, namespace)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PATHS if examples(path)]
)
def test_the_blocks_run(path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = anyio.run
    # A program that names no backend runs on the one under test.
    monkeypatch.setattr(anyio, "run", functools.partial(run, backend=backend))
    run(run_blocks, examples(path), backend=backend)


def test_the_documents_have_blocks() -> None:
    """A parser that finds nothing would pass every test above."""
    documents = {path.relative_to(ROOT).as_posix() for path in PATHS if examples(path)}
    assert {"README.md", "docs/tutorial.md", "docs/howto/check.md"} <= documents


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PATHS])
def test_every_fence_of_python_is_found(path: Path) -> None:
    """A fence that the parser does not recognise (`py`, `python3`, an odd indent) would never be run."""
    lines = (line.lstrip(" >") for line in path.read_text("utf-8").splitlines())
    fences = sum(line.startswith(("```py", "~~~py", "```{code", ":::{code")) for line in lines)
    assert fences == len(examples(path))


def test_links_between_documents_lead_somewhere() -> None:
    """Sphinx checks those of docs/; README.md is not part of its tree."""
    text = (ROOT / "README.md").read_text("utf-8")
    targets = [part.split(")")[0].split("#")[0] for part in text.split("](")[1:]]
    missing = [target for target in targets if target and "://" not in target and not (ROOT / target).exists()]
    assert missing == []
