"""Runs that are asked for in Python: the same bits as before, and a caller whose own state is left alone."""

from __future__ import annotations

import json
import logging
import os
import platform
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import zoo
from zoo import Backbone, DataError, Dataset, DatasetRequest, Preprocessing, UnknownNameError, UsageError
from zoo_harness.runs.reporter import LoggingReporter
from zoo_harness.runs.request import choose_data
from zoo_harness.util.progress import Silence

# SHA-256 of model.safetensors, written by 76d383e, before the harness was moved into folders.
DIGESTS = {
    "resnet": "e8c83e5265109534d6e37eb17e2d2737fda4fd8e89db6d2b2d08e6bac4e69ecc",
    "vit": "f0c154ad2a3ea561723fe0d1d5f2f097331bafe82ecdc85743a9bce6449bff50",
    "convnext": "437b35ac84f2814b1cc94872f09cd4ae2b25f7ffe8b37e11b6e50303cb9ef2fc",
    "efficientnet": "9500ce6559f7f6d6cb62969f98fab88612be1517a43d26d43bd42df05fa010db",
    "scratch": "f647065e0945a5bf9054b3deba5a7a70cb851fce4df4eb880e15fa70974ae590",
}
TORCH = "2.15.0"
# One code path of every library and one thread, so that each x86-64 processor computes the same bits.
PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}
PROGRAM = """
import json, sys
from pathlib import Path
import zoo

def tiny(name, network, unfreeze, head, layer, width, pool):
    return zoo.Backbone(
        name=name, weights=zoo.RandomWeights(), architecture=zoo.TimmArchitecture(f"{network}.r160_in1k"),
        preprocessing=zoo.Preprocessing(input_size=(64, 64)), unfreeze=(unfreeze,), head=zoo.Head(head),
        features=(zoo.FeatureLayer(layer, width, pool=pool),),
        license=None, paper=None, pretrained_on=None, imagenet_top1=None,
    )

out = Path(sys.argv[1])
resnet = tiny("tiny_resnet", "test_resnet", "layer4", "fc", "global_pool", 96, "flatten")
vit = tiny("tiny_vit", "test_vit", "blocks.5", "head", "norm", 64, "cls")
convnext = tiny("tiny_convnext", "test_convnext", "stages.3", "head.fc", "head.flatten", 64, "flatten")
efficientnet = tiny("tiny_efficientnet", "test_efficientnet", "conv_head", "classifier", "global_pool", 256, "flatten")
found = {}

def run(name, function, backbone, **options):
    done = function(backbone, "digits", per_class=6, layer_curve=False, out=out / name, **options)
    found[name] = done.record.checkpoint_sha256

run("resnet", zoo.evaluate, resnet, epochs=2)
run("vit", zoo.evaluate, vit, epochs=2, optimizer="sgd", momentum=0.9, learning_rate=0.01, schedule="cosine",
    warmup_epochs=1, batch_size=16)
run("convnext", zoo.evaluate, convnext, epochs=3, optimizer="adamw", weight_decay=0.05, augment=("flip", "crop"),
    views=2)
run("efficientnet", zoo.evaluate, efficientnet, epochs=3, label_smoothing=0.1, class_weights="balanced", keep="best",
    cache="off")
run("scratch", zoo.train, resnet, epochs=2, milestones=[1])
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the digests are those of x86-64 processors")
@pytest.mark.skipif(not torch.__version__.startswith(TORCH), reason=f"the digests are those of torch {TORCH}")
def test_five_configurations_write_the_checkpoints_of_before(tmp_path: Path) -> None:
    """Five runs after each other in one process; the digests are those of five processes."""
    environment = {**os.environ, **PLAIN, "ZOO_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == DIGESTS
    assert done.stderr == ""


def test_a_record_and_data_in_memory_make_a_run(finished: zoo.Run, backbone: Backbone) -> None:
    record = finished.record
    assert (record.status, record.backbone.name, record.dataset.name) == ("finished", backbone.name, "scans")
    assert (record.backbone.plugin, record.backbone.distribution) == ("unregistered", "unregistered")
    assert record.command[0].startswith("zoo.evaluate(<Backbone unregistered_resnet>, <Dataset scans>, epochs=2")
    assert len(finished.history) == 2
    assert finished.accuracy == record.results.accuracy
    assert finished.load()(torch.zeros(1, 3, 64, 64)).shape == (1, 10)


def test_a_run_in_another_thread_is_the_same(
    finished: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    """Only the main thread may set signal handlers."""
    with ThreadPoolExecutor(1) as pool:
        options = {"epochs": 2, "batch_size": 16, "tensorboard": True, "out": tmp_path / "run"}
        run = pool.submit(zoo.evaluate, backbone, digits, **options).result()
    assert run.record.checkpoint_sha256 == finished.record.checkpoint_sha256
    assert list((tmp_path / "run" / "tensorboard").iterdir())


class WarningsAlone(LoggingReporter):
    """Keeps warnings, as ``--quiet`` shows them."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, line: str) -> None:
        """Keep a warning."""
        self.warnings.append(line)


