"""``zoo rank`` as a user runs it, and ``zoo.rank``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import Backbone, FeatureLayer, Head, UnknownNameError, UsageError, ZooError, load_registry
from zoo_harness.cli.main import run
from zoo_harness.cli.output import print_narrow_tables
from zoo_harness.ranking.hit_bits import unpack_hits
from zoo_harness.ranking.neighbour_votes import nearest_labels, si
from zoo_harness.ranking.paired_tests import compare_hits, holm, tiers
from zoo_harness.records.rank import RankRecord
from zoo_harness.util.atomic_files import folder_lock

NAMES = ("efficientnet_lite0", "timm:test_vit", "timm:test_resnet")
RANDOM = ("rank", *NAMES, "--weights", "random", "--per-class", "4", "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rank") / "out"
    assert run([*RANDOM, "--out", str(out)]) == 0
    return out


def test_the_record_has_all_scores_on_the_same_balanced_images(folder: Path) -> None:
    record = RankRecord.model_validate_json((folder / "rank.json").read_bytes())
    assert (record.images, record.per_class, record.rounds) == (40, (4,) * 10, (40,))
    assert {row.name for row in record.backbones} == set(NAMES)
    for row in record.backbones:
        assert list(row.scores) == ["si", "knn", "ridge", "logme", "hscore", "gbc", "leep", "nce"]
        assert all((score.value is None) == bool(score.reason) for score in row.scores.values())
        assert row.scores["leep"].value is None  # random weights foretell nothing
        hits = unpack_hits(row.scores["si"].hits or "", 40)
        assert hits.mean() == pytest.approx(row.scores["si"].value)
    values = [row.scores["si"].value or 0 for row in record.backbones]
    assert values == sorted(values, reverse=True)
    found = tiers({row.name: unpack_hits(row.scores["si"].hits or "", 40) for row in record.backbones})
    assert {row.name: row.tier for row in record.backbones} == found
    best, *others = record.backbones
    compared = [
        compare_hits(*(unpack_hits(each.scores["si"].hits or "", 40) for each in (best, row))) for row in others
    ]
    adjusted = holm([each.p for each in compared])
    assert best.behind is None
    for row, each, corrected in zip(others, compared, adjusted, strict=True):
        assert row.behind is not None
        assert (row.behind.difference, row.behind.standard_error) == (each.difference, each.standard_error)
        assert (row.behind.p, row.behind.adjusted_p) == (each.p, corrected)
        assert (row.tier == 1) == (corrected >= 0.05)


def test_a_derived_backbone_is_marked_as_derived(folder: Path) -> None:
    rows = {row["name"]: row for row in json.loads((folder / "rank.json").read_text())["backbones"]}
    assert rows["timm:test_vit"]["derived_from"].startswith("timm ")
    assert rows["efficientnet_lite0"]["derived_from"] is None


def test_narrow_tables_repeat_the_first_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    print_narrow_tables(["name", *"abcde"], [["efficientnet", "1", "2", "3", "4", "5.25"]])
    assert capsys.readouterr().out.splitlines() == [
        "name          a  b  c  d", "efficientnet  1  2  3  4", "", "name             e", "efficientnet  5.25",
    ]  # fmt: skip


def test_the_table_fits_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*RANDOM, "--verbose", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "top-1" not in " ".join(printed)
    assert max(len(line) for line in printed if not line.startswith("folder")) <= 80
    best, *_others = [line.split()[0] for line in printed if line.startswith(("eff", "timm:"))]
    assert printed[-1].split() == ["next", "zoo", "eval", best, "--dataset", "digits", "--weights", "random"]


def test_pretrained_weights_rank_above_controls(tmp_path: Path) -> None:
    found = zoo.rank("digits", "efficientnet_lite0", per_class=6, out=tmp_path / "out", scores="si,leep")
    assert [row.name for row in found.rows] == ["efficientnet_lite0"]
    assert found.rows[0].source_classes == 1000
    assert -np.log(10) <= (found.rows[0].scores["leep"].value or 1) <= 0


def test_all_networks_have_one_input_size_and_others_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("timm:test_resnet", "timm:test_vit", "--weights", "random", "--per-class", "2", "--scores", "si")
    assert run(["rank", *names, "--input-size", "40", "--out", str(tmp_path / "out")]) == 1
    record = RankRecord.model_validate_json((tmp_path / "out" / "rank.json").read_bytes())
    assert [row.preprocessing and row.preprocessing.input_size for row in record.backbones] == [(40, 40)]
    assert record.input_size == (40, 40)
    assert [(failure.name, failure.code) for failure in record.failures] == [("timm:test_vit", "input-size-refused")]
    assert "20 training images, 10 classes, input 40 x 40 pixels" in capsys.readouterr().out


def test_the_score_is_that_of_the_features_by_themselves(tmp_path: Path) -> None:
    """Against the network of timm itself, run on the same images."""
    import timm
    import torch
    from timm.data.config import resolve_data_config

    images = np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), dtype=np.uint8)
    labels = np.arange(24) % 3
    torch.manual_seed(7)
    network = timm.create_model("test_resnet", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    config = resolve_data_config({}, pretrained_cfg=network.pretrained_cfg)
    backbone = Backbone(
        name="mine",
        weights=zoo.FileWeights(str(tmp_path / "weights.pth")),
        architecture=zoo.TimmArchitecture("test_resnet"),
        preprocessing=zoo.Preprocessing(input_size=(40, 40), mean=config["mean"], std=config["std"]),
        unfreeze=("layer4",),
        head=Head("fc"),
        features=(FeatureLayer("global_pool", 96, pool="flatten"),),
        license=None,
        paper=None,
        pretrained_on=None,
        imagenet_top1=None,
    )
    found = zoo.rank(zoo.in_memory(images, labels, test=(images, labels)), backbone, out=tmp_path / "out")
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(config["mean"])[:, None, None]) / (
        torch.tensor(config["std"])[:, None, None]
    )
    with torch.no_grad():
        features = network.forward_head(network.forward_features(pixels), pre_logits=True).numpy()
    assert found.rows[0].scores["si"].value == si(nearest_labels(features, labels)).value


def test_halving_drops_what_is_worse_for_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_harness.ranking.halving.FEWEST_IMAGES", 100)
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = np.clip(random.normal(100 + 60 * labels[:, None, None, None], 30, (400, 16, 16, 3)), 0, 255)
    data = zoo.in_memory(images.astype(np.uint8), labels, test=(images[:4].astype(np.uint8), labels[:4]))
    names = ["timm:test_resnet", "timm:test_vit", "timm:test_convnext"]
    whole = zoo.rank(data, names, weights="random", scores="si", out=tmp_path / "whole", halving=False)
    halved = zoo.rank(data, names, weights="random", scores="si", out=tmp_path / "halved", halving=True)
    assert halved.record.rounds == (100, 200, 400)
    best = {row.name for row in whole.rows if row.tier == 1}
    assert best == {row.name for row in halved.rows if row.tier == 1}
    for row in halved.rows:
        assert (row.images < 400) == (row.dropped is not None)


def test_a_backbone_that_fails_is_left_out_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = ["rank", "efficientnet_lite0", "timm:test_vit", "--fraction", "0.02", "--out", str(tmp_path / "out")]
    assert run(arguments) == 1
    printed = capsys.readouterr()
    assert "timm:test_vit is excluded" in printed.err
    record = RankRecord.model_validate_json((tmp_path / "out" / "rank.json").read_bytes())
    assert [row.name for row in record.backbones] == ["efficientnet_lite0"]
    assert (set(record.per_class), record.subset[:18]) == ({3}, "0.02 of each class")
    assert [failure.name for failure in record.failures] == ["timm:test_vit"]


def test_one_image_a_class_is_refused_and_a_single_class_of_one_is_named(
    error_of: Callable[..., ZooError], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of("rank", *RANDOM[1:4], "--weights", "random", "--per-class", "1").code == "too-few-images"
    images, labels = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8), [0] * 4 + [1] * 4 + [2]
    data = zoo.in_memory(images, labels, test=(images[:2], labels[:2]))
    found = zoo.rank(data, "timm:test_vit", weights="random", scores="si,gbc,ridge", out=tmp_path / "out")
    assert found.record.per_class == (4, 4, 1)
    assert all(score.value is not None for score in found.rows[0].scores.values())


def test_a_glob_names_each_network_once() -> None:
    names = load_registry().backbone_names("timm:test_vit*")
    assert len({name.partition(".")[0] for name in names}) == len(names)
    bare, tagged = load_registry().backbone("timm:test_vit"), load_registry().backbone("timm:test_vit.r160_in1k")
    assert bare.weights == tagged.weights


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["timm:test_vut"], UnknownNameError, "unknown-name"),
        (["timm:no_such_*"], UnknownNameError, "unknown-name"),
        (["runs/none"], UsageError, "not-a-run"),
        (["efficientnet_lite0", "--scores", "si,nnc"], UsageError, "option-choice"),
        (["efficientnet_lite0", "--sort", "gbc"], UsageError, "option-choice"),
        (["efficientnet_lite0", "--license", "gpl*"], UsageError, "nothing-to-rank"),
        (["efficientnet_lite0", "--max-parameters", "many"], UsageError, "option-value"),
        (["efficientnet_lite0", "--max-parameters", "1k"], UsageError, "nothing-to-rank"),
        (["efficientnet_lite0", "--budget", "soon"], UsageError, "option-value"),
        (["efficientnet_lite0", "--budget", "1m", "--no-halving"], UsageError, "option-unused"),
        (["efficientnet_lite0", "--epochs", "3"], UsageError, "option-unused"),
        (["efficientnet_lite0", "--against", "nowhere"], UsageError, "missing-folder"),
        (["efficientnet_lite0", "--per-class", "1000000"], UsageError, "per-class-too-large"),
        (["efficientnet_lite0", "--images", "9", "--fraction", "0.5"], UsageError, "option-conflict"),
        (["timm:crossvit_tiny_240"], ZooError, "not-derivable"),
    ],
)
def test_mistakes_are_refused(
    error_of: Callable[..., ZooError], tmp_path: Path, arguments: list[str], kind: type[ZooError], code: str
) -> None:
    error = error_of("rank", *arguments, "--out", str(tmp_path / "out"))
    assert isinstance(error, kind)
    assert error.code == code
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_without_names_local_backbones_stand_beside_controls_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rank", "--images", "20", "--scores", "si,knn,ridge,logme,hscore,gbc,leep,nce", "--quiet"]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in printed if not line.startswith("folder")) <= 80
    record = RankRecord.model_validate_json((tmp_path / "out" / "rank.json").read_bytes())
    assert {row.name for row in record.backbones if row.control} == {"raw pixels", "efficientnet_lite0, random"}
    assert {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"} <= {row.name for row in record.backbones}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranking whose two best backbones were fine-tuned for one epoch."""
    out = tmp_path_factory.mktemp("rank") / "tuned"
    assert (
        run([*RANDOM[:-1], "--tune", "2", "--epochs", "1", "--scores", "si,ridge", "--quiet", "--out", str(out)]) == 0
    )
    return out


