"""Certificates: a new one is used whole or not at all, and what cannot be used is said by its file."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from examples.socks_proxy.certificates import (
    BadCertificate,
    ReloadingCertificate,
    client_context,
    out_of_date,
    server_context,
    throw_away,
)

HOST = "proxy.example"


class Files:
    """The files of a server, and of those who connect to it."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.cert, self.key, self.ca = (str(folder / name) for name in ("cert.pem", "key.pem", "ca.pem"))
        self.authority.cert_pem.write_to_path(self.ca)
        self.renew(self.authority)

    def renew(self, authority: trustme.CA, **dates: Any) -> trustme.LeafCert:
        leaf = authority.issue_cert(HOST, **dates)
        Path(self.cert).write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.key)
        return leaf


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str | None = HOST) -> ssl.SSLObject:
    """The client's end after a handshake in memory, or what was wrong with it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    # In TLS 1.3 the client hears only now whether it is accepted.
    ends[1].write(b"x")
    assert ends[0].read() == b"x"
    return ends[0]


def issuer(engine: ssl.SSLObject) -> bytes:
    certificate = engine.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


# --- contexts -------------------------------------------------------------------------------------


def test_both_ends_speak_tls_with_verified_names_and_http_1_1(files: Files) -> None:
    engine = shake_hands(client_context(ca_file=files.ca), server_context(files.cert, files.key))
    assert engine.selected_alpn_protocol() == "http/1.1"
    assert engine.version() == "TLSv1.3"


def test_no_version_of_tls_before_1_2_is_spoken(files: Files) -> None:
    for context in (client_context(ca_file=files.ca), client_context(), server_context(files.cert, files.key)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF


def test_another_authority_and_another_name_are_not_trusted(files: Files) -> None:
    server = server_context(files.cert, files.key)
    for client, host in ((client_context(), HOST), (client_context(ca_file=files.ca), "other.example")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(client, server, host)


def test_insecure_trusts_everybody(files: Files) -> None:
    shake_hands(client_context(insecure=True), server_context(files.cert, files.key), "other.example")


def test_clients_must_show_a_certificate_if_there_is_an_authority_for_them(files: Files, tmp_path: Path) -> None:
    leaf, stranger = files.authority.issue_cert("client@example.com"), trustme.CA().issue_cert("client@example.com")
    mine, other = str(tmp_path / "mine.pem"), str(tmp_path / "other.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(mine)
    stranger.private_key_and_cert_chain_pem.write_to_path(other)
    server = server_context(files.cert, files.key, files.ca)
    shake_hands(client_context(ca_file=files.ca, cert=mine), server)
    for cert in (None, other):
        with pytest.raises(ssl.SSLError):
            shake_hands(client_context(ca_file=files.ca, cert=cert), server)


def test_certificate_and_key_may_be_in_one_file(files: Files) -> None:
    Path(files.cert).write_bytes(Path(files.cert).read_bytes() + Path(files.key).read_bytes())
    shake_hands(client_context(ca_file=files.ca), server_context(files.cert))


# --- what cannot be used --------------------------------------------------------------------------


def swap_key(files: Files) -> None:
    trustme.CA().issue_cert(HOST).private_key_pem.write_to_path(files.key)


def encrypt_key(files: Files, form: PrivateFormat = PrivateFormat.PKCS8) -> None:
    key = load_pem_private_key(Path(files.key).read_bytes(), None)
    Path(files.key).write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"hush")))


BAD: list[tuple[Callable[[Files], object], str]] = [
    (swap_key, "the key does not belong to the certificate"),
    (encrypt_key, "the key has a password"),
    (lambda files: encrypt_key(files, PrivateFormat.TraditionalOpenSSL), "the key has a password"),
    (
        lambda files: Path(files.key).write_bytes(b"no key"),
        "there is no certificate with its key in PEM",
    ),
    (lambda files: Path(files.cert).write_bytes(b""), "there is no certificate in PEM in it"),
    (lambda files: Path(files.cert).unlink(), "No such file or directory"),
]


@pytest.mark.parametrize(("spoil", "why"), BAD)
def test_files_that_cannot_be_used_are_named(files: Files, spoil: Callable[[Files], object], why: str) -> None:
    spoil(files)
    for server in (True, False):
        with pytest.raises(BadCertificate) as caught:
            server_context(files.cert, files.key) if server else client_context(cert=files.cert, key=files.key)
        text = str(caught.value)
        assert text.startswith(f"--cert {files.cert!r} and --key {files.key!r}: {why}")
        assert "\n" not in text


def test_a_certificate_without_its_key_is_told_how_to_give_it(files: Files) -> None:
    with pytest.raises(BadCertificate, match="there is no key in it: give the file that has it with --key"):
        server_context(files.cert)


def test_authorities_that_cannot_be_used_are_named(files: Files) -> None:
    with pytest.raises(BadCertificate, match=r"^--ca-file '.*': there is no certificate in PEM in it$"):
        client_context(ca_file=files.key)
    with pytest.raises(BadCertificate, match=r"^--ca-file '.*': No such file or directory$"):
        client_context(ca_file="missing")
    with pytest.raises(BadCertificate, match=r"^--client-ca '.*': there is no certificate in PEM in it$"):
        server_context(files.cert, files.key, files.key)


# --- dates ----------------------------------------------------------------------------------------

_PAST, _FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
DATES = pytest.mark.parametrize(
    ("dates", "why"),
    [
        ({"not_before": _PAST, "not_after": _PAST.replace(year=2002)}, "it has expired"),
        ({"not_before": _FUTURE, "not_after": _FUTURE.replace(year=3000)}, "it is not valid yet"),
    ],
)


@DATES
@pytest.mark.parametrize("client_ca", [True, False])
def test_a_server_that_starts_with_a_certificate_out_of_date_is_warned(
    files: Files, dates: dict[str, datetime], why: str, client_ca: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files.renew(files.authority, **dates)
    ReloadingCertificate(files.cert, files.key, files.ca if client_ca else None)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"--cert {files.cert!r}: {why}")


@DATES
def test_a_new_certificate_that_is_out_of_date_does_not_take_the_place_of_a_good_one(
    files: Files, dates: dict[str, datetime], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, client = ReloadingCertificate(files.cert, files.key), client_context(ca_file=files.ca)
    files.renew(files.authority, **dates)
    assert not certificate.reload_if_changed()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert why in record.getMessage()
    shake_hands(client, certificate.context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_of_a_good_certificate_nothing_is_said(
    files: Files, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    context = server_context(files.cert, files.key, files.ca)
    context.minimum_version = context.maximum_version = version
    assert out_of_date(context, files.cert) is None
    ReloadingCertificate(files.cert, files.key)
    assert caplog.records == []


# --- renewal --------------------------------------------------------------------------------------


def test_a_new_certificate_is_for_handshakes_from_now_on_in_the_same_context(files: Files) -> None:
    certificate = ReloadingCertificate(files.cert, files.key)
    context, client = certificate.context, client_context(ca_file=files.ca)
    before = issuer(shake_hands(client, context))
    assert not certificate.changed
    files.renew(files.authority)
    assert certificate.changed
    assert issuer(shake_hands(client, context)) == before
    assert certificate.reload_if_changed()
    assert certificate.context is context
    after = shake_hands(client, context)
    assert issuer(after) != before
    assert after.selected_alpn_protocol() == "http/1.1"
    assert not certificate.reload_if_changed()


def test_a_client_that_names_no_host_gets_the_new_one_too(files: Files) -> None:
    certificate = ReloadingCertificate(files.cert, files.key)
    client = client_context(insecure=True)
    before = issuer(shake_hands(client, certificate.context, None))
    files.renew(files.authority)
    assert certificate.reload()
    assert issuer(shake_hands(client, certificate.context, None)) != before


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_authorities_for_clients_take_the_place_of_the_old_ones(
    files: Files, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    other, client_ca = trustme.CA(), tmp_path / "clients.pem"
    client_ca.write_bytes(files.authority.cert_pem.bytes())
    contexts = []
    for name, authority in (("old", files.authority), ("new", other)):
        file = tmp_path / name
        authority.issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(str(file))
        contexts.append(client_context(ca_file=files.ca, cert=str(file)))
        contexts[-1].maximum_version = version
    old, new = contexts
    certificate = ReloadingCertificate(files.cert, files.key, str(client_ca))
    shake_hands(old, certificate.context)
    client_ca.write_bytes(other.cert_pem.bytes())
    assert certificate.reload_if_changed()
    shake_hands(new, certificate.context)
    with pytest.raises(ssl.SSLError):
        shake_hands(old, certificate.context)


@pytest.mark.parametrize(("spoil", "why"), BAD)
def test_a_bad_new_certificate_changes_nothing_and_is_said_in_one_line(
    files: Files, spoil: Callable[[Files], object], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, client = ReloadingCertificate(files.cert, files.key), client_context(ca_file=files.ca)
    before = issuer(shake_hands(client, certificate.context))
    spoil(files)
    assert certificate.changed
    assert not certificate.reload_if_changed()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert why in record.getMessage()
    assert "\n" not in record.getMessage()
    assert issuer(shake_hands(client, certificate.context)) == before
    # It is not tried again, and not said again, before something changes.
    assert not certificate.changed
    files.renew(files.authority)
    assert certificate.reload_if_changed()
    assert issuer(shake_hands(client, certificate.context)) != before


def test_a_file_put_in_its_place_by_renaming_is_a_change(files: Files, tmp_path: Path) -> None:
    """Of the same size and with the same time, as a copy that keeps times would have it."""
    certificate = ReloadingCertificate(files.cert, files.key)
    times = os.stat(files.cert)
    copy = tmp_path / "copy"
    copy.write_bytes(Path(files.cert).read_bytes())
    os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.rename(files.cert)
    assert certificate.changed


# --- throw-away -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_throw_away_certificate_is_for_loopback(tmp_path: Path, host: str) -> None:
    made = throw_away()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(made.authority)
    engine = shake_hands(client_context(ca_file=str(ca_file)), made.context, host)
    assert engine.selected_alpn_protocol() == "http/1.1"
    assert made.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_each_has_an_authority_of_its_own() -> None:
    first, second = throw_away(), throw_away()
    assert first.authority != second.authority
    assert "PRIVATE KEY" not in first.authority