def test_a_refused_cache_folder_is_a_warning_and_changes_no_bit(
    finished: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "file" / "cache"))
    reporter = WarningsAlone()
    run = zoo.evaluate(backbone, digits, epochs=2, batch_size=16, out=tmp_path / "run", progress=reporter)
    assert run.record.checkpoint_sha256 == finished.record.checkpoint_sha256
    refused = [line for line in reporter.warnings if not line.startswith("too few images per class")]
    assert ["in memory only" in line for line in refused] == [True, True]


def test_the_callers_state_is_left_alone(
    backbone: Backbone, digits: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = _state()
    with torch.no_grad():
        zoo.evaluate(backbone, digits, epochs=1, out=tmp_path / "run", seed=np.int64(5), deterministic=True)
        assert not torch.is_grad_enabled()
    assert _state() == before
    assert capfd.readouterr() == ("", "")


def _state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "folder": Path.cwd(),
        "arguments": list(sys.argv),
        "dtype": torch.get_default_dtype(),
        "handlers": list(logging.getLogger().handlers),
    }


@pytest.mark.parametrize(
    ("options", "code", "option"),
    [
        ({"optimiser": "sgd"}, "option-unknown", "optimiser"),
        ({"epochs": "three"}, "option-value", "epochs"),
        ({"optimizer": "lion"}, "option-choice", "optimizer"),
        ({"per_class": 0}, "option-range", "per_class"),
        ({"learning_rate": float("inf")}, "option-value", "learning_rate"),
        ({"augment": ("flip", "blur")}, "option-value", "augment"),
    ],
)
def test_wrong_options_are_refused(
    backbone: Backbone, digits: Dataset, options: dict[str, Any], code: str, option: str
) -> None:
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, digits, **options)
    assert (refused.value.code, refused.value.facts["option"]) == (code, option)


def test_wrong_names_are_refused_with_near_misses(digits: Dataset) -> None:
    with pytest.raises(UnknownNameError) as refused:
        zoo.evaluate("efficientnet_lite", digits)
    assert "efficientnet_lite0" in refused.value.facts["near"]
    with pytest.raises(UsageError) as missing:
        zoo.evaluate("efficientnet_lite0")
    assert missing.value.code == "missing-dataset"


