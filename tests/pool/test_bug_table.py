"""The table of known bugs in docs/design/bugs.md names every bug of the catalogue, and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "docs" / "design" / "bugs.md"

_ROW = re.compile(r"^\| (?P<id>[BR]\d+) \| (?P<source>.+?) \| (?P<wrong>.+?) \| (?P<here>.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
_LINK = re.compile(r"\[(?P<text>[^]]+)\]\((?P<address>[^)]+)\)")

ROWS = {match["id"]: match for match in _ROW.finditer(TABLE.read_text(encoding="utf-8"))}
IDS = [f"B{number:02}" for number in range(1, 62)] + [f"R{number}" for number in range(1, 12)]


def _tests_of(path: Path) -> dict[str, str]:
    """Each test of a module, with its docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name: ast.get_docstring(node) or "" for node in functions if node.name.startswith("test_")}


def test_every_bug_of_the_catalogue_is_in_the_table_once() -> None:
    assert [match["id"] for match in _ROW.finditer(TABLE.read_text(encoding="utf-8"))] == IDS


@pytest.mark.parametrize("bug", IDS)
def test_every_test_that_the_table_names_exists_and_cites_the_bug(bug: str) -> None:
    named = _TEST.findall(ROWS[bug]["here"])
    assert named, "no test, and so no promise"
    for file, test in named:
        docstring = _tests_of(HERE / file).get(test)
        assert docstring is not None, f"there is no {test} in {file}"
        assert re.search(rf"\b{bug}\b", docstring), f"{test} does not say that it is about {bug}"


def test_every_test_of_the_catalogue_is_in_the_table() -> None:
    named = {pair for row in ROWS.values() for pair in _TEST.findall(row["here"])}
    there = {(path.name, test) for path in HERE.glob("test_bug_catalogue_*.py") for test in _tests_of(path)}
    assert there == named


@pytest.mark.parametrize("bug", IDS)
def test_every_source_links_to_what_it_names(bug: str) -> None:
    links = _LINK.findall(ROWS[bug]["source"])
    assert links
    for text, address in links:
        repository, _, number = text.partition("#")
        assert address in {
            f"https://github.com/{repository}/issues/{number}",
            f"https://github.com/{repository}/pull/{number}",
            f"https://github.com/{repository}",
            f"https://issues.apache.org/jira/browse/{text}",
        }
