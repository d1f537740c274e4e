"""Every async test runs on each event loop; Hypothesis profiles fast and deep."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.event_loops import eager_loop

settings.register_profile(
    "fast", max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("deep", parent=settings.get_profile("fast"), max_examples=5000, stateful_step_count=100)
settings.load_profile(os.environ.get("WSPOOL_HYPOTHESIS_PROFILE", "fast"))


def _backends() -> list[Any]:
    backends = [
        pytest.param(("asyncio", {"debug": True}), id="asyncio"),
        pytest.param(("trio", {}), id="trio"),
    ]
    if importlib.util.find_spec("uvloop") is not None:
        backends.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))
    if sys.version_info >= (3, 12):
        backends.append(pytest.param(("asyncio", {"loop_factory": eager_loop}), id="eager"))
    return backends


@pytest.fixture(params=_backends())
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop that a test runs on."""
    return request.param


@pytest.fixture(autouse=True)
def _audible(caplog: pytest.LogCaptureFixture) -> None:
    """What a document says about silencing the log is not for the tests after it."""
    caplog.set_level(logging.WARNING, logger="wspool")
