"""The end of a job that the machine does not know (any more) changes nothing: a shell may report twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wspool._jobs import Job, JobKind
from wspool._pool_state import PoolState
from wspool._settings import PoolSettings

REPORTS: dict[str, tuple[JobKind, Callable[[PoolState[Any], Job[Any]], None]]] = {
    "connect_succeeded": (JobKind.CONNECT, lambda state, job: state.connect_succeeded(job, object(), 1.0)),
    "connect_failed": (JobKind.CONNECT, lambda state, job: state.connect_failed(job, 1.0, error=OSError())),
    "check_ended": (JobKind.VALIDATE, lambda state, job: state.check_ended(job, 1.0, valid=True)),
    "reset_ended": (JobKind.RESET, lambda state, job: state.reset_ended(job, 1.0)),
    "close_ended": (JobKind.CLOSE, lambda state, job: state.close_ended(job, 1.0)),
}


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_of_an_unknown_job_changes_nothing(report: str) -> None:
    kind, tell = REPORTS[report]
    state: PoolState[Any] = PoolState(PoolSettings(), validates=True, resets=True, observed=True)
    before = state.statistics(1.0)
    tell(state, Job(kind, 0.0, 2.0))
    assert state.statistics(1.0) == before
    assert not state.effects
