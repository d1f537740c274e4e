"""SHELL. TLS for both ends: contexts from files, a certificate that changes while the server runs, and throw-away ones.

Rules of this file:

1. The rules of `wspool.websocket.default_context`, and `http/1.1` by ALPN.
2. What cannot be used is a `BadCertificate`, which names the files and says what is wrong with them.
3. A new certificate is used whole or not at all: a file that is written at this moment harms nobody.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn, TypeAlias

from wspool.websocket import default_context

_logger = logging.getLogger("wspool.proxy")

# RFC 7301; h2 would carry no upgrade.
_ALPN = "http/1.1"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# By what X509_verify_cert calls them (openssl/x509_vfy.h).
_DATES = {9: "it is not valid yet", 10: "it has expired"}

_Stamp: TypeAlias = tuple[object, ...]


class BadCertificate(ValueError):
    """These files cannot be used; the text says which, and why."""


def server_context(cert: str, key: str | None = None, client_ca: str | None = None) -> ssl.SSLContext:
    """For a server, from files in PEM. With `client_ca`, clients must show a certificate. Or `BadCertificate`."""
    context = _over_http_1(default_context(server_side=True))
    context.num_tickets = 0  # no client of ours comes back with one, and each takes room in its memory
    _load_chain(context, cert, key)
    if client_ca is not None:
        with _authorities("--client-ca", client_ca):
            context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    *, ca_file: str | None = None, cert: str | None = None, key: str | None = None, insecure: bool = False
) -> ssl.SSLContext:
    """For a client, from files in PEM; without `ca_file` it trusts the system's authorities. Or `BadCertificate`."""
    context = _over_http_1(_trusting(ca_file))
    if cert is not None:
        _load_chain(context, cert, key)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _over_http_1(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols([_ALPN])
    return context


# --- files ----------------------------------------------------------------------------------------


def _load_chain(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    files = f"--cert {cert!r}" if key is None else f"--cert {cert!r} and --key {key!r}"
    try:
        # Without a callable, OpenSSL would ask for a password on the terminal, and wait.
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as error:
        raise BadCertificate(f"{files}: {_reason(error, cert, key)}") from None
    except OSError as error:
        raise BadCertificate(f"{files}: {error.strerror}") from None
    except _Encrypted:
        why = "the key has a password; write it without (openssl pkey -in KEY -out NEW)"
        raise BadCertificate(f"{files}: {why}") from None


class _Encrypted(Exception):
    """It comes back out of OpenSSL, which would not say what was wrong in every version."""


def _refuse_password() -> NoReturn:
    raise _Encrypted


def _reason(error: ssl.SSLError, cert: str, key: str | None) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    if not _holds(cert, b"CERTIFICATE-----"):
        return "there is no certificate in PEM in it"
    if key is None and not _holds(cert, b"PRIVATE KEY-----"):
        return "there is no key in it: give the file that has it with --key"
    return "there is no certificate with its key in PEM in it that can be used"


def _holds(file: str, mark: bytes) -> bool:
    with open(file, "rb") as opened:
        return mark in opened.read()


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    with _authorities("--ca-file", ca_file):
        return default_context(ca_file=ca_file)


@contextmanager
def _authorities(option: str, file: str | None) -> Generator[None]:
    try:
        yield
    except ssl.SSLError:
        raise BadCertificate(f"{option} {file!r}: there is no certificate in PEM in it") from None
    except OSError as error:
        raise BadCertificate(f"{option} {file!r}: {error.strerror}") from None


def out_of_date(context: ssl.SSLContext, cert: str) -> str | None:
    """Why no client will accept a server's certificate today; None if nothing is wrong with its dates.

    Found by a handshake in memory, with a client that trusts that very certificate: `ssl` itself tells no dates of it.
    """
    judge = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    judge.check_hostname = False
    judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    judge.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = judge.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLCertVerificationError as error:
            return _DATES.get(error.verify_code)
        except ssl.SSLError:
            pass  # it waits for the other one; or is not for us to judge
    return None


# --- a certificate that changes -------------------------------------------------------------------


class ReloadingCertificate:
    """A server's certificate, which may be renewed while the server runs. `context` stays the same object.

    Each reload makes a new context of its own, and handshakes that begin afterwards are given that one:
    loading into a context that is in use could fail with the new certificate in it and the old key.
    Connections that are open keep what they have. `reload` reads files, and may run in any thread.
    """

    def __init__(self, cert: str, key: str | None = None, client_ca: str | None = None) -> None:
        """Load it, or `BadCertificate`."""
        self._files = (cert, key, client_ca)
        # Before the files are read: a change meanwhile shows as one.
        self._stamps = self._stat()
        self.context = self._current = server_context(*self._files)
        if why := out_of_date(self.context, cert):
            _logger.warning("--cert %r: %s; no client that verifies it will connect", cert, why)
        self.context.sni_callback = self._hand_over

    def _hand_over(self, engine: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # Called in every handshake, also if the client names no host.
        engine.context = self._current

    @property
    def changed(self) -> bool:
        """Whether the files are others than at the last reload, or have been written to. It asks the file system."""
        return self._stat() != self._stamps

    def reload(self) -> bool:
        """Load the files again, and say in the log how that went; what cannot be used changes nothing."""
        self._stamps = self._stat()
        try:
            self._current = self._loaded()
        except BadCertificate as error:
            _logger.error("the new certificate is not used, the old one stays: %s", error)
            return False
        _logger.info("the certificate was loaded again from %r", self._files[0])
        return True

    def _loaded(self) -> ssl.SSLContext:
        context = server_context(*self._files)
        if why := out_of_date(context, self._files[0]):
            raise BadCertificate(f"--cert {self._files[0]!r}: {why}")
        return context

    def reload_if_changed(self) -> bool:
        """Whether it is another one now."""
        return self.changed and self.reload()

    def _stat(self) -> list[_Stamp | None]:
        return [None if file is None else _stamp(file) for file in self._files]


def _stamp(file: str) -> _Stamp:
    try:
        found = os.stat(file)
    except OSError as error:
        # Between the removal and the renaming of a careless renewal, for example.
        return (error.errno,)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


# --- throw-away -----------------------------------------------------------------------------------


class ThrowAway(NamedTuple):
    """A certificate for this machine's loopback, of an authority whose key is kept nowhere."""

    context: ssl.SSLContext
    authority: str
    """In PEM, for the client to trust."""


def throw_away() -> ThrowAway:
    """Make one. ImportError without trustme, which the extra `proxy` brings."""
    import trustme

    authority = trustme.CA(organization_name="wspool, throw-away")
    context = _over_http_1(default_context(server_side=True))
    # Its types mention pyOpenSSL, which need not be installed.
    authority.issue_cert(*_LOOPBACK).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return ThrowAway(context, authority.cert_pem.bytes().decode())
