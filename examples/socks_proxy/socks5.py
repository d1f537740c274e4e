"""PURE. The server's side of SOCKS5 (RFC 1928), with user name and password (RFC 1929).

Bytes come in by `receive_data`, events are pulled by `next_event`, an event that asks is answered by a
method, and what is to be sent is fetched by `data_to_send`: send it after each of these.

Rules of this file:

1. Bytes may come one by one, or greeting, password, request and payload at once. What follows the
   request is payload, and is kept for `take_rest`.
2. Read only while `wants_data`, so no more is kept than one message of at most 513 bytes and one read.
3. Of the methods offered, the one that comes first among ours is chosen, and only one that was offered.
4. A request is answered exactly once.
5. A refusal is the last event: send what there is to send, and close within 10 s (RFC 1928 section 6),
   after a moment in which the client can read it. What is not SOCKS5 is told so in its own language.

GSSAPI, which RFC 1928 section 3 asks of every server, is left out, as by all servers but dante.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from .addresses import UNKNOWN, Address, BadAddress, read_address
from .codes import Code, Command, socks_reply

NO_AUTHENTICATION, USERNAME_PASSWORD, _NOTHING_ACCEPTABLE = 0x00, 0x02, 0xFF
_METHOD_NAMES = {NO_AUTHENTICATION: "none", 0x01: "GSSAPI", USERNAME_PASSWORD: "user name and password"}

_VERSION, _PASSWORD_VERSION = 5, 1
_ADMITTED, _REJECTED = 0x00, 0x01

_TLS_HANDSHAKE = 0x16
# Version 0, "request rejected", and the six bytes that clients ignore.
_SOCKS4_REJECTED = b"\x00\x5b" + bytes(6)
_HTTP_BODY = b"This is a SOCKS5 proxy, not an HTTP proxy: set it as socks5://, or socks5h:// to resolve names by it.\n"
_HTTP_ANSWER = (
    b"HTTP/1.1 501 This is a SOCKS5 proxy\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n\r\n" % len(_HTTP_BODY)
) + _HTTP_BODY


class Socks5State(Enum):
    """How far the client has come."""

    GREETING = "The methods that the client offers are to come. Next: CREDENTIALS, REQUEST, REFUSED."
    CREDENTIALS = "User name and password are to come. Next: CHECKING, REFUSED."
    CHECKING = "They have come, and wait for `answer_credentials`. Next: REQUEST, REFUSED."
    REQUEST = "The request is to come. Next: ANSWERING, REFUSED."
    ANSWERING = "The request has come, and waits for `reply`. Next: RELAYING, REFUSED."
    RELAYING = "The client knows of its success: the rest is payload."
    REFUSED = "The client knows why not, as far as SOCKS5 can say it: nothing is read any more."


GREETING, CREDENTIALS, CHECKING, REQUEST, ANSWERING, RELAYING, REFUSED = Socks5State


class Credentials(NamedTuple):
    """Somebody wants to be admitted: answer by `answer_credentials`."""

    name: bytes
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials(name={self.name!r}, password=***)"


class Request(NamedTuple):
    """Somebody wants to be connected: answer by `reply`."""

    command: Command
    address: Address


class Refusal(NamedTuple):
    """The client cannot be served, and has been told; the reason is for the log."""

    reason: str


Event: TypeAlias = Credentials | Request | Refusal


class Socks5Server:
    """One connection of a client."""

    def __init__(
        self,
        methods: Sequence[int] = (NO_AUTHENTICATION,),
        *,
        commands: Collection[Command] = (Command.CONNECT,),
    ) -> None:
        """`methods`, the preferred one first, are what is accepted: without NO_AUTHENTICATION, all must log in."""
        self.state = GREETING
        self._methods = methods
        self._commands = commands
        self._data = bytearray()
        self._out = b""

    # --- bytes ----------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self.state is not REFUSED:
            self._data += data

    def data_to_send(self) -> bytes:
        """What is to be sent, and has not been fetched before."""
        out, self._out = self._out, b""
        return out

    def take_rest(self) -> bytes:
        """The payload that has followed the request, as far as it has not been taken before."""
        if self.state not in (ANSWERING, RELAYING):
            raise RuntimeError(f"payload follows the request, and the state is {self.state.name}")
        rest = bytes(self._data)
        self._data.clear()
        return rest

    @property
    def wants_data(self) -> bool:
        """Whether `next_event`, after it has returned None, needs more bytes, and not an answer."""
        return self.state in (GREETING, CREDENTIALS, REQUEST)

    # --- events and answers ---------------------------------------------------------------------

    def next_event(self) -> Event | None:
        """What comes next; None if first more has to come in, or a question to be answered."""
        event: Event | None = None
        if self.state is GREETING:
            event = self._read_greeting()
        if self.state is CREDENTIALS:
            event = self._read_credentials()
        elif self.state is REQUEST:
            event = self._read_request()
        return event

    def answer_credentials(self, admitted: bool) -> None:
        """Answer `Credentials`. After a no the client must be closed (RFC 1929 section 2)."""
        if self.state is not CHECKING:
            raise RuntimeError(f"no credentials wait for an answer: the state is {self.state.name}")
        self._out += bytes((_PASSWORD_VERSION, _ADMITTED if admitted else _REJECTED))
        self.state = REQUEST if admitted else REFUSED

    def reply(self, code: int, bound: Address = UNKNOWN) -> None:
        """Answer a `Request`: success with the address that the far end is bound to, or any code of the tunnel."""
        if self.state is not ANSWERING:
            raise RuntimeError(f"no request waits for a reply: the state is {self.state.name}")
        succeeded = code == Code.SUCCEEDED
        self._out += _reply(code, bound if succeeded else UNKNOWN)
        self.state = RELAYING if succeeded else REFUSED

    # --- reading --------------------------------------------------------------------------------

    def _refuse(self, answer: bytes, reason: str) -> Refusal:
        self._out += answer
        self._data.clear()
        self.state = REFUSED
        return Refusal(reason)

    def _read_greeting(self) -> Refusal | None:
        data = self._data
        if data and data[0] != _VERSION:
            return self._refuse_stranger(data[0])
        if len(data) < 2 or len(data) < 2 + data[1]:
            return None
        offered = bytes(data[2 : 2 + data[1]])
        del data[: 2 + len(offered)]
        for method in self._methods:
            if method in offered:
                self._out += bytes((_VERSION, method))
                self.state = CREDENTIALS if method == USERNAME_PASSWORD else REQUEST
                return None
        wanted = f"it offers {_methods(offered)}, and {_methods(self._methods)} would do"
        return self._refuse(bytes((_VERSION, _NOTHING_ACCEPTABLE)), f"no acceptable way to log in: {wanted}")

    def _refuse_stranger(self, first: int) -> Refusal:
        if first == 4:
            return self._refuse(_SOCKS4_REJECTED, "the client speaks SOCKS4; this is a SOCKS5 proxy")
        if ord("A") <= first <= ord("Z"):
            return self._refuse(_HTTP_ANSWER, "the client speaks HTTP; this is a SOCKS5 proxy")
        if first == _TLS_HANDSHAKE:
            return self._refuse(b"", "the client speaks TLS; this is a SOCKS5 proxy, without TLS")
        return self._refuse(b"", f"the client does not speak SOCKS5: it begins with {first:#04x}")

    def _read_credentials(self) -> Credentials | Refusal | None:
        data = self._data
        rejected = bytes((_PASSWORD_VERSION, _REJECTED))
        if data and data[0] != _PASSWORD_VERSION:
            return self._refuse(rejected, f"the login has version {data[0]}, not {_PASSWORD_VERSION}")
        if len(data) < 2 or len(data) < 3 + data[1]:
            return None
        name_end = 2 + data[1]
        end = name_end + 1 + data[name_end]
        if len(data) < end:
            return None
        name, password = bytes(data[2:name_end]), bytes(data[name_end + 1 : end])
        # Lax clients send these when they have no password: that is a failure, but no breach of the protocol.
        if not name or not password:
            return self._refuse(rejected, "the user name or the password is empty")
        del data[:end]
        self.state = CHECKING
        return Credentials(name, password)

    def _read_request(self) -> Request | Refusal | None:
        data = self._data
        if data and data[0] != _VERSION:
            return self._refuse(_reply(Code.BAD_REQUEST), f"the request has version {data[0]}, not {_VERSION}")
        if len(data) > 1 and data[1] not in self._commands:
            return self._refuse(_reply(Code.COMMAND_NOT_SUPPORTED), f"{_command(data[1])} is not supported")
        # The third byte is reserved: whatever it is, it does no harm.
        try:
            found = read_address(data, 3)
        except BadAddress as error:
            return self._refuse(_reply(error.code), f"the request has {error}")
        if found is None:
            return None
        command, (address, end) = Command(data[1]), found
        if command is Command.CONNECT and not address.port:
            return self._refuse(_reply(Code.BAD_REQUEST), f"port 0 of {address.host} cannot be connected to")
        del data[:end]
        self.state = ANSWERING
        return Request(command, address)


def _reply(code: int, bound: Address = UNKNOWN) -> bytes:
    return bytes((_VERSION, socks_reply(code), 0)) + bound.encode()


def _methods(methods: Sequence[int]) -> str:
    return ", ".join(_METHOD_NAMES.get(method, f"method {method:#04x}") for method in methods) or "nothing"


def _command(number: int) -> str:
    try:
        return Command(number).name
    except ValueError:
        return f"command {number:#04x}"
