"""Folders of runs with fixed figures, made without a network, for tests of the page of ``zoo report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo_harness.evaluation.predictions import Predictions, write_predictions
from zoo_harness.records.rank import RankedBackbone, RankRecord, ScoreRecord
from zoo_harness.records.run import RunRecord, SplitRecord

from .reports.test_run_card import FINISHED, changed, measured, separation

IMAGES = 400


def write_run(
    folder: Path, right: int, number: int = 0, si: float = 0.8, classes: tuple[str, ...] = (), **parts: Any
) -> RunRecord:
    """Write the record and the predictions of a run that classifies ``right`` of 400 images correctly."""
    folder.mkdir(parents=True)
    classes = classes or FINISHED.dataset.classes
    label = (np.arange(IMAGES) % len(classes)).astype(np.int32)
    hits = (np.arange(IMAGES) * 7 + number) % IMAGES < right
    predicted = np.where(hits, label, (label + 1 + number % (len(classes) - 1)) % len(classes)).astype(np.int32)
    likely = np.full(IMAGES, 0.75, np.float32)
    ranks = np.where(hits, 1, 2).astype(np.int32)
    digest = parts.pop("fingerprint", "ef" * 32)
    found = Predictions("test", digest, len(classes), label, predicted, ranks, likely, likely)
    split = SplitRecord(
        split="test", images=IMAGES, per_class=tuple(np.bincount(label, minlength=len(classes)).tolist()),
        pixels=(32, 32, 3), resized=False, fingerprint=digest,
    )  # fmt: skip
    train = split.model_copy(update={"split": "train"})
    before = FINISHED.results.separation_before
    assert before is not None
    results = {
        "accuracy": measured(right / IMAGES, IMAGES),
        "separation_before": before.model_copy(update={"evaluation": separation(si, si - 0.1, IMAGES)}),
        "predictions": write_predictions(found, folder),
        "total_seconds": 40.0 + 9 * number,
    }
    changes: dict[str, Any] = {
        "dataset": {"classes": classes, "evaluation": split, "train": train},
        "results": results,
    }
    for name, fields in parts.items():
        changes[name] = {**changes.get(name, {}), **fields} if isinstance(fields, dict) else fields
    record = changed(FINISHED, **changes)
    (folder / "run.json").write_text(record.to_json())
    return record


def backbone(name: str, trained: int) -> dict[str, Any]:
    """Return the parts of a run record that name another backbone and its number of parameters."""
    parameters = {"total": 2 * trained, "trained": trained, "trained_without_head": 0}
    return {"backbone": {"name": name, "plugin": name.partition("_")[0]}, "parameters": parameters}


def write_runs(folder: Path) -> Path:
    """Write nine runs, which make seven rows on two sets of images, and a ranking; one row has three seeds."""
    rows = [("resnet_a", 388, 90_000), ("resnet_b", 362, 400_000), ("vit_a", 390, 6_000_000), ("vit_b", 341, 2_000_000)]
    for number, (name, right, trained) in enumerate(rows):
        write_run(folder / name, right, number, 0.5 + right / 1000, **backbone(name, trained))
    for seed in range(3):
        given = backbone("convnext_a", 12_000) | {"settings": {"seed": seed, "recipe": "head"}}
        write_run(folder / f"convnext_a-{seed}", 350 + 4 * seed, 5 + seed, 0.81, **given)
    for number, name in enumerate(("resnet_a", "vit_a")):
        other = {"dataset": {"title": "Flowers", "name": "flowers"}, "fingerprint": "ab" * 32}
        given = {**backbone(name, 90_000), **other}
        write_run(folder / "flowers" / name, 300 - 9 * number, number, classes=("rose", "tulip"), **given)
    write_ranking(folder / "ranked")
    return folder


def write_ranking(folder: Path, name: str = "vit_a") -> None:
    """Write a ranking of one backbone."""
    folder.mkdir(parents=True)
    ranked = RankedBackbone(
        name=name, title=name, network="net", derived_from=None, weights=FINISHED.weights, license="mit",
        parameters=5_000_000, imagenet_top1=79.5, preprocessing=None, layer="norm", width=4, source_classes=None,
        images=90, seconds=1.5, scores={"si": ScoreRecord(value=0.75), "logme": ScoreRecord(value=None, reason="x")},
        tier=1,
    )  # fmt: skip
    record = RankRecord(
        command=("zoo",), versions={}, dataset="flowers", title="Flowers", classes=("rose", "tulip"), images=90,
        per_class=(45, 45), subset="all", fingerprint="ab" * 32, seed=0, sort="si", rounds=(90,), backbones=(ranked,),
        seconds=2.0,
    )  # fmt: skip
    (folder / "rank.json").write_text(record.model_dump_json())
