"""``zoo train``: the whole network from scratch, the best epoch kept, the test split looked at once, at the end."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

import zoo
from zoo.backbone import SCRATCH
from zoo.weights import RandomWeights
from zoo_harness.cli.main import run
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.records.run import EpochRecord, RunRecord, read_run
from zoo_harness.records.subset import Subset
from zoo_harness.reports.backbone_summary import describe_backbone
from zoo_harness.runs.directory import claim_directory
from zoo_harness.runs.plan import Request, prepare_run
from zoo_harness.runs.reporter import LoggingReporter
from zoo_harness.runs.session import execute_run
from zoo_harness.runs.writer import RunWriter
from zoo_harness.training.optimizer import learning_rate
from zoo_harness.util.digests import sha256_of
from zoo_harness.util.progress import Silence

from ...runs.conftest import InterruptingReporter

SETTINGS = ("--limit", "20", "--epochs", "3", "--batch-size", "10", "--learning-rate", "0.01", "--seed", "3")
TRAIN = ("train", "resnet18_cifar", "--dataset", "digits", *SETTINGS)
REGISTRY = zoo.load_registry()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs, with what it prints."""
    out = tmp_path_factory.mktemp("straight") / "run"
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as told:
        assert run([*TRAIN, "--verbose", "--out", str(out)]) == 0
    (out / "printed").write_text(printed.getvalue())
    (out / "told").write_text(told.getvalue())
    return out


def history(directory: Path) -> list[EpochRecord]:
    lines = (directory / "history.jsonl").read_text().splitlines()
    return [EpochRecord.model_validate_json(line) for line in lines]


def digits(subset: Subset, record: RunRecord | None = None) -> RunData:
    preprocessing = record.settings.preprocessing if record else zoo.Preprocessing(input_size=(8, 8))
    dataset, _argument = REGISTRY.dataset("digits")
    return load_data(dataset, None, None, subset, BatchTransform(preprocessing), with_test=True)


# The run


def test_the_record_has_the_reports_settings_and_the_test_split(straight: Path) -> None:
    record = read_run(straight)
    assert SCRATCH.training is not None
    assert record.settings.recipe == "scratch"
    assert record.settings.training == replace(SCRATCH.training, epochs=3, batch_size=10, learning_rate=0.01)
    assert record.weights.kind == "random"
    assert record.parameters.trained == record.parameters.total == 11_173_962
    assert record.results.frozen_part is not None
    assert record.results.frozen_part.reason == "all of it trains"
    splits = [split for split in (record.dataset.train, record.dataset.evaluation, record.dataset.test) if split]
    assert [split.split for split in splits] == ["train", "held out of train", "test"]
    assert [split.per_class for split in splits] == [(2,) * 10] * 3
    assert len({split.fingerprint for split in splits}) == 3
    results = record.results
    assert results.test_accuracy is not None
    assert results.test_accuracy.n == 20
    assert results.separation_before is not None
    assert results.separation_before.test is None
    for found in (results.separation_raw_pixels, results.separation_after):
        assert found is not None
        assert found.test is not None


def test_what_is_shown_has_the_test_split_first(straight: Path) -> None:
    record = read_run(straight)
    assert record.results.test_accuracy is not None
    printed, card = (straight / "printed").read_text(), (straight / "README.md").read_text()
    accuracy = 100 * record.results.test_accuracy.value
    assert re.match(rf"test accuracy +{accuracy:.2f} ± [\d.]+ %  of 20 images$", printed.splitlines()[1])
    assert "SI after training" in printed
    assert "SI before training" not in printed  # of the test split there is none
    assert [line.split()[0] for line in printed.splitlines() if "raw pixels  " in line] == [
        "test",
        "held-out",
        "training",
    ]
    assert f"The test accuracy of the model is {accuracy:.2f} % ± " in card
    assert "on 20 images of the split `test`" in card
    assert "used only once, after training: split test, 20 images" in (straight / "told").read_text()


