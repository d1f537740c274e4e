"""Sphinx configuration; built with `sphinx-build -W -n`, so every warning and every dangling reference is an error."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.path.append(str(Path(__file__).parent))  # for the extension beside this file

project = "wspool"
author = "wspool contributors"
copyright = author
version = release = installed_version("wspool")

extensions = ["_states", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"wspool {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# `()` instead of the union of eight classes, and defaults as they are written.
autodoc_preserve_defaults = True
# A docstring says what the class is for; its arguments are listed below it.
autoclass_content = "both"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# In docstrings a single backtick means code: they are read in editors more often than here.
default_role = "code"

# A build must need no network, so there is no intersphinx: names of other projects stay plain text.
nitpick_ignore_regex = [
    (r"py:.*", r"(anyio|asyncio|collections|contextlib|enum|os|ssl|typing|types|trio)\..*"),
    (r"py:(class|exc|data|obj)", r"(Any|Awaitable|Callable|Coroutine|Generator|Self|TracebackType)"),
    (r"py:(class|exc|obj)", r"(BaseException|Exception|RuntimeError|TimeoutError|Protocol)"),
    (r"py:(class|obj)", r"(None|bool|bytes|float|int|object|str|type|StrEnum|Generic)"),
    # anyio's, by the names under which they are imported.
    (r"py:(class|exc)", r"(BrokenResourceError|BusyResourceError|ByteStream|ClosedResourceError|EndOfStream)"),
    # Type variables, which are nowhere to be documented.
    (r"py:(class|obj)", r"(.*\.)?(T|T_co)"),
]


def setup(app: Sphinx) -> None:
    """Keep napoleon from the texts of attributes: before a colon it expects a type, and these are sentences."""
    texts: dict[str, list[str]] = {}

    def keep(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
        if what in ("attribute", "data", "property"):
            texts[name] = list(lines)

    def restore(_: Sphinx, __: str, name: str, ___: object, ____: object, lines: list[str]) -> None:
        if name in texts:
            lines[:] = texts.pop(name)

    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)  # napoleon has 500
