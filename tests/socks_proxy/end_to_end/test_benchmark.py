"""The benchmark of the proxy: a tiny round of it, so that it works when somebody wants to know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.socks_proxy.end_to_end.programs import ROOT, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it measures by /proc")


def test_each_workload_of_the_benchmark_measures_ours_and_the_ceiling(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.proxy", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    workloads = json.loads((tmp_path / "results.json").read_text())["workloads"]
    assert len(workloads) == 11, done.stdout
    for name, workload in workloads.items():
        assert not workload["failures"], name
        assert {"direct", "wspool-asyncio"} == workload["data"].keys(), name
        assert workload["data"]["wspool-asyncio"]["samples"]["0"], name
