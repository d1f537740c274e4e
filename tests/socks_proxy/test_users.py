"""Users: the right password of the right user, and no other way in."""

from __future__ import annotations

import hmac

import pytest

from examples.socks_proxy.users import Users

USERS = Users({b"alice": b"secret", b"bob": b"b\xff\x00b"})


def test_the_right_password_is_admitted() -> None:
    assert USERS.admits(b"alice", b"secret")
    assert USERS.admits(b"bob", b"b\xff\x00b")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        (b"alice", b"Secret"),
        (b"alice", b""),
        (b"alice", b"b\xff\x00b"),
        (b"carol", b"secret"),
        (b"", b""),
        (b"alices", b"ecret"),
        (b"alic", b"esecret"),
    ],
)
def test_nothing_else_is(name: bytes, password: bytes) -> None:
    assert not USERS.admits(name, password)


def test_without_users_nobody_is_admitted() -> None:
    assert not Users({}).admits(b"", b"")


def test_the_work_is_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    seen = []
    for name, password in [(b"alice", b"secret"), (b"bob", b"x"), (b"nobody", b"x" * 255)]:
        compared.clear()
        USERS.admits(name, password)
        seen.append(list(compared))
    assert seen == [[(32, 32)] * 2] * 3


def test_its_repr_tells_no_secret() -> None:
    assert repr(USERS) == "<Users, 2 of them>"
