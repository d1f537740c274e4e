"""git clones and fetches over plain HTTP: many small requests on connections that it keeps."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.socks_proxy.end_to_end.content import content
from tests.socks_proxy.end_to_end.origins import HTTPOrigin
from tests.socks_proxy.end_to_end.programs import LIMIT, environment

GIT = shutil.which("git")
pytestmark = pytest.mark.skipif(GIT is None, reason="no git on this machine")

COMMITS = 20
LARGE_FILE = 3_000_000


def git(directory: Path, *arguments: str) -> str:
    """What it says; with the settings of nobody."""
    assert GIT is not None
    settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        [GIT, "-c", "user.name=wspool", "-c", "user.email=wspool@example.org", *arguments],
        cwd=directory,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(source: Path, number: int) -> None:
    (source / f"{number}.txt").write_text(f"{number}\n" * number)
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", f"number {number}")


@pytest.fixture(scope="session")
def repository(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with loose objects, and a large file, for any HTTP server: git calls that the dumb protocol."""
    source = tmp_path_factory.mktemp("source")
    git(source, "init", "--quiet")
    (source / "large").write_bytes(content(LARGE_FILE))
    for number in range(COMMITS):
        commit(source, number)
    git(files, "clone", "--quiet", "--bare", "--no-local", str(source), "repository.git")
    unpack(files / "repository.git")
    git(files / "repository.git", "update-server-info")
    return files / "repository.git"


def unpack(repository: Path) -> None:
    """Loose objects: as many requests as objects."""
    for pack in (repository / "objects" / "pack").glob("*.pack"):
        moved = pack.rename(repository / pack.name)
        with moved.open("rb") as packed:
            subprocess.run(
                [str(GIT), "unpack-objects", "-q"], cwd=repository, env=environment(), stdin=packed, check=True
            )
        moved.unlink()


def test_git_clones_through_the_proxy(repository: Path, proxy: int, origin: HTTPOrigin, tmp_path: Path) -> None:
    url = f"http://localhost:{origin.port}/files/repository.git"
    git(tmp_path, "-c", f"http.proxy=socks5h://127.0.0.1:{proxy}", "clone", "--quiet", url, "clone")
    clone = tmp_path / "clone"
    assert git(clone, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert git(clone, "rev-list", "--count", "HEAD") == str(COMMITS)
    assert git(clone, "status", "--porcelain") == ""
    git(clone, "fsck", "--full", "--strict")
    assert (clone / "large").read_bytes() == content(LARGE_FILE)
