"""The part of a data set that a run uses, as its options choose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.errors import UsageError


@dataclass(frozen=True)
class Subset:
    """The part of a data set that a run uses: in each split ``per_class`` images of each class, or ``limit`` in all.

    ``val_fraction`` is the fraction of the training split to hold out as the evaluation split.
    """

    per_class: int | None = None
    limit: int | None = None
    val_fraction: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_class is not None and self.limit is not None:
            raise UsageError("--per-class and --limit exclude each other: give one", code="option-conflict")
        for option, value in (("per_class", self.per_class), ("limit", self.limit)):
            if value is not None and value < 1:
                message = f"--{option.replace('_', '-')} {value} must be at least 1"
                raise UsageError(message, code="option-range", option=option)
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            message = f"--val-fraction {self.val_fraction} must lie between 0 and 1, both excluded"
            raise UsageError(message, code="option-range", option="val_fraction")

    def in_words(self, *splits: tuple[str, int]) -> str:
        """Describe the subset for the card.

        ``splits``: the name of each split, and the number of images of each class that ``per_class`` came to in it.

        >>> Subset(per_class=9).in_words(("training split", 9), ("test split", 4))
        '9 images per class of the training split, 4 of the test split (all that its smallest class has), seed 0'
        >>> Subset(per_class=5).in_words(("training split", 5), ("evaluation split", 5))
        '5 images per class, seed 0'
        """
        parts = []
        if self.val_fraction is not None:
            parts.append(f"{self.val_fraction:g} of the training split held out for evaluation")
        if self.per_class is not None:
            parts.append(f"{_image_counts(self.per_class, splits)}, seed {self.seed}")
        if self.limit is not None:
            parts.append(f"at most {self.limit} images of each split, classes in turn, seed {self.seed}")
        return "; ".join(parts) or "all images"


def _image_counts(asked: int, splits: Sequence[tuple[str, int]]) -> str:
    counts = {count for _name, count in splits}
    if len(counts) == 1:
        return f"{counts.pop()} images per class"
    clauses: list[str] = []
    for name, count in splits:
        unit = "" if clauses else " images per class"
        clauses.append(f"{count}{unit} of the {name}{' (all that its smallest class has)' if count < asked else ''}")
    return ", ".join(clauses)
