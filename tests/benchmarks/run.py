"""Install wspool and the peers into a virtual environment of their own, and run the benchmarks there.

python tests/benchmarks/run.py [--no-install] [options of python -m tests.benchmarks]
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = HERE / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def main() -> int:
    arguments = sys.argv[1:]
    python = Path(sys.executable)
    if "--no-install" in arguments:
        arguments.remove("--no-install")
    else:
        python = PYTHON
        _install()
    return subprocess.run([python, "-m", "tests.benchmarks", *arguments], cwd=ROOT, check=False).returncode


def _install() -> None:
    if not PYTHON.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    # Dependency groups need pip 25.1; a new environment may bring an older one.
    _pip("--upgrade", "pip")
    # The group is in pyproject.toml. psycopg's binary extra, for machines that lack libpq.
    _pip("--editable", f"{ROOT}[trio]", "--group", f"{ROOT / 'pyproject.toml'}:bench", "psycopg[binary]")


def _pip(*what: str) -> None:
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *what], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
