"""The card of a run: its front matter parses, its body is the golden one, and no name can break out of either.

After a deliberate change of the card, write the golden files anew and read the difference:

    ZOO_UPDATE_GOLDEN=1 python -m pytest tests/reports/test_run_card.py && git diff tests/golden
"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt

from zoo.backbone import SCRATCH, DualHead, FeatureLayer, Head, Preprocessing, Training
from zoo.text import one_line
from zoo_harness.records.run import (
    BackboneRecord,
    ClassAccuracy,
    ConfusedPair,
    ConfusionSummary,
    DatasetRecord,
    FrozenPartRecord,
    HostRecord,
    KeptCheckpoint,
    LayerCurveRecord,
    LayerScores,
    Measurement,
    ParametersRecord,
    Results,
    RunRecord,
    ScoreMeasurement,
    SeparationRecord,
    SeparationSettings,
    SettingsRecord,
    SplitRecord,
    SplitSeparation,
    WeightsRecord,
)
from zoo_harness.reports.card_merge import merged_card
from zoo_harness.reports.front_matter import front_matter
from zoo_harness.reports.published_results import differences, published_figures
from zoo_harness.reports.run_card import render_card

GOLDEN = Path(__file__).parents[1] / "golden"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def measured(value: float, n: int) -> Measurement:
    return Measurement(value=value, standard_error=(value * (1 - value) / n) ** 0.5, n=n)


def separation(index: float, high: float, n: int, *, tied: int = 0) -> SplitSeparation:
    """Scores that a set could have: anti SI follows from the others."""

    def score(value: float) -> ScoreMeasurement:
        error = round((value * (1 - value) / n) ** 0.5, 6)
        return ScoreMeasurement(
            value=value, standard_error=error, n=n, bootstrap_error=round(1.125 * error, 6), tied=tied
        )

    soft = round(index - 0.01, 4)
    scores = {"si": index, "high": high, "soft": soft, "anti": round(1 - 2 * soft + high, 4), "centre": index}
    return SplitSeparation(
        order=2, **{name: score(value) for name, value in scores.items()}, duplicates=0, duplicates_unlike=0
    )


FINISHED = RunRecord(
    status="finished",
    command=("zoo", "eval", "cait_s24", "--dataset", "cifar10", "--per-class", "500", "--out", "runs/my run"),
    started="2026-11-22T09:30:00+00:00",
    ended="2026-11-22T09:52:10+00:00",
    backbone=BackboneRecord(
        name="cait_s24",
        title="CaiT-S24",
        network="cait_s24_224.fb_dist_in1k",
        network_kind="timm",
        plugin="cait",
        distribution="blockzoo",
        version="0.1.0",
        paper="https://arxiv.org/abs/2103.17239",
        pretrained_on="ImageNet-1k",
        imagenet_top1=83.442,
        features=(FeatureLayer("patch_embed", 384), FeatureLayer("norm", 384, pool="cls")),
    ),
    weights=WeightsRecord(
        kind="timm",
        declared=True,
        source="timm/cait_s24_224.fb_dist_in1k",
        filename="model.safetensors",
        revision="1f3c9a1b0a5d4bd1c7a0a1f0e8a8a3c5f2c4b6d7",
        sha256="ab" * 32,
        bytes=187_690_000,
        license="apache-2.0",
    ),
    dataset=DatasetRecord(
        name="cifar10",
        title="CIFAR-10",
        argument=None,
        hub_id="uoft-cs/cifar10",
        source="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        license=None,
        citation="https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
        classes=CIFAR10,
        train=SplitRecord(
            split="train", images=5000, per_class=(500,) * 10, pixels=(32, 32, 3), resized=False, fingerprint="cd" * 32
        ),
        evaluation=SplitRecord(
            split="test", images=5000, per_class=(500,) * 10, pixels=(32, 32, 3), resized=False, fingerprint="ef" * 32
        ),
        per_class=500,
        limit=None,
        val_fraction=None,
        subset="500 images per class, seed 0",
    ),
    settings=SettingsRecord(
        recipe="default",
        recipe_source=None,
        unfreeze=("blocks_token_only.1", "norm"),
        head=Head("head"),
        training=Training(epochs=5),
        preprocessing=Preprocessing(input_size=(224, 224), crop_fraction=0.9),
        predict="cls",
        seed=0,
        device="cuda",
        precision="fp32",
        deterministic=False,
        evaluation_batch_size=64,
    ),
    parameters=ParametersRecord(
        total=46_464_778, trained=1_779_466, trained_without_head=1_775_616, trained_names=("norm.weight",)
    ),
    versions={"python": "3.11.9", "blockzoo": "0.1.0", "torch": "2.15.0", "timm": "1.0.31"},
    host=HostRecord(
        platform="Linux-6.1", processor="AMD EPYC 7B13", cores=16, memory_gib=128.0, accelerator="NVIDIA H200"
    ),
    results=Results(
        epochs_done=5,
        evaluation_loss=0.1043,
        accuracy=measured(0.9644, 5000),
        train_accuracy=measured(0.9958, 5000),
        separation_raw_pixels=SeparationRecord(
            layer="raw pixels",
            train=separation(0.2436, 0.0688, 5000).model_copy(update={"duplicates": 4, "duplicates_unlike": 2}),
            evaluation=separation(0.2374, 0.0661, 5000, tied=3),
        ),
        separation_before=SeparationRecord(
            layer="norm", train=separation(0.9012, 0.8404, 5000), evaluation=separation(0.8976, 0.8352, 5000)
        ),
        separation_after=SeparationRecord(
            layer="norm", train=separation(0.9912, 0.9868, 5000), evaluation=separation(0.9532, 0.9310, 5000)
        ),
        confusion=ConfusionSummary(
            split="test",
            pairs=(
                ConfusedPair(true="cat", predicted="dog", images=31, of=500),
                ConfusedPair(true="dog", predicted="cat", images=24, of=500),
            ),
            worst=(
                ClassAccuracy(name="cat", accuracy=measured(0.916, 500)),
                ClassAccuracy(name="dog", accuracy=measured(0.938, 500)),
            ),
        ),
        layer_curve=LayerCurveRecord(
            split="test",
            layers=(
                LayerScores(
                    path="raw pixels", width=3072, vector="flatten", separation=separation(0.2374, 0.0661, 5000)
                ),
                LayerScores(
                    path="patch_embed", width=384, vector="average", separation=separation(0.3102, 0.1108, 5000)
                ),
                LayerScores(path="norm", width=384, vector="cls", separation=separation(0.9532, 0.9310, 5000)),
            ),
        ),
        frozen_part=FrozenPartRecord(reason=None, kept=("blocks.5 192x7x7",), bytes_per_image=37_632, place="host"),
        mean_train_seconds=12.34,
        mean_evaluation_seconds=3.21,
        total_seconds=83.2,
        peak_memory_gib=6.54,
    ),
    checkpoint_sha256="12" * 32,
    plots=("samples.png", "loss.png", "accuracy.png", "confusion.png", "layers.png"),
)


def changed(record: RunRecord, **parts: Any) -> RunRecord:
    """The record with fields of its parts changed: ``dataset={"title": "x"}``; validated again."""
    content = dict(record)
    for name, fields in parts.items():
        part = content[name]
        content[name] = type(part)(**{**dict(part), **fields}) if isinstance(fields, dict) else fields
    return RunRecord(**content)


NOT_AT_THE_END = {"confusion": None, "layer_curve": None}
NOTHING_MEASURED = dict.fromkeys(
    (
        "evaluation_loss",
        "accuracy",
        "train_accuracy",
        "separation_raw_pixels",
        "separation_before",
        "separation_after",
        *NOT_AT_THE_END,
    )
)
INTERRUPTED = changed(
    FINISHED,
    status="interrupted",
    ended=None,
    results={"epochs_done": 3, "train_accuracy": None, "separation_after": None, **NOT_AT_THE_END},
    plots=("samples.png", "loss.png", "accuracy.png"),
)
NO_WEIGHTS = {"kind": "random", "source": "random", "filename": None, "revision": None, "sha256": None, "bytes": None}
# A backbone and data nobody published on, unbalanced, an MLP head, from random weights.
HOME_MADE = changed(
    FINISHED,
    backbone={
        "name": "tiny",
        "title": "Tiny",
        "network": "my_package.networks:tiny",
        "network_kind": "factory",
        "plugin": "tiny",
        "distribution": "my-package",
        "version": "2.0",
        "paper": None,
        "pretrained_on": None,
        "imagenet_top1": None,
    },
    weights={**NO_WEIGHTS, "license": None},
    dataset={
        "name": "imagefolder",
        "title": "Images in folders",
        "argument": "~/flowers",
        "hub_id": None,
        "source": "/data/flowers",
        "revision": None,
        "citation": "@misc{flowers,\n  title = {Flowers}\n}",
        "license": "cc-by-4.0",
        "classes": ("rose", "T-shirt/top"),
        "train": SplitRecord(
            split="train", images=30, per_class=(20, 10), pixels=(32, 32, 3), resized=False, fingerprint="cd" * 32
        ),
        "evaluation": SplitRecord(
            split="held out of train",
            images=6,
            per_class=(4, 2),
            pixels=(32, 32, 3),
            resized=False,
            fingerprint="ef" * 32,
        ),
        "reading": ("split train is folder /data/flowers/Train", "split test is folder Test"),
        "skipped": {"files of systems": 1200, "unreadable images": 3},
        "per_class": None,
        "val_fraction": 0.2,
        "subset": "0.2 of the training split held out for evaluation",
    },
    settings={"head": Head("head", hidden=16), "unfreeze": ("*",)},
    parameters={"total": 1000, "trained": 1000, "trained_without_head": 900},
    results={
        "accuracy": measured(1.0, 6),
        "train_accuracy": measured(0.9, 30),
        "separation_raw_pixels": None,
        "separation_before": None,
        "separation_after": SeparationRecord(
            layer="norm", train=separation(0.8, 0.6, 30), evaluation=separation(0.5, 0.25, 6)
        ),
        "confusion": ConfusionSummary(
            split="held out of train",
            pairs=(),
            worst=(
                ClassAccuracy(name="rose", accuracy=measured(1.0, 4)),
                ClassAccuracy(name="T-shirt/top", accuracy=measured(1.0, 2)),
            ),
        ),
        "layer_curve": None,
    },
    host={"accelerator": None},
)


def split_of_100(name: str, images_each: int, digest: str) -> SplitRecord:
    return SplitRecord(
        split=name,
        images=100 * images_each,
        per_class=(images_each,) * 100,
        pixels=(32, 32, 3),
        resized=False,
        fingerprint=digest * 32,
    )


# All of a network, trained as in the 2023 report, with a test split that was kept for the end.
FROM_SCRATCH = changed(
    FINISHED,
    command=("zoo", "train", "resnet18_cifar", "--dataset", "cifar100"),
    backbone={
        "name": "resnet18_cifar",
        "title": "ResNet-18 for CIFAR",
        "network": "zoo_plugins.cifar_networks:resnet18",
        "network_kind": "factory",
        "plugin": "cifar_nets",
        "paper": "https://arxiv.org/abs/1512.03385",
        "pretrained_on": None,
        "imagenet_top1": None,
        "features": (FeatureLayer("relu", 64), FeatureLayer("avgpool", 512)),
    },
    weights={**NO_WEIGHTS, "license": None},
    dataset={
        "name": "cifar100",
        "title": "CIFAR-100",
        "hub_id": "uoft-cs/cifar100",
        "source": "uoft-cs/cifar100",
        "classes": tuple(f"kind {number}" for number in range(100)),
        "train": split_of_100("train", 400, "cd"),
        "evaluation": split_of_100("held out of train", 100, "ef"),
        "test": split_of_100("test", 100, "ab"),
        "per_class": None,
        "val_fraction": 0.2,
        "subset": "0.2 of the training split held out for evaluation",
    },
    settings={
        "recipe": "scratch",
        "recipe_source": SCRATCH.source,
        "unfreeze": ("*",),
        "head": Head("fc"),
        "training": SCRATCH.training,
        "preprocessing": Preprocessing(input_size=(32, 32)),
    },
    parameters={"total": 11_220_132, "trained": 11_220_132, "trained_without_head": 11_168_832},
    results={
        "epochs_done": 200,
        "accuracy": measured(0.7712, 10_000),
        "train_accuracy": measured(0.9991, 40_000),
        "test_loss": 0.9345,
        "test_accuracy": measured(0.7634, 10_000),
        "separation_raw_pixels": None,
        "separation_after": SeparationRecord(
            layer="avgpool",
            train=separation(0.9934, 0.9868, 40_000),
            evaluation=separation(0.6532, 0.5310, 10_000),
            test=separation(0.6415, 0.5204, 10_000),
        ),
        **NOT_AT_THE_END,
        "frozen_part": FrozenPartRecord(reason="all of it trains"),
    },
    plots=("samples.png", "loss.png", "accuracy.png", "learning_rate.png"),
)


def body_of(card: str) -> str:
    return ModelCard(card).text


def front_of(card: str) -> dict[str, Any]:
    data: dict[str, Any] = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]
    return data


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("finished", FINISHED),
        ("interrupted", INTERRUPTED),
        ("home_made", HOME_MADE),
        ("from_scratch", FROM_SCRATCH),
    ],
)
def test_card_is_the_golden_one(name: str, record: RunRecord) -> None:
    compare(name, render_card(record))


def compare(name: str, card: str) -> None:
    golden = GOLDEN / f"run_card_{name}.md"
    if os.environ.get("ZOO_UPDATE_GOLDEN"):
        golden.write_text(card, encoding="utf-8")
    assert card == golden.read_text(encoding="utf-8")


def test_published_card_is_the_golden_one() -> None:
    card = render_card(FINISHED, "someone/cait_s24-cifar10")
    compare("published", card)
    for never in ("PATH", "run.json", "options.json", "training_state"):
        assert never not in card


def test_card_scores_again_on_the_data_of_its_record() -> None:
    assert "zoo eval a/b --dataset cifar10 --epochs 0\n" in render_card(FINISHED, "a/b")
    assert "zoo eval PATH --dataset cifar10 --epochs 0\n" in render_card(FINISHED)
    home_made = render_card(HOME_MADE, "a/b")
    assert "zoo eval a/b --dataset imagefolder:flowers --epochs 0\n" in home_made
    assert "replace\n`flowers` by the folder of your copy of the data." in home_made
    no_checkpoint = render_card(FINISHED.model_copy(update={"checkpoint_sha256": None}), "a/b")
    assert "zoo pull" not in no_checkpoint


def test_card_in_a_published_folder_lists_what_is_there() -> None:
    card = render_card(FINISHED, published=True)
    assert "`zoo.json`" in card
    assert "`run.json`" not in card
    assert "options.json" not in card
    assert 'zoo.load("PATH")' in card


def with_checkpoints(keep: str) -> RunRecord:
    """The finished run with the weights of the epochs 2 and 5 beside the main ones, of which the second has no test."""
    scored = {name: getattr(FINISHED.results, name) for name in ("train_accuracy", "separation_after")}
    kept = [
        KeptCheckpoint(epoch=epoch, sha256="34" * 32, bytes=2**20, accuracy=measured(value, 5000), **scored)
        for epoch, value in ((2, 0.5), (5, 0.75))
    ]
    settings = {"training": Training(epochs=5, keep=keep, save_every=2)}
    return changed(FINISHED, settings=settings, results={"best_epoch": 4}, checkpoints=kept)


def test_kept_checkpoints_stand_in_a_table_with_the_main_one() -> None:
    card = render_card(with_checkpoints("both"))
    rows = [line.split(" | ")[:4] for line in card.splitlines() if line[:4] in ("| 2 ", "| 4 ", "| 5 ")]
    assert [row[:3] for row in rows] == [
        ["| 2", "-", "50.00 % ± 0.71"],
        ["| 4", "best, main", "96.44 % ± 0.26"],
        ["| 5", "last", "75.00 % ± 0.61"],
    ]
    assert "were measured after the best epoch, epoch 4, with" in card
    assert "\n- `checkpoints/`: 2 files, 2.0 MiB" in card
    assert "| weights kept beside it | of the last epoch, of epochs that are multiples of 2 |" in card
    assert render_card(with_checkpoints("last")).count("last, main") == 1
    published = render_card(with_checkpoints("both"), published=True)
    assert "Only the main checkpoint, of epoch 4, is published;" in published
    assert "`checkpoints/`" not in published


def test_of_many_checkpoints_the_card_shows_the_named_and_the_latest() -> None:
    kept = [KeptCheckpoint(epoch=epoch, sha256="34" * 32, bytes=1) for epoch in range(1, 101)]
    settings = {"training": Training(epochs=100, keep="both", save_every=1)}
    card = render_card(
        changed(FINISHED, settings=settings, results={"best_epoch": 4, "epochs_done": 100}, checkpoints=kept)
    )
    table = card.partition("### Checkpoints\n")[2].partition("\n### ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ") and "Epoch" not in line]
    assert rows == ["| 4", *(f"| {epoch}" for epoch in range(51, 101))]
    assert "The table shows the latest checkpoints; `run.json` has all checkpoints." in card


def test_weights_that_are_kept_are_no_difference_from_a_published_run() -> None:
    (figure, *_others) = published_figures("cait_s24", "cifar10")
    best = with_checkpoints("best")
    both = with_checkpoints("both")
    assert differences(both, figure) == differences(best, figure) != []


@pytest.mark.parametrize(
    ("argument", "source", "expected"),
    [
        ("someone/flowers", "Hugging Face Hub someone/flowers, configuration default", ["someone/flowers"]),
        ("someone/flowers@v1", "Hugging Face Hub someone/flowers, configuration default", ["someone/flowers"]),
        ("someone/flowers", "folder /data/flowers", None),  # --data-dir: nobody asked the Hub for that name
        ("./flowers", "folder /data/flowers", None),
        ("../x", "folder /data/x", None),
    ],
)
def test_data_of_the_hub_are_named_as_the_hub_names_them(
    argument: str, source: str, expected: list[str] | None
) -> None:
    record = changed(FINISHED, dataset={"name": "hf", "argument": argument, "hub_id": None, "source": source})
    front = front_of(render_card(record))
    assert front.get("datasets") == expected
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == (expected or ["hf"])[0]


@pytest.mark.parametrize("plots", [(), ("samples.png",), ("loss.png", "accuracy.png")])
@pytest.mark.parametrize("epochs_done", [0, 5])
def test_blocks_are_one_blank_line_apart(plots: tuple[str, ...], epochs_done: int) -> None:
    for record in (FINISHED, INTERRUPTED, HOME_MADE, FROM_SCRATCH):
        card = render_card(changed(record, plots=plots, results={"epochs_done": epochs_done}))
        assert "\n\n\n" not in card
        lines = card.split("\n")
        starts = [at for at, line in enumerate(lines) if line.startswith(("## ", "!", "The **", "The acc"))]
        assert all(lines[at - 1] == "" for at in starts)
        assert card.endswith("full.\n\n<!-- zoo:end -->\n")


def test_front_matter_says_what_the_hub_needs() -> None:
    front = front_of(render_card(FINISHED))
    assert front["base_model"] == "timm/cait_s24_224.fb_dist_in1k"
    assert front["base_model_relation"] == "finetune"
    assert (front["library_name"], front["pipeline_tag"]) == ("timm", "image-classification")
    assert {"timm", "transformers", "zoo"} <= set(front["tags"])
    assert (front["license"], front["datasets"], front["metrics"]) == (
        "apache-2.0",
        ["uoft-cs/cifar10"],
        ["accuracy"],
    )


def test_a_test_split_that_was_kept_for_the_end_is_the_headline() -> None:
    card = render_card(FROM_SCRATCH)
    assert "The test accuracy of the model is 76.34 % ± 0.42, on 10,000 images of the split `test`." in card
    assert "| accuracy | 99.91 % ± 0.01 | 77.12 % ± 0.42 | 76.34 % ± 0.42 |" in card
    assert "| this run | 76.34 % ± 0.42 (test) | 11,220,132 |" in card
    assert "batch size, input size and pretraining data of the source, and uses the same split of the data." in card
    (index,) = front_of(card)["model-index"]
    (found,) = index["results"]
    assert found["dataset"]["split"] == "test"
    assert [metric["value"] for metric in found["metrics"]] == [0.7634, 0.6415]


def test_an_accuracy_on_scored_images_is_distinguished_from_a_published_one_of_the_test_split() -> None:
    card = render_card(
        changed(FROM_SCRATCH, dataset={"test": None, "val_fraction": None}, results={"test_accuracy": None})
    )
    assert "accuracy on images that were scored after every epoch instead of a test split" in card


def test_model_index_has_value_error_count_and_revision() -> None:
    (index,) = front_of(render_card(FINISHED))["model-index"]
    (result,) = index["results"]
    accuracy, separation = result["metrics"]
    assert index["name"] == "cait_s24-cifar10"
    assert result["dataset"]["revision"] == FINISHED.dataset.revision
    assert result["dataset"]["split"] == "test"
    assert result["dataset"]["args"]["subset"].startswith("500 images per class")
    assert accuracy["value"] == 0.9644
    assert accuracy["args"]["n"] == 5000
    assert accuracy["args"]["standard_error"] == pytest.approx((0.9644 * 0.0356 / 5000) ** 0.5, abs=1e-6)
    assert (separation["type"], separation["value"]) == ("separation_index", 0.9532)
    index = FINISHED.results.separation_after.evaluation.si  # type: ignore[union-attr]
    assert separation["args"]["standard_error"] == index.bootstrap_error  # as the card shows it
    assert separation["args"]["standard_error_by"] == "bootstrap"
    assert separation["args"]["order"] == 1


def test_unfinished_run_says_so_first_and_leaves_no_result_for_machines() -> None:
    card = render_card(INTERRUPTED)
    top, _, _ = body_of(card).partition("## ")
    assert "This run is not finished" in top
    assert "after 3 of" in top
    assert not {"model-index", "model_name"} & set(front_of(card))


def test_run_that_failed_before_anything_was_measured() -> None:
    record = changed(FINISHED, status="failed", results={**NOTHING_MEASURED, "epochs_done": 0}, plots=())
    record = record.model_copy(update={"checkpoint_sha256": None})
    body = body_of(render_card(record))
    assert "The accuracy of the model has not been measured." in body
    assert "There is no checkpoint" in body
    assert ".png" not in body


def test_no_epoch_is_not_sold_as_a_result() -> None:
    record = changed(
        FINISHED, settings={"training": Training(epochs=0)}, results={"epochs_done": 0}, plots=("samples.png",)
    )
    body = body_of(render_card(record))
    assert "No epoch has been run" in body
    assert "after the last epoch" not in body
    assert "(samples.png)" in body
    assert "(accuracy.png)" not in body


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}),
        (" ", {}),
        ("mit", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Keras weights: ask", {"license": "other", "license_name": "Keras weights: ask"}),
    ],
)
def test_license_is_the_recorded_one_or_left_out(given: str | None, expected: dict[str, str]) -> None:
    front = front_of(render_card(changed(FINISHED, weights={"license": given})))
    assert {key: value for key, value in front.items() if key.startswith("license")} == expected


def test_unknown_license_is_called_unknown() -> None:
    licence = body_of(render_card(changed(FINISHED, weights={"license": None}))).partition("## Licence")[2]
    assert "Weights: not known" in licence


def test_file_the_user_chose_is_not_given_the_plugins_pretraining() -> None:
    record = changed(FINISHED, weights={"kind": "file", "declared": False, "source": "/tmp/w.pth", "license": None})  # noqa: S108
    card = render_card(record)
    assert "base_model" not in front_of(card)
    assert "- Pretrained on: not known" in card
    assert "83.44" not in card
    assert "pretrained on not known instead of ImageNet-1k" in card


def test_only_what_timm_builds_is_called_timm() -> None:
    card = render_card(changed(FINISHED, settings={"head": Head("head", hidden=256), "recipe": "paper"}))
    assert front_of(card)["library_name"] == "zoo"
    assert not {"timm", "transformers"} & set(front_of(card)["tags"])
    assert "timm.create_model" not in card
    assert "from_pretrained" not in card
    assert "Only `zoo.load` can load this model, because timm cannot build its classifier." in card


def test_two_classifiers_are_explained() -> None:
    head = DualHead(cls=Head("head"), dist=Head("head_dist"))
    cls = render_card(changed(FINISHED, settings={"head": head}))
    mean = render_card(changed(FINISHED, settings={"head": head, "predict": "mean"}))
    assert "summed over both classifiers" in cls
    told = "timm and transformers predict from the mean of both classifiers"
    assert told in cls.partition("timm alone can also load")[0]
    measured = Measurement(value=0.5, standard_error=0.01, n=5000)
    with_mean = render_card(changed(FINISHED, settings={"head": head}, results={"accuracy_by_other_rule": measured}))
    assert "The mean of both classifiers has an accuracy of\n50.00 % ± 1.00 on the same images." in with_mean
    assert told not in mean
    assert "| prediction from | the mean of both classifiers |" in mean


def test_published_figures_stand_beside_with_the_differences() -> None:
    body = body_of(render_card(FINISHED))
    section = body.partition("## Comparison with published results")[2].partition("\n## ")[0]
    assert r"| \[1\] | 96.00 % (validation) | 1,877,130 | not stated |" in section
    assert r"| \[2\] | 96.78 % (validation) | 1,775,376 | 590.6 |" in section
    assert "epochs 5 instead of 20" in section
    assert "recipe default instead of report" in section
    assert "part of the data: 500 images per class" in section


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"schedule": "cosine"}, "schedule of the learning rate: cosine decay to 0 (published: constant)"),
        ({"augment": ("flip",)}, "augmentation: horizontal flips (published: none)"),
        ({"optimizer": "sgd", "momentum": 0.9}, "momentum and weight decay: momentum 0.9 (published: none)"),
        (
            {"keep": "best"},
            "checkpoint: of the epoch with the best evaluation accuracy (published: of the last epoch)",
        ),
    ],
)
def test_a_setting_that_no_table_states_is_compared_with_the_recipes(training: dict[str, Any], told: str) -> None:
    assert f"- {told}\n" in render_card(changed(FINISHED, settings={"training": Training(**training)}))


def test_another_mean_and_standard_deviation_are_named_with_their_source() -> None:
    assert "mean and standard deviation" not in render_card(FINISHED)
    card = render_card(changed(FINISHED, settings={"normalization": "dataset"}))
    assert "| source of mean and standard deviation | computed from the training images |" in card
    assert "mean and std computed from the training images instead of from the weights" in card


def test_a_change_of_the_reports_recipe_is_listed_and_its_own_settings_are_not() -> None:
    assert "instead of" not in render_card(FROM_SCRATCH).partition("## Comparison")[2]
    assert SCRATCH.training is not None
    plain = changed(FROM_SCRATCH, settings={"training": replace(SCRATCH.training, augment=(), momentum=0.0)})
    found = render_card(plain).partition("## Comparison")[2]
    assert "momentum and weight decay: weight decay 0.0005 (published: momentum 0.9, weight decay 0.0005)" in found
    assert "augmentation: none (published: crops of the image" in found


def test_same_setting_is_said_to_be_the_same() -> None:
    everything = {"per_class": None, "subset": "all images"}
    paper = {"recipe": "paper", "training": Training(), "head": Head("head", hidden=256)}
    record = changed(FINISHED, dataset=everything, settings=paper, results={"epochs_done": 20})
    body = body_of(render_card(record))
    first, second = body.partition(r"- \[1\]")[2].split(r"- \[2\]")
    assert "has the recipe, epochs" in first
    assert "epochs 20 instead of 10" in second


def test_nothing_published_nothing_said() -> None:
    assert "published results" not in render_card(HOME_MADE)


def test_exact_zero_and_one_get_their_caveat() -> None:
    assert "exactly 0 or 1 in this card has a standard error of 0" in render_card(HOME_MADE)
    assert "exactly 0 or 1 in this card" not in render_card(FINISHED)


def test_separation_of_too_few_images_is_not_measured() -> None:
    few = SeparationRecord.model_construct(layer="norm", train=None, evaluation=None)
    results = FINISHED.results.model_copy(update={"separation_after": few})
    card = render_card(FINISHED.model_copy(update={"results": results}))
    assert card.count(f"| after |{' not measured |' * 5}") == 2
    assert len(front_of(card)["model-index"][0]["results"][0]["metrics"]) == 1


def test_separation_stands_in_a_table_for_each_split_raw_pixels_first() -> None:
    tokens = MarkdownIt().enable("table").parse(body_of(render_card(FINISHED)).partition("### Separation of")[2])
    cells = [token.content for token in tokens if token.type == "inline"]
    cells = cells[: cells.index("Separation layer by layer")]
    rows = [cells[at : at + 6] for at, cell in enumerate(cells) if cell in ("raw pixels", "before", "after")]
    assert [row[0] for row in rows] == ["raw pixels", "before", "after"] * 2
    assert rows[0][1:] == [
        "0.2374 ± 0.0068",
        "0.0661 ± 0.0040",
        "0.2274 ± 0.0067",
        "0.6113 ± 0.0078",
        "0.2374 ± 0.0068",
    ]
    assert rows[5][1] == "0.9912 ± 0.0015"


def test_ties_and_equal_images_are_told_where_there_are_any() -> None:
    card = render_card(FINISHED)
    assert "- Test split, raw pixels: ties between distances affect up to 3 of the 5,000 images." in card
    assert (
        "- Training split, raw pixels: 4 images are duplicates of other images; 2 of these equal an image of another "
        "class."
    ) in card
    assert card.count("ties between distances") == card.count("are duplicates") == 1


def test_card_says_what_raw_pixels_are() -> None:
    assert "decoded images at their own size, 32 x 32 x 3 values from 0 to 255" in render_card(FINISHED)
    resized = FINISHED.dataset.evaluation.model_copy(update={"pixels": (224, 224, 3), "resized": True})
    card = render_card(changed(FINISHED, dataset={"evaluation": resized}))
    assert (
        "decoded images resized and cropped to the network's input size, 224 x 224 x 3 values "
        "(training split: at their own size, 32 x 32 x 3 values) from 0 to 255"
    ) in card


def test_card_names_the_layer_that_was_scored() -> None:
    assert "output of the layer `norm`, which is the input of the classifier." in render_card(FINISHED)
    scored = FINISHED.results.separation_before.model_copy(update={"layer": "patch_embed"})  # type: ignore[union-attr]
    assert "output of the layer `patch_embed`.\n" in render_card(
        changed(FINISHED, results={"separation_before": scored})
    )


def test_other_settings_of_si_stand_beside_every_table_and_for_machines() -> None:
    settings = SeparationSettings(order=5, metric="cosine", normalize="zscore")
    card = render_card(changed(FINISHED, settings={"separation": settings}))
    body = body_of(card)
    assert body.count("images; z-scored features, cosine distance, order 5:") == 2
    assert "the\nclassifier; z-scored features, cosine distance, order 5. The output" in body
    assert "by cosine distance of z-scored features. The compared features are the raw" in body
    assert "fraction of images whose 5 nearest neighbours all have their label" in body
    _accuracy, index = front_of(card)["model-index"][0]["results"][0]["metrics"]
    assert index["name"].endswith(", z-scored features, cosine distance")
    assert {name: index["args"][name] for name in ("order", "distance", "normalize")} == {
        "order": 1,
        "distance": "cosine",
        "normalize": "zscore",
    }


def test_many_classes_are_cut_with_their_number() -> None:
    classes = tuple(f"class {index}" for index in range(150))
    split = SplitRecord(
        split="test", images=150, per_class=(1,) * 150, pixels=(32, 32, 3), resized=False, fingerprint="ef" * 32
    )
    body = body_of(render_card(changed(FINISHED, dataset={"classes": classes, "train": split, "evaluation": split})))
    assert "`class 99` and 50 more; `config.json` has all classes" in body


def test_command_can_be_pasted_into_a_shell() -> None:
    command = ("zoo", "eval", "x", "--data-dir", "it's `here`\n```\n$(rm -rf ~)")
    *_using, block = (
        token
        for token in MarkdownIt().parse(body_of(render_card(FINISHED.model_copy(update={"command": command}))))
        if token.type == "fence" and token.info == "shell"
    )
    assert shlex.split(block.content) == list(command)


@pytest.mark.parametrize("folder", ["/srv/someone/my photos/shoes", "~/photos/shoes", "../someone/shoes"])
def test_card_shows_a_folder_by_its_name_alone(folder: str) -> None:
    record = changed(
        FINISHED,
        command=("zoo", "eval", "x", "--dataset", f"imagefolder:{folder}/", f"--data-dir={folder}", "--out", "runs/a"),
        dataset={"argument": folder, "source": f"folder {folder} (split test is its folder val)"},
        weights={"kind": "file", "source": f"{folder}.pth", "declared": False},
    )
    card = render_card(record)
    assert "someone" not in card
    assert "photos" not in card
    assert "with the argument `shoes`" in card
    assert "- Read from: `folder shoes (split test is its folder val)`" in card
    assert "- Weights: `shoes.pth` (file)" in card
    assert "zoo eval x --dataset imagefolder:shoes --data-dir=shoes --out runs/a" in card
    assert "The command shows only the last part of each path" in card
    assert "the last part of each path" not in render_card(FINISHED)


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\n---\nlicense: mit\n---\n# Gotcha",
    "{{ 7 * 7 }} {% raw %}",
    "[click](javascript:alert(1)) ![x](http://evil/x.png)",
    "`` ` ``` <b>",
    "| a | b |\n|---|---|",
    "'\"\\: - #&amp; *x* ~~y~~ $z$",
    "\u202egnp.exe\u2028<hr>\x85---\x00",
    r"\*x\* \[y\](http://z) \\",
    "",
)


def hostile_record(text: str) -> RunRecord:
    """A record with the same text in every place that takes free text from outside."""
    return changed(
        FINISHED,
        command=("zoo", "eval", text),
        versions={"python": text},
        backbone={"title": text, "pretrained_on": text, "paper": text, "distribution": text, "version": text},
        weights={
            "kind": "file",
            "declared": False,
            "source": text,
            "filename": text,
            "revision": text,
            "license": text,
        },
        dataset={
            "title": text,
            "argument": text,
            "source": text,
            "revision": text,
            "license": text,
            "citation": text,
            "subset": text,
            "reading": (text, text),
            "skipped": {text: 1},
            "classes": (text, *CIFAR10[1:]),
        },
        results={
            "confusion": ConfusionSummary(
                split=text,
                pairs=(ConfusedPair(true=text, predicted=text, images=1, of=2),),
                worst=(ClassAccuracy(name=text, accuracy=measured(0.5, 2)),),
            ),
            "layer_curve": LayerCurveRecord(
                split=text,
                layers=(LayerScores(path=text, width=1, vector="cls", separation=separation(0.9, 0.8, 9)),),
            ),
        },
        settings={"recipe": text, "recipe_source": text, "device": text},
        host={"processor": text, "platform": text, "accelerator": text},
    )


def kinds(markdown: str) -> list[str]:
    """The sequence of block and inline elements, text and line breaks left out."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown):
        found.append(token.type)
        inside = [child.type for child in token.children or ()]
        found += [kind for kind in inside if kind not in ("text", "softbreak", "text_special")]
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_names_cannot_break_out(text: str) -> None:
    card = render_card(hostile_record(text))
    harmless = "@harmless\n" if "\n" in text else "harmless"
    expected = render_card(hostile_record(harmless if text else ""))
    assert kinds(body_of(card)) == kinds(body_of(expected))
    front, expected_front = front_of(card), front_of(expected)
    assert front.keys() == expected_front.keys()
    assert front["tags"] == expected_front["tags"]


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_front_matter_keeps_any_title_on_one_line(title: str) -> None:
    record = changed(FINISHED, dataset={"title": title, "subset": title})
    dataset = front_of(f"---\n{front_matter(record)}\n---\n")["model-index"][0]["results"][0]["dataset"]
    assert dataset["name"] == dataset["args"]["subset"] == one_line(title)
    assert len(dataset["name"].splitlines()) <= 1


