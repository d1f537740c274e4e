"""The options of both ends, on the real command line: each does what its help says.

What an option means does not depend on the event loop: here it is the default one.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, StreamRequestHandler

import pytest
import trustme

from examples.socks_proxy.codes import Code
from tests.socks_proxy.end_to_end import raw_socks
from tests.socks_proxy.end_to_end.conftest import TOKEN, Launcher
from tests.socks_proxy.end_to_end.origins import HTTPOrigin, Origin, serving
from tests.socks_proxy.end_to_end.programs import LIMIT, Program, port_of, wait_until
from tests.socks_proxy.end_to_end.raw_socks import reply_to

PRIVATE = "--allow-private"


@pytest.fixture(scope="session")
def backend() -> str:
    return "auto"


def works(proxy: int, echo: Origin) -> bool:
    with raw_socks.connect(proxy, "127.0.0.1", echo.port) as stream:
        stream.sendall(b"hello")
        return raw_socks.receive_exactly(stream, 5) == b"hello"


def code(proxy: int, echo: Origin) -> int:
    return reply_to(proxy, "127.0.0.1", echo.port).code


def says(program: Program, what: str) -> None:
    """It logs that, soon: of a session, when all of it is over."""
    wait_until(lambda: what in program.said(), program.said)


def client(launcher: Launcher, url: str, *arguments: str, **environment: str) -> tuple[Program, int]:
    """A client end with nothing but what it is given, apart from the token."""
    ends = ["--listen", "127.0.0.1:0", "--server", url, "--token-file", launcher.token_file]
    program = launcher.start("client", *ends, *arguments, **environment)
    return program, port_of(program.ready("socks5"))


def server(launcher: Launcher, *arguments: str, scheme: str = "wss") -> tuple[Program, str]:
    """A server end, likewise."""
    program = launcher.start("server", "--listen", "127.0.0.1:0", *arguments)
    return program, program.ready(scheme)


# --- TLS --------------------------------------------------------------------------------------------------------


class Authority:
    """Its files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        directory.mkdir()
        self.ca_file = str(directory / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str) -> str:
        """A certificate with its key, in one file."""
        path = self._directory / f"{name}.pem"
        self._authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """Another authority than the launcher's."""
    return Authority(tmp_path / "other")


