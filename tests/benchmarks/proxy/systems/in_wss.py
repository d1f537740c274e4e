"""A program for the environments of peers that speak plain websocket only, or that cannot switch compression off.

python in_wss.py PEER server|client CERT KEY on|off ARGUMENTS…: the peer's own command line, with TLS at its server, and
permessage-deflate as said. All else is as the peer has it. Its client trusts SSL_CERT_FILE.
"""

from __future__ import annotations

import functools
import runpy
import ssl
import sys
from importlib import import_module
from typing import Any

# Where each peer looks for the two functions of websockets, for its server and for its client.
_PLACES = {
    "pywssocks": (("pywssocks.server", "serve"), ("pywssocks.client", "connect")),
    "websocks": (("websockets", "serve"), ("websockets", "connect")),
}


def main() -> None:
    peer, role, cert, key, deflate, *arguments = sys.argv[1:]
    more: dict[str, Any] = {} if deflate == "on" else {"compression": None}
    place = _PLACES[peer][role == "client"]
    if role == "server":
        more["ssl"] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        more["ssl"].load_cert_chain(cert, key)
    if peer == "websocks":
        # Its websockets had that name there; the oldest that runs on this Python has not.
        import_module("websockets.server").HTTPResponse = Any  # type: ignore[attr-defined]  # that is the point
    found = import_module(place[0])
    setattr(found, place[1], functools.partial(getattr(found, place[1]), **more))
    sys.argv = [peer, role, *arguments]
    runpy.run_module(peer, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
