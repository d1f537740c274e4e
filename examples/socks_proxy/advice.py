"""SHELL. What goes wrong with a tunnel, in the words of who runs the program: its options, no library's arguments."""

from __future__ import annotations

import re
import ssl

from wspool.websocket import UpgradeFailed, WebSocketError

# By the arguments of `connect_websocket`.
_OPTIONS = {
    "ca_file": "--ca-file",
    "client_cert": "--cert and --key",
    "connect_timeout": "--connect-timeout",
    "server_hostname": "--sni",
}
_ARGUMENT = re.compile("|".join(rf"\b{name}\b" for name in _OPTIONS))
_BUSY = 429

# By what OpenSSL calls them (openssl/sslerr.h).
_OF_CLIENTS = {
    "HTTP_REQUEST": "plain HTTP came to the port for TLS (a client with ws:// in place of wss://?)",
    "WRONG_VERSION_NUMBER": "what came to the port for TLS is no TLS (a client with ws:// in place of wss://?)",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has shown no certificate, which --client-ca asks for",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate is of no authority in --client-ca",
}
_REFUSED_BY_CLIENT = re.compile("ALERT_(BAD_CERTIFICATE|CERTIFICATE_EXPIRED|CERTIFICATE_UNKNOWN|UNKNOWN_CA)")


def of_dial(error: WebSocketError, *, secure: bool) -> str:
    """Why the client could open no tunnel, and what to do."""
    text = _ARGUMENT.sub(lambda found: _OPTIONS[found[0]], str(error))
    if isinstance(error, UpgradeFailed):
        if error.status is None and not secure:
            text += "; if it speaks TLS, --server begins with wss://"
        elif error.status is not None and error.status < 500 and error.status != _BUSY:
            text += "; check the token as well: who has a wrong path or token gets an ordinary page"
    return text


def of_accept(error: Exception) -> str:
    """Why a connection brought the server no tunnel."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason in _OF_CLIENTS:
        return _OF_CLIENTS[reason]
    if reason is not None and _REFUSED_BY_CLIENT.search(reason):
        return f"the client does not accept this server's certificate ({reason.rpartition('ALERT_')[2]})"
    return str(error) or type(error).__name__
