"""URLs are taken apart as RFC 6455 section 3 says, and what is wrong with one is said without its password."""

from __future__ import annotations

import base64
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from wspool.websocket._errors import InvalidURL, WebSocketError
from wspool.websocket._url import ProxyURL, WebSocketURL, check_host, parse_proxy_url, parse_websocket_url


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "target", "authority"),
    [
        ("ws://example.com", False, "example.com", 80, "/", "example.com"),
        ("wss://example.com", True, "example.com", 443, "/", "example.com"),
        ("WSS://Example.COM/Path", True, "example.com", 443, "/Path", "example.com"),
        ("ws://example.com:443/", False, "example.com", 443, "/", "example.com:443"),
        ("wss://example.com:80/", True, "example.com", 80, "/", "example.com:80"),
        ("ws://example.com:/a", False, "example.com", 80, "/a", "example.com"),
        ("ws://example.com?a=b&c", False, "example.com", 80, "/?a=b&c", "example.com"),
        ("ws://example.com/p?", False, "example.com", 80, "/p?", "example.com"),
        ("ws://example.com/a//b/../%20?x=/?@:", False, "example.com", 80, "/a//b/../%20?x=/?@:", "example.com"),
        ("ws://example.com./", False, "example.com.", 80, "/", "example.com."),
        ("ws://a_b-c.1:65535", False, "a_b-c.1", 65535, "/", "a_b-c.1:65535"),
        ("ws://127.0.0.1:8080", False, "127.0.0.1", 8080, "/", "127.0.0.1:8080"),
        ("wss://[::1]", True, "::1", 443, "/", "[::1]"),
        ("wss://[2001:DB8:0::1]:8443/x", True, "2001:db8::1", 8443, "/x", "[2001:db8::1]:8443"),
        ("ws://bücher.example/", False, "xn--bcher-kva.example", 80, "/", "xn--bcher-kva.example"),
        ("ws://FAẞ.example", False, "xn--fa-hia.example", 80, "/", "xn--fa-hia.example"),
    ],
)
def test_a_url_is_taken_apart(url: str, secure: bool, host: str, port: int, target: str, authority: str) -> None:
    parsed = parse_websocket_url(url)
    assert parsed == WebSocketURL(secure, host, port, target)
    assert parsed.authority == authority
    assert parsed.address == f"{f'[{host}]' if ':' in host else host}:{port}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "begins with ws:// or wss://"),
        ("example.com", "begins with ws:// or wss://"),
        ("//example.com", "begins with ws:// or wss://"),
        ("http://example.com", "use ws:// instead of http://"),
        ("https://example.com", "use wss:// instead of https://"),
        ("ftp://example.com", "begins with ws:// or wss://"),
        (" ws://example.com", "begins with ws:// or wss://"),
        ("ws:example.com", "has two slashes and a host"),
        ("ws:/example.com", "has two slashes and a host"),
        ("ws://", "names no host"),
        ("ws://:80", "names no host"),
        ("ws:///path", "names no host"),
        ("ws://example.com#", "no fragment"),
        ("ws://example.com/#part", "write # as %23"),
        ("ws://example.com/a b", "percent-encode it"),
        ("ws://example.com/ä", "percent-encode it"),
        ("ws://example.com/?\r\nX-Header: 1", "percent-encode it"),
        ("ws://example.com:0", "number from 1 to 65535"),
        ("ws://example.com:65536", "number from 1 to 65535"),
        ("ws://example.com:port", "number from 1 to 65535"),
        ("ws://example.com:٨٠", "number from 1 to 65535"),
        ("ws://example.com:+8", "number from 1 to 65535"),
        ("ws://exa mple.com", "neither a host name"),
        ("ws://exam%70le.com", "neither a host name"),
        ("ws://a..b", "neither a host name"),
        ("ws://.b", "neither a host name"),
        ("ws://.", "neither a host name"),
        ("ws://-a.b", "neither a host name"),
        ("ws://a-", "neither a host name"),
        ("ws://" + "a" * 64, "neither a host name"),
        ("ws://" + ".".join(["a" * 63] * 4), "neither a host name"),
        ("ws://\u2488", "neither a host name"),
        ("ws://\ud800", "neither a host name"),
        ("ws://" + "ü" * 64, "neither a host name"),
        ("ws://" + "a" * 60 + ":8080", "too long together with the port"),
        ("ws://::1/", "put [ ] round an IPv6 address"),
        ("ws://[::1", "put [ ] round an IPv6 address"),
        ("ws://[::1]80", "put [ ] round an IPv6 address"),
        ("ws://[]", "no IPv6 address between its brackets"),
        ("ws://[1.2.3.4]", "no IPv6 address between its brackets"),
        ("ws://[fe80::1%25eth0]", "a zone (%) is not supported"),
        ("ws://[v1.x]", "no IPv6 address between its brackets"),
        ("ws://a@b@example.com", "percent-encode @"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, why: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse_websocket_url(url)
    assert why in str(caught.value)
    assert "@" in url or repr(url) in str(caught.value)
    assert isinstance(caught.value, WebSocketError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("parse", [parse_websocket_url, parse_proxy_url])
@pytest.mark.parametrize("url", [None, b"ws://example.com", 1], ids=repr)
def test_a_url_is_a_string(parse: Any, url: object) -> None:
    with pytest.raises(TypeError, match=f"must be a string, got {type(url).__name__}"):
        parse(url)


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:password", b"user:password"),
        ("user", b"user:"),
        ("user:", b"user:"),
        (":password", b":password"),
        ("user:a:b", b"user:a:b"),
        ("us%20er:p%40%C3%A4", b"us er:p@\xc3\xa4"),
        ("ä:ö", "ä:ö".encode()),
    ],
)
def test_user_name_and_password_become_basic_credentials(userinfo: str, credentials: bytes) -> None:
    expected = b"Basic " + base64.b64encode(credentials)
    assert parse_websocket_url(f"wss://{userinfo}@example.com/").authorization == expected
    assert parse_proxy_url(f"http://{userinfo}@example.com").authorization == expected


