"""A checkpoint is chosen by name among those that are there, and the error lists them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zoo import UsageError
from zoo_harness.records.checkpoint_choice import available_checkpoints, choose_checkpoint
from zoo_harness.records.run import RunRecord

EARLIER = Path(__file__).parents[1] / "golden" / "earlier" / "run.json"
EPOCH = {"train_loss": 1.0, "train_accuracy": 0.5, "evaluation_loss": 1.0, "train_seconds": 1.0}


def a_record(
    keep: str = "both", best: int | None = 4, epochs: tuple[int, ...] = (2, 4, 6), **changes: Any
) -> RunRecord:
    """A finished run of six epochs."""
    content = json.loads(EARLIER.read_text())
    content["settings"]["training"].update(epochs=6, keep=keep)
    content["results"].update(epochs_done=6, best_epoch=best)
    content["checkpoints"] = [{"epoch": epoch, "sha256": f"{epoch:064}", "bytes": 1} for epoch in epochs]
    return RunRecord.model_validate_json(
        json.dumps(content | {"status": "finished", "checkpoint_sha256": "0" * 64} | changes)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of three epochs, and the main checkpoint."""
    (tmp_path / "checkpoints").mkdir()
    for name in ("model.safetensors", *(f"checkpoints/epoch-000{epoch}.safetensors" for epoch in (2, 4, 6))):
        (tmp_path / name).touch()
    return tmp_path


def chosen(folder: Path, record: RunRecord, name: str | int | None = None, epoch: int | None = None) -> int | None:
    kept = choose_checkpoint(folder, record, name, epoch)
    return kept and kept.epoch


def test_names_mean_epochs(folder: Path) -> None:
    record = a_record()
    assert chosen(folder, record) is None
    assert (
        chosen(folder, record, "best") is chosen(folder, record, 4) is chosen(folder, record, epoch=4) is None
    )  # main
    assert chosen(folder, record, "last") == chosen(folder, record, "6") == 6
    assert chosen(folder, record, epoch=2) == 2
    files = [str(path.relative_to(folder)) for path in available_checkpoints(folder, record).values()]
    assert files == ["checkpoints/epoch-0002.safetensors", "model.safetensors", "checkpoints/epoch-0006.safetensors"]
    assert chosen(folder, a_record("last"), "best") == 4
    assert chosen(folder, a_record("last"), "last") is None


@pytest.mark.parametrize(("name", "wanted"), [(3, 3), ("last", 6), ("000", 0)])
def test_one_that_is_not_there_is_refused_with_those_that_are(folder: Path, name: str | int, wanted: int) -> None:
    (folder / "checkpoints" / "epoch-0006.safetensors").unlink()
    with pytest.raises(UsageError, match=r"2, 4 \(best, main\)$") as refused:
        choose_checkpoint(folder, a_record(), name)
    assert refused.value.code == "no-such-checkpoint"
    assert (refused.value.facts["epoch"], refused.value.facts["there"]) == (wanted, (2, 4))


@pytest.mark.parametrize("name", ["bset", "-1", "", "1.5", "²", "9" * 5000])
def test_other_names_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        choose_checkpoint(folder, a_record(), name)
    assert refused.value.code == "checkpoint-name"


def test_one_name_is_enough(folder: Path) -> None:
    with pytest.raises(UsageError) as refused:
        choose_checkpoint(folder, a_record(), "best", 4)
    assert refused.value.code == "checkpoint-named-twice"


def test_an_interrupted_run_has_its_last_epoch_as_main_checkpoint(folder: Path) -> None:
    record = a_record(status="interrupted")
    assert (record.main_epoch, chosen(folder, record, "last"), chosen(folder, record, "best")) == (6, None, 4)


def test_the_best_epoch_of_an_earlier_record_is_in_its_history(folder: Path) -> None:
    lines = [EPOCH | {"epoch": n, "evaluation_accuracy": a, "evaluation_seconds": 1.0} for n, a in ((1, 0.2), (2, 0.6))]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = a_record("best", None, ())
    assert record.main_epoch is None
    assert [*available_checkpoints(folder, record)] == [2]
    assert chosen(folder, record, 2) is chosen(folder, record, "best") is None
    with pytest.raises(UsageError, match=r"epoch 6 \(last\) .*: 2 \(best, main\)$"):
        choose_checkpoint(folder, record, "last")
