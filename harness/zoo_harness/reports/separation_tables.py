"""Prepare the separation scores of a run as tables, definitions and notes, for the model card and the terminal."""

from __future__ import annotations

from typing import NamedTuple

from zoo_harness.records.run import RunRecord, ScoreMeasurement, SplitRecord, SplitSeparation
from zoo_harness.reports.wording import NOT_MEASURED
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES


class Row(NamedTuple):
    """One row of a separation table: the name of the features and their scores, or ``None`` if not measured."""

    name: str
    found: SplitSeparation | None

    @property
    def scores(self) -> list[ScoreMeasurement | None]:
        """The row's scores in the order of :data:`~zoo_harness.separation.scores.SCORES`."""
        found = self.found.scores if self.found else {}
        return [found.get(each.key) for each in SCORES]


class Table(NamedTuple):
    """The separation table of one split, with rows for raw pixels and for the layer before and after training.

    A test split has no row for the layer before training.
    """

    title: str
    images: int
    rows: list[Row]


def separation_tables(record: RunRecord) -> list[Table]:
    """Return one separation table for each scored split of a run: test, evaluation and training split."""
    results, dataset = record.results, record.dataset
    measured = {
        "raw pixels": results.separation_raw_pixels,
        "before": results.separation_before,
        "after": results.separation_after,
    }
    splits = {"test": dataset.test, "evaluation": dataset.evaluation, "train": dataset.train}
    titles = {"train": "Training split", "evaluation": split_title(record, dataset.evaluation)}
    titles |= {"test": split_title(record, dataset.test)} if dataset.test else {}
    return [
        Table(
            titles[split],
            images.images,
            [
                Row(name, getattr(found, split) if found else None)
                for name, found in measured.items()
                if (split, name) != ("test", "before")
            ],
        )
        for split, images in splits.items()
        if images
    ]


def split_title(record: RunRecord, split: SplitRecord) -> str:
    """Return the heading of the evaluation or the test split, such as ``Held-out split``."""
    name = record.dataset.name_of(split)
    return f"{name[:1].upper()}{name[1:]} split"


def scored_layer(record: RunRecord) -> str:
    """Return the path of the layer that a run scored, or of the default layer if the run scored none."""
    results = record.results
    scored = results.separation_before or results.separation_after
    return scored.layer if scored else record.backbone.features[-1].path


def pixels_in_words(record: RunRecord) -> str:
    """Describe the image size at which raw pixels were scored; name two if the training split has its own size."""
    evaluation, train = _pixels(record.dataset.evaluation), _pixels(record.dataset.train)
    return evaluation if evaluation == train else f"{evaluation} (training split: {train})"


def separation_notes(record: RunRecord) -> list[str]:
    """Return a sentence for everything that limits the separation scores: few images, ties, duplicate images."""
    notes = []
    if record.settings.separation.order == 1:
        notes.append("High-order, soft and anti SI are omitted, because with order 1 they equal SI.")
    for title, images, rows in separation_tables(record):
        if images == 1:
            notes.append(f"{title}: no scores, because one image has no neighbour.")
        elif images <= record.settings.separation.order:
            order = record.settings.separation.order
            notes.append(f"{title}: no score of order {order}, because each image has one neighbour.")
        for row in rows:
            if row.found:
                notes += _notes(f"{title}, {row.name}", row.found)
    return notes


def score_definitions(order: int = DEFAULT_ORDER) -> list[tuple[str, str]]:
    """Return the title and the definition of each separation score of the given order.

    >>> score_definitions()[0]
    ('SI', 'fraction of images whose nearest neighbour has their label')
    """
    return [(each.title, each.explain(order, "image")) for each in SCORES]


def with_error(score: ScoreMeasurement | None) -> str:
    """Format a separation score with its bootstrap standard error."""
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
        unlike = f"; {found.duplicates_unlike:,} of these equal an image of another class"
        unlike = unlike if found.duplicates_unlike else ""
        notes.append(f"{where}: {found.duplicates:,} images are duplicates of other images{unlike}.")
    return notes
