"""Both ends of the proxy as processes, on each backend, and local servers that stand for the rest of the world."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
import trustme

from tests.socks_proxy.end_to_end.origins import Echo, HalfClose, HTTPHandler, HTTPOrigin, Origin, serving
from tests.socks_proxy.end_to_end.programs import Program, port_of

# Characters of each log in a report: its end.
SHOWN = 3_000

TOKEN = "a-token-that-only-these-tests-know"
USERS = {"alice": "wonderland", "bob": "builder:2"}
# No log has them.
SECRETS = (TOKEN, *USERS.values())

started: list[Program] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the programs that it used have logged."""
    report = yield
    if report.failed:
        report.sections.extend((f"log of {program}", program.said()[-SHOWN:]) for program in started)
    return report


class Launcher:
    """Starts ends of the proxy on one backend, with what they must have in common: a certificate and a token."""

    def __init__(self, backend: str, directory: Path, stack: ExitStack) -> None:
        self.backend = backend
        self.directory = directory
        self.stack = stack
        self.open_files: int | None = None
        """What a program may have that is started from now on; None for as many as this one."""
        self._numbers = count()
        authority = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(directory / "cert.pem"), append=True)
        self.token_file = self.file("token", f"{TOKEN}\n")

    def file(self, name: str, text: str) -> str:
        """The path of a file with a secret, as the proxy wants it: for no one else to read."""
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def start(self, *arguments: str, **environment: str) -> Program:
        """A program that has ended well, or is ended, when the fixture is left."""
        log = self.directory / f"log-{next(self._numbers)}"
        arguments = (*arguments, "--backend", self.backend)
        return self.stack.enter_context(running(*arguments, log=log, open_files=self.open_files, **environment))

    def server(self, *arguments: str, listen: str = "127.0.0.1:0") -> tuple[Program, str]:
        """A server end that accepts connections, and its URL."""
        cert, key = str(self.directory / "cert.pem"), str(self.directory / "key.pem")
        tls = ["--cert", cert, "--key", key, "--token-file", self.token_file]
        server = self.start("server", "--listen", listen, "--path", "/tunnel", *tls, *arguments)
        return server, server.ready("wss")

    def client(self, url: str, *arguments: str) -> tuple[Program, int]:
        """A client end that accepts connections, and its port."""
        return self.client_with(url, "--token-file", self.token_file, *arguments)

    def client_with(self, url: str, *arguments: str, **environment: str) -> tuple[Program, int]:
        """The same, with another token or none."""
        ends = ["--listen", "127.0.0.1:0", "--server", url, "--ca-file", self.ca_file]
        client = self.start("client", *ends, *arguments, **environment)
        return client, port_of(client.ready("socks5"))


@contextmanager
def running(
    *arguments: str, log: Path, open_files: int | None = None, **environment: str
) -> Generator[Program, None, None]:
    """It ends with status 0, and without a word about a bug, or the test fails."""
    program = Program(*arguments, log=log, open_files=open_files, **environment)
    started.append(program)
    try:
        yield program
        program.stop()
        assert not any(secret in program.said() for secret in SECRETS), f"{program} tells secrets:\n{program.said()}"
    finally:
        program.kill()
        started.remove(program)


@pytest.fixture(scope="session", params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """What the proxy runs on; the tests themselves are synchronous."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def shared(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Launcher, None, None]:
    """For programs that many tests use."""
    with ExitStack() as stack:
        yield Launcher(backend, tmp_path_factory.mktemp(f"shared-{backend}"), stack)


@pytest.fixture
def launcher(backend: str, tmp_path: Path) -> Generator[Launcher, None, None]:
    """For programs of one test, to do with as it likes."""
    with ExitStack() as stack:
        yield Launcher(backend, tmp_path, stack)


@pytest.fixture(scope="session")
def server_url(shared: Launcher) -> str:
    """A server that dials loopback addresses too."""
    return shared.server("--allow-private")[1]


@pytest.fixture(scope="session")
def proxy(shared: Launcher, server_url: str) -> int:
    """The port of a client without users."""
    return shared.client(server_url)[1]


@pytest.fixture(scope="session")
def proxy_with_users(shared: Launcher, server_url: str) -> int:
    """The port of a client that knows alice and bob."""
    users = shared.file("users", "".join(f"{name}:{password}\n" for name, password in USERS.items()))
    return shared.client(server_url, "--users-file", users)[1]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the origin serves below /files/."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def origin(files: Path) -> Generator[HTTPOrigin, None, None]:
    server = HTTPOrigin(HTTPHandler, directory=files)
    with serving(server):
        yield server


@pytest.fixture(scope="session")
def origin6() -> Generator[HTTPOrigin, None, None]:
    try:
        server = HTTPOrigin(HTTPHandler, "::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback address on this machine: {error}")
    with serving(server):
        yield server


@pytest.fixture(scope="session")
def echo() -> Generator[Origin, None, None]:
    server = Origin(Echo)
    with serving(server):
        yield server


@pytest.fixture(scope="session")
def half_close() -> Generator[Origin, None, None]:
    server = Origin(HalfClose)
    with serving(server):
        yield server