def test_without_the_right_authority_there_is_no_tunnel(launcher: Launcher, other: Authority, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    for trusted in ((), ("--ca-file", other.ca_file)):
        program, proxy = client(launcher, url, *trusted, "--min-idle", "0")
        assert code(proxy, echo) == Code.GENERAL_FAILURE
        says(program, "its certificate is not accepted")


def test_an_insecure_client_trusts_everybody_and_warns_of_it(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    program, proxy = client(launcher, url, "--insecure")
    assert works(proxy, echo)
    assert "warning --insecure: anybody on the way" in program.said()


def test_a_server_is_verified_by_another_name_than_that_of_its_url(
    launcher: Launcher, other: Authority, echo: Origin
) -> None:
    token = ("--token-file", launcher.token_file)
    _, url = server(launcher, "--cert", other.issue("proxy.example"), PRIVATE, *token)
    assert works(client(launcher, url, "--ca-file", other.ca_file, "--sni", "proxy.example")[1], echo)
    _, proxy = client(launcher, url, "--ca-file", other.ca_file, "--sni", "another.example")
    assert code(proxy, echo) == Code.GENERAL_FAILURE
    _, proxy = client(launcher, url, "--ca-file", other.ca_file)
    assert code(proxy, echo) == Code.GENERAL_FAILURE


def test_clients_can_be_known_by_their_certificate(launcher: Launcher, other: Authority, echo: Origin) -> None:
    """Without any token."""
    certificate = ("--cert", f"{launcher.directory}/cert.pem", "--key", f"{launcher.directory}/key.pem")
    _, url = server(launcher, *certificate, "--client-ca", other.ca_file, PRIVATE)
    trust = ("--ca-file", launcher.ca_file, "--min-idle", "0")
    known = launcher.start(
        "client", "--listen", "127.0.0.1:0", "--server", url, *trust, "--cert", other.issue("laptop.example")
    )
    assert works(port_of(known.ready("socks5")), echo)
    stranger = Authority(Path(launcher.directory, "stranger")).issue("laptop.example")
    for shown in (("--cert", stranger), ("--token-file", launcher.token_file)):
        unknown = launcher.start("client", "--listen", "127.0.0.1:0", "--server", url, *trust, *shown)
        assert code(port_of(unknown.ready("socks5")), echo) == Code.GENERAL_FAILURE


def certificate_of(url: str, *authorities: str) -> bytes:
    """What a server shows, if one of the authorities has signed it."""
    context = ssl.create_default_context()
    for authority in authorities:
        context.load_verify_locations(authority)
    with socket.create_connection(("127.0.0.1", port_of(url)), LIMIT) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            return tls.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize("by", ["SIGHUP", "a look at the file"])
def test_a_new_certificate_is_loaded_and_tunnels_go_on(
    by: str, launcher: Launcher, other: Authority, echo: Origin
) -> None:
    first, second = other.issue("localhost"), Authority(Path(launcher.directory, "second"))
    token = ("--token-file", launcher.token_file)
    program, url = server(launcher, "--cert", first, PRIVATE, *token)
    _, proxy = client(launcher, url.replace("127.0.0.1", "localhost"), "--ca-file", other.ca_file)
    with raw_socks.connect(proxy, "127.0.0.1", echo.port) as stream:
        old = certificate_of(url, other.ca_file)
        # A renaming, as careful programs do it; it is noticed without a signal, too.
        shutil.move(second.issue("localhost"), first)
        if by == "SIGHUP":
            program.signal(signal.SIGHUP)
        says(program, "the certificate was loaded again")
        assert certificate_of(url, second.ca_file) != old
        stream.sendall(b"hello")
        assert raw_socks.receive_exactly(stream, 5) == b"hello"


# --- on the way -------------------------------------------------------------------------------------------------


class ConnectProxy(StreamRequestHandler):
    """An HTTP proxy that knows CONNECT, and remembers what it was asked."""

    def handle(self) -> None:
        asked = b""
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            asked += line
        proxy = self.server
        assert isinstance(proxy, Recording)
        proxy.heads.append(asked)
        if proxy.wants not in asked:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
            return
        host, _, port = asked.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port)), LIMIT) as far:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=copy, args=(far, self.connection), daemon=True).start()
            copy(self.connection, far)


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of them has gone


class Recording(Origin):
    """A server that keeps the heads of the requests that it got."""

    def __init__(self, handler: type[BaseRequestHandler], wants: bytes = b"") -> None:
        super().__init__(handler)
        self.wants = wants
        self.heads: list[bytes] = []


@contextmanager
def recording(handler: type[BaseRequestHandler], wants: bytes = b"") -> Generator[Recording, None, None]:
    origin = Recording(handler, wants)
    with serving(origin):
        yield origin


