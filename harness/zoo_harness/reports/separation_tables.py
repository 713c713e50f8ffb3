"""How a run's separation scores are shown, in its card and on the terminal: rows, and what to know of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from zoo_harness.records.run import RunRecord, ScoreMeasurement, SeparationRecord, SplitRecord, SplitSeparation
from zoo_harness.reports import wording as card_wording

Split = Literal["train", "evaluation", "test"]
ORDER = 2
HEADINGS = ("SI", "high-order SI", "soft SI", "anti SI", "centre SI")


class Row(NamedTuple):
    """One row of the table: what was scored, and its scores in the order of ``HEADINGS``; ``None`` if not measured."""

    name: str
    found: SplitSeparation | None

    @property
    def scores(self) -> tuple[ScoreMeasurement | None, ...]:
        """The five scores."""
        return self.found.scores if self.found else (None,) * len(HEADINGS)


def separation_rows(record: RunRecord, split: Split) -> list[Row]:
    """Raw pixels, and the layer before and after training; nothing looks at a test split before."""
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
    """What each split that is scored is called, in the order in which they are shown."""
    dataset = record.dataset
    splits: list[tuple[str, Split, SplitRecord]] = [
        ("Evaluation split", "evaluation", dataset.evaluation),
        ("Training split", "train", dataset.train),
    ]
    return splits if dataset.test is None else [("Test split", "test", dataset.test), *splits]


def separation_tables(record: RunRecord) -> list[tuple[str, list[list[str]]]]:
    """A title and rows of cells for each split."""
    tables = []
    for title, split, images in splits_scored(record):
        rows = [[row.name, *map(with_error, row.scores)] for row in separation_rows(record, split)]
        tables.append((f"{title}, {images.images:,} images", rows))
    return tables


def scored_layer(record: RunRecord) -> str:
    """The path of the layer that was scored, or would have been."""
    results = record.results
    scored = results.separation_before or results.separation_after
    return scored.layer if scored else record.backbone.features[-1].path


def pixels_in_words(record: RunRecord) -> str:
    """What an image was compared by as raw pixels.

    Both splits may have images of their own size.
    """
    evaluation, train = _pixels(record.dataset.evaluation), _pixels(record.dataset.train)
    return evaluation if evaluation == train else f"{evaluation} (training split: {train})"


def separation_notes(record: RunRecord) -> list[str]:
    """A sentence for everything that bears on how far the scores can be trusted: few images, ties, equal images."""
    notes = []
    for title, split, images in splits_scored(record):
        if images.images <= ORDER:
            notes.append(_too_few(title, images.images))
        for row in separation_rows(record, split):
            if row.found:
                notes += _notes(f"{title}, {row.name}", row.found)
    return notes


def measurements(separation: SeparationRecord | None) -> list[ScoreMeasurement]:
    """All scores that there are."""
    splits = (separation.train, separation.evaluation, separation.test) if separation else ()
    return [score for split in splits if split for score in split.scores if score]


def with_error(score: ScoreMeasurement | None) -> str:
    """A score with its bootstrap standard error."""
    return f"{score.value:.4f} ± {score.bootstrap_error:.4f}" if score else card_wording.NOT_MEASURED


def _pixels(split: SplitRecord) -> str:
    size = " x ".join(map(str, split.pixels))
    how = "resized and cropped to the network's input size" if split.resized else "at their own size"
    return f"{how}, {size} values"


def _too_few(title: str, images: int) -> str:
    if images == 1:
        return f"{title}: one image has no other to be compared with, so there is no score."
    return f"{title}: of two images each has one neighbour, so there is no score of order {ORDER}."


def _notes(where: str, found: SplitSeparation) -> list[str]:
    notes = []
    tied = max(score.tied for score in found.scores if score)
    if tied:
        notes.append(f"{where}: equal distances decide for up to {tied:,} of the {found.si.n:,} images.")
    if found.duplicates:
        unlike = f", {found.duplicates_unlike:,} of them one of another class" if found.duplicates_unlike else ""
        notes.append(f"{where}: {found.duplicates:,} images equal another{unlike}.")
    return notes
