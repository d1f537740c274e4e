"""Each masker gives the XOR of RFC 6455 section 5.3, and the fastest at hand is used."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from wspool.websocket import _masking
from wspool.websocket._connection import random_key
from wspool.websocket._masking import MASKERS, fastest_masker, mask, masker


def plain(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


@pytest.mark.parametrize("name", list(MASKERS))
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 127, 2047, 2048, 2049, 2050, 2051, 10_000])
def test_each_masker_gives_the_plain_xor(name: str, form: Callable[[bytes], Any], size: int) -> None:
    data, key = bytes(index * 7 % 256 for index in range(size)), b"\x01\x80\xff\x3c"
    masked = MASKERS[name]()(form(data), key)
    assert type(masked) is bytes
    assert masked == plain(data, key)


@given(data=st.binary(max_size=5000), key=st.binary(min_size=4, max_size=4))
def test_masking_twice_gives_the_original(data: bytes, key: bytes) -> None:
    assert mask(mask(data, key), key) == data


def test_the_name_of_the_masker_in_use_can_be_asked_for() -> None:
    assert masker() in MASKERS


@pytest.mark.parametrize(
    ("missing", "expected"),
    [((), "websockets.speedups"), (("websockets",), "numpy"), (("websockets", "numpy"), "python")],
)
def test_the_fastest_that_is_installed_is_chosen(
    missing: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(name: str) -> Any:
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name)
        return importlib.import_module(name)

    monkeypatch.setattr(_masking, "import_module", without)
    name, chosen = fastest_masker()
    assert name == expected
    assert chosen(b"abcde", b"\0\1\2\3") == plain(b"abcde", b"\0\1\2\3")


def test_each_frame_of_a_client_has_a_key_of_its_own() -> None:
    keys = [random_key() for _ in range(1000)]  # more than are fetched at a time
    assert {len(key) for key in keys} == {4}
    # By chance alone two are the same once in ten thousand runs; three never.
    assert len(set(keys)) >= 998


_FORK = """
import os
from wspool.websocket._connection import random_key
random_key()  # there are some in stock
child = os.fork()
os.write(1, b"".join(random_key() for _ in range(20)))
if child:
    os.waitpid(child, 0)
else:
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_process_and_one_forked_from_it_use_different_keys() -> None:
    keys = subprocess.run([sys.executable, "-c", _FORK], stdout=subprocess.PIPE, check=True).stdout
    assert len(keys) == 160
    assert keys[:80] != keys[80:]
