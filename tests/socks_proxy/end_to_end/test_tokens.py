"""The token between the ends: from a file or the environment; without the right one there is no tunnel."""

from __future__ import annotations

from examples.socks_proxy.codes import Code
from tests.socks_proxy.end_to_end.conftest import TOKEN, Launcher
from tests.socks_proxy.end_to_end.origins import Origin
from tests.socks_proxy.end_to_end.raw_socks import reply_to


def test_a_token_from_the_environment_opens_tunnels(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server("--allow-private")
    _, proxy = launcher.client_with(url, WSPOOL_TOKEN=TOKEN)
    assert reply_to(proxy, "127.0.0.1", echo.port).code == Code.SUCCEEDED


def test_a_wrong_token_opens_no_tunnel_and_the_application_is_told(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server("--allow-private")
    _, proxy = launcher.client_with(url, "--token-file", launcher.file("wrong", "another-token-that-nobody-knows\n"))
    assert reply_to(proxy, "127.0.0.1", echo.port).code == Code.GENERAL_FAILURE
