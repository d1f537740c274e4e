"""`ssh` through `nc -X 5` to an sshd of our own: an interactive protocol, and both ends close in their own order."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path
from socketserver import BaseRequestHandler

import pytest

from tests.socks_proxy.end_to_end.content import content
from tests.socks_proxy.end_to_end.origins import Origin, serving
from tests.socks_proxy.end_to_end.programs import LIMIT, environment

# Where Debian puts it is not on everybody's path.
SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
PROGRAMS = {
    "ssh": shutil.which("ssh"),
    "ssh-keygen": shutil.which("ssh-keygen"),
    "sshd": SSHD,
    "nc": shutil.which("nc"),
}
MISSING = [name for name, path in PROGRAMS.items() if path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}")


def nc_speaks_socks() -> bool:
    """There are several programs of that name; -X is OpenBSD's."""
    usage = subprocess.run([str(PROGRAMS["nc"]), "-h"], capture_output=True, text=True, check=False)
    return "-X" in usage.stdout + usage.stderr


class Keys:
    """Throw-away keys of the host and of the user, and the files that name them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("host", "user"):
            keygen = [
                str(PROGRAMS["ssh-keygen"]),
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                name,
                "-f",
                str(directory / name),
            ]
            subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
        self.config = directory / "sshd_config"
        self.config.write_text(
            f"HostKey {directory / 'host'}\nAuthorizedKeysFile {directory / 'user.pub'}\n"
            # The files are in a directory for tests, which others may write to.
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nPrintMotd no\nPidFile none\n"
        )

    def known_hosts(self, port: int) -> Path:
        kind, key, _ = (self.directory / "host.pub").read_text().split()
        file = self.directory / "known_hosts"
        file.write_text(f"[localhost]:{port} {kind} {key}\n")
        return file


class SSHServer(BaseRequestHandler):
    """Hands a connection to an sshd of its own, as inetd does: so the port is ours from the start."""

    def handle(self) -> None:
        assert isinstance(self.server, SSHOrigin)
        connection: socket.socket = self.request
        with self.server.log.open("ab") as log:
            command = [str(SSHD), "-i", "-e", "-f", str(self.server.keys.config)]
            process = subprocess.Popen(command, stdin=connection.fileno(), stdout=connection.fileno(), stderr=log)
        process.wait()


class SSHOrigin(Origin):
    def __init__(self, keys: Keys) -> None:
        super().__init__(SSHServer)
        self.keys = keys
        self.log = keys.directory / "sshd.log"
        self.log.touch()


@pytest.fixture(scope="session")
def ssh_origin(tmp_path_factory: pytest.TempPathFactory) -> Generator[SSHOrigin, None, None]:
    if not nc_speaks_socks():
        pytest.skip("nc on this machine has no -X")
    if os.geteuid() == 0:
        # Where sshd drops its rights; the service makes it when it starts, and here it has not.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    origin = SSHOrigin(Keys(tmp_path_factory.mktemp("ssh")))
    with serving(origin):
        yield origin


def ssh(origin: SSHOrigin, proxy: int, command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command there, with that as its standard input."""
    options = {
        "IdentityFile": origin.keys.directory / "user",
        "UserKnownHostsFile": origin.keys.known_hosts(origin.port),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ProxyCommand": f"{PROGRAMS['nc']} -X 5 -x 127.0.0.1:{proxy} %h %p",
    }
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    target = ["-p", str(origin.port), f"{getpass.getuser()}@localhost", command]
    return subprocess.run(
        [str(PROGRAMS["ssh"]), "-F", "none", "-T", *flags, *target],
        input=data,
        capture_output=True,
        env=environment(),
        timeout=LIMIT,
        check=False,
    )


def test_ssh_runs_a_command_and_hears_how_it_ended(ssh_origin: SSHOrigin, proxy: int) -> None:
    done = ssh(ssh_origin, proxy, "echo here; echo there >&2; exit 7")
    assert done.stdout == b"here\n", (done.stderr, ssh_origin.log.read_text())
    assert b"there\n" in done.stderr
    assert done.returncode == 7


def test_ssh_carries_a_large_standard_input_to_its_end_and_back(ssh_origin: SSHOrigin, proxy: int) -> None:
    done = ssh(ssh_origin, proxy, "cat", content(3_000_000))
    assert done.returncode == 0, (done.stderr, ssh_origin.log.read_text())
    assert done.stdout == content(3_000_000)
