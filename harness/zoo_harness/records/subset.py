"""Select the part of a dataset that a run uses, from the options of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from zoo.errors import UsageError

SUBSET_OPTIONS = ("per_class", "limit", "val_fraction", "fraction", "eval_limit", "eval_fraction")


@dataclass(frozen=True)
class Subset:
    """The part of a dataset that a run uses.

    At most one of three options selects images in each split: ``per_class`` images of each class, ``limit`` images in
    total, or ``fraction`` of each class, rounded to at least one image. ``eval_limit`` and ``eval_fraction`` replace
    this choice in the splits that are only evaluated. ``val_fraction`` is the fraction of the training split to hold
    out as the evaluation split. First the images are held out; then each split is reduced.
    """

    per_class: int | None = None
    limit: int | None = None
    val_fraction: float | None = None
    seed: int = 0
    fraction: float | None = None
    eval_limit: int | None = None
    eval_fraction: float | None = None

    def __post_init__(self) -> None:
        check_exclusive({"per_class": self.per_class, "limit": self.limit, "fraction": self.fraction})
        check_exclusive({"eval_limit": self.eval_limit, "eval_fraction": self.eval_fraction})
        for option in ("per_class", "limit", "eval_limit"):
            value = getattr(self, option)
            if value is not None and value < 1:
                message = f"{_spelled(option)} {value} must be at least 1"
                raise UsageError(message, code="option-range", option=option)
        for option in ("fraction", "eval_fraction"):
            value = getattr(self, option)
            if value is not None and not 0 < value <= 1:
                message = f"{_spelled(option)} {value:g} must be above 0 and at most 1"
                raise UsageError(message, code="option-range", option=option)
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            message = f"--val-fraction {self.val_fraction} must lie between 0 and 1, both excluded"
            raise UsageError(message, code="option-range", option="val_fraction")

    @property
    def has_own_evaluation(self) -> bool:
        """Whether the evaluation and test splits have their own limit or fraction."""
        return self.eval_limit is not None or self.eval_fraction is not None

    def for_evaluation(self) -> Subset:
        """Return the subset that applies to the evaluation split and the test split.

        >>> Subset(per_class=9, eval_limit=50).for_evaluation()
        Subset(per_class=None, limit=50, val_fraction=None, seed=0, fraction=None, eval_limit=None, eval_fraction=None)
        """
        if not self.has_own_evaluation:
            return self
        part = {"per_class": None, "limit": self.eval_limit, "fraction": self.eval_fraction}
        return replace(self, **part, eval_limit=None, eval_fraction=None)  # type: ignore[arg-type]

    def in_words(self, *splits: tuple[str, int]) -> str:
        """Describe the subset in one line for the model card.

        ``splits`` gives the name of each split, the training split first, and the number of images per class that
        ``per_class`` actually selected in the split.

        >>> Subset(per_class=9).in_words(("training split", 9), ("test split", 4))
        '9 images per class of the training split, 4 of the test split (all that its smallest class has), seed 0'
        >>> Subset(per_class=5).in_words(("training split", 5), ("evaluation split", 5))
        '5 images per class, seed 0'
        >>> Subset(fraction=0.9, eval_limit=50).in_words(("training split", 5), ("evaluation split", 5))
        'training split: 0.9 of each class, rounded, at least 1 image, seed 0; evaluation: at most 50 images, ...'
        """
        parts = []
        if self.val_fraction is not None:
            parts.append(f"{self.val_fraction:g} of the training split held out for evaluation")
        if self.has_own_evaluation:
            training = replace(self, eval_limit=None, eval_fraction=None)
            parts.append(f"training split: {training._part(splits[:1]) or 'all images'}")
            parts.append(f"evaluation: {self.for_evaluation()._part(splits[1:]) or 'all images'}")
        elif part := self._part(splits, " of each split"):
            parts.append(part)
        return "; ".join(parts) or "all images"

    def _part(self, splits: Sequence[tuple[str, int]], each: str = "") -> str:
        """Describe the images that are selected from some splits; ``""`` if all images are used."""
        if self.per_class is not None:
            return f"{_image_counts(self.per_class, splits)}, seed {self.seed}"
        if self.limit is not None:
            return f"at most {self.limit} images{each}, classes in turn, seed {self.seed}"
        if self.fraction is not None and self.fraction < 1:
            return f"{self.fraction:g} of each class, rounded, at least 1 image, seed {self.seed}"
        return ""


def check_exclusive(options: Mapping[str, object]) -> None:
    """Raise :class:`~zoo.errors.UsageError` if more than one of the options is given; ``options`` maps names to values.

    >>> check_exclusive({"per_class": 3, "limit": None})
    """
    given = [f"{_spelled(name)} {value}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        message = f"{' and '.join(given)} exclude each other; expected one of them"
        raise UsageError(
            message, code="option-conflict", options=[name for name in options if options[name] is not None]
        )


def _spelled(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _image_counts(asked: int, splits: Sequence[tuple[str, int]]) -> str:
    counts = {count for _name, count in splits}
    if len(counts) == 1:
        return f"{counts.pop()} images per class"
    clauses: list[str] = []
    for name, count in splits:
        unit = "" if clauses else " images per class"
        clauses.append(f"{count}{unit} of the {name}{' (all that its smallest class has)' if count < asked else ''}")
    return ", ".join(clauses)
