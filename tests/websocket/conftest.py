"""Certificates of an authority that only these tests trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme


class Certificates:
    """One authority, and what it has signed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.ca_file = str(directory / "authority.pem")
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.server = self.authority.issue_cert("localhost", "127.0.0.1", "server.example")
        self.client = self.authority.issue_cert("client@example.com")
        self.client_file = str(directory / "client.pem")
        self.client.private_key_and_cert_chain_pem.write_to_path(self.client_file)

    def server_context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """A new context for a server, by default with the certificate for localhost."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        (certificate or self.server).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A new context for a client that trusts the authority."""
        return ssl.create_default_context(cafile=self.ca_file)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.server_context()


@pytest.fixture
def client_context(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client_context()
