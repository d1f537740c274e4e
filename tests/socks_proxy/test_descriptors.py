"""The process's limit of open files, and the tunnels that it is enough for."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Iterator
from typing import NoReturn

import pytest

from examples.socks_proxy.descriptors import fitted, raise_limit
from examples.socks_proxy.settings import ProgramSettings, parse

TOKEN = {"WSPOOL_TOKEN": "0123456789abcdef0123456789abcdef"}
CLIENT = ["client", "--server", "wss://proxy.example/"]
SERVER = ["server", "--listen", "127.0.0.1:0", "--plain"]


def sizes(settings: ProgramSettings) -> dict[str, int]:
    client, server = settings.client, settings.server
    found = {} if client is None else {name: getattr(client, name) for name in ("min_idle", "max_idle", "max_size")}
    return found if server is None else {**found, "max_connections": server.max_connections}


@pytest.mark.parametrize(
    ("arguments", "limit", "expected"),
    [
        (CLIENT, 1024, {"min_idle": 2, "max_idle": 64, "max_size": 480}),
        ([*CLIENT, "--min-idle", "500"], 1024, {"min_idle": 480, "max_idle": 480, "max_size": 480}),
        (SERVER, 1024, {"max_connections": 480}),
        ([], 1024, {"min_idle": 2, "max_idle": 64, "max_size": 240, "max_connections": 4096}),
        (CLIENT, 60, {"min_idle": 2, "max_idle": 15, "max_size": 15}),
        (CLIENT, 1, {"min_idle": 1, "max_idle": 1, "max_size": 1}),
    ],
)
def test_an_end_has_no_more_tunnels_than_there_are_descriptors_for_sessions_and_says_so(
    arguments: list[str], limit: int, expected: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    assert sizes(fitted(parse(arguments, TOKEN), limit)) == expected
    most = expected["max_size"] if "max_size" in expected else expected["max_connections"]
    assert f"{limit} open files (ulimit -n) are enough for {most} tunnels" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("arguments", [CLIENT, SERVER, []])
@pytest.mark.parametrize("limit", [None, 1 << 20])
def test_where_there_are_enough_descriptors_nothing_is_changed_or_said(
    arguments: list[str], limit: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = parse(arguments, TOKEN)
    assert sizes(fitted(settings, limit)) == sizes(settings)
    assert not caplog.records


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The soft limit is lower than the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] == resource.RLIM_INFINITY:
        pytest.skip("there is no hard limit here (ulimit -Hn)")
    now = min(512, before[1]), before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, now)
    yield now
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_all_that_the_system_grants_is_used(limits: tuple[int, int]) -> None:
    assert raise_limit() == limits[1]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])


def test_a_system_that_raises_no_limit_is_taken_as_it_is(
    limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise ValueError("current limit exceeds maximum limit")

    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        assert raise_limit() == limits[0]


def test_no_limit_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert raise_limit() is None


def test_a_system_without_such_limits_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows, which has no module for them."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert raise_limit() is None
