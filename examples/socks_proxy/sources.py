"""SHELL. Where an option may stand: on the command line, else in the environment, else in the file of `--config`."""

from __future__ import annotations

import codecs
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from .options import PROGRAM, SECTIONS, Option, Role, Section, UsageError, options_of


class Given(NamedTuple):
    where: str
    """For messages: the option, the variable, or the key and its file."""
    value: Any


Options: TypeAlias = dict[str, Given]
"""By the attribute of the settings that they are for."""


class Sources:
    """Where an option may stand; the first place that has it counts."""

    def __init__(self, role: Role, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ
        self._role: Role = role
        self._config: str | None = arguments.get("config") or environ.get("WSPOOL_CONFIG") or None
        self._tables = _tables({} if self._config is None else _load(self._config), self._config)
        if role == "both":
            self._refuse_what_needs_a_role()

    def options(self, section: Section) -> Options:
        """What is given for this section, read and checked one by one."""
        found: Options = {}
        for owner, option in options_of(self._role):
            given = self._find(section, option) if owner == section else None
            if given is not None:
                found[option.attribute] = Given(given.where, self._read(option, given))
        return found

    def _find(self, section: Section, option: Option) -> Given | None:
        if option.name in self.arguments:
            return Given(f"--{option.name}", self.arguments[option.name])
        # Set and empty is how some ways to start a program say that it is not set.
        if self.environ.get(option.variable):
            return Given(option.variable, self.environ[option.variable])
        if option.name in self._tables[section]:
            value = self._tables[section][option.name]
            return Given(f"{self._config}: {option.name}", self._from_file(option, value))
        return None

    def _from_file(self, option: Option, value: Any) -> Any:
        """Names of files are seen from the folder of the file that they stand in."""
        if option.is_file and isinstance(value, str) and value:
            return str(Path(self._config or "").parent / value)
        return value

    def _read(self, option: Option, given: Given) -> Any:
        try:
            if option.separator is not None:
                return tuple(map(option.read, _several(given.value, option.separator)))
            if option.is_flag and isinstance(given.value, bool):
                return given.value
            return option.read(_one(given.value))
        except ValueError as error:
            raise UsageError(f"{given.where}: {error}") from None

    def _refuse_what_needs_a_role(self) -> None:
        """Who has set up a server's URL wants to go there, and not to their own machine because of a word left out."""
        possible = options_of("both")
        names = {option.name for _, option in possible}
        for section, options in SECTIONS.items():
            for option in options:
                if option.name not in names and self.environ.get(option.variable):
                    raise UsageError(f"{option.variable} is set, and is {_for(section)}")
                if (section, option) not in possible and option.name in self._tables[section]:
                    raise UsageError(f"{self._config}: {option.name} in [{section}] is {_for(section)}")


def _for(section: Section) -> str:
    return f"for the sub-command {section}; without one, both ends run on this machine"


def _several(value: object, separator: str) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(separator) if part.strip()]
    if isinstance(value, list):
        return [_one(part) for part in cast("list[object]", value)]
    raise ValueError("it is no list of texts")


def _one(value: object) -> str:
    # In Python True is a number. Of a header or a URL the value may be a secret.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it is not one text or number")
    return str(value)


def _load(config: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_bytes("--config", config).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {config!r} is no TOML: {error}") from None


def _tables(config: Mapping[str, Any], name: str | None) -> dict[Section, dict[str, Any]]:
    """The options of the file, by section; a misspelt one would be a limit that silently does not hold."""
    program = {key: value for key, value in config.items() if key not in ("client", "server")}
    tables: dict[Section, dict[str, Any]] = {"program": _keys(program, PROGRAM, f"{name}: at the top")}
    for section in ("client", "server"):
        table = config.get(section, {})
        if not isinstance(table, dict):
            raise UsageError(f"{name}: {section} is a table; its options come below a line with [{section}]")
        tables[section] = _keys(cast("dict[str, Any]", table), SECTIONS[section], f"{name}: in [{section}]")
    return tables


def _keys(table: Mapping[str, Any], options: Sequence[Option], where: str) -> dict[str, Any]:
    names = [option.name for option in options]
    tables = ("client", "server") if options is PROGRAM else ()
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name not in names:
            close = difflib.get_close_matches(name, [*names, *tables], 1)
            raise UsageError(f"{where} there is no option {key!r}{f'; did you mean {close[0]}?' if close else ''}")
        found[name] = value
    return found


def read_bytes(where: str, path: str) -> bytes:
    """A file that an option names, without the mark that some editors put before UTF-8: it is part of no name."""
    try:
        return Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(f"{where}: {path!r} cannot be read: {error.strerror}") from None
