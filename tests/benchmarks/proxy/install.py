"""What `--install` does: peers from Debian, and an environment for each from PyPI, so that none decides for another.

Ours has one with the extras, and one without; what measures runs in the former afterwards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from .processes import ROOT
from .systems.base import problem_of, python_of
from .systems.ours import BARE

OURS = "proxy"
DEBIAN = ("v2ray", "openssh-server", "openssh-client", "trojan")
# By environment.
PYPI = {
    "pproxy": ("pproxy",),
    "pywssocks": ("pywssocks",),
    # It asks for a websockets that does not run on Python 3.10 or newer; this is the newest with the API it uses.
    "websocks": ("websocks", "websockets==10.4"),
    "linksocks": ("linksocks",),
}


def install() -> Path:
    """The interpreter to measure with."""
    _debian()
    group = f"{ROOT / 'pyproject.toml'}:bench"
    _environment(OURS, "--editable", f"{ROOT}[proxy,trio]", "--group", group)
    _environment(BARE, "--editable", f"{ROOT}[websocket]")
    for name, packages in PYPI.items():
        _peer(name, packages)
    return python_of(OURS)


def _debian() -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print(f"not root on Debian: install these yourself, or do without: {' '.join(DEBIAN)}", file=sys.stderr)
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=quiet, stdout=sys.stderr)
    for package in DEBIAN:
        command = ["apt-get", "install", "-qq", "--no-install-recommends", package]
        subprocess.run(command, check=False, env=quiet, stdout=sys.stderr)


def _peer(name: str, packages: tuple[str, ...]) -> None:
    problem_of(name).unlink(missing_ok=True)
    # One after the other: the last word is not the first one's requirements.
    for package in packages:
        try:
            _environment(name, package)
        except subprocess.CalledProcessError as error:
            said = [line.strip() for line in error.stderr.splitlines() if "Error: " in line]
            problem_of(name).write_text(f"cannot be installed: {said[-1].partition('. ')[0] if said else error}")
            return


def _environment(name: str, *what: str) -> None:
    python = python_of(name)
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
        # Dependency groups need pip 25.1; a new environment may bring an older one.
        _pip(python, "--upgrade", "pip")
    _pip(python, *what)


def _pip(python: Path, *what: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *what]
    try:
        subprocess.run(command, check=True, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        raise