def test_the_best_are_fine_tuned_and_the_scores_are_held_against_their_accuracies(tuned: Path) -> None:
    record = RankRecord.model_validate_json((tuned / "rank.json").read_bytes())
    best = [row.name for row in record.backbones][:2]
    assert [each.name for each in record.accuracies] == best
    for each in record.accuracies:
        of_run = zoo.open_run(tuned / "tuned" / each.name.replace(":", "-"))
        assert of_run.accuracy is not None
        assert (each.accuracy, each.images, each.tuned) == (of_run.accuracy.value, of_run.accuracy.n, True)
        assert of_run.record.settings.training.epochs == 1
    assert [(each.score, each.n, each.p) for each in record.foresight] == [("si", 2, None), ("ridge", 2, None)]
    reached = [each.accuracy for each in record.accuracies]
    assert record.foresight[0].regret_1 == pytest.approx(max(reached) - reached[0])
    assert (tuned / "rank.png").read_bytes().startswith(b"\x89PNG")


def test_runs_are_compared_and_ranked_by_their_own_checkpoints(tuned: Path, tmp_path: Path) -> None:
    runs = sorted((tuned / "tuned").iterdir())
    found = zoo.rank(
        "digits", [*NAMES[1:], *runs], weights="random", per_class=4, scores="si", against=[str(tuned / "tuned")],
        out=tmp_path / "out",
    )  # fmt: skip
    own = {row.name: row for row in found.rows if row.weights is not None and row.weights.kind == "run"}
    assert len(own) == 2
    assert all(row.source_classes == 10 for row in own.values())
    assert {row.name for row in found.rows if row.trained_on_dataset} == own.keys()
    accuracies = {each.name: each for each in found.record.accuracies}
    for name, row in own.items():
        folder = next(each for each in runs if each.name in name)
        measured = zoo.open_run(folder).accuracy
        assert measured is not None
        assert accuracies[name].accuracy == measured.value
        assert row.parameters > 0
    other = zoo.rank(
        "digits", NAMES[1], weights="random", per_class=4, seed=1, scores="si", against=[str(runs[0])],
        out=tmp_path / "other",
    )  # fmt: skip
    assert other.record.accuracies == ()
    assert len(other.record.left_out_runs) == 1
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    data = zoo.in_memory(images, labels, test=(images[:4], labels[:4]))
    elsewhere = zoo.rank(data, runs[0], scores="logme", out=tmp_path / "elsewhere")
    assert [row.trained_on_dataset for row in elsewhere.rows] == [False]
    assert (list(elsewhere.rows[0].scores), elsewhere.record.sort) == (["si", "logme"], "si")  # tiers need hits


