"""What the record of a checkpoint may ask for, before a network is built or an image resized by it.

A record can come from a stranger. Its types have been checked when it was read; here is checked what could fill the
memory, or deceive who reads what is printed of it. Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from zoo.backbone import Preprocessing
from zoo.errors import WeightsError, shortened
from zoo_harness.records.run import RunRecord
from zoo_harness.util.text import breaks_line

LARGEST_SIDE = 4096

"""Pixels; of all networks of timm and torchvision the largest input has a third of that."""

_LONGEST_NAME = 1000


def check_record(record: RunRecord, where: str, checkpoint_bytes: int, *, published: bool) -> None:
    """Raise :class:`~zoo.errors.WeightsError`, beginning with ``where``, for a record that cannot be of a checkpoint.

    ``checkpoint_bytes`` is the size of the checkpoint's file, which limits how large the head can be. With
    ``published`` class names must be fit to be shown, and no folder may be named; a run's own directory has what its
    data and its user gave it.
    """
    _check_classes(record.dataset.classes, where)
    if published:
        _check_names(record.dataset.classes, where)
        _check_file_name(record.weights.filename, where)
    _check_sizes(record.settings.preprocessing, where)
    for head in record.settings.head.parts:
        numbers = (head.hidden or head.in_features or 1) * len(record.dataset.classes)
        if numbers > checkpoint_bytes:
            raise WeightsError(
                f"{where}: the head {head.path!r:.80} of the record has {shortened(numbers)} numbers or more, the "
                f"checkpoint only {checkpoint_bytes:,} bytes"
            )


def _check_classes(classes: tuple[str, ...], where: str) -> None:
    if len(classes) < 2:
        raise WeightsError(f"{where}: the record has {len(classes)} class(es), a classifier at least 2")
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise WeightsError(f"{where}: the record names {times} classes {name!r:.80}; which is meant cannot be told")


def _check_names(classes: Iterable[str], where: str) -> None:
    unfit: list[tuple[Callable[[str], bool], str]] = [
        (lambda name: not name.strip(), "is empty"),
        (lambda name: len(name) > _LONGEST_NAME, f"has more than {_LONGEST_NAME:,} characters"),
        (lambda name: any(map(breaks_line, name)), "holds line breaks or control characters"),
    ]
    for number, name in enumerate(classes):
        for holds, fault in unfit:
            if holds(name):
                raise WeightsError(f"{where}: the name of class {number}, {name!r:.80}, {fault}")


def _check_file_name(name: str | None, where: str) -> None:
    if name is not None and ("/" in name or "\\" in name):
        raise WeightsError(f"{where}: the record's weights.filename {name!r:.80} is more than the name of a file")


def _check_sizes(preprocessing: Preprocessing, where: str) -> None:
    for side in preprocessing.input_size:
        if side > LARGEST_SIDE:
            raise WeightsError(
                f"{where}: the record has images of {shortened(side)} pixels a side, at most {LARGEST_SIDE:,} go"
            )
        if side / preprocessing.crop_fraction > 2 * LARGEST_SIDE:
            raise WeightsError(
                f"{where}: the record has images resized to {side} / {preprocessing.crop_fraction:g} pixels a side "
                f"before they are cropped, at most {2 * LARGEST_SIDE:,} go"
            )
