"""SHELL. The command line: one parser for each role, made of the table of options, and the help that teaches."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import wspool
from wspool.websocket import masker

from .options import Option, Role, Section, UsageError, options_of

PROGRAM_NAME = "python -m examples.socks_proxy"

Default: TypeAlias = Callable[[Section, Option], str | None]
"""What the help says of an option that is not given; None for nothing."""

_INTRODUCTION: dict[Role, str] = {
    "both": """\
A SOCKS5 proxy in two ends: applications talk SOCKS5 to the client, the client talks to the server through
pooled websockets over TLS, and the server connects to the destinations.

sub-commands, each with a --help of its own:
  client    the near end, where the applications are
  server    the far end, which connects to the destinations
  (none)    both ends in this process on loopback, with a throw-away certificate and token: to try it out""",
    "client": "The near end: a SOCKS5 proxy for applications, which reaches the destinations through the far end.",
    "server": "The far end: it accepts websockets from clients that know the token, and connects to destinations.",
}

_EXAMPLES: dict[Role, str] = {
    "both": """\
examples:
  {name}
      then: curl --proxy socks5h://127.0.0.1:1080 https://example.com/

  on the far machine, with a certificate for its name:
  (umask 077; head -c 24 /dev/urandom | base64 > token)
  {name} server --listen 0.0.0.0:8443 --cert fullchain.pem --key key.pem --token-file token

  on the near one, with a copy of that file:
  {name} client --server wss://proxy.example:8443/ --token-file token""",
    "client": """\
examples:
  {name} client --server wss://proxy.example:8443/ --token-file token
  {name} client --server wss://192.0.2.1:8443/ --sni proxy.example --ca-file ca.pem --token-file token
  {name} client --server wss://proxy.example/ --token-file token \\
      --listen 192.168.1.2:1080 --user alice --password-file password""",
    "server": """\
examples:
  {name} server --listen 0.0.0.0:8443 --cert fullchain.pem --key key.pem --token-file token
  {name} server --listen 127.0.0.1:8080 --plain --path /secret --token-file token
  {name} server ... --allow 10.1.0.0/16:443 --allow '*.internal.example' --deny '*:25'""",
}

_SOURCES = """\
Every option can also stand in the environment (--max-idle is WSPOOL_MAX_IDLE; a token itself is WSPOOL_TOKEN)
and in the file given by --config: TOML with the tables [client] and [server]. The command line comes first,
then the environment, then the file. {ready}"""

_READY: dict[Role, str] = {
    "both": "When an end accepts connections, it prints `ready` and its URL on standard output.",
    "client": "When it accepts connections, it prints `ready socks5://HOST:PORT` on standard output.",
    "server": "When it accepts connections, it prints `ready wss://HOST:PORT/PATH` on standard output.",
}


def read_arguments(argv: Sequence[str], default: Default) -> tuple[Role, dict[str, Any]]:
    """The role, and the options that are given, by their names and as yet unread; or `UsageError`.

    --help and --version print, and leave by SystemExit.
    """
    role: Role = "both"
    if argv and argv[0] in ("client", "server"):
        role, argv = ("client" if argv[0] == "client" else "server"), argv[1:]
    given, strangers = _parser(role, default).parse_known_args(list(argv))
    if strangers:
        raise UsageError(_about(role, strangers[0]))
    return role, {name.replace("_", "-"): value for name, value in vars(given).items()}


def _about(role: Role, stranger: str) -> str:
    name, dashes = stranger.partition("=")[0], stranger.startswith("-")
    if name in ("client", "server"):
        return f"the sub-command {name} comes first: {PROGRAM_NAME} {name} ..."
    owners = [other for other in ("client", "server") if role != other and _has(other, name)]
    if owners:
        return f"{name} is for the sub-command {' or '.join(owners)}"
    what = f"there is no option {name}" if dashes else f"{stranger!r} belongs to no option"
    known = [f"--{option.name}" for _, option in options_of(role)] if dashes else ["client", "server"]
    close = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{what}{meant}; see {PROGRAM_NAME} {'' if role == 'both' else role + ' '}--help"


def _has(role: Role, name: str) -> bool:
    return any(name == f"--{option.name}" for _, option in options_of(role))


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _TokenRefused(argparse.Action):
    """The likeliest mistake gets an answer of its own."""

    def __call__(self, *_: object) -> NoReturn:
        raise UsageError(
            "a token on the command line can be read by every user of this machine: "
            "put it into a file (--token-file FILE) or into the variable WSPOOL_TOKEN, and make a new one"
        )


def _parser(role: Role, default: Default) -> argparse.ArgumentParser:
    sources = _SOURCES.format(ready=_READY[role])
    parser = _Parser(
        prog=PROGRAM_NAME if role == "both" else f"{PROGRAM_NAME} {role}",
        usage=f"%(prog)s {'[client | server] ' if role == 'both' else ''}[options]",
        description=_INTRODUCTION[role],
        epilog=f"{sources}\n\n{_EXAMPLES[role].format(name=PROGRAM_NAME)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # What is not given is not there, so that environment and file are asked.
        argument_default=argparse.SUPPRESS,
        # Else --token would be --token-file.
        allow_abbrev=False,
    )
    version = f"wspool {wspool.__version__} (masking by {masker()})"
    parser.add_argument("--version", action="version", version=version, help="show version and masker, and exit")
    parser.add_argument("--config", metavar="FILE", help="file (TOML) with options")
    parser.add_argument("--token", nargs="?", action=_TokenRefused, help=argparse.SUPPRESS)
    seen: set[str] = set()
    for section, option in options_of(role):
        # Without a sub-command, one --grace is that of both ends.
        if option.name not in seen:
            seen.add(option.name)
            _add(parser, option, default(section, option))
    return parser


def _add(parser: argparse.ArgumentParser, option: Option, default: str | None) -> None:
    flag = f"--{option.name}"
    text = option.help if default is None else f"{option.help} (default {default})"
    text = text.replace("%", "%%")
    if option.is_flag:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
    else:
        action = "store" if option.separator is None else "append"
        parser.add_argument(flag, action=action, metavar=option.metavar, help=text)