@pytest.mark.parametrize("url", ["ws://example.com", "ws://@example.com"])
def test_there_are_no_credentials_without_a_user(url: str) -> None:
    assert parse_websocket_url(url).authorization is None


@pytest.mark.parametrize(
    ("userinfo", "why"),
    [
        ("us%3Aer:password", "cannot hold a colon"),
        ("user:p%0D%0A", "control characters"),
        ("%7f", "control characters"),
        ("us\ud800er:password", "lone surrogate"),
        ("user:pass\udfff", "lone surrogate"),
    ],
)
def test_credentials_that_basic_cannot_carry_are_refused(userinfo: str, why: str) -> None:
    with pytest.raises(InvalidURL, match=why):
        parse_websocket_url(f"ws://{userinfo}@example.com")


@pytest.mark.parametrize(
    "url",
    [
        "ws://user:secret@example.com:port/",
        "ws://user:secret@example.com/#",
        "ws://user:se/secret@example.com",
        "ws://user:secret/x@example.com",
        "ws://user:se?secret@example.com",
        "ws://user:se#secret@example.com",
        "ws://user:secret@secret@example.com",
        "ws:user:secret@example.com",
        "user:secret@example.com",
        "ws://user:secret\n@example.com:x",
        "http://user:secret@example.com/path",
        "ws://user:secret%0a@example.com",
        "ws://use%3ar:secret@example.com",
        "ws://user:secret@\ud800",
        "ws://user:secret\ud800@example.com",
    ],
)
@pytest.mark.parametrize("parse", [parse_websocket_url, parse_proxy_url])
def test_no_error_shows_a_password_not_even_in_its_context(parse: Any, url: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        parse(url)
    assert "example.com" in str(caught.value) or "ud800" in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in "".join(traceback.format_exception_only(error))
        error = error.__context__


@pytest.mark.parametrize("url", ["x" * 2_000_000, "ws://x/" + " " * 2_000_000])
def test_a_wrong_url_of_any_length_is_refused_without_a_hang(url: str) -> None:
    # If it took time by the square of the length, it would be hours.
    with pytest.raises(InvalidURL):
        parse_websocket_url(url)


def test_no_representation_shows_a_password() -> None:
    credentials = base64.b64encode(b"user:secret").decode()
    for parsed in (parse_websocket_url("ws://user:secret@a"), parse_proxy_url("http://user:secret@a")):
        assert "secret" not in repr(parsed)
        assert credentials not in repr(parsed)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("http://proxy:3128", ProxyURL("proxy", 3128)),
        ("http://proxy:3128/", ProxyURL("proxy", 3128)),
        ("HTTP://Proxy", ProxyURL("proxy", 80)),
        ("http://[::1]:1", ProxyURL("::1", 1)),
    ],
)
def test_a_proxys_url_is_taken_apart(url: str, parsed: ProxyURL) -> None:
    assert parse_proxy_url(url) == parsed
    assert parsed.address in ("proxy:3128", "proxy:80", "[::1]:1")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://proxy", "a proxy's URL begins with http://$"),
        ("socks5://proxy", "begins with http://$"),
        ("ws://proxy", "begins with http://$"),
        ("proxy:3128", "begins with http://$"),
        ("http://proxy/path", "neither path nor query"),
        ("http://proxy?", "neither path nor query"),
        ("http://proxy#", "no fragment"),
        ("http://", "names no host"),
    ],
)
def test_what_is_wrong_with_a_proxys_url_is_said(url: str, why: str) -> None:
    with pytest.raises(InvalidURL, match=why):
        parse_proxy_url(url)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("Example.com", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("::1", "::1"),
        ("1.2.3.4", "1.2.3.4"),
    ],
)
def test_a_name_to_verify_is_a_host(name: str, host: str) -> None:
    assert check_host(name) == host