def test_the_checkpoint_is_the_best_epochs(straight: Path) -> None:
    record, lines = read_run(straight), history(straight)
    assert record.results.accuracy is not None
    best_line = max(lines, key=lambda line: line.evaluation_accuracy)
    assert best_line.epoch < len(lines)
    assert record.results.accuracy.value == best_line.evaluation_accuracy
    assert record.results.evaluation_loss == pytest.approx(best_line.evaluation_loss)
    saved = read_tensors(straight / "model.safetensors")
    state = read_tensors(straight / "training_state.safetensors")
    best = {name.removeprefix("best."): tensor for name, tensor in state.items() if name.startswith("best.")}
    assert best.keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in best.items())


def test_the_checkpoint_gives_the_recorded_figures_on_the_datas_own_test_split(straight: Path) -> None:
    record = read_run(straight)
    data = digits(Subset(limit=20, val_fraction=0.2, seed=3), record)
    assert data.record == record.dataset
    assert data.test is not None
    model = zoo.load(straight)
    with torch.inference_mode():
        logits = model(model.preprocess(torch.from_numpy(data.test.images)))
    assert record.results.test_accuracy is not None
    assert record.results.test_accuracy.value == (logits.argmax(1) == data.test.labels).double().mean()
    assert record.results.test_loss == pytest.approx(float(cross_entropy(logits, data.test.labels)), rel=1e-5)


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_finished_run_is_not_resumed(straight: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, "--resume", str(straight)]) == 2
    assert "the run is finished" in capsys.readouterr().err


def test_interrupted_it_ends_with_the_same_checkpoint(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"limit": 20, "epochs": 3, "batch_size": 10, "learning_rate": 0.01, "seed": 3}
    with pytest.raises(KeyboardInterrupt):
        zoo.train("resnet18_cifar", "digits", out=out, progress=InterruptingReporter(epoch=1), **settings)
    assert read_run(out).results.test_accuracy is None
    assert run(["train", "--resume", str(out), "--quiet"]) == 0
    assert sha256_of(out / "model.safetensors") == sha256_of(straight / "model.safetensors")
    assert read_run(out).results.test_loss == read_run(straight).results.test_loss
    assert [line.train_loss for line in history(out)] == [line.train_loss for line in history(straight)]


# The data