def test_a_second_ranking_computes_nothing_and_a_resumed_one_is_equal(folder: Path, tmp_path: Path) -> None:
    first = RankRecord.model_validate_json((folder / "rank.json").read_bytes())
    (folder / "rank.json").unlink()  # as if it had been interrupted
    assert run(["rank", "--resume", str(folder), "--quiet"]) == 0
    again = RankRecord.model_validate_json((folder / "rank.json").read_bytes())
    assert [row.computed for row in again.backbones] == [0, 0, 0]
    for one, other in zip(first.backbones, again.backbones, strict=True):
        assert {key: score.value for key, score in one.scores.items()} == {
            key: score.value for key, score in other.scores.items()
        }
    with pytest.raises(UsageError) as raised:
        zoo.rank(resume=folder, per_class=5)
    assert raised.value.code == "resume-other-run"
    assert raised.value.facts["differing"] == ("per_class",)
    assert zoo.rank("digits", NAMES, resume=folder).record.backbones[0].computed == 0
    for names in (NAMES[:2], "timm:test_vit2"):
        with pytest.raises(UsageError) as raised:
            zoo.rank("digits", names, resume=folder)
        assert raised.value.facts["differing"] == ("backbones",)
    with folder_lock(folder), pytest.raises(UsageError) as raised:
        zoo.rank(resume=folder)
    assert raised.value.code == "run-is-running"


