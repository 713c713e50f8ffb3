"""Two processes that torchrun starts and gloo connects give the results of one, up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo import UsageError
from zoo_harness.compute.distributed import ALONE, Processes, joined

CHECKS = Path(__file__).parents[1] / "runs" / "process_checks.py"
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))
LAUNCHED = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    command = [TORCHRUN, "--standalone", "--nproc-per-node", "2", str(CHECKS), str(folder), str(folder / "found.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return result


def test_rows_objects_and_counts_reach_every_process(found: dict[str, Any]) -> None:
    assert found["collectives"] == [[[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]], "rank 0", True, 3]


@pytest.mark.parametrize("check", ["batch_norm", "without_images"])
def test_batch_statistics_are_those_of_all_images(found: dict[str, Any], check: str) -> None:
    assert found[check] < 1e-14


def test_networks_train_to_the_weights_of_one_process(found: dict[str, Any]) -> None:
    assert len(found["runs"]) == 8
    for check in (
        *found["runs"].values(),
        *(found[name] for name in ("tiny_batches", "views", "augmented", "balanced")),
    ):
        assert check["weights"] < 1e-5
        assert check["losses"] < 1e-6
        assert check["features"] < 1e-5


def test_frozen_batchnorm_takes_its_statistics_over_all_processes(found: dict[str, Any]) -> None:
    """Twelve layers of random weights amplify rounding; statistics of each process alone would differ by a third."""
    assert found["frozen_batchnorm"]["losses"] < 1e-5
    assert found["frozen_batchnorm"]["weights"] < 0.03


def test_if_one_process_lacks_room_all_train_the_whole_network(found: dict[str, Any]) -> None:
    reason = "in another process the outputs of its frozen part cannot be kept"
    assert found["one_without_room"] == [reason, f"every epoch runs the whole network: {reason}"]


def test_a_loss_that_is_not_finite_in_one_process_ends_all(found: dict[str, Any]) -> None:
    assert found["not_finite"].startswith("ZooError: training, epoch 1, batch 1: the loss is ")


def test_shares_are_even_and_cover_everything() -> None:
    for items in (0, 1, 2, 7, 60_000):
        shares = [Processes(rank, 4).share(items) for rank in range(4)]
        assert [item for share in shares for item in share] == list(range(items))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_environment_of_torchrun_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert Processes.launched() == Processes(rank=1, count=3, local_rank=1, local_count=2)
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(UsageError) as caught:
        Processes.launched()
    assert caught.value.code == "torchrun-environment"
    monkeypatch.delenv("LOCAL_RANK")  # a RANK of another program
    assert Processes.launched() == ALONE
    with joined() as processes:
        assert processes.is_main
        assert not processes.is_distributed