def test_table_cell_holds_the_whole_of_its_text() -> None:
    body = body_of(render_card(changed(FINISHED, settings={"recipe": "a | <b> \\| c"})))
    cells = [token.content for token in MarkdownIt().enable("table").parse(body) if token.type == "inline"]
    shown = MarkdownIt().parseInline(cells[cells.index("recipe") + 1])[0].children or []
    assert "".join(child.content for child in shown) == "a | <b> \\| c"


def test_writing_direction_cannot_be_reversed() -> None:
    assert one_line("photo\u202egnp.exe") == "photo gnp.exe"
    assert one_line("\u0645\u06cc\u200c\u0634\u0648\u062f") == "\u0645\u06cc\u200c\u0634\u0648\u062f"


def test_class_names_are_shown_as_they_are() -> None:
    classes = ("T-shirt/top", "a`b", "c|d", "<e>", *CIFAR10[4:])
    tokens = MarkdownIt().parse(body_of(render_card(changed(FINISHED, dataset={"classes": classes}))))
    line = next(token for token in tokens if token.content.startswith("Classes, in the order"))
    assert [child.content for child in line.children or () if child.type == "code_inline"] == list(classes)


@pytest.mark.parametrize(
    "plot", ["samples.png", "loss.png", "accuracy.png", "learning_rate.png", "confusion.png", "layers.png"]
)
def test_card_shows_the_pictures_that_are_there_and_no_other(plot: str) -> None:
    tokens = MarkdownIt().parse(body_of(render_card(changed(FINISHED, plots=(plot,)))))
    children = [child for token in tokens for child in token.children or ()]
    assert [child.attrs["src"] for child in children if child.type == "image"] == [plot]


MARKER_LINES = ("<!-- zoo:end -->", "a\n<!-- zoo:end -->\nb", "<!-- zoo:begin -->\n<!-- zoo:end -->", "x\n---\n", "---")


@pytest.mark.parametrize("text", [*HOSTILE, *MARKER_LINES, *(f"@{text}" for text in MARKER_LINES)])
def test_no_name_ends_our_part_of_the_card(text: str) -> None:
    card = render_card(hostile_record(text))
    assert merged_card(card, card) == card
    edited = f"{card}\nMine.\n"
    assert merged_card(edited, render_card(FINISHED)) == f"{render_card(FINISHED)}\nMine.\n"
