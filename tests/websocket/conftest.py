"""Certificates of an authority that only these tests trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from wspool.websocket._tls import default_context


class Certificates:
    """One authority, and what it has signed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.ca_file = str(directory / "authority.pem")
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.server = self.authority.issue_cert(
            "localhost", "127.0.0.1", "::1", "server.example", "wspool.example", "bücher.example"
        )
        self.client = self.authority.issue_cert("client@example.com")
        self.client_file = str(directory / "client.pem")
        self.client.private_key_and_cert_chain_pem.write_to_path(self.client_file)

    def server_context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """A new context for a server, by default with the certificate for localhost."""
        context = default_context(server_side=True)
        (certificate or self.server).configure_cert(context)
        self.authority.configure_trust(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A new context for a client that trusts the authority."""
        context = default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.server_context()


@pytest.fixture
def client_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client_context()
