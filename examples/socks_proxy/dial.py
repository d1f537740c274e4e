"""SHELL. How the server end reaches a destination: a name is resolved once, and what is dialled is what was judged."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple, cast

import anyio

from wspool.websocket import TCPStream, connect_any, resolve

from .addresses import Address, IPAddress
from .codes import Code, best_informed, code_of_errno
from .policy import Policy


class DialFailed(Exception):
    """There is no connection to the destination; `code` says why on the wire."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


async def dial(address: Address, policy: Policy, *, lookup_timeout: float) -> TCPStream:
    """Connect to the address, if the policy allows it. Set the time limit for it outside.

    Raises:
        DialFailed: With the code for the client.
    """
    if not address.port:
        raise DialFailed(Code.BAD_REQUEST, "there is no port 0")
    found = await _look_up(address, lookup_timeout)
    refusals = [policy.refusal(address.host, each.address, address.port) for each in found]
    allowed = [each.target for each, refusal in zip(found, refusals, strict=True) if refusal is None]
    if not allowed:
        raise DialFailed(Code.DENIED, str(refusals[0]))
    try:
        return await connect_any(allowed)
    except OSError as error:
        errors = list(_singles(error))
        code = best_informed([code_of_errno(each.errno) for each in errors])
        raise DialFailed(code, ", ".join(dict.fromkeys(each.strerror or str(each) for each in errors))) from error


class _Found(NamedTuple):
    address: IPAddress
    target: tuple[socket.AddressFamily, tuple[Any, ...]]


async def _look_up(address: Address, timeout: float) -> list[_Found]:
    host, port = address
    if not isinstance(host, str):
        family = socket.AF_INET if host.version == 4 else socket.AF_INET6
        return [_Found(host, (family, (str(host), port)))]
    with anyio.move_on_after(timeout):
        try:
            return [_Found(ip_address(target[0]), (family, target)) for family, target in await resolve(host, port)]
        except socket.gaierror as error:
            unknown = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
            code = Code.NAME_NOT_FOUND if unknown else Code.NAME_LOOKUP_FAILED
            raise DialFailed(code, str(error.strerror)) from error
    raise DialFailed(Code.NAME_LOOKUP_FAILED, f"looking up {address.host} took longer than {timeout:g} s")


def _singles(error: OSError) -> Iterator[OSError]:
    """What a failure to connect to several addresses consists of."""
    cause: object = error.__cause__
    if isinstance(cause, ExceptionGroup):
        for each in cast("ExceptionGroup[OSError]", cause).exceptions:
            yield cast("OSError", each)
    else:
        yield error


def bound_address(stream: TCPStream) -> Address:
    """What the connection is bound to on this machine, for OPENED."""
    return local_address(stream.raw_socket)


def local_address(sock: socket.socket) -> Address:
    """What a socket is bound to."""
    host, port, *more = sock.getsockname()
    if not more:
        return Address(IPv4Address(socket.inet_aton(host)), port)
    address = IPv6Address(host.partition("%")[0])
    return Address(address.ipv4_mapped or address, port)