class Watched(ImageData):
    """A split that notes each time its images are looked at: by the network, or as raw pixels."""

    name = ""
    looks: list[tuple[str, tuple[int, ...]]] = []  # noqa: RUF012 - every split writes into the same

    def planes(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        self.looks.append((self.name, tuple(indices.tolist())))
        return super().planes(indices, device)

    @property
    def raw_pixels(self) -> NDArray[np.uint8]:
        self.looks.append((f"{self.name} as raw pixels", ()))
        return super().raw_pixels


def watched(data: ImageData, name: str) -> ImageData:
    return type(name, (Watched,), {"name": name})(**vars(data))


def test_the_test_split_is_looked_at_when_all_else_is_done(tmp_path: Path) -> None:
    backbone = REGISTRY.backbone("resnet18_cifar")
    tuning = backbone.tuning("scratch")
    request = Request(
        backbone=backbone,
        dataset=REGISTRY.dataset("digits")[0],
        argument=None,
        tuning=tuning,
        unfreeze=None,
        layer=tuning.features[-1],
        weights=RandomWeights(),
        training=replace(tuning.training, epochs=2, batch_size=10),
        subset=Subset(limit=20, val_fraction=0.2),
        compute=ComputeContext(torch.device("cpu")),
        data_dir=None,
        command=("zoo",),
        with_test=True,
    )
    planned = prepare_run(request, Silence())
    data = planned.data
    assert data.test is not None
    Watched.looks.clear()
    seen = replace(data, **{name: watched(getattr(data, name), name) for name in ("train", "evaluation", "test")})
    directory = claim_directory(tmp_path / "run", "net", "digits")
    execute_run(replace(planned, data=seen), RunWriter(directory), CachePolicy(), LoggingReporter())
    names = [name for name, _indices in Watched.looks]
    first = names.index("test")
    assert {"train", "evaluation", "train as raw pixels"} <= set(names[:first])
    assert set(names[first:]) == {"test", "test as raw pixels"}
    indices = [index for name, batch in Watched.looks if name == "test" for index in batch]
    # For accuracy and separation, then for the layers, whose widths one image tells.
    assert indices == [*range(20), 0, *range(20)]


def test_the_held_out_part_is_a_fifth_of_every_class_and_of_training_images_alone() -> None:
    data, whole = digits(Subset(val_fraction=0.2)), digits(Subset())
    assert whole.test is None
    assert data.test is not None
    counts = np.bincount(whole.train.labels)
    assert np.bincount(data.evaluation.labels).tolist() == [round(0.2 * count) for count in counts]

    def rows(*parts: ImageData) -> list[bytes]:
        return sorted(image.tobytes() for part in parts for image in part.images)

    assert rows(data.train, data.evaluation) == rows(whole.train)
    assert rows(data.test) == rows(whole.evaluation)


def test_images_of_imagenets_size_and_no_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(5):
            Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8)).save(folder / f"{index}.png")
    out = tmp_path / "run"
    options = ["--dataset", f"imagefolder:{tmp_path}/photos", "--epochs", "1", "--out", str(out), "--quiet"]
    assert run(["train", "efficientnet_lite0", *options]) == 0
    told = capsys.readouterr().err
    assert "has no 'test' split here, only train: the reported accuracy is that of the held-out images" in told
    record = read_run(out)
    assert record.parameters.trained == record.parameters.total
    assert record.dataset.test is None
    assert record.results.test_accuracy is None
    assert record.settings.preprocessing.input_size == (224, 224)
    assert "Test split" not in (out / "README.md").read_text()


# The recipe


def test_the_learning_rate_of_the_report() -> None:
    training = SCRATCH.training
    assert training is not None
    rates = [learning_rate(training, step, 10) for step in range(2000)]
    assert rates[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
    assert rates[10:600] == pytest.approx([0.1] * 590)
    assert rates[600:1200] == pytest.approx([0.02] * 600)
    assert rates[1200:1600] == pytest.approx([0.004] * 400)
    assert rates[1600:] == pytest.approx([0.0008] * 400)


@pytest.mark.parametrize("name", sorted(set(REGISTRY.backbones) - {"nfnet_f6", "efficientnetv2_l"}))
def test_all_of_every_backbone_trains(name: str) -> None:
    parameters = describe_backbone(REGISTRY.backbone(name), "scratch", 10)["parameters"]
    assert parameters["trained"] == parameters["total"]


def test_show_says_how_any_backbone_is_trained_from_scratch(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "efficientnet_lite0", "--recipe", "scratch", "--json"]) == 0
    training = json.loads(capsys.readouterr().out)["training"]
    assert (training["epochs"], training["optimizer"], training["milestones"]) == (200, "sgd", [60, 120, 160])
    assert run(["show", "efficientnet_lite0", "--recipe", "scratch"]) == 0
    assert "learning rate times 0.2 after epochs 60, 120, 160" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train"], '"code": "missing-backbone"'),
        (["train", "resnet18_cifar"], '"code": "missing-dataset"'),
        ([*TRAIN, "--val-fraction", "0"], '"code": "option-range"'),
        ([*TRAIN, "--unfreeze", "fc"], '"code": "usage"'),
        ([*TRAIN, "--limit", "1"], "too few images to train"),
    ],
)
def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], part: str) -> None:
    assert run([*arguments, "--json"]) == 2
    assert part in capsys.readouterr().err.splitlines()[-1]
