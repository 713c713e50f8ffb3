"""Weights of other epochs than the main one: the same bits as of a run that ends there, also after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo import Backbone, Dataset, UsageError, WeightsError
from zoo_harness.hub.publication import publishable, write_tree
from zoo_harness.records.run import read_run
from zoo_harness.util.digests import sha256_of

from ..saved_runs import edit_record
from .conftest import InterruptingReporter

OPTIONS: dict[str, Any] = {"batch_size": 16, "learning_rate": 0.01, "layer_curve": False}
KEPT: dict[str, Any] = {**OPTIONS, "epochs": 6, "keep": "both", "save_every": 2}


class Listener(InterruptingReporter):
    """A reporter that keeps messages and warnings."""

    def __init__(self, epoch: int = 0, stage: str = "") -> None:
        super().__init__(epoch, stage)
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def log(self, line: str) -> None:
        """Keep it."""
        self.lines.append(line)

    def warn(self, line: str) -> None:
        """Keep it."""
        self.warnings.append(line)


@pytest.fixture(scope="module")
def straight(backbone: Backbone, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    """A run that nobody disturbs; look only."""
    return zoo.evaluate(backbone, digits, out=tmp_path_factory.mktemp("kept") / "run", **KEPT)


@pytest.fixture(scope="module")
def stopped(backbone: Backbone, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, interrupted after its fourth epoch; look only."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, digits, out=out, progress=InterruptingReporter(epoch=4), **KEPT)
    return out


def files(directory: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (directory / "checkpoints").iterdir()}


def same(run: zoo.Run, expected: zoo.Run) -> bool:
    """Whether two runs kept the same bits, and the same scores of them."""
    assert files(run.directory) == files(expected.directory)
    assert run.record.checkpoints == expected.record.checkpoints
    return run.record.checkpoint_sha256 == expected.record.checkpoint_sha256


def test_the_best_and_the_last_stand_beside_each_other_with_their_scores(straight: zoo.Run) -> None:
    record = straight.record
    best = max(straight.history, key=lambda line: line.evaluation_accuracy)
    assert best.epoch == 5  # else the test shows nothing
    assert record.main_epoch == record.results.best_epoch == best.epoch
    assert [*straight.checkpoints] == [2, 4, 5, 6]
    assert straight.checkpoints[best.epoch] == straight.directory / "model.safetensors"
    for kept in record.checkpoints:
        line = straight.history[kept.epoch - 1]
        assert kept.accuracy.value == line.evaluation_accuracy
        assert kept.evaluation_loss == pytest.approx(line.evaluation_loss)
        assert kept.separation_after.evaluation.si.n == 40
        assert kept.separation_after.train.si.n == 80
        assert (kept.bytes, kept.sha256) == ((path := straight.directory / kept.file).stat().st_size, sha256_of(path))
    assert record.results.accuracy.value == best.evaluation_accuracy
    main = (straight.directory / "model.safetensors").stat().st_size
    assert all(kept.bytes < main for kept in record.checkpoints)  # without the frozen part


def test_each_is_what_a_run_of_so_many_epochs_ends_with(
    straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    short = zoo.evaluate(backbone, digits, epochs=2, out=tmp_path / "run", **OPTIONS)
    expected = short.load().network.state_dict()
    for model in (zoo.load(straight, epoch=2), straight.load(checkpoint="2")):
        found = model.network.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
        assert model.epoch == 2
        for name in ("accuracy", "train_accuracy", "evaluation_loss", "separation_after"):
            assert getattr(model.record.results, name) == getattr(short.record.results, name)
    main, last = zoo.load(straight, checkpoint="best"), zoo.load(straight.directory, checkpoint="last")
    assert (main.epoch, main.record) == (straight.record.main_epoch, straight.record)
    assert last.epoch == 6
    assert not torch.equal(last.network.fc.weight, main.network.fc.weight)


def test_the_main_checkpoint_has_the_bits_of_keep_best(
    straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    options = {**OPTIONS, "epochs": 6, "keep": "best"}
    best = zoo.evaluate(backbone, digits, out=tmp_path / "run", **options)
    assert best.record.checkpoint_sha256 == straight.record.checkpoint_sha256
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert best.record.results.separation_after == straight.record.results.separation_after


def test_a_resumed_run_keeps_the_same_bits(
    stopped: Path, straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    assert zoo.load(stopped, epoch=2).epoch == 2
    assert zoo.load(stopped, checkpoint="last").epoch == 4
    out = Path(shutil.copytree(stopped, tmp_path / "run"))
    (out / "checkpoints" / ".epoch-0004.safetensors.0123abcd.tmp").write_bytes(b"half a file")
    assert same(zoo.evaluate(backbone, digits, resume=out), straight)


def test_a_kill_between_a_checkpoint_and_the_record_of_it(
    stopped: Path, straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(stopped, tmp_path / "run"))
    (out / "checkpoints" / "epoch-0004.safetensors").write_bytes(b"damaged")
    edit_record(out, lambda record: record["checkpoints"].pop())
    assert same(zoo.evaluate(backbone, digits, resume=out), straight)


def test_a_kill_between_a_checkpoint_and_the_state_of_its_epoch(
    stopped: Path, straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(stopped, tmp_path / "run"))
    (out / "training_state.previous.safetensors").rename(out / "training_state.safetensors")
    lines = (out / "history.jsonl").read_text().splitlines(keepends=True)
    (out / "history.jsonl").write_text("".join(lines[:3]))
    edit_record(out, lambda record: record["results"].update(epochs_done=3))
    assert same(zoo.evaluate(backbone, digits, resume=out), straight)


def test_a_kill_while_the_checkpoints_are_scored(
    straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    stop = InterruptingReporter(stage="features of the train split, epoch 4")
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, digits, out=tmp_path / "run", progress=stop, **KEPT)
    record = read_run(tmp_path / "run")
    assert [kept.accuracy is not None for kept in record.checkpoints] == [True, False, False]
    assert record.main_epoch == 6  # the run is not finished, so the last epoch's weights are there
    assert same(zoo.evaluate(backbone, digits, resume=tmp_path / "run"), straight)


def test_an_earlier_checkpoint_that_is_lost_is_left_out_with_a_warning(
    stopped: Path, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(stopped, tmp_path / "run"))
    (out / "checkpoints" / "epoch-0002.safetensors").unlink()
    heard = Listener()
    run = zoo.evaluate(backbone, digits, resume=out, progress=heard)
    assert [kept.epoch for kept in run.record.checkpoints] == [4, 6]
    assert any("epoch-0002.safetensors is missing or damaged" in line for line in heard.warnings)


def test_a_checkpoint_that_was_changed_is_refused(straight: zoo.Run, tmp_path: Path) -> None:
    run = zoo.open_run(shutil.copytree(straight.directory, tmp_path / "run"))
    path = run.directory / "checkpoints" / "epoch-0002.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(WeightsError) as damaged:
        run.load(epoch=2)
    assert (damaged.value.code, damaged.value.facts["path"]) == ("checkpoint-changed", str(path))
    path.unlink()
    with pytest.raises(UsageError) as missing:
        run.load(epoch=2)
    assert missing.value.code == "no-such-checkpoint"
    foreign = straight.directory / "model.safetensors"  # whose tensors are those of the network
    shutil.copy(foreign, run.directory / "checkpoints" / "epoch-0004.safetensors")
    with pytest.raises(WeightsError):
        run.load(epoch=4)


def test_each_is_scored_again_and_layer_by_layer(straight: zoo.Run, digits: Dataset, tmp_path: Path) -> None:
    again = zoo.rescore(straight, digits, checkpoint=2)
    assert again.reproduced
    assert (again.epoch, again.checkpoint_sha256) == (2, straight.record.checkpoints[0].sha256)
    assert again.figures[0].recorded == straight.record.checkpoints[0].accuracy
    assert zoo.rescore(straight, digits, checkpoint="last").epoch == 6
    found = zoo.layers(straight, digits, epoch=2, pool=True, out=tmp_path / "layers")
    assert found.curves[0].subject.name.endswith("(run, epoch 2)")
    recorded = straight.record.checkpoints[0].separation_after.evaluation.si.value
    assert found.curves[0].layers[-1].separation.si.value == recorded
    for call in (zoo.rescore, zoo.layers):
        with pytest.raises(UsageError) as refused:
            call(straight, digits, checkpoint=3)
        assert refused.value.code == "no-such-checkpoint"


def test_a_run_begins_with_the_kept_weights_of_another(
    straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    small: dict[str, Any] = {"epochs": 0, "layer_curve": False}
    file = straight.directory / straight.record.checkpoints[0].file
    named = zoo.evaluate(backbone, digits, weights=straight.directory, checkpoint=2, out=tmp_path / "a", **small)
    by_path = zoo.evaluate(backbone, digits, weights=file, out=tmp_path / "b", **small)
    main = zoo.evaluate(backbone, digits, weights=straight.directory, checkpoint="best", out=tmp_path / "c", **small)
    kept, head = straight.load(checkpoint=2).network.state_dict(), "fc."
    for run, expected in ((named, kept), (by_path, kept), (main, straight.load().network.state_dict())):
        found = run.load().network.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items() if not name.startswith(head))
    weights = named.record.weights
    assert weights == by_path.record.weights
    assert (weights.source, weights.epoch, weights.sha256) == (str(file), 2, straight.record.checkpoints[0].sha256)
    assert weights.main_sha256 == straight.record.checkpoint_sha256
    assert "Kept by another run after epoch 2" in (named.card or "")
    assert (main.record.weights.filename, main.record.weights.epoch) == ("model.safetensors", None)
    assert json.loads((tmp_path / "a" / "options.json").read_text())["weights"] == str(file)  # for --resume
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, digits, weights=straight.directory, checkpoint=3)
    assert refused.value.code == "no-such-checkpoint"


def test_kept_weights_that_are_damaged_or_alone_are_refused(
    straight: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(straight.directory, tmp_path / "run"))
    file = folder / straight.record.checkpoints[0].file
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError) as refused:
        zoo.evaluate(backbone, digits, weights=file, epochs=0, out=tmp_path / "a")
    assert refused.value.code == "digest-mismatch"
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError) as refused:
        zoo.evaluate(backbone, digits, weights=file, epochs=0, out=tmp_path / "a")
    assert refused.value.code == "checkpoint-missing"


def test_options_without_a_run_are_refused(backbone: Backbone, digits: Dataset) -> None:
    for call in (zoo.layers, zoo.evaluate):
        with pytest.raises(UsageError) as refused:
            call(backbone, digits, checkpoint="best")
        assert (refused.value.code, refused.value.facts["option"]) == ("option-unused", "checkpoint")
    for epochs, every in ((3, 4), (5000, 2)):
        with pytest.raises(UsageError) as refused:
            zoo.evaluate(backbone, digits, epochs=epochs, save_every=every)
        assert refused.value.code == "option-value"


def test_the_main_checkpoint_alone_is_published(straight: zoo.Run, tmp_path: Path) -> None:
    write_tree(publishable(straight.directory), tmp_path / "tree")
    tree = zoo.open_run(tmp_path / "tree")
    assert [*tree.checkpoints] == [straight.record.main_epoch]
    assert tree.load(checkpoint="best").epoch == straight.record.main_epoch
    assert f"Only the main checkpoint, of epoch {straight.record.main_epoch}, is published;" in (tree.card or "")
    assert "checkpoints/" not in (tree.card or "")
    with pytest.raises(UsageError) as refused:
        tree.load(checkpoint="last")
    assert refused.value.facts["there"] == (straight.record.main_epoch,)


def test_a_run_from_scratch_scores_each_on_the_test_split_and_stops_early(
    backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    heard = Listener()
    options: dict[str, Any] = {"learning_rate": 1e-9, "patience": 2, "keep": "both", "warmup_epochs": 0}
    run = zoo.train(
        backbone, digits, epochs=9, schedule="constant", batch_size=32, out=tmp_path, progress=heard, **options
    )
    record = run.record
    done = record.results.epochs_done
    assert done < 9
    assert [kept.epoch for kept in record.checkpoints] == [done]
    (last,) = record.checkpoints
    assert last.test_accuracy.n == 40
    assert last.test_accuracy == zoo.rescore(run, digits, checkpoint="last").figures[6].found
    assert last.separation_after.test.si.n == 40
    assert any(line.startswith("saving up to 1 checkpoint of ") for line in heard.lines)
