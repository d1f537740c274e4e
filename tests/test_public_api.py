"""The public API changes only on purpose.

`public_api.txt` beside this file holds every public name with its signature, so that a change of the API
shows in the diff. After a change that is meant, write it anew with `python -m tests.test_public_api`.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import types
import typing
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import wspool

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = ("wspool", "wspool.testing", "wspool.websocket")

# Methods that make an object work in the language, and so are part of what users rely on.
PROTOCOL_METHODS = ("__init__", "__aenter__", "__aexit__", "__enter__", "__exit__", "__await__", "__call__")


def public_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield what the classes of this project define of `cls`, not what it has from the standard library."""
    seen = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("wspool"):
            continue
        for name, member in vars(base).items():
            if name not in seen and (not name.startswith("_") or name in PROTOCOL_METHODS):
                seen.add(name)
                yield name, member


def annotation(value: object) -> str:
    text: str = value if isinstance(value, str) else inspect.formatannotation(value)
    return text


def parameter(value: inspect.Parameter) -> str:
    text = value.name
    if value.kind is value.VAR_POSITIONAL:
        text = f"*{text}"
    elif value.kind is value.VAR_KEYWORD:
        text = f"**{text}"
    if value.annotation is not value.empty:
        text += f": {annotation(value.annotation)}"
    if value.default is not value.empty:
        text += f" = {value.default!r}"
    return text


def signature(name: str, function: Any) -> str:
    """Format a signature; `str(inspect.signature(...))` differs between the versions of Python."""
    found = inspect.signature(function)
    parameters = []
    last = None
    for each in found.parameters.values():
        if last is inspect.Parameter.POSITIONAL_ONLY and each.kind is not last:
            parameters.append("/")
        if each.kind is each.KEYWORD_ONLY and last not in (each.KEYWORD_ONLY, each.VAR_POSITIONAL):
            parameters.append("*")
        parameters.append(parameter(each))
        last = each.kind
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    text = f"{prefix}{name}({', '.join(parameters)})"
    if found.return_annotation is not found.empty:
        text += f" -> {annotation(found.return_annotation)}"
    return text


def describe_member(name: str, member: Any) -> str | None:
    if isinstance(member, enum.Enum):
        return f"{name} = {member.value!r}"
    if isinstance(member, property):
        return f"{name}: {annotation(inspect.signature(member.fget).return_annotation)}" if member.fget else name
    if isinstance(member, classmethod | staticmethod):
        return f"{type(member).__name__} {signature(name, member.__func__)}"
    if inspect.isfunction(member):
        return signature(name, member)
    return None  # Slots and defaults of fields: the annotations below tell more.


def describe_class(name: str, cls: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base not in (object, typing.Generic))
    yield f"{name}({bases})"
    fields = {} if issubclass(cls, enum.Enum) else inspect.get_annotations(cls)
    yield from sorted(
        f"    {field}: {annotation(value)}" for field, value in fields.items() if not field.startswith("_")
    )
    # The __init__ of a dataclass repeats its fields, and that of a protocol says nothing.
    generated = hasattr(cls, "__dataclass_fields__") or getattr(cls, "_is_protocol", False)
    skipped = "__init__" if generated else None
    described = (describe_member(*member) for member in public_members(cls) if member[0] != skipped)
    yield from sorted(f"    {text}" for text in described if text is not None)


def describe(module: types.ModuleType) -> Iterator[str]:
    yield f"[{module.__name__}]"
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            yield from describe_class(name, value)
        elif isinstance(value, types.UnionType):
            yield f"{name} = {' | '.join(member.__name__ for member in typing.get_args(value))}"
        elif callable(value):
            yield signature(name, value)
        else:
            yield f"{name}: {type(value).__name__}"  # The value of a version is no part of the interface.
    yield ""


def snapshot() -> str:
    return "\n".join(line for name in MODULES for line in describe(importlib.import_module(name)))


def public_names(module: types.ModuleType) -> set[str]:
    """Find the names that a user sees in `module`, besides submodules and what `from __future__` leaves."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "annotations"
    }


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    return importlib.import_module(request.param)


def test_all_is_sorted_and_without_repeats(module: types.ModuleType) -> None:
    assert list(module.__all__) == sorted(set(module.__all__))


def test_all_equals_what_is_defined(module: types.ModuleType) -> None:
    assert {name for name in module.__all__ if not name.startswith("_")} == public_names(module)


def test_every_public_object_is_documented(module: types.ModuleType) -> None:
    undocumented = []
    for name in module.__all__:
        value = getattr(module, name)
        # A union or a constant has the documentation of its type: its own stands under its assignment.
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue
        if not inspect.getdoc(value):
            undocumented.append(name)
        if inspect.isclass(value):
            for member_name, member in public_members(value):
                function = member.fget if isinstance(member, property) else member
                if inspect.isfunction(function) and member_name[0] != "_" and not inspect.getdoc(function):
                    undocumented.append(f"{name}.{member_name}")
    assert undocumented == []


def test_the_api_changes_only_on_purpose() -> None:
    assert snapshot() == SNAPSHOT.read_text("utf-8"), "if the change is meant: python -m tests.test_public_api"


def test_the_version_has_one_source() -> None:
    assert wspool.__version__ == version("wspool")


def test_types_are_shipped() -> None:
    assert Path(wspool.__file__).with_name("py.typed").is_file()


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), "utf-8")
