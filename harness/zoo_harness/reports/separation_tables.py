"""Arrange the separation scores of a run for its card and the terminal: rows, definitions and notes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from zoo_harness.records.run import RunRecord, ScoreMeasurement, SeparationRecord, SplitRecord, SplitSeparation
from zoo_harness.reports.wording import NOT_MEASURED
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES

Split = Literal["train", "evaluation", "test"]


class Row(NamedTuple):
    """One row of the table: the name of the features, and their scores; ``None`` if not measured."""

    name: str
    found: SplitSeparation | None

    @property
    def scores(self) -> list[ScoreMeasurement | None]:
        """The scores in the order of :data:`~zoo_harness.separation.scores.SCORES`."""
        found = self.found.scores if self.found else {}
        return [found.get(each.key) for each in SCORES]


def separation_rows(record: RunRecord, split: Split) -> list[Row]:
    """Return the rows of a split: raw pixels, and the layer before training (not on a test split) and after it."""
    results = record.results
    measured = [
        ("raw pixels", results.separation_raw_pixels),
        ("before", results.separation_before),
        ("after", results.separation_after),
    ]
    if split == "test":
        del measured[1]
    return [Row(name, getattr(found, split) if found else None) for name, found in measured]


def splits_scored(record: RunRecord) -> list[tuple[str, Split, SplitRecord]]:
    """Return the title, key and record of each scored split, in the order of the tables."""
    dataset = record.dataset
    splits: list[tuple[str, Split, SplitRecord]] = [
        ("Evaluation split", "evaluation", dataset.evaluation),
        ("Training split", "train", dataset.train),
    ]
    return splits if dataset.test is None else [("Test split", "test", dataset.test), *splits]


def separation_tables(record: RunRecord) -> list[tuple[str, list[list[str]]]]:
    """Return a title and rows of cells for each split."""
    tables = []
    for title, split, images in splits_scored(record):
        rows = [[row.name, *map(with_error, row.scores)] for row in separation_rows(record, split)]
        tables.append((f"{title}, {images.images:,} images", rows))
    return tables


def scored_layer(record: RunRecord) -> str:
    """Return the path of the scored layer, or of the default one if none was scored."""
    results = record.results
    scored = results.separation_before or results.separation_after
    return scored.layer if scored else record.backbone.features[-1].path


def pixels_in_words(record: RunRecord) -> str:
    """Return the size of the raw pixels of an image, as a phrase; splits may differ in it."""
    evaluation, train = _pixels(record.dataset.evaluation), _pixels(record.dataset.train)
    return evaluation if evaluation == train else f"{evaluation} (training split: {train})"


def separation_notes(record: RunRecord) -> list[str]:
    """Return a sentence for each limit of the reliability of the scores: few images, ties, equal images."""
    notes = []
    for title, split, images in splits_scored(record):
        if images.images == 1:
            notes.append(f"{title}: no scores, because one image has no neighbour.")
        elif images.images <= DEFAULT_ORDER:
            notes.append(f"{title}: no score of order {DEFAULT_ORDER}, because each image has one neighbour.")
        for row in separation_rows(record, split):
            if row.found:
                notes += _notes(f"{title}, {row.name}", row.found)
    return notes


def score_definitions() -> list[tuple[str, str]]:
    """Return the title and the definition of each score.

    >>> score_definitions()[0]
    ('SI', 'fraction of images whose nearest neighbour has their label')
    """
    return [(each.title, each.explain(DEFAULT_ORDER, "image")) for each in SCORES]


def measurements(separation: SeparationRecord | None) -> list[ScoreMeasurement]:
    """Return all measured scores."""
    splits = (separation.train, separation.evaluation, separation.test) if separation else ()
    return [score for split in splits if split for score in split.scores.values()]


def with_error(score: ScoreMeasurement | None) -> str:
    """Return a score with its bootstrap standard error."""
    return f"{score.value:.4f} ± {score.bootstrap_error:.4f}" if score else NOT_MEASURED


def _pixels(split: SplitRecord) -> str:
    size = " x ".join(map(str, split.pixels))
    how = "resized and cropped to the network's input size" if split.resized else "at their own size"
    return f"{how}, {size} values"


def _notes(where: str, found: SplitSeparation) -> list[str]:
    notes = []
    tied = max(score.tied for score in found.scores.values())
    if tied:
        notes.append(f"{where}: ties between distances affect up to {tied:,} of the {found.si.n:,} images.")
    if found.duplicates:
        unlike = f", {found.duplicates_unlike:,} of them of another class" if found.duplicates_unlike else ""
        notes.append(f"{where}: {found.duplicates:,} images are duplicates{unlike}.")
    return notes
