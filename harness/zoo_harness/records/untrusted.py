"""Check the record of a checkpoint from a stranger, before a network is built or an image resized by it.

The types of a record were checked when it was read. The checks here refuse a record that could fill the memory, or
deceive a reader of what is printed of it. Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter

from zoo.backbone import Preprocessing
from zoo.errors import WeightsError, shortened
from zoo.text import breaks_line
from zoo_harness.records.run import RunRecord

LARGEST_SIDE = 4096  # pixels; the largest input of all networks of timm and torchvision has a third of that
_LONGEST_NAME = 1000


def check_record(record: RunRecord, where: str, checkpoint_bytes: int, *, published: bool) -> None:
    """Raise :class:`~zoo.errors.WeightsError`, beginning with ``where``, if no checkpoint can have such a record.

    ``checkpoint_bytes`` is the size of the checkpoint's file, which limits the size of the head. With ``published``,
    class names must be safe to print and no folder may be named; a run's own directory may have any names.
    """
    classes, filename = record.dataset.classes, record.weights.filename
    if len(classes) < 2:
        raise WeightsError(
            f"{where}: the record has {len(classes)} class(es); expected at least 2", code="record-classes"
        )
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise WeightsError(
            f"{where}: the record names {times} classes {name!r:.80}; expected different names", code="record-classes"
        )
    if published:
        _check_names(classes, where)
        if filename is not None and ("/" in filename or "\\" in filename):
            message = f"{where}: the record's weights.filename {filename!r:.80} is more than the name of a file"
            raise WeightsError(message, code="record-file-name")
    _check_sizes(record.settings.preprocessing, where)
    for head in record.settings.head.parts:
        numbers = (head.hidden or head.in_features or 1) * len(classes)
        if numbers > checkpoint_bytes:
            raise WeightsError(
                f"{where}: the head {head.path!r:.80} of the record has {shortened(numbers)} numbers or more, the "
                f"checkpoint only {checkpoint_bytes:,} bytes",
                code="record-head-size",
            )


def _check_names(classes: tuple[str, ...], where: str) -> None:
    for number, name in enumerate(classes):
        faults = {
            "is empty": not name.strip(),
            f"has more than {_LONGEST_NAME:,} characters": len(name) > _LONGEST_NAME,
            "holds line breaks or control characters": any(map(breaks_line, name)),
        }
        fault = next((fault for fault, found in faults.items() if found), None)
        if fault:
            raise WeightsError(
                f"{where}: the name of class {number}, {name!r:.80}, {fault}", code="record-class-name", number=number
            )


def _check_sizes(preprocessing: Preprocessing, where: str) -> None:
    fraction, fault = preprocessing.crop_fraction, ""
    for side in preprocessing.input_size:
        if side > LARGEST_SIDE:  # first, because a long number cannot be divided
            fault = f"{shortened(side)} pixels a side; expected at most {LARGEST_SIDE:,}"
        elif side / fraction > 2 * LARGEST_SIDE:
            resized = f"{side} / {fraction:g} pixels a side before the crop"
            fault = f"{resized}; expected at most {2 * LARGEST_SIDE:,}"
    if fault:
        raise WeightsError(f"{where}: the image size in the record is too large: {fault}", code="record-image-size")
