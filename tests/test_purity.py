"""The import rule: a pure file knows no clock, no chance, no I/O and no event loop.

It is read from the syntax tree, so an import inside a function or under `TYPE_CHECKING` counts too:
a pure file that needs a shell's type for an annotation is not pure in its interface.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import examples
import wspool

# Of the installed package: when the tests run against a wheel, the wheel's files are what is read.
PACKAGES = {package.__name__: Path(package.__file__ or "").parent for package in (wspool, examples)}

FORBIDDEN = frozenset(
    {
        "anyio",
        "asyncio",
        "concurrent",
        "logging",
        "multiprocessing",
        "os",
        "queue",
        "random",
        "select",
        "selectors",
        "signal",
        "sniffio",
        "socket",
        "ssl",
        "subprocess",
        "threading",
        "time",
        "trio",
    }
)

# What the extra `websocket` brings: the pool itself does without.
WEBSOCKET_ONLY = frozenset({"h11", "idna", "wsproto"})

# Files that must never lose the word: without this list, dropping it from the docstring would switch the rule off.
ALWAYS_PURE = frozenset(
    {
        "examples.socks_proxy.addresses",
        "examples.socks_proxy.codes",
        "examples.socks_proxy.effects",
        "examples.socks_proxy.liveness",
        "examples.socks_proxy.options",
        "examples.socks_proxy.packets",
        "examples.socks_proxy.policy",
        "examples.socks_proxy.session",
        "examples.socks_proxy.socks5",
        "examples.socks_proxy.users",
        "wspool._errors",
        "wspool._events",
        "wspool._pool_state",
        "wspool._poolable",
        "wspool._settings",
        "wspool._statistics",
        "wspool.websocket._errors",
        "wspool.websocket._handshake",
        "wspool.websocket._http",
        "wspool.websocket._masking",
        "wspool.websocket._protocol",
        "wspool.websocket._settings",
        "wspool.websocket._url",
    }
)


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_pure(tree: ast.Module) -> bool:
    return (ast.get_docstring(tree) or "").startswith("PURE")


TREES = {
    module_name(root, path): ast.parse(path.read_text("utf-8"))
    for root in PACKAGES.values()
    for path in sorted(root.rglob("*.py"))
}
PURE = frozenset(name for name, tree in TREES.items() if is_pure(tree))


def imported_modules(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of every module that is imported anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for name in imported_from(module, node):
                yield node.lineno, name


def imported_from(module: str, node: ast.ImportFrom) -> Iterator[str]:
    source = node.module or ""
    if node.level:
        parts = module.split(".")
        if PACKAGES[parts[0]].joinpath(*parts[1:]).is_dir():
            parts.append("__init__")
        package = parts[: -node.level]
        source = ".".join([*package, source] if source else package)
    for alias in node.names:
        # `from wspool import _pool` imports a module, `from wspool._pool import Pool` a name out of one.
        submodule = f"{source}.{alias.name}"
        yield submodule if submodule in TREES else source


def offences(module: str, tree: ast.Module) -> list[str]:
    found = []
    for line, name in imported_modules(module, tree):
        top = name.partition(".")[0]
        if top in FORBIDDEN:
            found.append(f"{module}:{line} imports {name}")
        elif top in PACKAGES and name not in PURE:
            found.append(f"{module}:{line} imports {name}, which is not pure")
    found += foreign_offences(module, tree)
    for node in ast.walk(tree):
        # __import__("time") would be the same import in disguise.
        if isinstance(node, ast.Name) and node.id in ("__import__", "importlib"):
            found.append(f"{module}:{node.lineno} uses {node.id}")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor):
            found.append(f"{module}:{node.lineno} is asynchronous")
    return found


def foreign_offences(module: str, tree: ast.Module) -> list[str]:
    """For shells as well: what only the websockets may import, or what would make the pool need them."""
    if module.startswith(("wspool.websocket", "examples")):
        return []
    return [
        f"{module}:{line} imports {name}, which is for wspool.websocket"
        for line, name in imported_modules(module, tree)
        if name.partition(".")[0] in WEBSOCKET_ONLY or name.startswith("wspool.websocket")
    ]


def test_the_core_says_that_it_is_pure() -> None:
    assert PURE >= ALWAYS_PURE


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_file_imports_only_pure_things(module: str) -> None:
    assert offences(module, TREES[module]) == []


@pytest.mark.parametrize("module", sorted(name for name in TREES if name.startswith("wspool")))
def test_the_pool_does_without_the_websockets(module: str) -> None:
    assert foreign_offences(module, TREES[module]) == []


@pytest.mark.parametrize("source", ["import h11", "from wsproto.events import Ping", "from .websocket import _url"])
def test_what_is_for_websockets_is_allowed_there_only(source: str) -> None:
    assert foreign_offences("wspool._example", ast.parse(source))
    assert foreign_offences("wspool.websocket._example", ast.parse(source)) == []
    assert foreign_offences("examples.socks_proxy.example", ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import time", id="at the top"),
        pytest.param("def f():\n    from anyio.abc import TaskGroup", id="inside a function"),
        pytest.param("if TYPE_CHECKING:\n    import asyncio.events as e", id="for types only"),
        pytest.param("from . import _pool", id="a shell by a relative import"),
        pytest.param("from ._pool import Pool", id="a name out of a shell"),
        pytest.param("import wspool", id="the public package, which imports the shell"),
        pytest.param("from wspool._pool import Pool", id="a shell by its full name"),
        pytest.param("t = __import__('time')", id="in disguise"),
        pytest.param("async def f(): ...", id="a coroutine"),
    ],
)
def test_the_rule_finds_an_impure_import(source: str) -> None:
    assert offences("wspool._example", ast.parse(source))


def test_the_rule_is_for_the_examples_as_well() -> None:
    for source in ("import wspool", "import time", "from wspool.websocket import _stream"):
        assert offences("examples.socks_proxy.example", ast.parse(source)), source
    assert offences("examples.socks_proxy.example", ast.parse("from .codes import Code")) == []


@pytest.mark.parametrize(
    "source", ["from ._errors import PoolError", "from wspool import _errors", "from collections import deque"]
)
def test_the_rule_allows_pure_imports(source: str) -> None:
    assert offences("wspool._example", ast.parse(source)) == []
