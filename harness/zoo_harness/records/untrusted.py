"""Check the record of an untrusted checkpoint before a network is built or images are resized from its values.

The types of the record's values are already checked when it is read. The checks here refuse records that could exhaust
the memory, or that could deceive a person who reads printed values. This module does not import torch.
"""

from __future__ import annotations

from collections import Counter

from zoo.backbone import Preprocessing
from zoo.errors import WeightsError, shortened
from zoo.text import breaks_line
from zoo_harness.records.run import RunRecord

LARGEST_SIDE = 4096  # pixels; about three times the largest input size of any network of timm and torchvision
_LONGEST_NAME = 1000


def check_record(record: RunRecord, where: str, checkpoint_bytes: int, *, published: bool) -> None:
    """Raise :class:`~zoo.errors.WeightsError`, beginning with ``where``, if the record does not fit its checkpoint.

    ``checkpoint_bytes`` is the size of the checkpoint's file, which limits the size of the head. With ``published``,
    class names must be safe to print, and the weights' file name must not contain a folder; the record of the user's
    own run may contain any names.
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
            message = f"{where}: the record's weights.filename {filename!r:.80} is a path; expected only a file name"
            raise WeightsError(message, code="record-file-name")
    _check_sizes(record.settings.preprocessing, where)
    for head in record.settings.head.parts:
        numbers = (head.hidden or head.in_features or 1) * len(classes)
        if numbers > checkpoint_bytes:
            raise WeightsError(
                f"{where}: the head {head.path!r:.80} of the record needs at least {shortened(numbers)} numbers, but "
                f"the checkpoint has only {checkpoint_bytes:,} bytes",
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
        if side > LARGEST_SIDE:  # must precede the division, which fails for huge integers
            fault = f"{shortened(side)} pixels a side; expected at most {LARGEST_SIDE:,}"
        elif side / fraction > 2 * LARGEST_SIDE:
            resized = f"{side} / {fraction:g} pixels a side before the crop"
            fault = f"{resized}; expected at most {2 * LARGEST_SIDE:,}"
    if fault:
        raise WeightsError(f"{where}: the image size in the record is too large: {fault}", code="record-image-size")
