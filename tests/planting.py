"""Plants a fault into a function, so that a test can show that it would be found."""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any


def broken(owner: Any, name: str, old: str, new: str) -> Any:
    """The function or property of a class or module, made anew from its source with `new` in the place of `old`.

    It sees its module's own names, also those that a test has replaced.
    """
    found: Any = inspect.getattr_static(owner, name)
    function: Any = found.fget if isinstance(found, property) else found
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source, "the code has changed: plant the fault anew"
    # `super()` without arguments needs a class round it.
    source = source.replace(old, new).replace("super()", f"super({owner.__name__}, self)")
    made: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, "<fault>", "exec")
    exec(code, vars(sys.modules[function.__module__]), made)
    return made[name]
