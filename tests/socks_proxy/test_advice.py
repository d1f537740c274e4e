"""What goes wrong with a tunnel is said in the words of who runs the program."""

from __future__ import annotations

import ssl

import pytest

from examples.socks_proxy import advice
from wspool.websocket import ConnectTimeout, TLSFailed, UpgradeFailed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("if you trust that authority, give its certificate as ca_file", "give its certificate as --ca-file"),
        ("or give such a name as server_hostname", "as --sni"),
        ("the server wants a certificate of yours; give it as client_cert", "give it as --cert and --key"),
        ("check the network, or give it more connect_timeout", "give it more --connect-timeout"),
    ],
)
def test_an_argument_of_the_library_is_named_as_an_option(text: str, said: str) -> None:
    for error in (TLSFailed(text), ConnectTimeout(text)):
        assert advice.of_dial(error, secure=True).endswith(said)


@pytest.mark.parametrize(("status", "token"), [(200, True), (404, True), (403, True), (429, False), (502, False)])
def test_a_page_in_place_of_a_tunnel_may_mean_a_wrong_token(status: int, token: bool) -> None:
    error = UpgradeFailed("proxy.example:443 answered the upgrade", status=status)
    assert ("check the token" in advice.of_dial(error, secure=True)) is token


@pytest.mark.parametrize("secure", [True, False])
def test_a_server_that_hangs_up_on_plain_text_may_speak_tls(secure: bool) -> None:
    error = UpgradeFailed("proxy.example:443 closed the connection without an answer to the upgrade")
    assert ("begins with wss://" in advice.of_dial(error, secure=secure)) is not secure


def tls_error(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL] {reason} (_ssl.c:1006)")
    error.reason = reason or ""
    return error


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("HTTP_REQUEST", "plain HTTP came to the port for TLS"),
        ("WRONG_VERSION_NUMBER", "what came to the port for TLS is no TLS"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the client has shown no certificate"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "the client does not accept this server's certificate (BAD_CERTIFICATE)"),
        ("TLSV1_ALERT_UNKNOWN_CA", "the client does not accept this server's certificate (UNKNOWN_CA)"),
        ("NO_SHARED_CIPHER", "NO_SHARED_CIPHER"),
        (None, "[SSL] None"),
    ],
)
def test_a_server_says_what_a_failed_handshake_means(reason: str | None, said: str) -> None:
    assert said in advice.of_accept(tls_error(reason))


@pytest.mark.parametrize(("error", "said"), [(OSError("it broke"), "it broke"), (TimeoutError(), "TimeoutError")])
def test_a_server_says_something_of_every_error(error: Exception, said: str) -> None:
    assert advice.of_accept(error) == said