def test_a_ranking_locks_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_harness.runs.rank_candidates import Candidate

    opened, folder = Candidate.open, tmp_path / "out"

    def resume_meanwhile(self: Candidate, seed: int, input_size: tuple[int, int] | None) -> object:
        with pytest.raises(UsageError) as raised:
            zoo.rank(resume=folder)
        assert raised.value.code == "run-is-running"
        return opened(self, seed, input_size)

    monkeypatch.setattr(Candidate, "open", resume_meanwhile)
    found = zoo.rank("digits", NAMES[1], weights="random", per_class=2, scores="si", cache="off", out=folder)
    assert found.record.failures == ()


def test_the_best_fine_tuned_run_is_the_next_step(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rank", "--resume", str(tuned), "--quiet"]) == 0
    record = RankRecord.model_validate_json((tuned / "rank.json").read_bytes())
    best = max(record.accuracies, key=lambda each: each.accuracy).name.replace(":", "-")
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].split() == ["next", "zoo", "show", str(tuned / "tuned" / best)]
    assert "regret@1" in printed
    assert "Kendall" not in printed  # two backbones have no correlation


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_of: Callable[..., ZooError]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    name = "efficientnet_lite0"
    assert "imagefolder:photos" in str(error_of("rank", "photos"))
    for command in ("rank", "eval"):
        assert "imagefolder:photos" in str(error_of(command, name, "--dataset", "photos"))
    assert str(error_of("rank", "x*")).startswith("pattern 'x*' matches no backbone")
    assert "(apache-2.0)" in str(error_of("rank", name, "--license", "gpl*"))
    assert "--images 2 selects" in str(error_of("rank", name, "--images", "2"))
    with pytest.raises(UsageError, match=r"\(apache-2.0\)"):
        zoo.rank("digits", name, license="gpl*", budget=1.5, max_parameters=30_000_000)


