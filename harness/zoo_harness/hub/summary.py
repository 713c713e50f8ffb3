"""Summarise a downloaded checkpoint, as plain data for JSON and as text for a terminal.

The record may come from an untrusted source, so each value is reduced to one line without control characters.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from zoo.text import one_line
from zoo_harness.hub.names import parse_reference
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import RunRecord, ScoreMeasurement
from zoo_harness.reports.separation_tables import with_error
from zoo_harness.reports.wording import (
    frozen_batchnorm_in_words,
    head_in_words,
    input_size_in_words,
    normalization_in_words,
    percent,
    preprocessing_in_words,
    pretrained_on,
)
from zoo_harness.util.byte_sizes import bytes_in_words

_SHOWN_CLASSES = 10


def summary(record: RunRecord, folder: Path, repository: str, commit: str | None) -> dict[str, Any]:
    """Summarise a downloaded checkpoint as plain data for ``--json``; ``repository`` may end in ``@REV``."""
    reference = parse_reference(repository)
    accuracy, split = record.headline
    separation, score = record.results.separation_after, _headline_si(record)
    return {
        "repository": reference.id,
        "revision": reference.revision,
        "commit": commit,
        "folder": str(folder),
        "checkpoint": str(folder / CHECKPOINT),
        "sha256": record.checkpoint_sha256,
        "bytes": (folder / CHECKPOINT).stat().st_size,
        "backbone": record.backbone.name,
        "network": f"{record.backbone.network_kind} {record.backbone.network}",
        "recipe": record.settings.recipe,
        "parameters": record.parameters.total,
        "parameters_trained": record.parameters.trained,
        "epoch": record.main_epoch,
        "dataset": record.dataset.title,
        "classes": list(record.dataset.classes),
        "split": split.split,
        "measure": f"{record.dataset.name_of(split)} accuracy",
        "accuracy": accuracy.model_dump() if accuracy else None,
        "separation_layer": separation.layer if separation else None,
        "separation_index": score.model_dump() if score else None,
        "separation_settings": record.settings.separation.model_dump(),
        "license_of_the_base_weights": record.weights.license,
        "base_weights": record.weights.source,
        "finished": record.ended,
    }


def summary_facts(record: RunRecord, folder: Path, repository: str, commit: str | None) -> list[tuple[str, str]]:
    """Return (name, value) pairs that describe a checkpoint: location, size, main settings and scores."""
    size = bytes_in_words((folder / CHECKPOINT).stat().st_size)
    facts = [
        ("repository", f"{repository}, commit {commit}"),
        ("folder", str(folder)),
        ("checkpoint", f"{CHECKPOINT}, {size}, SHA-256 {record.checkpoint_sha256}"),
        *record_facts(record),
    ]
    return [(name, one_line(value)) for name, value in facts]


def uses(folder: Path, repository: str, commit: str | None) -> list[tuple[str, str]]:
    """Return pairs of an example command that uses a checkpoint and a description of the command."""
    named = repository if folder.name == commit else str(folder)  # a folder in the Hub cache is named after its commit
    typed = shlex.quote(named)
    return [
        (f"zoo predict {typed} IMAGE...", "predict the classes of your images"),
        (f"zoo eval {typed} --epochs 0", "check whether the scores are reproduced here"),
        (f"zoo.load({named!r})", "load the model in Python"),
    ]


def record_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return (name, value) pairs with the main settings and scores of a run record."""
    accuracy, split = record.headline
    separation, classes = record.results.separation_after, record.dataset.classes
    settings = record.settings.separation.in_words()
    scored = f"layer {separation.layer}{f'; {settings}' if settings else ''}" if separation else ""
    head = head_in_words(record.settings.head, record.backbone.features[-1].width, len(classes))
    shown = ", ".join(classes[:_SHOWN_CLASSES]) + (", ..." if len(classes) > _SHOWN_CLASSES else "")
    return [
        ("backbone", f"{record.backbone.name} ({record.backbone.network}), recipe {record.settings.recipe}"),
        ("head", head),
        ("parameters", f"{record.parameters.total:,}, of them {record.parameters.trained:,} trained"),
        ("data", f"{record.dataset.title}, {record.dataset.subset}"),
        ("classes", f"{len(classes)}: {shown}"),
        ("images", preprocessing_in_words(record.settings.preprocessing)),
        *_chosen(record),
        ("weights", _epoch_in_words(record)),
        (f"{record.dataset.name_of(split)} accuracy", f"{percent(accuracy)} ({split.images:,} images)"),
        ("SI", f"{with_error(_headline_si(record))}" + (f" ({scored})" if separation else "")),
        *_initial_weights(record),
        ("made", f"{record.ended or 'not finished'}, blockzoo {record.versions.get('blockzoo', 'of unknown version')}"),
    ]


def _initial_weights(record: RunRecord) -> list[tuple[str, str]]:
    if record.weights.kind == "random":
        return [("initial weights", "random")]
    return [
        ("initial weights", f"{record.weights.source}, pretrained on {pretrained_on(record) or 'unknown data'}"),
        ("licence", f"{record.weights.license or 'unknown'} (of the initial weights)"),
    ]


def _chosen(record: RunRecord) -> list[tuple[str, str]]:
    """Return (name, value) pairs for unusual settings: input size, normalisation and frozen BatchNorm."""
    settings, rows = record.settings, []
    if settings.default_input_size is not None:
        rows.append(("input size", input_size_in_words(settings)))
    if settings.normalization != "weights":
        rows.append(("normalised by", normalization_in_words(settings.preprocessing, settings.normalization)))
    if settings.frozen_batchnorm == "train":
        rows.append(("frozen BatchNorm", frozen_batchnorm_in_words(record.parameters)))
    return rows


def _epoch_in_words(record: RunRecord) -> str:
    done, main = record.results.epochs_done, record.main_epoch
    if not done:
        return "no epoch was run"
    which = "best" if record.keeps_best else "last"
    return f"of the {which} of {done:,} epochs" + ("" if main is None else f", epoch {main:,}")


def _headline_si(record: RunRecord) -> ScoreMeasurement | None:
    separation = record.results.separation_after
    if separation is None:
        return None
    with_test = record.results.test_accuracy is not None and record.dataset.test is not None
    split = separation.test if with_test else separation.evaluation
    return split.si if split else None