def test_tunnels_go_by_way_of_an_http_proxy(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    with recording(ConnectProxy) as http, ExitStack() as stack:
        _, proxy = launcher.client(url, "--via", f"http://127.0.0.1:{http.port}", "--min-idle", "0")
        assert works(proxy, echo)
        assert http.heads[0].startswith(f"CONNECT 127.0.0.1:{port_of(url)} HTTP/1.1\r\n".encode())
        # The token is for who is behind it.
        assert TOKEN.encode() not in b"".join(http.heads)
        stack.close()


PASSWORD = "hunter2%2Fsecret"


def test_a_password_for_the_http_proxy_is_told_to_it_and_nobody_else(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    basic = b"Basic " + base64.b64encode(b"user:hunter2/secret")
    with recording(ConnectProxy, wants=basic) as http:
        via = f"http://user:{PASSWORD}@127.0.0.1:{http.port}"
        debug = ("--log-level", "debug", "--min-idle", "0")
        token = ("--token-file", launcher.token_file)
        program, proxy = launcher.client_with(url, *token, *debug, WSPOOL_VIA=via)
        assert works(proxy, echo)
        refused, proxy = launcher.client_with(url, *token, *debug, WSPOOL_VIA=via.replace("user:", "other:"))
        assert code(proxy, echo) == Code.GENERAL_FAILURE
        says(refused, "407")
        for said in (program.said(), refused.said()):
            assert "hunter2" not in said
            assert base64.b64encode(b"hunter2/secret").decode()[:8] not in said


def test_a_wrong_url_of_an_http_proxy_is_refused_without_its_password(launcher: Launcher, tmp_path: Path) -> None:
    ends = ("--listen", "127.0.0.1:0", "--server", "wss://proxy.example/", "--token-file", launcher.token_file)
    program = Program("client", *ends, "--via", f"http://user:{PASSWORD}@127.0.0.1:port", log=tmp_path / "refused")
    assert program.wait() == 2
    program.kill()
    assert "--via: it is no URL" in program.said()
    assert "hunter2" not in program.said()


class Refusing(StreamRequestHandler):
    """Remembers what it was asked, and refuses."""

    def handle(self) -> None:
        head = b""
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            head += line
        origin = self.server
        assert isinstance(origin, Recording)
        origin.heads.append(head)
        self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_headers_are_sent_with_the_upgrade(launcher: Launcher, echo: Origin) -> None:
    with recording(Refusing) as origin:
        headers = ("--header", "X-Route: blue", "--header", "User-Agent: a browser")
        _, proxy = client(launcher, f"ws://127.0.0.1:{origin.port}/", *headers, "--min-idle", "0")
        assert code(proxy, echo) == Code.GENERAL_FAILURE
        assert b"\r\nX-Route: blue\r\n" in origin.heads[0]
        assert b"\r\nUser-Agent: a browser\r\n" in origin.heads[0]


# --- the pool ---------------------------------------------------------------------------------------------------


def connections_to(port: int) -> int:
    """Those that are established, as the system sees them from the side that has called."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == f"0100007F:{port:04X}" and row[3] == "01" for row in rows)


def test_idle_tunnels_are_opened_in_advance_and_no_more_are_kept(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    program, proxy = launcher.client(url, "--min-idle", "5", "--max-idle", "6", "--log-format", "json")
    port = port_of(url)
    # Nobody has asked for a session.
    wait_until(lambda: connections_to(port) == 5, lambda: connections_to(port))
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(raw_socks.connect(proxy, "127.0.0.1", echo.port))
        assert connections_to(port) >= 10
    wait_until(lambda: connections_to(port) == 6, lambda: connections_to(port))
    wait_until(lambda: program.said().count('"outcome": "done"') == 10, program.said)


def test_there_are_only_so_many_tunnels_and_who_gets_none_in_time_is_told(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    _, proxy = launcher.client(url, "--max-size", "1", "--connect-timeout", "1")
    with raw_socks.connect(proxy, "127.0.0.1", echo.port):
        assert code(proxy, echo) == Code.GENERAL_FAILURE
    assert works(proxy, echo)


# --- the limits of the server -----------------------------------------------------------------------------------


def test_there_are_only_so_many_connections_at_once(launcher: Launcher, echo: Origin) -> None:
    program, url = launcher.server(PRIVATE, "--max-connections", "2")
    _, proxy = launcher.client(url, "--min-idle", "0", "--max-idle", "0")
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(raw_socks.connect(proxy, "127.0.0.1", echo.port))
        assert code(proxy, echo) == Code.GENERAL_FAILURE
        says(program, "a connection was refused: there are 2, 0 without a tunnel")
    wait_until(lambda: connections_to(port_of(url)) == 0, program.said)
    assert works(proxy, echo)


def test_there_are_only_so_many_sessions_at_once(launcher: Launcher, echo: Origin) -> None:
    program, url = launcher.server(PRIVATE, "--max-sessions", "2")
    _, proxy = launcher.client(url)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(raw_socks.connect(proxy, "127.0.0.1", echo.port))
        assert code(proxy, echo) == Code.GENERAL_FAILURE
        says(program, "limit reached: there are 2 sessions")
    wait_until(lambda: program.said().count("outcome=done") == 2, program.said)
    assert works(proxy, echo)


def test_there_are_only_so_many_handshakes_at_once(launcher: Launcher, echo: Origin) -> None:
    program, url = launcher.server(PRIVATE, "--max-handshakes", "2")
    _, proxy = launcher.client(url, "--min-idle", "0", "--max-idle", "0")
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url)), LIMIT))
        # They are accepted in their order.
        assert code(proxy, echo) == Code.GENERAL_FAILURE
        says(program, "a connection was refused: there are 2, 2 without a tunnel")
    wait_until(lambda: program.said().count("a connection brought no tunnel") == 2, program.said)
    assert works(proxy, echo)


def test_what_is_denied_is_denied_though_it_is_allowed(launcher: Launcher, echo: Origin, origin: HTTPOrigin) -> None:
    _, url = launcher.server("--allow", "127.0.0.0/8", "--deny", f"127.0.0.1:{origin.port}")
    _, proxy = launcher.client(url)
    assert works(proxy, echo)
    assert reply_to(proxy, "127.0.0.1", origin.port).code == Code.NOT_ALLOWED


# --- time -------------------------------------------------------------------------------------------------------


def test_an_application_has_only_so_long_for_its_greeting(launcher: Launcher) -> None:
    _, proxy = launcher.client("wss://127.0.0.1:1/", "--greeting-timeout", "0.3", "--min-idle", "0")
    with socket.create_connection(("127.0.0.1", proxy), LIMIT) as stream:
        stream.sendall(b"\x05")
        assert stream.recv(1) == b""


@pytest.mark.parametrize("which", ["client", "server"])
def test_a_session_in_which_nothing_moves_is_ended(which: str, launcher: Launcher, echo: Origin) -> None:
    limit = {which: ("--idle-timeout", "0.5")}
    program, url = launcher.server(PRIVATE, *limit.get("server", ()))
    near, proxy = launcher.client(url, *limit.get("client", ()))
    with raw_socks.connect(proxy, "127.0.0.1", echo.port) as stream, pytest.raises(ConnectionResetError):
        stream.recv(1)
    says(near if which == "client" else program, "idle too long")


@contextmanager
def unanswering() -> Generator[int, None, None]:
    """A port at which calls are neither taken nor refused: its queue is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_destination_that_does_not_answer_is_given_up(launcher: Launcher) -> None:
    _, url = launcher.server(PRIVATE, "--dial-timeout", "0.5")
    _, proxy = launcher.client(url)
    with unanswering() as port:
        assert reply_to(proxy, "127.0.0.1", port).code == Code.TTL_EXPIRED


# --- what strangers see -----------------------------------------------------------------------------------------


def page(url: str, path: str = "/", *, ca_file: str | None = None) -> bytes:
    """The answer to who asks for a page, with its head."""
    with ExitStack() as stack:
        stream: socket.socket = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(url)), LIMIT))
        if ca_file is not None:
            context = ssl.create_default_context(cafile=ca_file)
            stream = stack.enter_context(context.wrap_socket(stream, server_hostname="localhost"))
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return stack.enter_context(stream.makefile("rb")).read()


