"""PURE. Who may use the proxy: user names and passwords, compared in constant time (RFC 1929)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping


class Users:
    """Users with their passwords, as bytes: what encoding a client uses is not said on the wire."""

    def __init__(self, passwords: Mapping[bytes, bytes]) -> None:
        # Digests are of one length, so comparing them tells nothing about that of a secret.
        self._digests = [_digest(name, password) for name, password in passwords.items()]

    def admits(self, name: bytes, password: bytes) -> bool:
        """Whether it is the password of that user. It takes as long for an unknown user as for a known one."""
        digest = _digest(name, password)
        admitted = False
        for known in self._digests:
            admitted |= hmac.compare_digest(known, digest)
        return admitted

    def __repr__(self) -> str:
        return f"<Users, {len(self._digests)} of them>"


def _digest(name: bytes, password: bytes) -> bytes:
    # The length keeps "ab" + "c" apart from "a" + "bc".
    return hashlib.sha256(len(name).to_bytes(8, "big") + name + password).digest()
