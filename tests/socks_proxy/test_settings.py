"""Settings: from command line, environment and file, in this order; errors are one line each, without secrets."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address
from pathlib import Path

import pytest

from examples.socks_proxy.addresses import parse_host
from examples.socks_proxy.client import dial_deadline
from examples.socks_proxy.command_line import PROGRAM_NAME
from examples.socks_proxy.options import SECTIONS, Role, options_of
from examples.socks_proxy.settings import (
    ClientSettings,
    ProgramSettings,
    ServerSettings,
    UsageError,
    parse,
    warnings,
)

TOKEN = "0123456789abcdef"
ENVIRON = {"WSPOOL_TOKEN": TOKEN}
SERVER = ("server", "--listen", "127.0.0.1:0", "--plain")
CLIENT = ("client", "--server", "wss://proxy.example:8443/path")


def client(*arguments: str, **environ: str) -> ClientSettings:
    settings = parse([*CLIENT, *arguments], ENVIRON | environ).client
    assert settings is not None
    return settings


def server(*arguments: str, **environ: str) -> ServerSettings:
    settings = parse([*SERVER, *arguments], ENVIRON | environ).server
    assert settings is not None
    return settings


def error(*arguments: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(arguments, environ)
    text = str(caught.value)
    assert "\n" not in text
    return text


def file(folder: Path, name: str, content: str | bytes = "") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


# --- roles ----------------------------------------------------------------------------------------


def test_without_arguments_both_ends_run_on_loopback() -> None:
    settings = parse([], {})
    assert settings.role == "both"
    assert settings.client is not None
    assert settings.server is not None
    assert settings.client.listen == ("127.0.0.1", 1080)
    assert settings.any_port
    assert settings.server.listen == ("127.0.0.1", 0)
    # It is the user's own machine.
    assert settings.server.policy.refusal(parse_host("127.0.0.1"), ip_address("127.0.0.1"), 80) is None
    assert warnings(settings) == []


def test_a_port_that_was_asked_for_is_not_exchanged() -> None:
    assert not parse(["--listen", "127.0.0.1:1080"], {}).any_port


def test_private_destinations_can_be_denied_there_too() -> None:
    settings = parse(["--no-allow-private"], {}).server
    assert settings is not None
    assert settings.policy.refusal(parse_host("127.0.0.1"), ip_address("127.0.0.1"), 80)


def test_a_client_alone() -> None:
    settings = parse(CLIENT, ENVIRON)
    assert (settings.role, settings.server) == ("client", None)
    assert settings.client == ClientSettings(server="wss://proxy.example:8443/path", token=TOKEN)


def test_a_server_alone_denies_private_destinations() -> None:
    settings = parse(SERVER, ENVIRON)
    assert (settings.role, settings.client) == ("server", None)
    assert settings.server is not None
    assert (settings.server.plain, settings.server.token, settings.server.path) == (True, TOKEN, "/")
    assert settings.server.policy.refusal(parse_host("10.0.0.1"), ip_address("10.0.0.1"), 80)


def test_rules_make_the_policy() -> None:
    policy = server("--allow", "10.0.0.1", "--deny", "*:25", "--deny", "bad.example").policy
    assert policy.refusal(parse_host("10.0.0.1"), ip_address("10.0.0.1"), 80) is None
    assert policy.refusal(parse_host("bad.example"), ip_address("1.1.1.1"), 80)
    assert policy.refusal(parse_host("good.example"), ip_address("1.1.1.1"), 25)


def test_one_option_serves_both_ends_that_know_it() -> None:
    settings = parse(["--grace", "3"], {"WSPOOL_IDLE_TIMEOUT": "7"})
    assert settings.client is not None
    assert settings.server is not None
    assert (settings.client.grace, settings.server.grace) == (3, 3)
    assert (settings.client.idle_timeout, settings.server.idle_timeout) == (7, 7)


# --- where an option stands -----------------------------------------------------------------------


def test_the_command_line_comes_first_then_the_environment_then_the_file(tmp_path: Path) -> None:
    config = file(tmp_path, "c.toml", 'backend = "trio"\n[client]\nmax-idle = 3\n[server]\nmax-sessions = 9\n')
    assert parse(CLIENT, ENVIRON).backend == "auto"
    assert parse([*CLIENT, "--config", config], ENVIRON).backend == "trio"
    assert client("--config", config).max_idle == 3
    assert client(WSPOOL_CONFIG=config, WSPOOL_MAX_IDLE="4").max_idle == 4
    assert client("--max-idle", "5", WSPOOL_CONFIG=config, WSPOOL_MAX_IDLE="4").max_idle == 5
    assert server(WSPOOL_CONFIG=config).max_sessions == 9


def test_a_flag_can_be_taken_back() -> None:
    assert client("--fast-open").fast_open
    assert client(WSPOOL_FAST_OPEN="yes").fast_open
    assert not client("--no-fast-open", WSPOOL_FAST_OPEN="yes").fast_open
    assert not client(WSPOOL_FAST_OPEN="0").fast_open


def test_an_empty_variable_is_none() -> None:
    assert client(WSPOOL_SNI="", WSPOOL_CONFIG="").sni is None


def test_several_of_an_option(tmp_path: Path) -> None:
    both = (("X-A", "1, 2"), ("X-B", ""))
    config = file(tmp_path, "c.toml", '[client]\nheader = ["X-A: 1, 2", "X-B:"]\n[server]\ndeny = "a.example"\n')
    assert client("--header", "X-A: 1, 2 ", "--header", "X-B:").headers == both
    assert client(WSPOOL_HEADER="X-A: 1, 2\nX-B:\n").headers == both
    assert client("--config", config).headers == both
    for policy in (server(WSPOOL_DENY="b.example, a.example").policy, server("--config", config).policy):
        assert policy.refusal(parse_host("a.example"), ip_address("1.1.1.1"), 80)


def test_files_are_sought_from_the_folder_of_the_file_that_names_them(tmp_path: Path) -> None:
    file(tmp_path, "token", TOKEN)
    config = file(tmp_path, "c.toml", '[client]\ntoken_file = "token"\nserver = "wss://proxy.example/"\n')
    settings = parse(["client", "--config", config], {}).client
    assert settings is not None
    assert settings.token == TOKEN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a =", "is no TOML"),
        (b"\xff", "is no TOML"),
        ("[client]\nmax-idel = 1", "in [client] there is no option 'max-idel'; did you mean max-idle?"),
        ("[server]\nsni = 'a'", "in [server] there is no option 'sni'"),
        ("max-idle = 1", "at the top there is no option 'max-idle'"),
        ("client = 1", "client is a table; its options come below a line with [client]"),
        ("[cleint]\nmax-idle = 1", "at the top there is no option 'cleint'; did you mean client?"),
        ("[client]\nmax-idle = true", "max-idle: it is not one text or number"),
        ("[client]\nmax-idle = [1]", "max-idle: it is not one text or number"),
        ("[client]\nmax-idle = 1.5", "max-idle: '1.5' is no whole number"),
        ("[client]\nfast-open = 'maybe'", "fast-open: 'maybe' is neither true nor false"),
        ("[client]\nheader = 1", "header: it is no list of texts"),
        ("[client]\nca-file = 'missing'", "cannot be read: No such file or directory"),
        ('[client]\nca-file = "a\\u0000"', "is no name of a file"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(tmp_path: Path, content: str | bytes, why: str) -> None:
    config = file(tmp_path, "c.toml", content)
    text = error(*CLIENT, "--config", config, **ENVIRON)
    assert why in text
    assert "c.toml" in text or "missing" in text


def test_a_file_that_is_not_there_is_said() -> None:
    assert error("--config", "missing") == "--config: 'missing' cannot be read: No such file or directory"


def test_settings_for_one_end_do_not_silently_run_both(tmp_path: Path) -> None:
    """A word left out must not send the traffic of a configured client out of this machine unprotected."""
    assert "WSPOOL_SERVER is set, and is for the sub-command client" in error(WSPOOL_SERVER="wss://proxy.example/")
    config = file(tmp_path, "c.toml", '[server]\nlisten = "0.0.0.0:8443"\n')
    assert "listen in [server] is for the sub-command server" in error("--config", config)


def test_what_is_for_the_other_end_may_stand_beside_it() -> None:
    assert client(WSPOOL_CLIENT_CA="missing").token == TOKEN


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:1080", ("::1", 1080)),
        ("LOCALHOST:65535", ("localhost", 65535)),
    ],
)
def test_where_to_listen(text: str, listen: tuple[str, int]) -> None:
    assert client("--listen", text).listen == listen


@pytest.mark.parametrize("text", ["", "1080", "::1:1080", "127.0.0.1", "127.0.0.1:65536", "a:-1", ":1080", "a b:1"])
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    assert error(*CLIENT, f"--listen={text}", **ENVIRON).startswith("--listen: ")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("server", "https://proxy.example/"),
        ("server", "wss://"),
        ("server", "wss://a b/"),
        ("server", "wss://proxy.example:0/"),
        ("server", "wss://proxy.example:99999/"),
        ("server", "wss://proxy.example/#x"),
        ("server", "wss://[::1"),
        ("via", "socks5://proxy.example"),
        ("via", "http://proxy.example/path"),
        ("sni", "a b"),
        ("header", "no colon"),
        ("header", "X: a\r\nY: b"),
        ("header", "Authorization: Bearer x"),
        ("header", "Sec-WebSocket-Protocol: x"),
        ("max-idle", "-1"),
        ("max-size", "0"),
        ("max-size", "ten"),
        ("grace", "0"),
        ("grace", "nan"),
        ("grace", "inf"),
        ("grace", "1e10"),
        ("grace", "soon"),
        ("log-level", "loud"),
        ("backend", "curio"),
        ("ca-file", ""),
        ("user", ""),
        ("user", "a" * 256),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(option: str, text: str) -> None:
    assert error(*CLIENT, f"--{option}={text}", **ENVIRON).startswith(f"--{option}: ")


@pytest.mark.parametrize(("seconds", "deadline"), [(1e-9, 1), (10.04, 100), (6553.5, 65535), (1e9, 65535)])
def test_a_time_limit_that_no_packet_can_hold_is_the_nearest_that_one_can(seconds: float, deadline: int) -> None:
    assert dial_deadline(seconds) == deadline


@pytest.mark.parametrize("text", ["path", "/a b", "/a?b", "/a#b", "/ä", ""])
def test_a_wrong_path_is_refused(text: str) -> None:
    assert error(*SERVER, f"--path={text}", **ENVIRON).startswith("--path: ")


def test_a_wrong_rule_is_refused() -> None:
    assert "did you mean 10.0.0.0/8?" in error(*SERVER, "--allow", "10.0.0.1/8", **ENVIRON)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("server", "wss://user:hush/hush@proxy.example/"),
        ("server", "https://user:hush@proxy.example/"),
        ("server", "wss://user:hush@proxy.example:0/"),
        ("via", "http://user:hush@proxy.example:99999"),
        ("header", "X-Secret: hush\0"),
        ("header", "Authorization: hush"),
    ],
)
def test_no_error_shows_a_secret(option: str, text: str) -> None:
    assert "hush" not in error(*CLIENT, f"--{option}={text}", **ENVIRON)


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    token = file(tmp_path, "token", "hush" * 8)
    via = ["--via", "http://u:hush@b.example:1", "--header", "X: hush"]
    files = ["--user", "alice", "--password-file", token]
    for urls in (
        ["--server", "wss://a.example/hush", "--token-file", token],
        ["--server", "wss://u:hush@a.example/", "--cert", token],
    ):
        settings = parse(["client", *urls, *via, *files], {})
        assert settings.client is not None
        assert settings.client.token == (None if "--cert" in urls else "hush" * 8)
        assert "hush" not in repr(settings)
    assert "hush" not in repr(server("--token-file", token, "--fallback-url", "http://u:hush@c.example/"))


# --- what belongs together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["client"], "--server is missing"),
        ([*CLIENT], "the server must know you"),
        (["server"], "--listen is missing"),
        ([*SERVER], "clients must be known"),
        (["server", "--listen", "a:1"], "--cert is missing"),
        (["server", "--listen", "a:1", "--key", __file__], "--cert is missing"),
        ([*SERVER, "--cert", __file__], "--cert is for TLS, and --plain is without"),
        ([*SERVER, "--client-ca", __file__], "--client-ca is for TLS, and --plain is without"),
        (["client", "--server", "wss://u:p@a/", "--token-file", "TOKEN"], "only one can be the Authorization"),
        ([*CLIENT, "--key", __file__], "the server must know you"),
        ([*CLIENT, "--key", __file__, "--token-file", "TOKEN"], "--key is given without --cert"),
        ([*CLIENT, "--insecure", "--ca-file", __file__, "--token-file", "TOKEN"], "leave one of them out"),
        (["client", "--server", "ws://a/", "--insecure", "--token-file", "TOKEN"], "--insecure is for wss://"),
        (["client", "--server", "ws://a/", "--sni", "b", "--token-file", "TOKEN"], "--sni is for wss://"),
        (["--user", "alice"], "--user and --password-file belong together"),
        (["--password-file", __file__], "--user and --password-file belong together"),
        (["--max-idle", "5", "--max-size", "4"], "--min-idle 2, --max-idle 5, --max-size 4"),
        (["--min-idle", "5", "--max-idle", "4"], "--min-idle 5, --max-idle 4"),
        ([*SERVER, "--token-file", "TOKEN", "--fallback-dir", __file__], "is no directory"),
        (
            [*SERVER, "--token-file", "TOKEN", "--fallback-dir", ".", "--fallback-url", "http://a/"],
            "exclude each other",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, arguments: list[str], why: str) -> None:
    token = file(tmp_path, "token", TOKEN)
    assert why in error(*(token if argument == "TOKEN" else argument for argument in arguments))


def test_a_certificate_is_enough_to_be_known() -> None:
    assert parse([*CLIENT, "--cert", __file__], {}).client is not None
    assert parse(["server", "--listen", "a:1", "--cert", __file__, "--client-ca", __file__], {}).server is not None


def test_defaults_follow_a_size_that_is_given() -> None:
    settings = client("--max-size", "1")
    assert (settings.min_idle, settings.max_idle, settings.max_size) == (1, 1, 1)
    settings = client("--max-idle", "0")
    assert (settings.min_idle, settings.max_idle, settings.max_size) == (0, 0, 1000)
    settings = client("--min-idle", "50")
    assert (settings.min_idle, settings.max_idle, settings.max_size) == (50, 100, 1000)
    settings = client("--min-idle", "50", "--max-size", "60")
    assert (settings.min_idle, settings.max_idle, settings.max_size) == (50, 60, 60)


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["--token=hush", "--token"])
@pytest.mark.parametrize("role", [CLIENT, SERVER, ()])
def test_a_token_on_the_command_line_is_refused_and_not_repeated(role: tuple[str, ...], argument: str) -> None:
    text = error(*role, argument)
    assert "--token-file" in text
    assert "hush" not in text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--backend", "trio", "client"], f"the sub-command client comes first: {PROGRAM_NAME} client ..."),
        (["--server=wss://a/"], "--server is for the sub-command client"),
        (["--cert", "a"], "--cert is for the sub-command client or server"),
        (["client", "--allow", "a"], "--allow is for the sub-command server"),
        (["--whatever", "a"], f"there is no option --whatever; see {PROGRAM_NAME} --help"),
        (
            ["client", "--tokenfile", "a"],
            f"there is no option --tokenfile; did you mean --token-file?; see {PROGRAM_NAME} client --help",
        ),
        (["serve"], f"'serve' belongs to no option; did you mean server?; see {PROGRAM_NAME} --help"),
        (["server", "what"], f"'what' belongs to no option; see {PROGRAM_NAME} server --help"),
        (["--max-idl", "5"], f"there is no option --max-idl; did you mean --max-idle?; see {PROGRAM_NAME} --help"),
        (["--max-idle"], "argument --max-idle: expected one argument"),
    ],
)
def test_an_unknown_argument_is_answered_with_advice(arguments: list[str], why: str) -> None:
    assert error(*arguments) == why


@pytest.mark.parametrize("role", ["both", "client", "server"])
def test_help_shows_every_option_with_its_default(capsys: pytest.CaptureFixture[str], role: Role) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([*([] if role == "both" else [role]), "--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for _, option in options_of(role):
        assert f"--{option.name}" in text
    assert ("(default 127.0.0.1:1080)" in " ".join(text.split())) is (role != "server")
    assert "examples:" in text
    # The option exists for its error only.
    assert "--token " not in text


@pytest.mark.parametrize("role", [[], ["client"], ["server"]])
def test_the_version_tells_the_masker(capsys: pytest.CaptureFixture[str], role: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([*role, "--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("wspool ")


def test_every_option_has_its_place_in_the_settings() -> None:
    owners = {"program": ProgramSettings, "client": ClientSettings, "server": ServerSettings}
    elsewhere = {"token_file", "user", "password_file", "users_file", "allow", "deny", "allow_private"}
    for section, options in SECTIONS.items():
        names = {field.name for field in dataclasses.fields(owners[section])}
        assert {option.attribute for option in options} - elsewhere <= names


# --- secrets from files ---------------------------------------------------------------------------


def test_a_token_comes_from_its_file_or_from_its_variable(tmp_path: Path) -> None:
    token = file(tmp_path, "token", "from-the-file-0123\r\n")
    config = file(tmp_path, "c.toml", '[client]\ntoken-file = "token"\n')
    assert client("--token-file", token).token == "from-the-file-0123"
    assert client("--config", config).token == TOKEN
    assert client("--config", config, WSPOOL_TOKEN="").token == "from-the-file-0123"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"0123456789abcde", "the token has 15 characters; from 16 to 4096"),
        (b"x" * 4097, "the token has 4097 characters"),
        ("0123456789abcdefä".encode(), "the token is not ASCII"),
        (b"0123456789abcdef\xff", "the token is not ASCII"),
        (b"0123456789abcdef\n0123456789abcdef", "it holds more than one word"),
        (b"0123456789abcdef\0", "it holds more than one word"),
    ],
)
def test_a_token_that_cannot_be_meant_is_refused_and_not_shown(tmp_path: Path, content: bytes, why: str) -> None:
    secret = file(tmp_path, "secret", content)
    text = error(*SERVER, "--token-file", secret)
    assert text.startswith(f"--token-file {secret!r}: {why}")
    assert "abc" not in text


def test_a_token_in_its_variable_is_checked_alike() -> None:
    assert error(*SERVER, WSPOOL_TOKEN="short").startswith("WSPOOL_TOKEN: the token has 5 characters")
    assert error(*SERVER, WSPOOL_TOKEN=" ").startswith("WSPOOL_TOKEN: it is empty")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for option in ("--token-file", "--ca-file", "--cert", "--users-file"):
        assert error(*CLIENT, option, str(tmp_path)) == f"{option}: {str(tmp_path)!r} cannot be read: Is a directory"


def test_users_come_from_files(tmp_path: Path) -> None:
    password = file(tmp_path, "password", " pass word \r\n")
    several = file(tmp_path, "users", b"# comment\n\nbob:se:cret\r\ncarol:\xff\n")
    users = client("--user", "älice", "--password-file", password, "--users-file", several).users
    assert users is not None
    assert users.admits("älice".encode(), b" pass word ")
    assert users.admits(b"bob", b"se:cret")
    assert users.admits(b"carol", b"\xff")
    assert not users.admits(b"# comment", b"")
    assert client().users is None


def test_the_mark_before_utf_8_is_part_of_nothing(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    token, users = file(tmp_path, "token", mark + TOKEN.encode()), file(tmp_path, "users", mark + b"bob:secret\n")
    config = file(tmp_path, "config", mark + b'[client]\nserver = "wss://a/"\n')
    settings = parse(["client", "--config", config, "--token-file", token, "--users-file", users], {}).client
    assert settings is not None
    assert settings.users is not None
    assert settings.users.admits(b"bob", b"secret")
    assert settings.token == TOKEN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "there is no user in it"),
        ("alice:a\nhush\n", "line 2 is no NAME:PASSWORD"),
        (":hush", "line 1 is no NAME:PASSWORD"),
        ("alice:", "line 1: a password is one line of 1 to 255 bytes"),
        ("alice:" + "hush" * 64, "line 1: a password is one line of 1 to 255 bytes"),
        ("alice:a\nalice:b", "line 2 has a user that an earlier line has as well"),
    ],
)
def test_a_wrong_file_of_users_is_refused_by_its_line(tmp_path: Path, content: str, why: str) -> None:
    users = file(tmp_path, "users", content)
    text = error("--users-file", users)
    assert text.startswith(f"--users-file {users!r}: {why}")
    assert "hush" not in text


def test_a_wrong_password_file_is_refused(tmp_path: Path) -> None:
    for content in ("", "\n", "two\nlines", "x" * 256):
        password = file(tmp_path, "password", content)
        text = error("--user", "alice", "--password-file", password)
        assert text.startswith(f"--password-file {password!r}: a password is one line")
    users, password = file(tmp_path, "users", "alice:a"), file(tmp_path, "password", "a")
    text = error("--user", "alice", "--password-file", password, "--users-file", users)
    assert text == "--user: that user is in the file of users as well"


# --- warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        ([*CLIENT, "--insecure"], "--insecure"),
        ([*CLIENT, "--listen", "0.0.0.0:1080"], "everybody who reaches 0.0.0.0 may use this proxy"),
        (["--listen", "0.0.0.0:1080"], "everybody who reaches 0.0.0.0 may use this proxy to reach this machine"),
        (["--listen", "0.0.0.0:1080", "--no-allow-private"], "everybody who reaches 0.0.0.0 may use this proxy: give"),
        ([*CLIENT, "--listen", "box.example:1080"], "everybody who reaches box.example"),
        (["client", "--server", "ws://proxy.example/"], "--server begins with ws://"),
        (["server", "--plain", "--listen", "0.0.0.0:8080"], "--plain on 0.0.0.0"),
    ],
)
def test_what_is_dangerous_is_warned_about(arguments: list[str], warning: str) -> None:
    (found,) = warnings(parse(arguments, ENVIRON))
    assert found.startswith(warning)


@pytest.mark.parametrize(
    "arguments",
    [
        [*CLIENT, "--listen", "[::1]:1080"],
        [*CLIENT, "--listen", "localhost:1080"],
        ["client", "--server", "ws://127.0.0.1:8080/"],
        [*SERVER],
    ],
)
def test_what_stays_on_this_machine_is_not(arguments: list[str]) -> None:
    assert warnings(parse(arguments, ENVIRON)) == []


def test_a_proxy_for_its_users_only_may_listen_to_others(tmp_path: Path) -> None:
    users = file(tmp_path, "users", "alice:a")
    assert warnings(parse([*CLIENT, "--listen", "0.0.0.0:1080", "--users-file", users], ENVIRON)) == []