def test_few_images_are_too_few(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    zoo.rank("digits", NAMES[1], weights="random", images=20, scores="si", out=tmp_path / "out")
    assert "20 images are too few to tell backbones apart" in caplog.text


def test_a_dataset_of_a_wrong_type_names_the_function_that_makes_one(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), np.uint8), [0, 0, 1, 1]
    name = "efficientnet_lite0"
    for call in (
        lambda data: zoo.rank(data, [name]),
        lambda data: zoo.evaluate(name, data),
        lambda data: zoo.train(name, data),
        lambda data: zoo.layers(name, data),
        lambda data: zoo.features(name, data),
        lambda data: zoo.dataset_stats(data),
    ):
        for data in ((images, labels), images):
            with pytest.raises(UsageError, match=r"zoo\.in_memory") as raised:
                call(data)
            assert raised.value.code == "dataset-type"
    with pytest.raises(UsageError) as raised:
        zoo.rank(None, [name])  # type: ignore[arg-type]
    assert raised.value.code == "dataset-type"


def test_a_budget_ends_the_ranking_on_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zoo")
    monkeypatch.setattr("zoo_harness.ranking.halving.FEWEST_IMAGES", 50)
    found = zoo.rank(
        "digits", NAMES[1:], weights="random", scores="si,ridge", budget="1ms".replace("1ms", "0.001s"),
        out=tmp_path / "out",
    )  # fmt: skip
    assert found.record.rounds == (50,)
    assert "0 s" in found.record.stopped
    assert "the first round reads 50 images, even if it takes longer than --budget 0.001s" in caplog.text
    assert all(row.images == 50 and set(row.scores) == {"si", "ridge"} for row in found.rows)


