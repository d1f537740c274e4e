"""curl through the proxy: addresses, names, IPv6, users, uploads, and many transfers at once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.socks_proxy.end_to_end.conftest import running
from tests.socks_proxy.end_to_end.content import content, digest
from tests.socks_proxy.end_to_end.origins import HTTPOrigin, closed_port
from tests.socks_proxy.end_to_end.programs import LIMIT, environment, port_of

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="no curl on this machine")

SIZE = 1_000_003
# "proxy handshake error".
CURL_PROXY_FAILED = 97


def run_curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    assert CURL is not None
    # --disable comes first: no curlrc of whoever runs the tests.
    command = [CURL, "--disable", "--silent", "--show-error", "--fail", "--max-time", str(LIMIT), *arguments]
    return subprocess.run(command, capture_output=True, env=environment(), check=False)


def curl(*arguments: str) -> bytes:
    """What it has fetched."""
    done = run_curl(*arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def refusal(*arguments: str) -> str:
    """What it says about a proxy that refuses."""
    done = run_curl(*arguments)
    assert done.returncode == CURL_PROXY_FAILED, (done.returncode, done.stderr)
    return done.stderr.decode()


def is_content(body: bytes, size: int = SIZE) -> bool:
    return len(body) == size and hashlib.sha256(body).hexdigest() == digest(size)


def test_curl_reaches_an_address(proxy: int, origin: HTTPOrigin) -> None:
    assert is_content(curl("--socks5", f"127.0.0.1:{proxy}", f"{origin.url}/bytes/{SIZE}"))


def test_curl_reaches_a_name_that_the_far_end_looks_up(proxy: int, origin: HTTPOrigin) -> None:
    url = f"http://localhost:{origin.port}/bytes/{SIZE}"
    assert is_content(curl("--socks5-hostname", f"127.0.0.1:{proxy}", url))


@pytest.mark.parametrize("option", ["--socks5", "--socks5-hostname"])
def test_curl_reaches_an_ipv6_address(option: str, proxy: int, origin6: HTTPOrigin) -> None:
    assert is_content(curl(option, f"127.0.0.1:{proxy}", f"{origin6.url}/bytes/{SIZE}"))


@pytest.mark.parametrize("login", ["alice:wonderland", "bob:builder:2"])
def test_a_user_with_the_right_password_gets_through(login: str, proxy_with_users: int, origin: HTTPOrigin) -> None:
    address = f"127.0.0.1:{proxy_with_users}"
    assert is_content(curl("--socks5", address, "--proxy-user", login, f"{origin.url}/bytes/{SIZE}"))


@pytest.mark.parametrize("login", ["alice:builder:2", "carol:wonderland"])
def test_a_wrong_user_or_password_is_rejected(login: str, proxy_with_users: int, origin: HTTPOrigin) -> None:
    address = f"127.0.0.1:{proxy_with_users}"
    assert "rejected" in refusal("--socks5", address, "--proxy-user", login, f"{origin.url}/bytes/1")


def test_nobody_gets_through_without_a_password_where_users_are_known(
    proxy_with_users: int, origin: HTTPOrigin
) -> None:
    assert "No authentication method" in refusal("--socks5", f"127.0.0.1:{proxy_with_users}", f"{origin.url}/bytes/1")


def test_a_password_is_not_asked_for_where_no_user_is_known(proxy: int, origin: HTTPOrigin) -> None:
    login = ["--proxy-user", "alice:wonderland"]
    assert is_content(curl("--socks5", f"127.0.0.1:{proxy}", *login, f"{origin.url}/bytes/{SIZE}"))


def test_curl_tells_its_user_that_the_connection_was_refused(proxy: int) -> None:
    with closed_port() as port:
        assert "(5)" in refusal("--socks5", f"127.0.0.1:{proxy}", f"http://127.0.0.1:{port}/")


def test_an_upload_arrives_whole(proxy: int, origin: HTTPOrigin, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(content(5 * SIZE))
    upload = ["--data-binary", f"@{tmp_path / 'upload'}", "--header", "Content-Type: application/octet-stream"]
    answer = curl("--socks5", f"127.0.0.1:{proxy}", *upload, f"{origin.url}/hash")
    assert answer.decode() == digest(5 * SIZE)


def test_a_hundred_downloads_thirty_at_a_time_are_each_right(proxy: int, origin: HTTPOrigin, tmp_path: Path) -> None:
    sizes = range(10_000, 10_100)
    # Each on a connection of its own, and so in a session of its own.
    parallel = ["--parallel", "--parallel-max", "30", "--header", "Connection: close", "-o", str(tmp_path / "#1")]
    curl("--socks5", f"127.0.0.1:{proxy}", *parallel, f"{origin.url}/bytes/[{sizes[0]}-{sizes[-1]}]")
    assert [size for size in sizes if not is_content((tmp_path / str(size)).read_bytes(), size)] == []


def test_the_program_without_arguments_is_a_whole_proxy(origin: HTTPOrigin, tmp_path: Path) -> None:
    with running(log=tmp_path / "log") as program:
        address = f"127.0.0.1:{port_of(program.ready('socks5'))}"
        assert is_content(curl("--socks5", address, f"{origin.url}/bytes/{SIZE}"))
