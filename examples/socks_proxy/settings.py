"""SHELL. What each end is to do, put together from command line, environment and file, in this order, and checked.

It reads files: that of `--config`, those with secrets, and those that TLS needs, to say at once if they cannot be
read. Whatever is wrong is a `UsageError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from .command_line import read_arguments
from .credentials import token_of, users_of
from .options import Option, Role, Section, UsageError
from .policy import Policy
from .sources import Options, Sources, read_bytes
from .users import Users

__all__ = ("ClientSettings", "ProgramSettings", "ServerSettings", "UsageError", "parse", "warnings")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """The near end. Durations are in seconds, sizes in tunnels. What may be secret is not in its repr."""

    listen: tuple[str, int] = ("127.0.0.1", 1080)
    server: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None
    sni: str | None = None
    insecure: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    via: str | None = field(default=None, repr=False)
    users: Users | None = None
    """None admits everybody who reaches the listener."""
    max_idle: int = 64
    max_size: int = 1000
    min_idle: int = 2
    fast_open: bool = False
    greeting_timeout: float = 10
    connect_timeout: float = 10
    idle_timeout: float = 3600
    grace: float = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The far end. Durations are in seconds."""

    listen: tuple[str, int]
    path: str = "/"
    token: str | None = field(default=None, repr=False)
    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None
    plain: bool = False
    policy: Policy = field(default_factory=Policy)
    fallback_dir: str | None = None
    fallback_url: str | None = field(default=None, repr=False)
    max_connections: int = 4096
    max_sessions: int = 4096
    max_handshakes: int = 256
    dial_timeout: float = 10
    lookup_timeout: float = 5
    idle_timeout: float = 3600
    grace: float = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSettings:
    """The process. In the role "both", the client learns server, token and certificate only when it runs."""

    role: Role
    backend: Literal["asyncio", "uvloop", "trio", "auto"] = "auto"
    log_format: Literal["text", "json"] = "text"
    log_level: str = "info"
    client: ClientSettings | None = None
    server: ServerSettings | None = None
    any_port: bool = False
    """Whether the client may listen on another port if its own is in use: nobody has asked for that one."""


_CLIENT_DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(ClientSettings)}


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> ProgramSettings:
    """What the program is told, or `UsageError`. --help and --version leave by SystemExit."""
    role, arguments = read_arguments(argv, _default)
    sources = Sources(role, arguments, environ)
    program = _values(sources.options("program"))
    if role != "server":
        options = sources.options("client")
        program["any_port"] = role == "both" and "listen" not in options
        program["client"] = _client(role, options, sources)
    if role != "client":
        program["server"] = _server(role, sources.options("server"), sources)
    return ProgramSettings(role=role, **program)


def _values(options: Options) -> dict[str, Any]:
    return {attribute: given.value for attribute, given in options.items()}


def _default(section: Section, option: Option) -> str | None:
    """What the help says of an option that is not given."""
    owner = {"program": ProgramSettings, "client": ClientSettings, "server": ServerSettings}[section]
    default: object = next((one.default for one in fields(owner) if one.name == option.attribute), None)
    if isinstance(default, tuple):
        return ":".join(map(str, cast("tuple[object, ...]", default))) or None
    return str(default) if isinstance(default, str | int | float) and not isinstance(default, bool) else None


# --- the two ends ---------------------------------------------------------------------------------


def _client(role: Role, options: Options, sources: Sources) -> ClientSettings:
    _check_files(options, "ca_file", "cert", "key")
    users = users_of(options)
    token = None if role == "both" else token_of(options, sources)
    values = _values(options)
    if role == "both":
        values["server"] = ""
    _check_client(role, values, token)
    _fit_sizes(values)
    return ClientSettings(**values, token=token, users=users)


