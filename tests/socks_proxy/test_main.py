"""The program: what it says when it starts, how it stops, and that wrong usage costs one line and status 2.

The two ends are replaced by small ones that do what is agreed with the real ones; those have tests of their own.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import platform
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trustme

from examples.socks_proxy import __main__ as program_main
from examples.socks_proxy.certificates import ReloadingCertificate
from examples.socks_proxy.command_line import PROGRAM_NAME
from examples.socks_proxy.program import Program
from examples.socks_proxy.settings import ClientSettings, ServerSettings, UsageError, parse
from wspool.websocket import ConnectFailed, InvalidURL, listen_tcp

REPOSITORY = Path(__file__).parents[2]
TOKEN = "0123456789abcdef"
CLIENT = ["client", "--listen", "127.0.0.1:0", "--server", "wss://proxy.example/"]
SERVER = ["server", "--listen", "127.0.0.1:0", "--plain"]


# --- ends that do what is agreed -----------------------------------------------------------------


class Ends:
    """What the program has done with its ends."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.settings: dict[str, Any] = {}
        self.context: ssl.SSLContext | None = None
        self.reload: ReloadingCertificate | None = None
        self.ca: str | None = None
        self.fails: dict[str, BaseException] = {}
        """Before they are ready."""
        self.fails_later: dict[str, BaseException] = {}

    async def run_client(self, settings: ClientSettings, *, ready: Callable[[str], None], stop: anyio.Event) -> None:
        self.ca = None if settings.ca_file is None else await anyio.Path(settings.ca_file).read_text()
        await self._run("client", settings, "socks5://{}", ready, stop)

    async def run_server(
        self,
        settings: ServerSettings,
        *,
        ready: Callable[[str], None],
        stop: anyio.Event,
        context: ssl.SSLContext | None = None,
        reload: ReloadingCertificate | None = None,
    ) -> None:
        self.context, self.reload = context, reload
        await self._run("server", settings, f"ws{'' if context is None else 's'}://{{}}{settings.path}", ready, stop)

    async def _run(self, name: str, settings: Any, url: str, ready: Callable[[str], None], stop: anyio.Event) -> None:
        self.settings[name] = settings
        if name in self.fails:
            raise self.fails[name]
        async with await listen_tcp(*settings.listen) as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            self.order.append(f"{name} runs")
            ready(url.format(f"{settings.listen[0]}:{port}"))
            if name in self.fails_later:
                raise self.fails_later[name]
            await stop.wait()
        self.order.append(f"{name} ends")


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    ends = Ends()
    for name, function in (("client", ends.run_client), ("server", ends.run_server)):
        module = SimpleNamespace(**{f"run_{name}": function})
        monkeypatch.setitem(sys.modules, f"examples.socks_proxy.{name}", module)
    return ends


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """main() sets up the log of the process, which is pytest's here; and nobody's own settings are for these tests."""
    monkeypatch.setattr(program_main, "start_logging", lambda *_: None)
    for name in [name for name in os.environ if name.startswith("WSPOOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WSPOOL_TOKEN", TOKEN)


class Running:
    """The program in a task, and what it says."""

    def __init__(self, *arguments: str) -> None:
        self.settings = parse(arguments, {"WSPOOL_TOKEN": TOKEN})
        self.ended = anyio.Event()
        self._said, self._heard = anyio.create_memory_object_stream[str](100)

    async def line(self) -> str:
        """The next line on standard output."""
        return await self._heard.receive()

    async def run(self) -> None:
        with self._said, ExitStack() as stack:
            await Program(self.settings, stack, self._said.send_nowait).run()
        self.ended.set()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        signal.raise_signal(number)
        with anyio.fail_after(30):
            await self.ended.wait()
        self._heard.close()


@asynccontextmanager
async def running(*arguments: str) -> AsyncGenerator[Running]:
    """Run it, and see that it ends when it is told to."""
    program = Running(*arguments)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.run)
        yield program
        await program.stop()


async def fails(*arguments: str) -> BaseException:
    """What a run ends with."""
    program = Running(*arguments)
    with program._heard, pytest.raises(BaseException) as caught:
        await program.run()
    return caught.value


# --- both ends ------------------------------------------------------------------------------------


