"""Python's own SOCKS clients through the proxy."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import aiohttp_socks
import anyio
import httpx
import pytest
import python_socks
import socks
from python_socks.async_.asyncio import Proxy as AsyncioProxy
from python_socks.async_.trio import Proxy as TrioProxy
from python_socks.sync import Proxy as SyncProxy

from examples.socks_proxy.codes import Code
from tests.socks_proxy.end_to_end.content import digest
from tests.socks_proxy.end_to_end.origins import HTTPOrigin, closed_port
from tests.socks_proxy.end_to_end.programs import LIMIT

SIZE = 300_007
AT_ONCE = 20
LOGIN = "alice:wonderland"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def request(size: int) -> bytes:
    return f"GET /bytes/{size} HTTP/1.1\r\nConnection: close\r\n\r\n".encode()


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


# --- python-socks ----------------------------------------------------------------------------------------------------


async def fetch_on_asyncio(url: str, host: str, port: int) -> bytes:
    connected = await AsyncioProxy.from_url(url, rdns=True).connect(host, port, timeout=LIMIT)
    reader, writer = await asyncio.open_connection(sock=connected)
    try:
        writer.write(request(SIZE))
        return await asyncio.wait_for(reader.read(), LIMIT)
    finally:
        writer.close()
        await writer.wait_closed()


async def fetch_on_trio(url: str, host: str, port: int) -> bytes:
    import trio

    connected = await TrioProxy.from_url(url, rdns=True).connect(host, port, timeout=LIMIT)
    with trio.fail_after(LIMIT):
        async with trio.SocketStream(connected) as stream:
            await stream.send_all(request(SIZE))
            return b"".join([part async for part in stream])


PYTHON_SOCKS = pytest.mark.parametrize(
    ("loop", "fetch"), [("asyncio", fetch_on_asyncio), ("trio", fetch_on_trio)], ids=["on asyncio", "on trio"]
)
Fetch = Callable[[str, str, int], Awaitable[bytes]]


@PYTHON_SOCKS
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_python_socks_gets_through(loop: str, fetch: Fetch, host: str, proxy: int, origin: HTTPOrigin) -> None:
    answer = anyio.run(fetch, f"socks5://127.0.0.1:{proxy}", host, origin.port, backend=loop)
    assert sha256(body_of(answer)) == digest(SIZE)


@PYTHON_SOCKS
def test_python_socks_gets_through_with_a_password(
    loop: str, fetch: Fetch, proxy_with_users: int, origin: HTTPOrigin
) -> None:
    url = f"socks5://{LOGIN}@127.0.0.1:{proxy_with_users}"
    answer = anyio.run(fetch, url, "127.0.0.1", origin.port, backend=loop)
    assert sha256(body_of(answer)) == digest(SIZE)


@PYTHON_SOCKS
def test_python_socks_is_told_that_the_connection_was_refused(loop: str, fetch: Fetch, proxy: int) -> None:
    with closed_port() as port, pytest.raises(python_socks.ProxyError) as raised:
        anyio.run(fetch, f"socks5://127.0.0.1:{proxy}", "127.0.0.1", port, backend=loop)
    assert raised.value.error_code == Code.CONNECTION_REFUSED


def test_python_socks_without_an_event_loop_gets_through(proxy: int, origin: HTTPOrigin) -> None:
    connected = SyncProxy.from_url(f"socks5://127.0.0.1:{proxy}").connect("127.0.0.1", origin.port, timeout=LIMIT)
    with connected, connected.makefile("rb") as answer:
        connected.sendall(request(SIZE))
        assert sha256(body_of(answer.read())) == digest(SIZE)


# --- PySocks ---------------------------------------------------------------------------------------------------------


def pysocks(proxy: int, *, remote_names: bool = True, login: tuple[str, str] | None = None) -> socks.socksocket:
    stream = socks.socksocket()
    stream.settimeout(LIMIT)
    stream.set_proxy(socks.SOCKS5, "127.0.0.1", proxy, remote_names, *(login or ()))
    return stream


@pytest.mark.parametrize("remote_names", [True, False], ids=["names looked up there", "names looked up here"])
def test_pysocks_gets_through(remote_names: bool, proxy: int, origin: HTTPOrigin) -> None:
    with pysocks(proxy, remote_names=remote_names) as stream:
        stream.connect(("localhost", origin.port))
        stream.sendall(request(SIZE))
        with stream.makefile("rb") as answer:
            assert sha256(body_of(answer.read())) == digest(SIZE)


def test_pysocks_is_told_why_there_is_no_connection(proxy: int) -> None:
    with closed_port() as port, pysocks(proxy) as stream, pytest.raises(socks.ProxyError) as raised:
        stream.connect(("127.0.0.1", port))
    assert "0x05" in str(raised.value)


def test_pysocks_with_a_wrong_password_is_rejected(proxy_with_users: int, origin: HTTPOrigin) -> None:
    with pysocks(proxy_with_users, login=("alice", "wrong")) as stream, pytest.raises(socks.ProxyError) as raised:
        stream.connect(("127.0.0.1", origin.port))
    assert "authentication failed" in str(raised.value)


# --- httpx and aiohttp -----------------------------------------------------------------------------------------------

# Each answer ends its connection, so that every request is a session.
CLOSE = {"Connection": "close"}


async def fetch_with_httpx(proxy_url: str, origin_url: str) -> list[str]:
    """Several requests at once, of different sizes."""
    digests: dict[int, str] = {}
    async with httpx.AsyncClient(proxy=proxy_url, timeout=LIMIT, trust_env=False) as client:

        async def fetch(size: int) -> None:
            answer = await client.get(f"{origin_url}/bytes/{size}", headers=CLOSE)
            digests[size] = sha256(answer.raise_for_status().content)

        async with anyio.create_task_group() as tasks:
            for number in range(AT_ONCE):
                tasks.start_soon(fetch, SIZE + number)
    return [digests[SIZE + number] for number in range(AT_ONCE)]


@pytest.mark.parametrize("loop", ["asyncio", "trio"], ids=["on asyncio", "on trio"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_httpx_makes_requests_at_once(loop: str, scheme: str, proxy: int, origin: HTTPOrigin) -> None:
    digests = anyio.run(fetch_with_httpx, f"{scheme}://127.0.0.1:{proxy}", origin.url, backend=loop)
    assert digests == [digest(SIZE + number) for number in range(AT_ONCE)]


def test_httpx_gets_through_with_a_password(proxy_with_users: int, origin: HTTPOrigin) -> None:
    url = f"socks5://{LOGIN}@127.0.0.1:{proxy_with_users}"
    with httpx.Client(proxy=url, timeout=LIMIT, trust_env=False) as client:
        # On one connection after another request: the session stays open between them.
        for _ in range(2):
            assert sha256(client.get(f"{origin.url}/bytes/{SIZE}").content) == digest(SIZE)


async def fetch_with_aiohttp(proxy_url: str, origin_url: str, **options: Any) -> list[str]:
    connector = aiohttp_socks.ProxyConnector.from_url(proxy_url, **options)
    timeout = aiohttp.ClientTimeout(LIMIT)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def fetch(size: int) -> str:
            async with session.get(f"{origin_url}/bytes/{size}", headers=CLOSE) as answer:
                return sha256(await answer.read())

        return await asyncio.gather(*(fetch(SIZE + number) for number in range(AT_ONCE)))


@pytest.mark.parametrize("rdns", [True, False], ids=["names looked up there", "names looked up here"])
def test_aiohttp_socks_makes_requests_at_once(rdns: bool, proxy: int, origin: HTTPOrigin) -> None:
    url = f"http://localhost:{origin.port}"
    digests = asyncio.run(fetch_with_aiohttp(f"socks5://127.0.0.1:{proxy}", url, rdns=rdns))
    assert digests == [digest(SIZE + number) for number in range(AT_ONCE)]


def test_aiohttp_socks_gets_through_with_a_password(proxy_with_users: int, origin: HTTPOrigin) -> None:
    url = f"socks5://{LOGIN}@127.0.0.1:{proxy_with_users}"
    assert asyncio.run(fetch_with_aiohttp(url, origin.url))[0] == digest(SIZE)
