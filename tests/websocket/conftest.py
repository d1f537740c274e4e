"""Certificates for the tests: one authority for the whole run."""

from __future__ import annotations

import ssl
from functools import cache

import pytest
import trustme

from wspool.websocket._tls import default_context


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def certificate() -> trustme.LeafCert:
    return authority().issue_cert("wspool.example", "bücher.example", "localhost", "127.0.0.1", "::1")


@pytest.fixture
def server_context() -> ssl.SSLContext:
    """Shows a certificate of the authority; takes those of clients if it is told to ask for them."""
    context = default_context(server_side=True)
    certificate().configure_cert(context)
    authority().configure_trust(context)
    return context


@pytest.fixture
def client_context() -> ssl.SSLContext:
    """Trusts the authority, and has a certificate of its own."""
    context = default_context()
    authority().configure_trust(context)
    certificate().configure_cert(context)
    return context