def _check_client(role: Role, values: Mapping[str, Any], token: str | None) -> None:
    if "server" not in values:
        raise UsageError("--server is missing: say where the far end is, like --server wss://proxy.example:8443/")
    if role == "client" and token is None and "cert" not in values:
        raise UsageError("the server must know you: give --token-file FILE, or set WSPOOL_TOKEN, or give --cert FILE")
    server: str = values["server"]
    if token is not None and urlsplit(server).username:
        raise UsageError(
            "--server has a user name, and there is a token: only one can be the Authorization, so leave one out"
        )
    if "key" in values and "cert" not in values:
        raise UsageError("--key is given without --cert")
    if values.get("insecure") and "ca_file" in values:
        raise UsageError("--insecure verifies nothing, --ca-file says what to verify with: leave one of them out")
    for name in ("ca_file", "cert", "sni", "insecure"):
        if values.get(name) and urlsplit(server).scheme == "ws":
            raise UsageError(f"--{name.replace('_', '-')} is for wss://, and --server begins with ws://")


def _fit_sizes(values: dict[str, Any]) -> None:
    """A default follows what is given; what is given must fit together."""
    size = values.setdefault("max_size", _CLIENT_DEFAULTS["max_size"])
    # Room above --min-idle, or each session would have a tunnel opened in advance, and another one closed.
    room = max(_CLIENT_DEFAULTS["max_idle"], 2 * values.get("min_idle", 0))
    idle = values.setdefault("max_idle", min(room, size))
    ready = values.setdefault("min_idle", min(_CLIENT_DEFAULTS["min_idle"], idle))
    if not ready <= idle <= size:
        raise UsageError(f"--min-idle {ready}, --max-idle {idle}, --max-size {size}: none may be above the next")


def _server(role: Role, options: Options, sources: Sources) -> ServerSettings:
    _check_files(options, "cert", "key", "client_ca")
    token = None if role == "both" else token_of(options, sources)
    values = _values(options)
    if role == "both":
        values["listen"] = ("127.0.0.1", 0)
    else:
        _check_server(values, token)
    _check_fallback(options)
    policy = Policy(
        allow=values.pop("allow", ()),
        deny=values.pop("deny", ()),
        # Without a sub-command it is the user's own machine, which they reach without a proxy as well.
        allow_private=values.pop("allow_private", role == "both"),
    )
    return ServerSettings(**values, token=token, policy=policy)


def _check_server(values: Mapping[str, Any], token: str | None) -> None:
    if "listen" not in values:
        raise UsageError("--listen is missing: say where to listen, like --listen 0.0.0.0:8443")
    for name in ("cert", "key", "client_ca"):
        if values.get("plain") and name in values:
            raise UsageError(f"--{name.replace('_', '-')} is for TLS, and --plain is without")
    if not values.get("plain") and "cert" not in values:
        raise UsageError("--cert is missing: give --cert and --key, or --plain behind a proxy that does TLS")
    if token is None and "client_ca" not in values:
        raise UsageError("clients must be known: give --token-file FILE, or set WSPOOL_TOKEN, or give --client-ca FILE")


def _check_fallback(options: Options) -> None:
    directory = options.get("fallback_dir")
    if directory is not None and "fallback_url" in options:
        raise UsageError("--fallback-dir and --fallback-url exclude each other")
    if directory is not None and not Path(directory.value).is_dir():
        raise UsageError(f"{directory.where}: {directory.value!r} is no directory")


def _check_files(options: Options, *attributes: str) -> None:
    for attribute in attributes:
        if attribute in options:
            read_bytes(*options[attribute])


# --- warnings -------------------------------------------------------------------------------------


def warnings(settings: ProgramSettings) -> list[str]:
    """What is possible and dangerous, one line each, for the log."""
    found: list[str] = []
    client, server = settings.client, settings.server
    if client is not None:
        host = client.listen[0]
        if client.insecure:
            found.append("--insecure: anybody on the way can pose as the server, read everything and take the token")
        if client.users is None and not _is_loopback(host):
            inside = server is not None and server.policy.allow_private
            what = " to reach this machine and its networks" if inside else ""
            found.append(f"everybody who reaches {host} may use this proxy{what}: give --user, or listen on 127.0.0.1")
        url = urlsplit(client.server)
        if url.scheme == "ws" and not _is_loopback(url.hostname or ""):
            found.append("--server begins with ws://: token and data travel unencrypted; use wss://")
    if server is not None and server.plain and not _is_loopback(server.listen[0]):
        found.append(f"--plain on {server.listen[0]}: token and data travel unencrypted up to the proxy in front of it")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
