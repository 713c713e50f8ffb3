"""``zoo features`` and ``zoo.features``: files that zoo si and others read, with the figures of ``zoo layers``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import Backbone, UnknownNameError, UsageError, ZooError
from zoo_harness.cli.main import run

SMALL = ("features", "efficientnet_lite0", "--dataset", "digits", "--per-class", "3", "--quiet")


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same two layers in files of all kinds, made by one pass each."""
    folder = tmp_path_factory.mktemp("features")
    files = {ending: folder / f"two.{ending}" for ending in ("safetensors", "npz", "parquet")}
    for file in files.values():
        assert run([*SMALL, "--layer", "blocks.6", "--layer", "global*", "--out", str(file)]) == 0
    return files


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("features") / "one.safetensors"
    assert run([*SMALL, "--out", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, object]]:
    """The separation of every layer by split and layer, as ``zoo layers`` finds it."""
    out = tmp_path_factory.mktemp("layers") / "out"
    found = zoo.layers("efficientnet_lite0", "digits", per_class=3, pool=True, split="both", out=out)
    return {(curve.split, layer.path): layer.separation.to_dict() for curve in found.curves for layer in curve.layers}


@pytest.mark.parametrize("kind", ["safetensors", "npz", "parquet"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_zoo_si_finds_what_zoo_layers_finds(
    kind: str, split: str, layers: dict[str, Path], curves: dict[tuple[str, str], dict[str, object]]
) -> None:
    for layer in ("blocks.6", "global_pool"):
        found = zoo.score_features(layers[kind], features=layer, split=split)  # type: ignore[arg-type]
        assert found.class_names == tuple("0123456789")
        assert {**found.to_dict(), "class_names": None} == {**curves[split, layer], "class_names": None}


def test_a_file_of_one_layer_needs_no_options(
    single: Path, curves: dict[tuple[str, str], dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["si", str(single), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["si"] == curves["test", "global_pool"]["si"]
    assert captured.err == (
        f"features of {single}: layer global_pool of efficientnet_lite0, test split, 30 of 60 rows\n"
    )


def test_references_are_the_training_split(single: Path, layers: dict[str, Path]) -> None:
    data = zoo.features("efficientnet_lite0", "digits", per_class=3)
    expected = zoo.separation(*data.test, references=data.train[0], reference_labels=data.train[1])
    assert zoo.score_features(single, references=single).si.to_dict() == expected.si.to_dict()
    with pytest.raises(UsageError) as caught:
        zoo.score_features(single, references=single, split="train")
    assert caught.value.code == "references-are-samples"
    with pytest.raises(UsageError) as caught:
        zoo.score_features(single, references=layers["npz"], features=None)
    assert caught.value.code == "missing-features"
    assert caught.value.facts["layers"] == ["blocks.6", "global_pool"]


def test_features_of_another_network_are_no_references(single: Path, tmp_path: Path, tiny_resnet: Backbone) -> None:
    other = tmp_path / "other.npz"
    zoo.features(tiny_resnet, "digits", weights="random", per_class=3, out=other)
    with pytest.raises(UsageError) as caught:
        zoo.score_features(single, references=other)
    assert caught.value.code == "references-differ"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "missing-features"),
        ({"features": "bn1"}, "unknown-name"),
        ({"features": "blocks.6", "labels": "split"}, "option-unused"),
        ({"features": "blocks.6", "exclude": "split"}, "option-unused"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(
    options: dict[str, str], code: str, layers: dict[str, Path]
) -> None:
    with pytest.raises(ZooError) as caught:
        zoo.score_features(layers["npz"], **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.facts["path"]) == (code, str(layers["npz"]))


def test_split_is_for_files_of_features_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(4), labels=[0, 0, 1, 1])
    with pytest.raises(UsageError) as caught:
        zoo.score_features(tmp_path / "x.npz", split="test")
    assert (caught.value.code, caught.value.facts["option"]) == ("option-unused", "split")


def test_rows_that_were_taken_away_are_noticed(layers: dict[str, Path], tmp_path: Path) -> None:
    arrays = dict(np.load(layers["npz"]))
    np.savez(tmp_path / "cut.npz", **{**arrays, "labels": arrays["labels"][:30]})
    with pytest.raises(ZooError) as caught:
        zoo.score_features(tmp_path / "cut.npz", features="blocks.6")
    assert (caught.value.code, caught.value.facts["rows"]) == ("file-unreadable", 30)


def test_memory_and_file_hold_the_same(tiny_resnet: Backbone, tmp_path: Path) -> None:
    options = {"weights": "random", "per_class": 3, "layer": ["layer3", "global_pool"], "seed": 4}
    memory = zoo.features(tiny_resnet, "digits", **options)  # type: ignore[arg-type]
    assert memory.layers == ("layer3", "global_pool")
    assert memory.split.tolist() == ["train"] * 30 + ["test"] * 30
    for ending in ("safetensors", "npz", "parquet"):
        file = zoo.features(tiny_resnet, "digits", out=tmp_path / f"x.{ending}", **options)  # type: ignore[arg-type]
        assert file.record == memory.record
        for layer in memory.layers:
            for split in ("train", "test", None):
                for one, other in zip(file.select(split, layer), memory.select(split, layer), strict=True):
                    assert np.array_equal(one, other)
    assert (memory.indices[:30] < 1797).all()
    assert memory.record.splits[0].fingerprint != memory.record.splits[1].fingerprint
    with pytest.raises(UnknownNameError):
        memory.select("validation", "layer3")


def test_whole_outputs_and_one_split(tiny_resnet: Backbone) -> None:
    data = zoo.features(tiny_resnet, "digits", weights="random", per_class=1, layer="layer3", pool=False, split="test")
    features, labels = data.test
    assert (features.shape, data.record.layers[0].vector) == ((10, 192 * 10 * 10), "flatten")
    assert sorted(labels.tolist()) == list(range(10))
    pooled, _labels = zoo.features(
        tiny_resnet, "digits", weights="random", per_class=1, layer="layer3", split="test"
    ).test
    np.testing.assert_allclose(features.reshape(10, 192, 100).mean(2), pooled, rtol=1e-4, atol=1e-6)


def test_the_two_lines_of_the_page_train_scikit_learn() -> None:
    page = (Path(__file__).parents[3] / "docs" / "features.md").read_text()
    program = page.split("```python\n")[1].split("```")[0]
    names: dict[str, float] = {}
    exec(program, names)  # noqa: S102
    assert 0.4 < names["accuracy"] <= 1


def test_a_run_has_its_own_data_and_weights(tiny_resnet: Backbone, tmp_path: Path) -> None:
    small = {"weights": "random", "epochs": 1, "layer_curve": False, "per_class": 4, "seed": 3}
    trained = zoo.evaluate(tiny_resnet, "digits", out=tmp_path / "run", **small)  # type: ignore[arg-type]
    assert run(["features", str(tmp_path / "run"), "--out", str(tmp_path / "x.parquet"), "--quiet"]) == 0
    after = trained.record.results.separation_after
    assert after is not None
    for split, recorded in (("train", after.train), ("test", after.evaluation)):
        found = zoo.score_features(tmp_path / "x.parquet", split=split)  # type: ignore[arg-type]
        assert recorded is not None
        assert (found.n, found.si.value) == (40, recorded.si.value)
    own = zoo.features(trained, per_class=1, split="test").record
    assert own.splits[0].rows == 10
    assert own.weights == {"kind": "run", "source": "run", "epoch": 1, "sha256": trained.record.checkpoint_sha256}
    with pytest.raises(UsageError) as caught:
        zoo.features(trained, weights="random")
    assert (caught.value.code, caught.value.facts["option"]) == ("option-unused", "weights")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["features", "efficientnet_lite0", "--out", "x.npz"], "missing-dataset"),
        ([*SMALL], "missing-out"),
        ([*SMALL, "--out", "x.pt"], "out-ending"),
        ([*SMALL, "--out", "here.npz"], "out-exists"),
        ([*SMALL, "--out", "here.npz/x.npz"], "out-parent-is-a-file"),
        ([*SMALL, "--out", "x.npz", "--layer", "blocks.6", "--layer", "conv*"], "unknown-name"),
        ([*SMALL, "--out", "x.npz", "--limit", "9"], "option-conflict"),
        (["features", "./nowhere", "--out", "x.npz"], "no-such-folder"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    arguments: list[str],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_of: Callable[..., ZooError],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.npz").write_bytes(b"")
    error = error_of(*arguments)
    assert (type(error) in (UsageError, UnknownNameError), error.code) == (True, code)
    assert [file.name for file in tmp_path.iterdir()] == ["here.npz"]


def test_what_was_written_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.safetensors"
    assert run([*SMALL[:-1], "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["bytes"], shown["layers"][0]["layer"]) == (out.stat().st_size, "global_pool")
    assert shown["weights"]["sha256"].startswith("579344248a93e230")
    assert [each["rows"] for each in shown["splits"]] == [30, 30]
