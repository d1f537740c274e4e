"""PURE. The options of the program: their names, what they mean, and how their values are read from text.

An option `max-idle` is `--max-idle` on the command line, `WSPOOL_MAX_IDLE` in the environment, and
`max-idle` (or `max_idle`) in a TOML file. Whatever is wrong with a value is a ValueError that says
what it should be; who reads it adds where it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from .addresses import parse_host
from .policy import parse_rule

Section: TypeAlias = Literal["program", "client", "server"]
Role: TypeAlias = Literal["both", "client", "server"]

_LISTEN = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# RFC 9110 sections 5.6.2 and 5.5.
_HEADER = re.compile(r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[\t\x20-\x7e]*)")
# What the websocket's upgrade sets itself, and the token.
_OWN_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "host", "transfer-encoding", "upgrade"},
)
# Thirty years: a number that any clock can be asked to wait for.
_MOST_SECONDS = 10**9
# Below that a token can be guessed, if it was made by hand.
TOKEN_MIN = 16
# With the rest of the request it must fit into 16 KiB.
_TOKEN_MAX = 4096


class UsageError(Exception):
    """The program was told something that cannot be meant: one line that says what, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option. Its default stands in the settings."""

    name: str
    read: Callable[[str], Any]
    metavar: str
    help: str
    field: str = ""
    """The name in the settings, if it is another."""
    separator: str | None = None
    """For an option that may be given several times: what stands between several in an environment variable."""
    both: bool = False
    """Whether it is there without a sub-command as well."""

    @property
    def attribute(self) -> str:
        return self.field or self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return "WSPOOL_" + self.name.replace("-", "_").upper()

    @property
    def is_flag(self) -> bool:
        return self.read is read_flag

    @property
    def is_file(self) -> bool:
        return self.read is read_file


# --- reading values -------------------------------------------------------------------------------


def read_flag(text: str) -> bool:
    """A yes or no, as people write it."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def read_file(text: str) -> str:
    """The name of a file; whether it can be read is not for here."""
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is no name of a file")
    return text


def read_count(least: int) -> Callable[[str], int]:
    """A number of things, at least `least`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
            raise ValueError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return read


def read_seconds(text: str) -> float:
    """A duration."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST_SECONDS:
        raise ValueError(f"{text!r} is no number of seconds above 0, up to {_MOST_SECONDS}")
    return seconds


def read_choice(*choices: str) -> Callable[[str], str]:
    """One of these."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return read


def read_listen(text: str) -> tuple[str, int]:
    """Where to listen: a host of this machine, and a port."""
    parts = _LISTEN.fullmatch(text)
    if parts is None or int(parts["port"]) > 65535:
        raise ValueError(f"{text!r} is no HOST:PORT with a port from 0 to 65535; an IPv6 address goes in brackets")
    if parts["ipv6"] is None and not parts["host"]:
        raise ValueError(
            f"{text!r} names no host; 0.0.0.0{text} listens on every IPv4 address, [::]{text} on every IPv6 one"
        )
    host = parse_host(parts["host"] if parts["ipv6"] is None else f"[{parts['ipv6']}]")
    return str(host), int(parts["port"])


def read_name(text: str) -> str:
    """A host's name, in ASCII, or an address."""
    return str(parse_host(text))


def read_user(text: str) -> bytes:
    """A user's name, as SOCKS5 clients send it (RFC 1929 section 2)."""
    name = text.encode(errors="surrogateescape")
    if not 1 <= len(name) <= 255:
        raise ValueError(f"the user name has {len(name)} bytes; from 1 to 255 are possible")
    return name


def read_header(text: str) -> tuple[str, str]:
    """`NAME: VALUE`. The value may be a secret, so no error shows it."""
    parts = _HEADER.fullmatch(text)
    if parts is None:
        raise ValueError("a header is NAME: VALUE, in printable ASCII and one line")
    name, value = parts["name"], parts["value"].rstrip()
    if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
        raise ValueError(f"the header {name} is set by the program itself")
    return name, value


def read_path(text: str) -> str:
    """A path as a request names it."""
    if not text.startswith("/") or not _VISIBLE.fullmatch(text) or set(text) & set("?#"):
        raise ValueError(f"{text!r} is no path: it begins with /, and has no space, ? or #, nor anything but ASCII")
    return text


