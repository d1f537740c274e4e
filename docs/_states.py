"""A Sphinx extension: tables of wspool's enumerations, made from the code each time that the documents are built.

A document asks for one by a fence, whose content is for readers of the source only:

    ```{enumeration} wspool._entries.EntryState
    ```

A member's text is the string below it, or else its own value. A state's text has the form "Meaning. Next: A, B."; the
names must be those of other states. A member without a text, or a state that nothing leads to, ends the build.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_FENCE = re.compile(r"^```\{enumeration\} (?P<name>[\w.]+)\n(?:(?!```).*\n)*```$", re.MULTILINE)
_NEXT = re.compile(r"(?P<meaning>.*?)\s*\bNext: (?P<next>\w+(?:, \w+)*)\.", re.DOTALL)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(_: Sphinx, __: str, source: list[str]) -> None:
    source[0] = with_tables(source[0])


def with_tables(text: str) -> str:
    """The text of a document, with a table in the place of each fence."""
    return _FENCE.sub(lambda fence: table(_enumeration(fence["name"])), text)


def names(text: str) -> list[str]:
    """The enumerations that a document asks for."""
    return [fence["name"] for fence in _FENCE.finditer(text)]


def table(enumeration: type[Enum]) -> str:
    """The members as a table in Markdown. ValueError if one of them does not say what it means."""
    texts = {member.name: _text(member) for member in enumeration}
    followers = {name: match["next"].split(", ") for name, text in texts.items() if (match := _NEXT.fullmatch(text))}
    if followers:
        _check(enumeration, followers)
        rows = [["state", "meaning", "next"]]
    elif issubclass(enumeration, StrEnum):
        rows = [["name", "value", "meaning"]]
    else:
        rows = [["name", "meaning"]]
    rows.append(["---"] * len(rows[0]))
    for name, text in texts.items():
        match = _NEXT.fullmatch(text)
        row = [f"`{name}`", _one_line(match["meaning"] if match else text)]
        if followers:
            row.append(", ".join(f"`{follower}`" for follower in followers.get(name, [])))
        elif issubclass(enumeration, StrEnum):
            row.insert(1, f"`{enumeration[name].value}`")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(member: Enum) -> str:
    text = _strings_below(type(member)).get(member.name)
    if text is None and not isinstance(member, str):
        text = member.value if isinstance(member.value, str) else None
    if not text or not text.strip():
        raise ValueError(f"{type(member).__qualname__}.{member.name} has no text that says what it means")
    return text.strip()


def _strings_below(enumeration: type[Enum]) -> dict[str, str]:
    """`NAME = value`, then a string on its own: attributes are documented so, but Python forgets it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(enumeration))).body
    assert isinstance(definition, ast.ClassDef)
    texts: dict[str, str] = {}
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(statement, ast.Assign) or not isinstance(below, ast.Expr):
            continue
        (target,) = statement.targets
        if isinstance(target, ast.Name) and isinstance(below.value, ast.Constant):
            texts[target.id] = str(below.value.value)
    return texts


def _check(enumeration: type[Enum], followers: dict[str, list[str]]) -> None:
    states = {member.name for member in enumeration}
    for state, following in followers.items():
        unknown = set(following) - states
        if unknown:
            raise ValueError(f"{enumeration.__qualname__}.{state} leads to {sorted(unknown)}, which do not exist")
    lost = states - {follower for following in followers.values() for follower in following}
    if lost:
        raise ValueError(f"nothing leads to {sorted(lost)} of {enumeration.__qualname__}")


def _enumeration(name: str) -> type[Enum]:
    module, _, attribute = name.rpartition(".")
    enumeration = getattr(importlib.import_module(module), attribute)
    if not (isinstance(enumeration, type) and issubclass(enumeration, Enum)):
        raise TypeError(f"{name} is not an enumeration")
    return enumeration


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