def test_a_run_is_the_start_of_another(finished: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(finished, digits)
    assert refused.value.code == "run-needs-backbone"
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(finished, digits, epochs=0)
    assert refused.value.code == "run-needs-rescore"
    again = zoo.evaluate(backbone, digits, weights=finished.directory, epochs=1, out=tmp_path / "run")
    assert again.record.weights.kind == "file"
    assert again.record.weights.sha256 == finished.record.checkpoint_sha256


def test_a_run_is_scored_again_and_its_layers_too(finished: zoo.Run, digits: Dataset, tmp_path: Path) -> None:
    assert zoo.rescore(finished, digits).reproduced
    found = zoo.layers(finished, digits, out=tmp_path / "layers")
    assert [layer.path for layer in found.curves[0].layers] == ["raw pixels", "layer3", "global_pool"]
    assert found.path.is_file()
    assert found.plot.is_file()
    with pytest.raises(DataError):
        zoo.rescore(finished, zoo.in_memory(np.zeros((2, 8, 8), np.uint8), [0, 0], name="one_class"))


def test_a_diverged_training_is_warned_of_and_recorded(
    backbone: Backbone, digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = zoo.evaluate(backbone, digits, epochs=1, learning_rate=1e3, layer_curve=False, out=tmp_path / "run")
    told = run.record.results.diverged
    assert told in caplog.messages
    assert told.startswith("the training diverged: ")
    assert f"**Do not use this checkpoint without a check:** {told.partition(';')[0]}" in run.card


@pytest.fixture(scope="module")
def tinted() -> Dataset:
    """Scans in colour, brighter in the test split."""
    found = load_digits()
    images = (found.images[:120, ..., None] * (15, 8, 4)).astype(np.uint8)
    images[80:] += 100 - images[80:] // 2
    return zoo.in_memory(images[:80], found.target[:80], test=(images[80:], found.target[80:120]), name="tinted")


@pytest.fixture(scope="module")
def normalised(backbone: Backbone, tinted: Dataset, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    """A run that normalises by its training images; look only."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options: dict[str, Any] = {"epochs": 1, "batch_size": 16, "layer_curve": False}
    return zoo.evaluate(backbone, tinted, normalization="dataset", out=out, **options)


def training_values(dataset: Dataset) -> np.ndarray:
    loaded = dataset.loader(DatasetRequest())  # type: ignore[operator]
    return np.asarray(loaded.splits["train"].images).reshape(-1, 3) / 255


def test_a_run_normalises_by_its_training_images(normalised: zoo.Run, tinted: Dataset) -> None:
    settings, values = normalised.record.settings, training_values(tinted)
    mean, std = settings.preprocessing.mean, settings.preprocessing.std
    assert settings.normalization == "dataset"
    assert mean == pytest.approx(values.mean(0))
    assert std == pytest.approx(values.std(0))
    measured = zoo.dataset_stats(tinted).splits["train"]
    assert (mean, std) == (measured.mean, measured.std)
    configuration = json.loads((normalised.directory / "config.json").read_text())["pretrained_cfg"]
    assert (tuple(configuration["mean"]), tuple(configuration["std"])) == (mean, std)
    assert "| source of mean and standard deviation | computed from the training images |" in (normalised.card or "")
    pixels = np.full((64, 64, 3), 51, np.uint8)
    levels = normalised.load().preprocess(pixels)[0, :, 0, 0]
    assert levels.tolist() == pytest.approx(((0.2 - np.array(mean)) / np.array(std)).tolist(), rel=1e-5)


def test_images_that_are_held_out_do_not_count(tinted: Dataset) -> None:
    values = {"data_dir": None, "per_class": None, "limit": None, "val_fraction": 0.5, "seed": 0}
    request = choose_data(tinted, {**values, "normalization": "dataset"})
    data = request.load(Preprocessing((16, 16)), Silence(), with_test=True)
    kept, held_out = (each.images.reshape(-1, 3) / 255 for each in (data.train, data.evaluation))
    assert data.preprocessing.mean == pytest.approx(kept.mean(0))
    assert data.preprocessing.mean != pytest.approx(held_out.mean(0))
    assert data.test is not None
    transforms = {each.transform for each in (data.train, data.evaluation, data.test)}
    assert [each.preprocessing for each in transforms] == [data.preprocessing]


def test_a_checkpoint_is_scored_with_its_own_mean_and_standard_deviation(normalised: zoo.Run, tinted: Dataset) -> None:
    test = tinted.loader(DatasetRequest()).splits["test"]  # type: ignore[operator]
    dark = zoo.in_memory(np.asarray(test.images) // 4, test.labels, test=(test.images, test.labels), name="dark")
    again = zoo.rescore(normalised, dark)  # other training images, the same test images
    assert again.same_data == {"evaluation": True}
    assert again.reproduced


def test_layers_of_a_run_have_its_normalisation_and_backbones_that_of_the_options(
    normalised: zoo.Run, backbone: Backbone, tinted: Dataset, tmp_path: Path
) -> None:
    given = {"mean": (0.1, 0.2, 0.3), "std": "0.4,0.5,0.6"}
    found = zoo.layers([backbone, normalised], tinted, pool=True, weights="random", out=tmp_path / "out", **given)  # type: ignore[arg-type]
    one, other = (curve.to_dict() for curve in found.curves)
    assert (one["normalization"], one["preprocessing"]["std"]) == ("given", (0.4, 0.5, 0.6))
    assert other["normalization"] == "weights"
    assert other["preprocessing"] == vars(normalised.record.settings.preprocessing)
    with pytest.raises(UsageError) as caught:
        zoo.layers(normalised, tinted, normalization="dataset")
    assert (caught.value.code, caught.value.facts["option"]) == ("option-unused", "normalization")


def test_weights_of_a_run_with_another_normalisation_are_warned_of(
    normalised: zoo.Run, backbone: Backbone, tinted: Dataset, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"epochs": 0, "limit": 10, "layer_curve": False, "weights": normalised.directory}
    zoo.evaluate(backbone, tinted, out=tmp_path / "run", **options)
    mean = ",".join(map(str, normalised.record.settings.preprocessing.mean))
    assert f"--mean {mean}" in "".join(caplog.messages)
