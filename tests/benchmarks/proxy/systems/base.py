"""What a system is that is measured: how its two ends are started, and what it needs."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..processes import Command

# Where Debian puts sshd is not on everybody's path.
_SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"
ENVIRONMENTS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Site:
    """Where a system is set up: all on loopback."""

    folder: Path
    """Its own, for files of configuration."""
    listen: int
    """Where the far end is to listen."""
    server: int
    """Where the near end reaches it: there, or through a relay that delays."""
    socks: int
    ca: str
    cert: str
    key: str
    extra: tuple[str, ...] = ()
    """Options for the near end of ours."""


class System(ABC):
    """A row of the tables."""

    name: str
    """As it stands there, and in `--only`."""
    is_python_peer: bool = False
    is_ours: bool = False
    only: tuple[str, ...] | None = None
    """The workloads in which it takes part, if not in all."""

    def missing(self) -> str | None:
        """Why it cannot take part here, if it cannot."""
        return None

    def takes_part(self, workload: str) -> bool:
        return self.only is None or workload in self.only

    @abstractmethod
    def ends(self, site: Site) -> list[Command]:
        """The far end, then the near one, which is ready to be used when it listens."""


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)


def not_installed(*names: str) -> str | None:
    missing = [name for name in names if program(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def python_of(environment: str) -> Path:
    """The interpreter in which `--install` has put that peer."""
    return ENVIRONMENTS / f".venv-{environment}" / "bin" / "python"


def problem_of(environment: str) -> Path:
    """Where `--install` has written why there is no such peer."""
    return python_of(environment).parents[1] / "problem.txt"


def no_environment(environment: str) -> str | None:
    if problem_of(environment).exists():
        return problem_of(environment).read_text().strip()
    return None if python_of(environment).exists() else "not installed: see --install"