@pytest.mark.parametrize("name", ["", ".example.com", "exam ple", "[::1]", "a\0b", "example.com:443"])
def test_a_name_to_verify_that_is_no_host_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="server_hostname must be a host name or an IP address, got"):
        check_host(name)


def test_a_name_to_verify_is_a_string() -> None:
    with pytest.raises(TypeError, match="server_hostname must be a string, got b'a'"):
        check_host(b"a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


pieces = st.sampled_from(
    [
        "ws:",
        "wss:",
        "http:",
        "//",
        "/",
        "?",
        "#",
        "@",
        ":",
        "[",
        "]",
        "::1",
        "a",
        ".",
        "-",
        "%",
        "%41",
        "80",
        "\r\n",
        "ü",
        "\u2488",
    ]
)
urls = st.one_of(
    st.text(), st.text().map("ws://".__add__), st.lists(pieces | st.characters()).map("".join).map("ws://".__add__)
)


@given(urls)
def test_any_text_is_a_url_or_an_invalid_one(url: str) -> None:
    try:
        parsed = parse_websocket_url(url)
    except InvalidURL:
        return
    assert parsed.host.isascii()
    assert parsed.target.startswith("/")
    assert 1 <= parsed.port <= 65535
    again = parse_websocket_url(f"ws{'s' * parsed.secure}://{parsed.authority}{parsed.target}")
    assert again == WebSocketURL(parsed.secure, parsed.host, parsed.port, parsed.target)


@given(
    st.text(st.characters(min_codepoint=32, exclude_characters=":\x7f", exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"])),
)
def test_any_quoted_user_name_and_password_arrive(user: str, password: str) -> None:
    url = f"ws://{quote(user, safe='')}:{quote(password, safe='')}@example.com"
    assert parse_websocket_url(url).authorization == b"Basic " + base64.b64encode(f"{user}:{password}".encode())
