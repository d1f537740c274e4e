"""SHELL. The files with secrets: the token, and the users with their passwords. No error shows what is in them."""

from __future__ import annotations

from .options import UsageError, read_token
from .sources import Given, Options, Sources, read_bytes
from .users import Users


def token_of(options: Options, sources: Sources) -> str | None:
    """The token, from the file of --token-file or from WSPOOL_TOKEN. Its option is taken out of `options`."""
    file = options.pop("token_file", None)
    variable = sources.environ.get("WSPOOL_TOKEN")
    where, text = "WSPOOL_TOKEN", variable
    # Only what was typed is nearer than that variable, which is nearer than any file that was named elsewhere.
    if file is not None and (not variable or "token-file" in sources.arguments):
        # What is no UTF-8 is no ASCII either, and is refused as that.
        where, text = _in_file(file), read_bytes(*file).decode(errors="replace")
    try:
        return None if not text and file is None else read_token(text or "")
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def users_of(options: Options) -> Users | None:
    """Who may use the proxy; None for everybody. Their options are taken out of `options`."""
    passwords: dict[bytes, bytes] = {}
    name, password, several = (options.pop(one, None) for one in ("user", "password_file", "users_file"))
    if (name is None) is not (password is None):
        raise UsageError("--user and --password-file belong together: NAME, and the file with the password")
    if several is not None:
        passwords = _passwords(several)
    if name is not None and password is not None:
        if name.value in passwords:
            raise UsageError(f"{name.where}: that user is in the file of users as well")
        passwords[name.value] = _password(_in_file(password), read_bytes(*password).rstrip(b"\r\n"))
    return Users(passwords) if passwords else None


def _passwords(given: Given) -> dict[bytes, bytes]:
    """One NAME:PASSWORD a line; empty lines and those with # at their beginning say nothing."""
    passwords: dict[bytes, bytes] = {}
    for number, line in enumerate(read_bytes(*given).splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        where = f"{_in_file(given)}: line {number}"
        name, colon, password = line.partition(b":")
        # A line may hold a secret, whatever is wrong with it: it is not shown.
        if not colon or not 1 <= len(name) <= 255:
            raise UsageError(f"{where} is no NAME:PASSWORD with a name of 1 to 255 bytes")
        if name in passwords:
            raise UsageError(f"{where} has a user that an earlier line has as well")
        passwords[name] = _password(where, password)
    if not passwords:
        raise UsageError(f"{_in_file(given)}: there is no user in it")
    return passwords


def _in_file(given: Given) -> str:
    return f"{given.where} {given.value!r}"


def _password(where: str, password: bytes) -> bytes:
    if not 1 <= len(password) <= 255 or b"\n" in password:
        raise UsageError(f"{where}: a password is one line of 1 to 255 bytes (RFC 1929)")
    return password
