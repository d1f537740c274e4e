"""Every Python block of README.md and docs/ runs, on asyncio and on trio.

The blocks of one document run from top to bottom, in one namespace and one event loop. A block may use `await`,
`async with` and `async for` at its top level. Two names are there from the start:

- `connect` opens a toy connection (`ToyConnection` below);
- `pool` is an open `Pool(connect)`.

A block that starts an event loop of its own, by `anyio.run(...)`, is a whole program and runs in a thread.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib.util
import inspect
import re
import shlex
import signal
import subprocess
import sys
import types
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from sybil import Document, Example
from sybil.parsers.myst import CodeBlockParser

from examples.socks_proxy.command_line import read_arguments
from examples.socks_proxy.options import SECTIONS
from tests.socks_proxy.end_to_end.origins import Echo, Origin, serving
from tests.socks_proxy.end_to_end.programs import environment, port_of
from tests.socks_proxy.end_to_end.raw_socks import connect as connect_through
from wspool import Pool

ROOT = Path(__file__).parent.parent
PROXY_GUIDE = ROOT / "docs" / "howto" / "proxy.md"
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


# --- commands and programs -------------------------------------------------------------------------------------------


def commands() -> list[str]:
    return re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


def test_the_readme_has_one_command_to_try_it_and_one_to_test_it() -> None:
    """`.ci/run` runs the second one, to the letter."""
    assert ["pytest" in command for command in commands()] == [False, True]


def test_the_command_to_try_it_comes_first_and_sets_everything_up() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.index(commands()[0]) < text.index("\n## "), "near the top"
    for command in commands():
        create, *install, run = command.split(" && ")
        assert create == "python3 -m venv .venv"
        assert all(step.startswith(".venv/bin/pip install -q ") for step in install)
        assert any(" -e " in step for step in install)
        assert run.startswith(".venv/bin/python ")


def without_ports(text: str) -> str:
    return re.sub(r":[0-9]+", ":PORT", text)


@contextmanager
def started(program: list[str], log: Path) -> Generator[subprocess.Popen[str]]:
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            program, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_program_to_try_says_what_the_readme_shows_and_carries_a_session(backend: str, tmp_path: Path) -> None:
    program = shlex.split(commands()[0].rpartition(" && ")[2])
    assert program == [".venv/bin/python", "-m", "examples.socks_proxy"]
    (shown,) = re.findall(
        r"^```text\n(ready .*?)```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    # Port 1080 may be in use here.
    program = [sys.executable, *program[1:], "--backend", backend, "--listen", "127.0.0.1:0"]
    with started(program, tmp_path / "log") as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in shown.splitlines()]
        assert without_ports("".join(said)) == without_ports(shown)
        port = port_of(said[1].removeprefix("ready "))
        with Origin(Echo) as origin, serving(origin), connect_through(port, "127.0.0.1", origin.port) as stream:
            stream.sendall(b"hello")
            assert stream.recv(5) == b"hello"
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in (ROOT / "README.md", PROXY_GUIDE)]
)
def test_the_proxy_has_the_options_that_the_documents_give_it(path: Path) -> None:
    """In commands, and in the files of units; a backslash at the end of a line joins it with the next."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^[^#\n`|]*python -m examples\.socks_proxy(.*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        read_arguments(shlex.split(line), lambda section, option: None)
    named = {option.name for options in SECTIONS.values() for option in options} | {"help", "version", "config"}
    assert set(re.findall(r"`--([a-z-]+)", text)) <= named
    assert set(re.findall(r"^([a-z-]+) = ", text, re.MULTILINE)) <= named


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_pool_to_try_runs(backend: str) -> None:
    (line,) = re.findall(r"^\.venv/bin/python .*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    program = shlex.split(line)[1:]
    assert program[-2:] == ["--backend", "asyncio"]
    command = [sys.executable, "-W", "error", *program[:-1], backend]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    figures = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert int(figures["acquired"]) >= 180 * 5
    assert figures["size"] == figures["max_size"] == "10"
    assert figures["held"] == figures["waiting"] == "0"
    assert done.stdout.endswith("\n0 places in use after the end of the pool.\n")


# --- what is made from the code --------------------------------------------------------------------------------------


def states_extension() -> Any:
    specification = importlib.util.spec_from_file_location("_states", ROOT / "docs" / "_states.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


STATES = states_extension()


def test_every_state_effect_and_reason_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "design" / "states.md").read_text("utf-8")
    assert {name.rpartition(".")[2] for name in STATES.names(text)} == {
        *["WaiterState", "EntryState", "HandleState"],
        *["JobKind", "Effect"],
        *["CloseReason", "DialEnd"],
    }
    made = STATES.with_tables(text)
    assert "| `RESERVED` | Handed to a waiter whose task has not resumed. | `HELD`," in made
    assert "| `WAKE` | Resume this waiter. |" in made
    assert "| `IDLE` | `idle_timeout` | It lay unused for `idle_timeout`. |" in made


class Mute(enum.Enum):
    TOLD = "It has a text."
    UNTOLD = ""


class Numbers(enum.Enum):
    ONE = 1
    """It has a text."""
    TWO = 2


class Codes(enum.StrEnum):
    TOLD = "told"
    """It has a text."""
    UNTOLD = "untold"


class Astray(enum.Enum):
    HERE = "It is here. Next: HERE, NOWHERE."


class Apart(enum.Enum):
    HERE = "It is here. Next: THERE."
    THERE = "It is there. Next: HERE."
    ISLAND = "Nobody comes here. Next: HERE."


@pytest.mark.parametrize(
    ("states", "text"),
    [
        (Mute, "Mute.UNTOLD has no text"),
        (Numbers, "Numbers.TWO has no text"),
        (Codes, "Codes.UNTOLD has no text"),
        (Astray, r"Astray.HERE leads to \['NOWHERE'\]"),
        (Apart, r"nothing leads to \['ISLAND'\]"),
    ],
)
def test_a_state_that_does_not_say_what_it_means_ends_the_build(states: type[enum.Enum], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        STATES.table(states)


# --- what is said to be checked --------------------------------------------------------------------------------------


INVARIANTS = (ROOT / "docs" / "design" / "invariants.md").read_text("utf-8")


def test_every_invariant_is_listed_with_its_checks() -> None:
    rows = re.findall(r"^\| ([SLP]\d+) \| (.+) \| (.+) \|$", INVARIANTS, re.MULTILINE)
    expected = [f"S{number}" for number in range(1, 21)] + [f"L{number}" for number in range(1, 13)] + ["P1", "P2"]
    assert [name for name, _, _ in rows] == expected


def test_what_checks_the_invariants_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", INVARIANTS)
    assert len(named) > 20
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"def {test}\(", (ROOT / "tests" / "pool" / file).read_text("utf-8"))
    ]
    assert missing == []
    files = re.findall(r"`((?:tests|wspool)/[\w/.*]+)`", INVARIANTS)
    root = {file: Path(inspect.getfile(Pool)).parents[1] if file.startswith("wspool/") else ROOT for file in files}
    assert [file for file in files if not list(root[file].glob(file))] == []


def test_every_number_of_an_invariant_in_the_tests_is_one_of_the_list() -> None:
    listed = set(re.findall(r"^\| ([SLP]\d+) \|", INVARIANTS, re.MULTILINE))
    package = Path(inspect.getfile(Pool)).parent
    files = [package / "testing" / "_invariants.py", package / "testing" / "_sweep.py"]
    files += [*(ROOT / "tests" / "pool_state").glob("*.py"), *(ROOT / "tests" / "pool").glob("*.py")]
    used = {name for file in files for name in re.findall(r"[\"' ]([SL]\d+): ", file.read_text("utf-8"))}
    assert used
    assert used <= listed
