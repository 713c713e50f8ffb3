"""Sweeps in local workers and on Ray, whose processes and nodes are killed: every run ends as it does undisturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo_harness.sweeps.sweep import Sweep
from zoo_harness.util.digests import sha256_of

from .conftest import TINY

FOUR = {**TINY, "seeds": [0, 1, 2, 3], "per_class": 3, "epochs": 6}
pytestmark = pytest.mark.slow


def digests(out: Path) -> dict[str, str]:
    return {path.parent.name: sha256_of(path) for path in out.glob("*/model.safetensors")}


def epochs(out: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in out.glob("*/history.jsonl"))


def until(condition: Callable[[], Any], seconds: float = 240) -> None:
    """Wait for a condition, because processes start when the machine has time for them."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert len(zoo.sweep(FOUR, out=out).finished) == 4
    return digests(out)


def started(plan: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """Start ``zoo sweep`` as a user does."""
    command = [sys.executable, "-c", "from zoo_harness.cli.main import main; main()", "sweep", str(plan)]
    return subprocess.Popen([*command, "--out", str(out), *options], stderr=subprocess.PIPE, text=True)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The plan as a file; TOML writes these values as JSON does."""
    (tmp_path / "plan.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in FOUR.items()))
    return tmp_path / "plan.toml"


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_killed_workers_and_a_killed_driver_cost_no_run(
    plan: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    out = tmp_path / "out"
    driver = started(plan, out, "--workers", "2")
    until(lambda: epochs(out) >= 2)
    os.kill(children(driver.pid)[0], signal.SIGKILL)
    before = epochs(out)
    until(lambda: epochs(out) >= before + 3)
    workers = children(driver.pid)
    driver.kill()
    driver.communicate()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))  # they end with the driver

    driver = started(plan, out, "--workers", "2")
    until(lambda: len(children(driver.pid)) == 2)
    driver.send_signal(signal.SIGTERM)
    assert "runs are finished; the same command continues the sweep" in driver.communicate()[1]
    assert driver.returncode == 143

    one, other = started(plan, out, "--workers", "2"), started(plan, out)  # two sweeps on one folder
    assert (one.communicate()[0], one.returncode, other.communicate()[0], other.returncode) == (None, 0, None, 0)
    assert digests(out) == undisturbed


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Three nodes on this machine, that notice within seconds that one of them is lost."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of its own future default
    from ray.cluster_utils import Cluster

    health = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 2}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": health}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def in_thread(call: Callable[[], Sweep]) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1).submit(call)


@pytest.mark.filterwarnings("ignore::ResourceWarning:ray")  # of Ray's own log files and sockets
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the same, when they are collected
def test_a_lost_node_and_a_run_that_always_fails_cost_no_other_run_of_ray(
    cluster: Any, plan: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _number in range(2)]
    out = tmp_path / "out"
    table = {**FOUR, "runs": {"good": {}, "bad": {"input_size": 40, "seeds": [0]}}}
    ended = in_thread(lambda: zoo.sweep(table, out=out, address=cluster.address))
    until(lambda: epochs(out) >= 2)
    cluster.remove_node(nodes[0], allow_graceful=False)
    found = ended.result(400)
    assert (len(found.finished), [error["code"] for error in found.failed.values()]) == (4, ["input-size-refused"])
    assert digests(out) == undisturbed


def test_a_killed_driver_of_ray_starts_again(plan: Path, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    out = tmp_path / "out"
    driver = started(plan, out, "--address", "local")
    until(lambda: epochs(out) >= 2)
    driver.kill()
    driver.communicate()
    driver = started(plan, out, "--address", "local")
    assert "4 of 4 finished" in driver.communicate()[1]
    assert driver.returncode == 0
    assert digests(out) == undisturbed