def test_an_interrupted_ranking_says_how_to_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_harness.runs.rank_candidates import Candidate

    opened = Candidate.open

    def interrupt(self: Candidate, seed: int, input_size: object) -> object:
        if self.name == NAMES[2]:
            raise KeyboardInterrupt
        return opened(self, seed, None)

    monkeypatch.setattr(Candidate, "open", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        zoo.rank("digits", NAMES[1:], weights="random", per_class=3, scores="si", out=tmp_path / "out")
    assert "1 of 2 backbones" in raised.value.__notes__[0]
    assert f"zoo rank --resume {tmp_path / 'out'}" in raised.value.__notes__[0]
    with pytest.raises(KeyboardInterrupt) as raised:
        zoo.rank("digits", NAMES[2], weights="random", per_class=3, scores="si", cache="off", out=tmp_path / "off")
    assert "starts again" in raised.value.__notes__[0]
    assert "cached" not in raised.value.__notes__[0]


def test_a_run_of_the_same_dataset_is_named_because_its_score_is_too_high(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "efficientnet_lite0"
    shutil.copytree(sorted((tuned / "tuned").iterdir())[-1], folder)
    record = json.loads((folder / "run.json").read_text())
    record["backbone"]["name"] = "efficientnet_lite0"
    (folder / "run.json").write_text(json.dumps(record))
    assert run(["rank", str(folder), "--per-class", "3", "--scores", "ridge", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    warning = "efficientnet_lite0 (run) was trained on images of this dataset, so its score is too high"
    assert warning in " ".join(printed.err.split())
    assert warning in " ".join(printed.out.split())
    assert "zoo eval" not in printed.out  # a run is no backbone
    assert json.loads((tmp_path / "out" / "rank.json").read_text())["sort"] == "ridge"


def test_equal_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2
    images[[0, 2, 4]] = images[6]
    data = zoo.in_memory(images, labels, test=(images[:4], labels[:4]))
    found = zoo.rank(data, "timm:test_vit", weights="random", scores="si", out=tmp_path / "out", progress=True)
    assert found.record.duplicates is not None
    assert [(each.split, each.images, each.of) for each in found.record.duplicates] == [("train", 4, 40)]
    assert "4 of 40 images of split 'train' occur in it more than once" in " ".join(capsys.readouterr().err.split())


def test_random_weights_have_no_published_accuracy_and_no_second_control(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rank", "--weights", "random", "--images", "20", "--scores", "si", "--quiet"]
    assert run([*arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "10 classes, random weights" in printed
    assert "top-1" not in printed
    record = RankRecord.model_validate_json((tmp_path / "out" / "rank.json").read_bytes())
    assert [row.name for row in record.backbones if row.control] == ["raw pixels"]
    assert all(row.imagenet_top1 is None for row in record.backbones)


def test_a_projection_is_no_source_classifier() -> None:
    registry = load_registry()
    assert not registry.backbone("timm:vit_base_patch16_clip_224.openai").has_classifier
    assert registry.backbone("timm:test_vit.r160_in1k").has_classifier


def test_a_network_whose_features_are_not_finite_is_left_out(tmp_path: Path) -> None:
    import timm
    import torch

    network = timm.create_model("test_resnet", pretrained=False)
    with torch.no_grad():
        network.conv1[0].weight.fill_(1e38)  # finite weights, whose outputs overflow
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    made = replace(load_registry().backbone("timm:test_resnet"), derived_from=None, name="bad")
    bad = replace(made, weights=zoo.FileWeights(str(tmp_path / "weights.pth")))
    good = replace(made, name="good", weights=zoo.RandomWeights())
    found = zoo.rank("digits", [bad, good], per_class=3, out=tmp_path / "out", scores="si,gbc")
    assert [row.name for row in found.rows] == ["good"]
    assert [(failure.name, failure.code) for failure in found.record.failures] == [("bad", "features-not-finite")]


def test_all_backbones_are_normalised_by_the_training_images(tmp_path: Path) -> None:
    found = zoo.rank(
        "digits", "timm:test_resnet", weights="random", per_class=2, normalization="dataset", out=tmp_path / "out"
    )
    train = zoo.dataset_stats("digits", per_class=2).splits["train"]
    own = found.rows[0].preprocessing
    assert own is not None
    assert (found.record.normalization, own.mean, own.std) == ("dataset", train.mean, train.std)