def read_url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of the schemes. It may hold a password, so no error shows it."""
    example = f"{schemes[-1]}://HOST:PORT"

    def read(text: str) -> str:
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"it is no URL like {example}: {_without(text, error)}") from None
        if parts.scheme not in schemes:
            raise ValueError(f"it is no URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        if not host or port == 0 or not _VISIBLE.fullmatch(text) or parts.fragment:
            raise ValueError(f"it is no URL like {example}, with a host, without spaces and without #")
        parse_host(host)
        return text

    return read


def _without(text: str, error: ValueError) -> str:
    # "Port could not be cast to integer value as 'secret'" is what a password with a / in it leads to.
    return "its host or its port is wrong" if "@" in text else str(error)


def read_proxy(text: str) -> str:
    """The URL of an HTTP proxy."""
    url = read_url("http")(text)
    parts = urlsplit(url)
    if parts.path not in ("", "/") or parts.query:
        raise ValueError("a proxy's URL has neither path nor query: end it after the port")
    return url


def read_token(text: str) -> str:
    """The token from a file or a variable. It is a secret, so no error shows it."""
    token = text.strip()
    if not token:
        raise ValueError("it is empty")
    if not token.isascii():
        raise ValueError("the token is not ASCII")
    if not _VISIBLE.fullmatch(token):
        raise ValueError("it holds more than one word; a token is one line, without spaces")
    if not TOKEN_MIN <= len(token) <= _TOKEN_MAX:
        raise ValueError(f"the token has {len(token)} characters; from {TOKEN_MIN} to {_TOKEN_MAX} are right")
    return token


# --- the options ----------------------------------------------------------------------------------


_FILE = "FILE"
_SECONDS = "SECONDS"

PROGRAM = (
    Option(
        "backend",
        read_choice("auto", "asyncio", "uvloop", "trio"),
        "NAME",
        "event loop: asyncio, uvloop, trio, or auto for uvloop where it is installed, else asyncio",
        both=True,
    ),
    Option("log-format", read_choice("text", "json"), "FORMAT", "text, or json: one object a line", both=True),
    Option(
        "log-level",
        read_choice("debug", "info", "warning", "error"),
        "LEVEL",
        "debug, info (with a line for each session), warning or error",
        both=True,
    ),
)

CLIENT = (
    Option("listen", read_listen, "HOST:PORT", "where the SOCKS5 proxy listens; port 0 for a free one", both=True),
    Option("server", read_url("ws", "wss"), "URL", "the far end, like wss://proxy.example:8443/path"),
    Option("token-file", read_file, _FILE, "file with the token that the server knows; or set WSPOOL_TOKEN"),
    Option("ca-file", read_file, _FILE, "certificates (PEM) to trust in place of the system's"),
    Option("cert", read_file, _FILE, "certificate (PEM) to show to the server"),
    Option("key", read_file, _FILE, "its key, if that is in a file of its own"),
    Option("sni", read_name, "NAME", "name to ask for and to verify, if it is not the URL's host"),
    Option("insecure", read_flag, "", "do not verify the server's certificate: for tests only"),
    Option(
        "header",
        read_header,
        "'NAME: VALUE'",
        "header to send with the upgrade; may be repeated",
        field="headers",
        separator="\n",
    ),
    Option("via", read_proxy, "URL", "HTTP proxy on the way, like http://user:password@proxy.example:3128"),
    Option("user", read_user, "NAME", "user who may use the proxy, with --password-file", both=True),
    Option("password-file", read_file, _FILE, "file with that user's password", both=True),
    Option("users-file", read_file, _FILE, "file with several users, one NAME:PASSWORD a line", both=True),
    Option("max-idle", read_count(0), "N", "idle tunnels that are kept, or twice --min-idle", both=True),
    Option("max-size", read_count(1), "N", "tunnels, and so sessions, at once", both=True),
    Option("min-idle", read_count(0), "N", "idle tunnels that are opened in advance", both=True),
    Option("fast-open", read_flag, "", "reply before the destination does: sooner, but its errors are lost", both=True),
    Option("greeting-timeout", read_seconds, _SECONDS, "for an application to say where it wants to go", both=True),
    Option("connect-timeout", read_seconds, _SECONDS, "for each step of opening a tunnel", both=True),
    Option("idle-timeout", read_seconds, _SECONDS, "for a session in which nothing moves", both=True),
    Option("grace", read_seconds, _SECONDS, "for running sessions to finish when it is stopped", both=True),
)

SERVER = (
    Option(
        "listen", read_listen, "HOST:PORT", "where to listen, like 0.0.0.0:8443 or [::]:8443; port 0 for a free one"
    ),
    Option("path", read_path, "PATH", "path of the websocket; anything else gets an ordinary page"),
    Option("token-file", read_file, _FILE, "file with the token that clients must have; or set WSPOOL_TOKEN"),
    Option("cert", read_file, _FILE, "certificate chain (PEM); it is loaded again when it changes, and on SIGHUP"),
    Option("key", read_file, _FILE, "its key, if that is in a file of its own"),
    Option("client-ca", read_file, _FILE, "authorities (PEM): clients must show a certificate signed by one of them"),
    Option("plain", read_flag, "", "without TLS, for use behind nginx or HAProxy"),
    Option(
        "allow",
        parse_rule,
        "RULE",
        "destination to allow: HOST, *.DOMAIN, ADDRESS, NETWORK or *, each with :PORT or without; may be repeated",
        separator=",",
        both=True,
    ),
    Option("deny", parse_rule, "RULE", "destination to deny, written alike; may be repeated", separator=",", both=True),
    Option(
        "allow-private",
        read_flag,
        "",
        "allow loopback, private and link-local destinations; without a sub-command it is on",
        both=True,
    ),
    Option("fallback-dir", read_file, "DIRECTORY", "files for those who ask for a page"),
    Option("fallback-url", read_url("http", "https"), "URL", "website that answers those who ask for a page"),
    Option("max-connections", read_count(1), "N", "connections at once"),
    Option("max-sessions", read_count(1), "N", "sessions at once"),
    Option("max-handshakes", read_count(1), "N", "connections at once that have not shown their token yet"),
    Option("dial-timeout", read_seconds, _SECONDS, "for connecting to a destination", both=True),
    Option("lookup-timeout", read_seconds, _SECONDS, "for looking up its name, as a part of that", both=True),
    Option("idle-timeout", read_seconds, _SECONDS, "for a session in which nothing moves", both=True),
    Option("grace", read_seconds, _SECONDS, "for running sessions to finish when it is stopped", both=True),
)

SECTIONS: dict[Section, tuple[Option, ...]] = {"program": PROGRAM, "client": CLIENT, "server": SERVER}


def options_of(role: Role) -> list[tuple[Section, Option]]:
    """What may be given to a program in this role, in the order of its help."""
    return [
        (section, option)
        for section, options in SECTIONS.items()
        for option in options
        if section in ("program", role) or (role == "both" and option.both)
    ]
