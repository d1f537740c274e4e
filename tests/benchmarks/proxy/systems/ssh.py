"""`ssh -D`, with an sshd of its own and throw-away keys: one connection, multiplexed."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

from ..processes import Command
from .base import Site, System, not_installed, program

_SERVER = (
    "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    "PermitRootLogin prohibit-password\nPidFile none\nAllowTcpForwarding yes\n"
)


class Ssh(System):
    def __init__(self, cipher: str = "") -> None:
        self.name = f"ssh-{cipher.partition('@')[0]}" if cipher else "ssh"
        self._cipher = cipher

    def missing(self) -> str | None:
        return not_installed("ssh", "sshd", "ssh-keygen")

    def ends(self, site: Site) -> list[Command]:
        host, user = _key(site.folder / "host"), _key(site.folder / "user")
        config = site.folder / "sshd_config"
        listen = f"ListenAddress 127.0.0.1:{site.listen}\n"
        config.write_text(f"HostKey {host}\nAuthorizedKeysFile {user}.pub\n{listen}{_SERVER}")
        if os.geteuid() == 0:
            # Where sshd drops its rights: the service makes it when it starts, and here it has not.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return [
            Command("server", [str(program("sshd")), "-D", "-e", "-f", str(config)], site.listen),
            Command("client", [*self._client(user, site), "127.0.0.1"], site.socks),
        ]

    def _client(self, user: Path, site: Site) -> list[str]:
        options = {
            "User": getpass.getuser(),
            "IdentityFile": str(user),
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "ExitOnForwardFailure": "yes",
            **({"Ciphers": self._cipher} if self._cipher else {}),
        }
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        forward = ["-N", "-D", f"127.0.0.1:{site.socks}", "-p", str(site.server)]
        return [str(program("ssh")), "-F", "none", *flags, *forward]


def _key(file: Path) -> Path:
    if not file.exists():
        keygen = [str(program("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
        subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    return file
