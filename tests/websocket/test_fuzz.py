"""The fuzzing targets, by Hypothesis: only our own errors, memory within the limits, the same for every cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.fuzz.targets import TARGETS, Target, check

EACH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@EACH
def test_what_fuzzing_begins_with_keeps_every_promise(target: Target) -> None:
    for seed in target.seeds:
        check(target, seed)
        for size in range(len(seed)):
            target.run([seed[:size]] if size else [])


@EACH
def test_what_never_ends_is_ended_by_a_limit(target: Target) -> None:
    for raw in target.endless:
        chunks = [raw[start : start + 1000] for start in range(0, len(raw), 1000)]
        assert target.run(chunks) == target.run([raw])


@EACH
@given(raw=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_our_errors_and_keep_memory_bounded(target: Target, raw: bytes) -> None:
    check(target, raw)


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=4)), max_size=4)


@EACH
@given(data=st.data())
def test_what_is_nearly_right_raises_nothing_but_our_errors_and_keeps_memory_bounded(target: Target, data: Any) -> None:
    raw = b"".join(data.draw(st.lists(st.sampled_from(target.seeds), min_size=1, max_size=3)))
    for at, length, new in data.draw(CHANGES):
        at %= len(raw) + 1
        raw = raw[:at] + new + raw[at + length :]
    check(target, raw)
