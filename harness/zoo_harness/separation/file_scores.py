"""Score the features in a file, with the options of ``zoo si``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SeparationOptions

if TYPE_CHECKING:
    from zoo_harness.separation.result import Separation
    from zoo_harness.separation.validation import Array

ORDER = 2


def check_file_options(given: SeparationOptions) -> None:
    """Refuse options that do not go together, before any file is read."""
    references, labels = given.get("references"), given.get("reference_labels")
    if labels is not None and references is None:
        raise UsageError(
            f"--reference-labels {labels!r} belongs to --references FILE, which is not given", code="option-unused"
        )
    if references is not None and labels is None and references.suffix == ".npy":
        raise UsageError(
            f"--references {references} holds no labels; give --reference-labels FILE.npy", code="missing-labels"
        )


def score_file(file: Path, given: SeparationOptions) -> Separation:
    """Score the features of a file, against each other or against the references of another file.

    Without an order it is 2, or 1 if each sample has a single neighbour.
    """
    from zoo_harness.separation.feature_files import read_features
    from zoo_harness.separation.index import separation

    options = with_defaults(SeparationOptions, given)
    features, labels = read_features(file, options["features"], options["labels"])
    references, reference_labels = None, None
    if options["references"] is not None:
        named = options["reference_labels"] or options["labels"]
        references, reference_labels = read_features(options["references"].expanduser(), options["features"], named)
    order = options["order"] or _default_order(labels, reference_labels, options["per_class"])
    return separation(
        features,
        labels,
        order,
        references=references,
        reference_labels=reference_labels,
        metric=options["metric"],
        normalize=options["normalize"],
        per_class=options["per_class"],
        seed=options["seed"],
        memory_budget=options["memory"] * 2**20,
    )


def _default_order(labels: Array, reference_labels: Array | None, per_class: int | None) -> int:
    import numpy as np

    if reference_labels is not None:
        return min(ORDER, len(reference_labels))
    samples = len(labels) if per_class is None else per_class * len(np.unique(labels))
    return max(1, min(ORDER, samples - 1))
