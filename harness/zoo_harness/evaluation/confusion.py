"""Count the confusion matrix of a run's evaluation, and list the most frequent confusions and the worst classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from zoo_harness.records.run import ClassAccuracy, ConfusedPair, ConfusionSummary, Record, measure
from zoo_harness.util.atomic_files import write_text

if TYPE_CHECKING:
    from torch import Tensor

CONFUSION = "confusion.json"
MOST_CLASSES = 1000  # with more classes, the matrix would take many megabytes and be almost entirely 0
_LISTED = 5


class Confusion(Record):
    """The content of ``confusion.json``: ``counts[i][j]`` images of class ``i`` were predicted as class ``j``."""

    format: Literal["blockzoo confusion 1"] = "blockzoo confusion 1"
    split: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def write(self, directory: Path) -> None:
        """Write ``confusion.json`` into a run directory."""
        write_text(directory / CONFUSION, self.model_dump_json() + "\n")


def count_confusion(labels: Tensor, predictions: Tensor, classes: tuple[str, ...], split: str) -> Confusion | None:
    """Count the confusion matrix of labels (N,) and predictions (N,); return ``None`` for more than 1,000 classes.

    Labels and predictions are class indices.

    >>> import torch
    >>> found = count_confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), ("cat", "dog"), "test")
    >>> found.counts
    ((1, 1), (0, 1))
    """
    size = len(classes)
    if size > MOST_CLASSES:
        return None
    cells = (labels.cpu() * size + predictions.cpu()).numpy()
    counts = np.bincount(cells, minlength=size * size).reshape(size, size)
    return Confusion(split=split, classes=classes, counts=tuple(map(tuple, counts.tolist())))


def summarize(confusion: Confusion) -> ConfusionSummary:
    """List the five most frequent confusions of two classes, and the five classes with the lowest accuracy.

    >>> found = summarize(Confusion(split="test", classes=("cat", "dog"), counts=((1, 1), (0, 1))))
    >>> found.pairs
    (ConfusedPair(true='cat', predicted='dog', images=1, of=2),)
    >>> [(worst.name, worst.accuracy.value) for worst in found.worst]
    [('cat', 0.5), ('dog', 1.0)]
    """
    counts, names = np.array(confusion.counts), confusion.classes
    images = counts.sum(axis=1)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    shares = [(counts[place, place] / images[place], place) for place in np.flatnonzero(images).tolist()]
    return ConfusionSummary(
        split=confusion.split,
        pairs=tuple(
            ConfusedPair(
                true=names[true], predicted=names[predicted], images=int(wrong[true, predicted]), of=int(images[true])
            )
            for true, predicted in pairs
        ),
        worst=tuple(
            ClassAccuracy(name=names[place], accuracy=measure(float(share), int(images[place])))
            for share, place in sorted(shares)[:_LISTED]
        ),
    )
