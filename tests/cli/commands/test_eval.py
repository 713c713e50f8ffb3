"""``zoo eval`` as a user runs it: real weights, real images, the files it leaves, and every way it can be refused."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import NearestNeighbors

import zoo
from zoo_harness.cli.main import run
from zoo_harness.cli.run_output import print_run
from zoo_harness.evaluation.confusion import Confusion, summarize
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture
from zoo_harness.records.run import EpochRecord, RunRecord, SplitSeparation, read_run
from zoo_harness.records.subset import Subset
from zoo_harness.runs.directory import claim_directory
from zoo_harness.runs.display import ProgressDisplay
from zoo_harness.runs.run import open_run

ZOO = str(Path(sys.executable).with_name("zoo"))
FASHION = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "README.md",
    "accuracy.png",
    "config.json",
    "history.jsonl",
    "loss.png",
    "model.safetensors",
    "options.json",
    "run.json",
    "samples.png",
    "training_state.safetensors",
}
AT_THE_END = {"confusion.json", "confusion.png", "layers.png", "predictions.safetensors"}
EVAL = ("eval", "efficientnet_lite0", "--dataset", "digits")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that is finished: two epochs on four images of each digit."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert run([*EVAL, "--per-class", "4", "--epochs", "2", "--seed", "3", "--out", str(out), "--quiet"]) == 0
    return out


def history(directory: Path) -> list[EpochRecord]:
    lines = (directory / "history.jsonl").read_text().splitlines()
    return [EpochRecord.model_validate_json(line) for line in lines]


def refused(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    assert run(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1]


def test_run_directory_holds_what_it_promises(finished: Path) -> None:
    assert {file.name for file in finished.iterdir()} == FILES | AT_THE_END
    record = read_run(finished)
    assert record.status == "finished"
    assert record.results.epochs_done == 2
    assert [line.epoch for line in history(finished)] == [1, 2]
    assert record.weights.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert record.parameters.trained == 1_030_410
    assert record.parameters.trained_without_head == 1_017_600
    assert record.dataset.train.per_class == (4,) * 10
    assert record.plots == ("loss.png", "accuracy.png", "confusion.png", "layers.png", "samples.png")
    assert record.settings.seed == 3


def test_card_command_prints_the_runs_card(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["card", str(finished)]) == 0
    assert capsys.readouterr().out.rstrip() == (finished / "README.md").read_text().rstrip()


def test_the_code_in_the_card_recognises_a_digit(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, _labels = evaluation_images(read_run(finished))
    Image.fromarray(images[0]).resize((64, 64)).save(tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    card = (finished / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block.replace("PATH", str(finished)), {})  # noqa: S102 - our own card
    labels = capsys.readouterr().out.split()
    assert len(labels) == 3
    assert len(set(labels)) == 1
    assert labels[0] in read_run(finished).dataset.classes
    predict, score_again = re.findall(r"^zoo (.*)$", card.split("```shell\n")[1].split("```")[0], re.MULTILINE)
    assert run(predict.replace("PATH", str(finished)).split()) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["image.jpg", labels[0]]
    assert run(score_again.replace("PATH", str(finished)).split()) == 0


def test_card_command_keeps_what_a_person_wrote(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "README.md"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    card = tmp_path / "README.md"
    edited = card.read_text().replace("# efficientnet_lite0", "# An older title") + "\nMine.\n"
    card.write_text(edited)
    assert run(["card", f"{tmp_path}/run.json"]) == 0
    assert capsys.readouterr().out == (finished / "README.md").read_text() + "\nMine.\n"
    assert card.read_text() == edited
    assert run(["card", str(tmp_path), "--write"]) == 0
    assert capsys.readouterr().out == f"{card}\n"
    assert card.read_text() == (finished / "README.md").read_text() + "\nMine.\n"


def test_card_command_never_writes_over_a_card_by_hand(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., zoo.ZooError]
) -> None:
    (tmp_path / "run.json").write_bytes((finished / "run.json").read_bytes())
    (tmp_path / "README.md").write_text("# By hand\n")
    assert error_of("card", str(tmp_path), "--write").code == "card-not-merged"
    assert (tmp_path / "README.md").read_text() == "# By hand\n"
    assert run(["card", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == (finished / "README.md").read_text()
    assert captured.err.startswith("warning: your own text in ")
    assert error_of("card", "efficientnet_lite0", "--write").code == "option-unused"


def test_last_epoch_and_final_accuracy_agree(finished: Path) -> None:
    record = read_run(finished)
    assert record.results.accuracy is not None
    assert record.results.accuracy.value == history(finished)[-1].evaluation_accuracy
    assert record.results.evaluation_loss == history(finished)[-1].evaluation_loss


def test_the_checkpoint_in_timm_gives_the_accuracy_of_the_run(finished: Path) -> None:
    import timm
    from timm.data import create_transform, resolve_data_config

    network = timm.create_model(f"local-dir:{finished}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=network))
    record = read_run(finished)
    images, labels = evaluation_images(record)
    pictures = [Image.fromarray(image).convert("RGB") for image in images]
    with torch.inference_mode():
        logits = network(torch.stack([transform(picture) for picture in pictures]))
        ours = zoo.load(finished)
        reference = ours(ours.preprocess(torch.from_numpy(images)))
    # timm's transform resizes with PIL, ours in batches: they differ by one grey level at most.
    assert torch.allclose(logits, reference, atol=0.05)
    assert record.results.accuracy is not None
    accuracy = float((reference.argmax(1).numpy() == labels).mean())
    assert accuracy == pytest.approx(record.results.accuracy.value)


def test_scores_after_are_those_of_the_loaded_checkpoints_features(finished: Path) -> None:
    record = read_run(finished)
    images, labels = evaluation_images(record)
    model = zoo.load(finished)
    layer = record.backbone.features[-1]
    with torch.inference_mode(), capture(model.network, [layer.path]) as outputs:
        model(model.preprocess(torch.from_numpy(images)))
    features = pool_features(outputs[layer.path], layer)
    expected = zoo.separation(features, labels)
    scores = (expected.si, expected.high[2], expected.soft[2], expected.anti[2], expected.centre)
    after = record.results.separation_after
    assert after is not None
    assert values(after.evaluation) == pytest.approx([score.value for score in scores])


def test_first_order_score_is_leave_one_out_nearest_neighbour_accuracy_of_the_raw_pixels(finished: Path) -> None:
    record = read_run(finished)
    images, labels = evaluation_images(record)
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(images.reshape(len(images), -1).astype(float))
    nearest = search.kneighbors(return_distance=False)[:, 0]
    pixels = record.results.separation_raw_pixels
    assert pixels is not None
    assert pixels.layer == "raw pixels"
    assert (record.dataset.evaluation.pixels, record.dataset.evaluation.resized) == ((8, 8), False)
    assert values(pixels.evaluation)[0] == pytest.approx((labels[nearest] == labels).mean())


def test_scores_of_one_split_obey_their_identity(finished: Path) -> None:
    results = read_run(finished).results
    for found in (results.separation_raw_pixels, results.separation_before, results.separation_after):
        assert found is not None
        for split in (found.train, found.evaluation):
            _index, high, soft, anti, _centre = values(split)
            assert anti == pytest.approx(1 - 2 * soft + high)


def test_confusion_matrix_is_that_of_the_loaded_checkpoints_predictions(finished: Path) -> None:
    record = read_run(finished)
    images, labels = evaluation_images(record)
    model = zoo.load(finished)
    with torch.inference_mode():
        predicted = model(model.preprocess(torch.from_numpy(images))).argmax(1).numpy()
    confusion = Confusion.model_validate_json((finished / "confusion.json").read_bytes())
    assert confusion.classes == record.dataset.classes
    assert confusion.split == "test"
    assert np.array_equal(confusion.counts, confusion_matrix(labels, predicted, labels=range(10)))
    assert record.results.accuracy is not None
    assert np.trace(np.array(confusion.counts)) / len(labels) == pytest.approx(record.results.accuracy.value)
    assert record.results.confusion == summarize(confusion)


def test_layer_curve_has_every_declared_layer_and_agrees_with_the_other_scores(finished: Path) -> None:
    record = read_run(finished)
    curve, pixels, after = (
        record.results.layer_curve,
        record.results.separation_raw_pixels,
        record.results.separation_after,
    )
    assert curve is not None
    assert pixels is not None
    assert after is not None
    declared = [(layer.path, layer.width) for layer in record.backbone.features]
    assert [(layer.path, layer.width) for layer in curve.layers] == [("raw pixels", 64), *declared]
    assert (curve.layers[0].separation, curve.layers[-1].separation) == (pixels.evaluation, after.evaluation)
    assert curve.best.separation.si.value == max(layer.separation.si.value for layer in curve.layers[1:])


def test_a_record_from_before_confusion_and_curve_is_read(finished: Path, tmp_path: Path) -> None:
    content = json.loads((finished / "run.json").read_text())
    del content["results"]["confusion"], content["results"]["layer_curve"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    results = read_run(tmp_path).results
    assert (results.confusion, results.layer_curve) == (None, None)


def values(split: SplitSeparation | None) -> list[float]:
    assert split is not None
    return [score.value for score in split.scores.values()]


@pytest.mark.parametrize(
    ("images", "notes"),
    [
        (1, "no scores, because one image has no neighbour."),
        (2, "no score of order 2, because each image has one neighbour."),
    ],
)
def test_splits_of_one_and_two_images_have_the_scores_they_can(
    images: int, notes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run([*EVAL, "--limit", str(images), "--epochs", "0", "--out", str(out), "--verbose"]) == 0
    printed = capsys.readouterr().out
    assert f"Test split: {notes}" in printed
    assert f"Training split: {notes}" in (out / "README.md").read_text()
    pixels = read_run(out).results.separation_raw_pixels
    assert pixels is not None
    if images == 1:
        assert (pixels.train, pixels.evaluation, read_run(out).results.layer_curve) == (None, None, None)
    else:
        assert len(values(pixels.train)) == len(values(pixels.evaluation)) == 2


def evaluation_images(record: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """The evaluation images of a run on the digits, found again from its record alone."""
    from zoo_harness.data.loading import load_data
    from zoo_harness.data.transform import BatchTransform

    dataset, argument = zoo.load_registry().dataset(record.dataset.name)
    subset = Subset(per_class=record.dataset.per_class, limit=record.dataset.limit, seed=record.settings.seed)
    data = load_data(dataset, argument, None, subset, BatchTransform(record.settings.preprocessing))
    assert data.record == record.dataset
    return data.evaluation.images, data.evaluation.labels.numpy()


def test_the_images_are_scikit_learns(finished: Path) -> None:
    images, labels = evaluation_images(read_run(finished))
    known = {(image * (255 / 16)).round().astype(np.uint8).tobytes(): int(label) for image, label in digits()}
    assert [known[image.tobytes()] for image in images] == labels.tolist()


def digits() -> list[tuple[np.ndarray, int]]:
    bunch = load_digits()
    return list(zip(bunch.images, bunch.target, strict=True))


def test_json_alone_on_stdout_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = ("--per-class", "3", "--epochs", "0", "--no-layer-curve")
    assert run([*EVAL, *options, "--out", str(out), "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    record = RunRecord.model_validate_json(captured.out)
    assert record == read_run(out)
    assert (record.results.epochs_done, record.results.layer_curve) == (0, None)
    assert not (out / "layers.png").exists()
    assert record.results.separation_before == record.results.separation_after


def test_a_run_ends_with_a_summary_and_with_details_on_demand(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of = open_run(finished)
    print_run(run_of, as_json=False, quiet=True)
    assert capsys.readouterr().out == f"{finished}\n"
    print_run(run_of, as_json=False, quiet=False)
    summary = capsys.readouterr().out
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in summary.splitlines()[1:])
    assert list(facts) == [
        "test accuracy", "training accuracy", "SI before training", "SI after training",
        "trained", "weights", "time", "run", "details", "next",
    ]  # fmt: skip
    accuracy, separation = run_of.accuracy, run_of.record.results.separation_before
    assert accuracy is not None
    assert separation is not None
    assert facts["test accuracy"].startswith(f"{100 * accuracy.value:.2f} ± {100 * accuracy.standard_error:.2f} %  of ")
    assert facts["SI before training"].startswith(f"{separation.evaluation.si.value:.4f} ± ")
    assert facts["SI before training"].endswith("  test split, layer global_pool")
    assert facts["trained"] == "1,030,410 of 3,383,818 parameters: blocks.6.0, conv_head, bn2, classifier"
    assert facts["weights"] == "of epoch 2, the last"
    assert re.search(r"; 2 epochs of [\d.]+ s \([\d.]+ training \+ [\d.]+ evaluation\)$", facts["time"])
    assert facts["run"] == str(finished)
    assert summary.count(str(finished)) == 1
    assert len({line.index(" ± ") for line in summary.splitlines() if " ± " in line}) == 1  # aligned
    print_run(run_of, as_json=False, quiet=False, verbose=True)
    assert capsys.readouterr().out.startswith(summary)


def test_details_are_scores_definitions_and_files_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ("--limit", "12", "--epochs", "1", "--batch-size", "6", "--verbose")
    assert run([*EVAL, *options, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    heading = next(place for place, line in enumerate(lines) if line.split()[:2] == ["split", "features"])
    table = lines[heading : heading + 7]
    assert table[0].split()[2:] == ["SI", "high-order", "soft", "anti", "centre"]
    features = [re.search(r"raw pixels|before|after", line) for line in table[1:]]
    assert [found and found[0] for found in features] == ["raw pixels", "before", "after"] * 2
    assert max(map(len, lines[heading:-1])) <= 80
    assert "raw pixels: images at their own size, 8 x 8 values" in lines
    assert lines[-1].startswith("files  model.safetensors, README.md, loss.png, accuracy.png")
    assert "training 1,030,410 of 3,383,818 parameters (1,017,600 without the head)" in captured.err
    assert "blocks.6.0, conv_head, bn2, classifier" in captured.err


def test_a_user_may_choose_block_layer_weights_and_evaluation_split(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--unfreeze", "bn2", "--layer", "blocks.3", "--weights", str(finished), "--epochs", "1"]
    assert run([*EVAL, "--limit", "40", "--val-fraction", "0.25", "--out", str(out), "--quiet", *options]) == 0
    record = read_run(out)
    assert record.dataset.evaluation.split == "held out of train"
    assert record.parameters.trained_names == ("bn2.weight", "bn2.bias", "classifier.weight", "classifier.bias")
    assert record.results.separation_after is not None
    assert record.results.separation_after.layer == "blocks.3"
    assert record.weights.sha256 == read_run(finished).checkpoint_sha256
    assert record.weights.license is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--epochs", "-1"], "option-value"),
        (["--learning-rate", "0"], "option-value"),
        (["--learning-rate", "nan"], "option-value"),
        (["--learning-rate", "inf"], "option-value"),
        (["--predict", "mean"], "option-unused"),
        (["--batch-size", "0"], "option-value"),
        (["--per-class", "0"], "option-range"),
        (["--per-class", "3", "--limit", "9"], "option-conflict"),
        (["--val-fraction", "1.5"], "option-range"),
        (["--input-size", "0"], "option-value"),
        (["--input-size", "32x32x3"], "option-value"),
        (["--frozen-batchnorm", "batch"], "option-choice"),
        (["--precision", "fp16"], "option-choice"),
        (["--seed", "-3"], "option-range"),
        (["--weights", "no/such/file.pth"], "missing-file"),
        (["--data-dir", "/no/such/folder"], "missing-folder"),
    ],
)
def test_wrong_options_have_a_code(
    options: list[str], code: str, tmp_path: Path, error_of: Callable[..., zoo.ZooError]
) -> None:
    out = tmp_path / "run"
    error = error_of(*EVAL, "--out", str(out), *options)
    assert (error.code, error.exit_code) == (code, 2)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--per-class", "100000"], "is the largest value that keeps the classes balanced"),
        (["--precision", "bf16", "--device", "cpu"], "bf16 needs a CUDA device"),
        (["--unfreeze", "blocks.9"], "did you mean"),
        (["--limit", "many"], "--limit"),
        (["--limit", "1", "--epochs", "1"], "too few images to train"),
    ],
)
def test_options_that_the_data_or_the_network_refuse(
    options: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert part in refused(capsys, 2, *EVAL, "--out", str(out), *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (["--momentum", "0.9"], "option-value", ["momentum 0.9", "'sgd'", "'adam'"]),
        (["--cache", "ram"], "option-choice", ["auto, device, host, disk, off"]),
        (["--cache", "hosts"], "option-choice", ["did you mean 'host'?"]),
        (["--cache-budget", "lots"], "option-size", ["'lots'", "expected a number of bytes", "8GiB"]),
    ],
)
def test_a_wrong_option_is_refused_with_the_values_that_it_may_have(
    options: list[str], code: str, parts: list[str], error_of: Callable[..., zoo.ZooError]
) -> None:
    error = error_of(*EVAL, *options)
    assert (error.code, error.exit_code) == (code, 2)
    assert [part for part in parts if part not in str(error)] == []


WRONG = [
    ["--dataset", "digit"],
    ["--dataset", "imagefolder:/no/such/folder"],
    ["--dataset", "digits", "--recipe", "papr"],
    ["--dataset", "digits", "--device", "gpu"],
    ["--dataset", "digits", "--predict", "mean"],
    ["--dataset", "digits", "--learning-rate", "inf"],
    ["--dataset", "digits", "--weights", "no/such/file.pth"],
    ["--dataset", "digits", "--data-dir", "/no/such/folder"],
    ["--dataset", "digits", "--out", "/dev/null"],
]


def test_wrong_options_are_refused_before_torch_is_imported() -> None:
    program = (
        "import sys\nfrom zoo_harness.cli.main import run\n"
        f"for options in {WRONG!r}:\n"
        "    assert run(['eval', 'efficientnet_lite0', *options]) == 2, options\n"
        "    assert not {'torch', 'timm', 'torchvision', 'numpy'} & sys.modules.keys(), options"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(WRONG)
    assert all(line.startswith("error: ") for line in lines)


def test_out_must_be_new(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "run.json").read_bytes()
    assert "not empty" in refused(capsys, 2, *EVAL, "--out", str(finished))
    assert (finished / "run.json").read_bytes() == before


def test_no_network_and_nothing_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    error = refused(capsys, 1, "eval", "resnet18", "--dataset", "digits", "--out", str(tmp_path / "run"))
    for part in ("resnet18", "timm/resnet18.tv_in1k", str(tmp_path), "--weights", "HF_HUB_OFFLINE"):
        assert part in error
    assert not (tmp_path / "run").exists()


def test_a_weight_file_of_the_wrong_shape(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(finished / "model.safetensors")
    tensors["conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    save_file(tensors, tmp_path / "wrong.safetensors")
    error = refused(capsys, 1, *EVAL, "--weights", str(tmp_path / "wrong.safetensors"), "--out", str(tmp_path / "run"))
    for part in ("wrong.safetensors", "conv_stem.weight", "16, 3, 3, 3", "32, 3, 3, 3"):
        assert part in error
    assert not (tmp_path / "run").exists()


def test_an_unreadable_image_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for green, split in ((20, "train"), (60, "test")):
        for blue, name in ((90, "cat"), (10, "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                Image.new("RGB", (20 + index, 16), (index * 80, green, blue)).save(folder / f"{index}.png")
    (tmp_path / "photos" / "train" / "dog" / "1.png").write_bytes(b"not a picture")
    photos = ("eval", "efficientnet_lite0", "--dataset", f"imagefolder:{tmp_path}/photos", "--weights", "random")
    error = refused(capsys, 1, *photos, "--out", str(tmp_path / "run"))
    assert "train/dog/1.png" in error
    assert not (tmp_path / "run").exists()
    (tmp_path / "photos" / "train" / "dog" / "1.png").unlink()
    (tmp_path / "photos" / "test" / "cat" / "old.xyz").write_text("not an image")
    assert run([*photos, "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert told.startswith("warning: 1 file(s) ending in .xyz are skipped, such as ")
    assert told.count("\n") == 1
    assert read_run(tmp_path / "run").dataset.classes == ("cat", "dog")


def test_a_terminated_command_ends_in_order_and_is_resumed_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [ZOO, *EVAL, "--per-class", "4", "--epochs", "2", "--seed", "3", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # it may change the last bits
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ((out / "history.jsonl").is_file() and (out / "history.jsonl").stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (143, "")
    assert "Traceback" not in told
    record = read_run(out)
    assert f"{out} has the history and the checkpoint up to epoch {record.results.epochs_done} of 2" in told
    assert record.status == "interrupted"
    assert record.results.epochs_done == len(history(out)) >= 1
    assert {file.name for file in out.iterdir()} <= FILES | AT_THE_END
    assert "interrupted" in (out / "README.md").read_text()

    assert run(["eval", "--resume", str(out), "--quiet"]) == 0
    assert read_run(out).checkpoint_sha256 == read_run(finished).checkpoint_sha256
    assert [line.train_loss for line in history(out)] == [line.train_loss for line in history(finished)]


def test_control_c_in_the_first_epoch_promises_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(_display: ProgressDisplay, name: str, _images: int) -> None:
        if name.startswith("epoch 1"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressDisplay, "stage", press)
    out = tmp_path / "run"
    assert run([*EVAL, "--limit", "12", "--epochs", "1", "--out", str(out)]) == 130
    assert f"{out} has the run's record, but no checkpoint" in capsys.readouterr().err.splitlines()[-1]
    assert not (out / "model.safetensors").exists()
    assert read_run(out).status == "interrupted"


@pytest.mark.slow
def test_two_heads_predict_from_cls_or_their_mean(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--weights", "random", "--limit", "2", "--epochs", "1", "--predict", "mean", "--quiet"]
    assert run(["eval", "deit_base_distilled", "--dataset", "digits", "--out", str(out), *options]) == 0
    record = read_run(out)
    assert record.settings.predict == "mean"
    assert record.results.accuracy_by_other_rule is not None
    assert record.parameters.trained_names[-4:] == (
        "head.weight",
        "head.bias",
        "head_dist.weight",
        "head_dist.bias",
    )


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_learnt(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--dataset", "fashion_mnist", "--per-class", "20", "--epochs", "3", "--out", str(out), "--quiet"]
    assert run(["eval", "efficientnet_lite0", *options]) == 0
    record = read_run(out)
    assert record.results.accuracy is not None
    assert record.results.accuracy.value > 0.6
    assert record.results.separation_after is not None
    assert record.results.separation_after.evaluation is not None
    assert record.results.separation_after.evaluation.si.value > 0.6
    assert json.loads((out / "config.json").read_text())["label_names"][0] == "T-shirt/top"


def test_a_full_disk_is_told_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Smaller than the state; Python ignores SIGXFSZ, and the error of the system is then like that of a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 2**20, limits[1]))
    try:
        error = refused(capsys, 1, *EVAL, "--limit", "12", "--epochs", "1", "--out", str(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "training_state.safetensors" in error
    assert read_run(out).status == "failed"
    assert not (out / "model.safetensors").exists()
    assert not list(out.glob(".*.tmp"))


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    options = ["--limit", "12", "--epochs", "0", "--out", str(tmp_path / "file" / "run")]
    assert "is not a folder" in refused(capsys, 2, *EVAL, *options)
    with pytest.raises(zoo.ZooError) as raised:  # if the folder above it goes away meanwhile
        claim_directory(tmp_path / "file" / "run", "net", "data")
    assert (raised.value.code, raised.value.exit_code) == ("cannot-make-folder", 1)


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    claimed = [claim_directory(None, "net", "data") for _run in range(5)]
    assert len(set(claimed)) == 5
    with pytest.raises(zoo.UsageError, match="in use by another run"):
        claim_directory(claimed[0], "net", "data")


def test_a_terminal_that_knows_only_ascii() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    program = (
        "from zoo_harness.cli.main import run\nfrom zoo_harness.cli.output import print_lines\n"
        "run(['--version'])\nprint_lines('±')"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert shown.stdout.endswith("\n?\n")
    assert shown.returncode == 0


def with_features(backbone: zoo.Backbone, *features: zoo.FeatureLayer) -> zoo.Backbone:
    """The backbone with random weights and other declared feature layers."""
    architecture = zoo.TimmArchitecture("test_resnet.r160_in1k")
    return replace(backbone, weights=zoo.RandomWeights(), architecture=architecture, features=features)


def test_a_wrong_declared_width_is_refused_before_anything_is_written(
    tiny_resnet: zoo.Backbone, tmp_path: Path
) -> None:
    wrong = with_features(tiny_resnet, zoo.FeatureLayer("global_pool", 95, pool="flatten"))
    out = tmp_path / "run"
    with pytest.raises(zoo.ZooError, match=r"'global_pool' has the declared width 95 .* 96"):
        zoo.evaluate(wrong, "digits", limit=12, out=out)
    assert not out.exists()


def test_a_layer_that_cannot_be_scored_costs_a_trained_run_only_its_curve(
    tiny_resnet: zoo.Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="zoo")
    last = zoo.FeatureLayer("global_pool", 96, pool="flatten")
    wrong = with_features(tiny_resnet, zoo.FeatureLayer("layer3", 7), last)
    record = zoo.evaluate(wrong, "digits", limit=12, epochs=1, out=tmp_path / "run").record
    assert "feature layer 'layer3' has the declared width 7" in caplog.text
    assert record.status == "finished"
    assert record.results.layer_curve is None
    assert "layers.png" not in record.plots