def test_a_stranger_sees_the_files_of_a_directory(launcher: Launcher, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("welcome")
    (tmp_path / "private").write_text("secret")
    _, url = launcher.server("--fallback-dir", str(site))
    for path in ("/", "/index.html"):
        assert page(url, path, ca_file=launcher.ca_file).endswith(b"\r\n\r\nwelcome")
    for path in ("/tunnel", "/../private", "/%2e%2e/private", "/nothing"):
        answer = page(url, path, ca_file=launcher.ca_file)
        assert answer.startswith(b"HTTP/1.1 404")
        assert b"secret" not in answer


def test_a_stranger_sees_another_website(launcher: Launcher, origin: HTTPOrigin) -> None:
    _, url = launcher.server("--fallback-url", origin.url)
    answer = page(url, "/bytes/5", ca_file=launcher.ca_file)
    assert answer.startswith(b"HTTP/1.1 200")
    assert page(url, "/nothing", ca_file=launcher.ca_file).startswith(b"HTTP/1.1 404")


def test_a_plain_server_is_for_those_behind_another(launcher: Launcher, echo: Origin) -> None:
    _, url = server(launcher, "--plain", PRIVATE, "--token-file", launcher.token_file, scheme="ws")
    assert b"It works" in page(url)
    _, proxy = client(launcher, url)
    assert works(proxy, echo)


# --- where options may stand ------------------------------------------------------------------------------------


def test_all_can_stand_in_a_file_and_in_the_environment(launcher: Launcher, echo: Origin, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(
        'log-format = "json"\n'
        "[server]\n"
        'listen = "127.0.0.1:0"\n'
        'path = "/from/a/file"\n'
        # Seen from the folder of the file.
        'cert = "cert.pem"\nkey = "key.pem"\ntoken_file = "token"\n'
        f'allow = ["127.0.0.1:{echo.port}"]\n'
    )
    assert tmp_path == launcher.directory
    program = launcher.start("server", "--config", str(tmp_path / "server.toml"))
    url = program.ready("wss")
    assert url.endswith("/from/a/file")
    environment = {
        "WSPOOL_LISTEN": "127.0.0.1:0",
        "WSPOOL_SERVER": url,
        "WSPOOL_TOKEN": TOKEN,
        "WSPOOL_CA_FILE": launcher.ca_file,
        "WSPOOL_LOG_FORMAT": "text",
    }
    near = launcher.start("client", **environment)
    proxy = port_of(near.ready("socks5"))
    assert works(proxy, echo)
    # The command line comes first.
    over = launcher.start("client", "--server", url.replace("/from/a/file", "/elsewhere"), **environment)
    assert code(port_of(over.ready("socks5")), echo) == Code.GENERAL_FAILURE
    says(program, '"session"')
    assert all(json.loads(line) for line in program.said().splitlines())


def test_the_log_is_one_object_a_line_with_what_is_known_of_a_session(launcher: Launcher, echo: Origin) -> None:
    json_log = ("--log-format", "json")
    program, url = launcher.server(PRIVATE, *json_log)
    near, proxy = launcher.client(url, *json_log)
    assert works(proxy, echo)
    for each, role in ((near, "client"), (program, "server")):
        says(each, '"outcome"')
        (entry,) = [entry for entry in map(json.loads, each.said().splitlines()) if entry["message"] == "session"]
        assert (
            entry
            | {
                "level": "info",
                "role": role,
                "destination": f"127.0.0.1:{echo.port}",
                "outcome": "done",
                "bytes_up": 5,
                "bytes_down": 5,
            }
            == entry
        )
        assert entry["duration"] > 0


def test_a_quiet_log_has_no_line_for_a_session(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    near, proxy = launcher.client(url, "--log-level", "warning")
    assert works(proxy, echo)
    near.stop()
    assert near.said() == ""


def test_one_user_with_a_password_file_is_enough(launcher: Launcher, echo: Origin) -> None:
    _, url = launcher.server(PRIVATE)
    password = launcher.file("password", "wonderland\n")
    _, proxy = launcher.client(url, "--user", "alice", "--password-file", password)
    request = bytes([5, raw_socks.CONNECT, 0]) + raw_socks.encoded_address("127.0.0.1", echo.port)
    for word, answer in ((b"wonderland", b"\x01\x00"), (b"looking-glass", b"\x01\x01")):
        with socket.create_connection(("127.0.0.1", proxy), LIMIT) as stream:
            stream.sendall(b"\x05\x01\x02\x01\x05alice" + bytes([len(word)]) + word)
            assert raw_socks.receive_exactly(stream, 4) == b"\x05\x02" + answer
            if answer == b"\x01\x00":
                stream.sendall(request)
                assert raw_socks.read_reply(stream).code == Code.SUCCEEDED