async def test_both_ends_find_and_trust_each_other(ends: Ends) -> None:
    async with running("--listen", "127.0.0.1:0") as program:
        server, client = await program.line(), await program.line()
        assert server.startswith("ready wss://127.0.0.1:")
        assert client.startswith("ready socks5://127.0.0.1:")
        assert ends.settings["client"].server == server.removeprefix("ready ")
        assert ends.settings["client"].token == ends.settings["server"].token
        assert ends.context is not None
        verifying = ssl.create_default_context(cadata=ends.ca)
        assert verifying.get_ca_certs()[0]["subject"] is not None
        assert "of this run only" in await program.line()
        url = client.removeprefix("ready socks5")
        assert await program.line() == f"Try it:  curl --proxy socks5h{url} https://example.com/"


async def test_each_run_has_a_token_and_an_authority_of_its_own(ends: Ends) -> None:
    seen = set()
    for _ in range(2):
        async with running("--listen", "127.0.0.1:0") as program:
            await program.line()
            await program.line()
            seen |= {ends.settings["server"].token, ends.ca}
    assert len(seen) == 4
    assert TOKEN not in seen


async def test_the_curl_command_mentions_users(ends: Ends, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("alice:hush")
    async with running("--listen", "127.0.0.1:0", "--users-file", str(users)) as program:
        said = [await program.line() for _ in range(5)]
        assert " --proxy-user NAME:PASSWORD " in said[3]
        assert "hush" not in "".join(said)


async def test_the_server_ends_after_the_client_and_nothing_stays(ends: Ends) -> None:
    async with running("--listen", "127.0.0.1:0") as program:
        await program.line()
        await program.line()
        folder = anyio.Path(ends.settings["client"].ca_file).parent
        assert await folder.exists()
    assert ends.order == ["server runs", "client runs", "client ends", "server ends"]
    assert not await folder.exists()


async def test_a_port_in_use_that_nobody_asked_for_is_exchanged_and_that_is_said(ends: Ends) -> None:
    program = Running()
    async with await listen_tcp("127.0.0.1", 0) as other:
        taken = other.extra(anyio.abc.SocketAttribute.local_port)
        assert program.settings.client is not None
        client = replace(program.settings.client, listen=("127.0.0.1", taken))
        program.settings = replace(program.settings, client=client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(program.run)
            await program.line()
            said = await program.line()
            assert said == f"cannot listen on 127.0.0.1:{taken}: Address already in use; taking a free port"
            ready = await program.line()
            assert ready.startswith("ready socks5://127.0.0.1:")
            assert not ready.endswith(f":{taken}")
            await program.stop()


async def test_a_port_in_use_that_was_asked_for_is_an_error(ends: Ends) -> None:
    async with await listen_tcp("127.0.0.1", 0) as other:
        listen = f"127.0.0.1:{other.extra(anyio.abc.SocketAttribute.local_port)}"
        for arguments in (["--listen", listen], [*CLIENT, "--listen", listen], [*SERVER, "--listen", listen]):
            error = await fails(*arguments)
            assert isinstance(error, UsageError)
            assert str(error) == f"cannot listen on {listen}: Address already in use"


async def test_without_trustme_it_is_said_what_to_install(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    error = await fails()
    assert isinstance(error, UsageError)
    assert "pip install -e '.[proxy]'" in str(error)


# --- one end --------------------------------------------------------------------------------------


async def test_a_client_says_when_it_is_ready_and_nothing_more(ends: Ends) -> None:
    async with running(*CLIENT) as program:
        assert (await program.line()).startswith("ready socks5://127.0.0.1:")
    assert ends.order == ["client runs", "client ends"]
    assert ends.settings["client"].token == TOKEN


async def test_a_plain_server_has_no_certificate(ends: Ends) -> None:
    async with running(*SERVER, "--path", "/hidden") as program:
        ready = await program.line()
        assert ready.startswith("ready ws://127.0.0.1:")
        assert ready.endswith("/hidden")
    assert (ends.context, ends.reload) == (None, None)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A certificate with its key in one file."""
    file = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    return str(file)


async def test_sighup_loads_the_certificate_again(ends: Ends, pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reloaded = anyio.Event()
    monkeypatch.setattr(ReloadingCertificate, "reload", lambda self: reloaded.set())
    async with running("server", "--listen", "127.0.0.1:0", "--cert", pem) as program:
        assert (await program.line()).startswith("ready wss://127.0.0.1:")
        assert ends.reload is not None
        assert ends.context is ends.reload.context
        signal.raise_signal(signal.SIGHUP)
        with anyio.fail_after(30):
            await reloaded.wait()
        assert ends.order == ["server runs"]


async def test_sighup_does_not_end_a_server_without_a_certificate(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    async with running(*SERVER) as program:
        await program.line()
        signal.raise_signal(signal.SIGHUP)
    # The signal that ended it came after it.
    assert "no certificate that could be loaded again" in caplog.text
    assert ends.order == ["server runs", "server ends"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_asks_for_a_graceful_stop(ends: Ends, number: signal.Signals) -> None:
    program = Running(*CLIENT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.run)
        await program.line()
        await program.stop(number)
    assert ends.order == ["client runs", "client ends"]


async def test_what_is_dangerous_is_warned_about_at_the_start(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    async with running(*CLIENT, "--insecure") as program:
        await program.line()
    assert [record.levelno for record in caplog.records if "--insecure" in record.getMessage()] == [logging.WARNING]


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [InvalidURL("bad"), OSError(errno.EACCES, "bad"), socket.gaierror(socket.EAI_NONAME, "bad")]
)
@pytest.mark.parametrize("arguments", [CLIENT, SERVER, ["--listen", "127.0.0.1:0"]])
async def test_what_does_not_let_an_end_start_is_the_users_to_mend(
    ends: Ends, arguments: list[str], error: Exception
) -> None:
    for inner in (error, ExceptionGroup("", [error])):
        ends.fails = {"client": inner, "server": inner}
        found = await fails(*arguments)
        assert isinstance(found, UsageError)
        assert "bad" in str(found)


@pytest.mark.parametrize("error", [RuntimeError("bug"), ConnectFailed("the far end is away")])
async def test_another_error_is_none_of_usage(ends: Ends, error: Exception) -> None:
    ends.fails["client"] = error
    assert await fails(*CLIENT) is error
    assert await fails("--listen", "127.0.0.1:0") is error


@pytest.mark.parametrize("end", ["client", "server"])
async def test_an_error_later_ends_it_all_and_is_not_the_users(ends: Ends, end: str) -> None:
    ends.fails_later[end] = error = OSError(errno.EMFILE, "no descriptors")
    assert await fails("--listen", "127.0.0.1:0") is error


USAGE: list[tuple[list[str], str]] = [
    (["--listen", "nowhere"], "--listen: 'nowhere' is no HOST:PORT"),
    (["client"], "--server is missing"),
    (["--token=0123456789abcdef"], "a token on the command line"),
    (["--what\never"], "there is no option --what\\never"),
    ([*CLIENT, "--ca-file", "missing"], "--ca-file: 'missing' cannot be read: No such file or directory"),
    ([*CLIENT, "--ca-file", __file__], "there is no certificate in PEM in it"),
    (["server", "--listen", "127.0.0.1:0", "--cert", __file__], "there is no certificate in PEM in it"),
    (
        ["server", "--listen", "192.0.2.1:0", "--plain"],
        "cannot listen on 192.0.2.1:0: Cannot assign requested address; it is no address of this machine",
    ),
    (["server", "--listen", "[2001:db8::1]:0", "--plain"], "cannot listen on [2001:db8::1]:0: "),
    (["server", "--listen", "nowhere.invalid:0", "--plain"], "cannot listen on nowhere.invalid:0: "),
]


@pytest.mark.parametrize(("arguments", "why"), USAGE)
def test_wrong_usage_is_one_line_and_status_2(
    ends: Ends, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert program_main.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"{PROGRAM_NAME}: error: ")
    assert why in err
    assert TOKEN not in err


def test_a_key_that_does_not_match_is_said_in_one_line(
    ends: Ends, capsys: pytest.CaptureFixture[str], pem: str, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(key))
    for arguments in (["server", "--listen", "127.0.0.1:0"], CLIENT):
        assert program_main.main([*arguments, "--cert", pem, "--key", str(key)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "the key does not belong to the certificate" in err


def test_an_error_of_ours_is_logged_and_status_1(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    ends.fails["client"] = error = RuntimeError("bug")
    assert program_main.main(CLIENT) == 1
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_ctrl_c_before_it_runs_is_no_traceback(ends: Ends) -> None:
    ends.fails["client"] = KeyboardInterrupt()
    assert program_main.main(CLIENT) == 130


# --- backends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "installed", "chosen"),
    [
        ("auto", True, ("asyncio", {"use_uvloop": True})),
        ("auto", False, ("asyncio", {"use_uvloop": False})),
        ("asyncio", True, ("asyncio", {"use_uvloop": False})),
        ("uvloop", True, ("asyncio", {"use_uvloop": True})),
        ("trio", True, ("trio", {})),
    ],
)
def test_the_event_loop_is_the_one_asked_for(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, name: str, installed: bool, chosen: Any
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr(anyio, "run", lambda *_, backend, backend_options: found.append((backend, backend_options)))
    assert program_main.main([*CLIENT, "--backend", name]) == 0
    assert found == [chosen]


@pytest.mark.parametrize("name", ["uvloop", "trio"])
def test_one_that_is_not_installed_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert program_main.main([*CLIENT, "--backend", name]) == 2
    assert f"pip install {name}" in capsys.readouterr().err


# --- as a process ---------------------------------------------------------------------------------


# An end that does not end when it is asked to.
STUBBORN = """
import sys, types
import anyio

async def run_client(settings, *, ready, stop):
    ready("socks5://127.0.0.1:1080")
    await stop.wait()
    print("asked", flush=True)
    with anyio.CancelScope(shield=True):
        await anyio.sleep_forever()

client = types.ModuleType("examples.socks_proxy.client")
client.run_client = run_client
sys.modules[client.__name__] = client
from examples.socks_proxy.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(backend: str, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-c", STUBBORN, *CLIENT, "--backend", backend]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready socks5://127.0.0.1:1080\n"
            process.send_signal(number)
            assert process.stdout.readline() == b"asked\n"
            process.send_signal(number)
            assert process.wait(60) == status
        finally:
            process.kill()


# An end that looks up a name, which takes long, when it is asked to end.
CURIOUS = """
import runpy, socket, sys, threading, types
import anyio

def look_up(*_, **__):
    threading.Event().wait()

async def run_client(settings, *, ready, stop):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.getaddrinfo, "slow.example", 80)
        await anyio.wait_all_tasks_blocked()
        ready("socks5://127.0.0.1:1080")
        await stop.wait()
        tasks.cancel_scope.cancel()

client = types.ModuleType("examples.socks_proxy.client")
client.run_client = run_client
sys.modules[client.__name__] = client
socket.getaddrinfo = look_up
runpy.run_module("examples.socks_proxy", run_name="__main__")
"""


def test_a_stop_waits_for_no_name() -> None:
    command = [sys.executable, "-c", CURIOUS, *CLIENT, "--backend", "asyncio"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready socks5://127.0.0.1:1080\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.socks_proxy", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


def test_the_process_ends_with_status_2_and_one_line() -> None:
    ended = run("--backend", "none")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{PROGRAM_NAME}: error: --backend: 'none' is none of auto, asyncio, uvloop, trio\n"


def test_the_process_helps() -> None:
    ended = run("server", "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: {PROGRAM_NAME} server [options]")


def test_the_process_says_what_to_install() -> None:
    program = """
import runpy, sys
sys.modules["wsproto"] = None
runpy.run_module("examples.socks_proxy", run_name="__main__")
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "the proxy needs wsproto, which is not installed: pip install -e '.[proxy]'\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives buffers back so soon")
@pytest.mark.parametrize("keeps", [True, False])
def test_the_pages_of_freed_buffers_are_kept(keeps: bool) -> None:
    program = """
import resource, sys
from examples.socks_proxy.__main__ import _keep_freed_buffers
if sys.argv[1] == "True":
    _keep_freed_buffers()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        buffers = [bytes(64) * 2048 for _ in range(24)]  # 3 MiB: no hole in the heap has room for them
        del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", program, str(keeps)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    assert (int(ended.stdout) < 1000) is keeps
