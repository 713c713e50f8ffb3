"""Parse and check the files that zoo publishes with a run's checkpoint, and return their content for publication.

The returned JSON is written from the parsed values. Hidden content, such as a duplicate key, is not published.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from zoo.errors import DataError
from zoo_harness.evaluation.confusion import Confusion, summarize
from zoo_harness.evaluation.predictions import MOST_BYTES, describe_predictions, parse_predictions
from zoo_harness.records.file_names import PREDICTIONS
from zoo_harness.records.run import PredictionsRecord, RunRecord, parse_history
from zoo_harness.util.safe_files import read_regular

_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURE = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"pHYs", b"gAMA", b"sRGB")
"""The PNG chunks that define the picture; other chunks contain text, times or data of other programs."""


def parse_configuration(content: bytes, path: Path, _record: RunRecord) -> bytes:
    """Parse ``config.json`` and write it again; loading the published files later compares it with the record."""
    try:
        configuration = json.loads(content)
        if not isinstance(configuration, dict):
            raise ValueError("not an object")
        return (json.dumps(configuration, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError) as error:
        message = f"{path} is not a JSON configuration: {error!s:.100}; zoo does not publish this file"
        raise DataError(message, code="configuration-unreadable", path=path) from error


def parse_epochs(content: bytes, path: Path, record: RunRecord) -> bytes:
    """Parse ``history.jsonl`` and write it again; its number of epochs and its loss must match the record."""
    epochs, expected = parse_history(content, path), record.results.epochs_done
    if len(epochs) != expected:
        message = (
            f"{path} has {len(epochs):,} epochs; expected {expected:,} as in the record; zoo does not publish this file"
        )
        raise DataError(message, code="history-invalid", path=path, epochs=len(epochs))
    loss = record.results.evaluation_loss
    # After training, the split is scored again with the weights of one epoch, so the loss may differ by rounding.
    if (
        epochs
        and loss is not None
        and not any(math.isclose(each.evaluation_loss, loss, rel_tol=1e-3) for each in epochs)
    ):
        message = (
            f"{path} has no epoch with the record's evaluation loss of {loss:.6g}: the file belongs to another run"
        )
        raise DataError(f"{message}; zoo does not publish this file", code="history-of-another-run", path=path)
    return "".join(f"{epoch.model_dump_json(exclude_none=True)}\n" for epoch in epochs).encode()


def parse_confusion(content: bytes, path: Path, record: RunRecord) -> bytes:
    """Parse ``confusion.json`` and write it again; classes, image counts and largest errors must match the record."""
    try:
        confusion = Confusion.model_validate_json(content)
        split, size = record.headline[1], len(record.dataset.classes)
        if confusion.classes != record.dataset.classes or confusion.split != split.split:
            raise ValueError("its classes or its split differ from the record")
        if any(len(row) != size for row in confusion.counts) or len(confusion.counts) != size:
            raise ValueError(f"its counts are not {size:,} rows of {size:,}")
        if any(count < 0 or count > split.images for row in confusion.counts for count in row):
            raise ValueError(f"a count is not between 0 and the {split.images:,} images of the split")
        if tuple(np.array(confusion.counts).sum(axis=1).tolist()) != split.per_class:
            raise ValueError("its number of images per class differs from the record")
        if summarize(confusion) != record.results.confusion:
            raise ValueError("its largest errors differ from the record")
    except ValueError as error:  # pydantic's ValidationError is a ValueError
        fault = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        message = f"{path} is not the confusion matrix of this run: {fault:.200}; zoo does not publish this file"
        raise DataError(message, code="confusion-invalid", path=path) from error
    return (confusion.model_dump_json() + "\n").encode()


def parse_run_predictions(content: bytes, path: Path, record: RunRecord) -> bytes:
    """Check and return the content of ``predictions.safetensors``; images and metrics must match the record."""
    fault = _fault_of_predictions(content, path, record)
    if fault is not None:
        message = f"{path} does not hold the predictions of this run: {fault}; zoo does not publish this file"
        raise DataError(message, code="predictions-invalid", path=path)
    return content


def check_pulled_predictions(folder: Path, record: RunRecord) -> int | None:
    """Check ``predictions.safetensors`` of a downloaded run; return its number of images, or ``None`` without the file.

    Raises :class:`~zoo.errors.DataError` if the file contradicts the record.
    """
    path = folder / PREDICTIONS
    try:
        content = read_regular(path, MOST_BYTES, follow_links=True)  # the Hub cache uses symbolic links
    except FileNotFoundError:
        return None
    fault = _fault_of_predictions(content, path, record)
    if fault is not None:
        message = f"{path} does not hold the predictions of this run: {fault}; try another revision"
        raise DataError(message, code="predictions-invalid", path=path)
    return record.headline[1].images


def _fault_of_predictions(content: bytes, path: Path, record: RunRecord) -> str | None:
    found, recorded, (accuracy, split) = parse_predictions(content, path), record.results.predictions, record.headline
    if recorded is None or hashlib.sha256(content).hexdigest() != recorded.sha256:
        return "its digest differs from the record"
    of_record = split.split, split.fingerprint, len(record.dataset.classes)
    if (found.split, found.fingerprint, found.classes) != of_record or recorded.split != split.split:
        return "its split, fingerprint or number of classes differs from the record"
    if tuple(np.bincount(found.label, minlength=found.classes).tolist()) != split.per_class:
        return "its number of images per class differs from the record"
    if accuracy is None or not math.isclose(found.hits.mean(), accuracy.value, abs_tol=1e-9):
        return "its accuracy differs from the record"
    if not _same_measures(describe_predictions(found), recorded):
        return "its metrics differ from the record"
    return None


def _same_measures(found: PredictionsRecord, recorded: PredictionsRecord) -> bool:
    values = [
        [each and each.value for each in (part.macro_f1, part.calibration_error, part.auroc, part.top5)]
        for part in (found, recorded)
    ]
    return all(
        one == other or (None not in (one, other) and math.isclose(one, other, abs_tol=1e-6))
        for one, other in zip(*values, strict=True)
    )


def parse_plot(content: bytes, path: Path, _record: RunRecord) -> bytes:
    """Check that a file is a complete PNG image with valid checksums; return the image without text and metadata."""
    chunks = list(_chunks(content))
    kinds = [kind for kind, _chunk in chunks]
    if not chunks or kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or b"IDAT" not in kinds:
        raise DataError(f"{path} is not a PNG image; zoo does not publish this file", code="not-png", path=path)
    return _PNG + b"".join(chunk for kind, chunk in chunks if kind in _PICTURE)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the bytes of each PNG chunk; an incomplete or invalid chunk is yielded as empty bytes."""
    if not content.startswith(_PNG):
        return
    place = len(_PNG)
    while place < len(content):
        size, kind = int.from_bytes(content[place : place + 4]), content[place + 4 : place + 8]
        end = place + 12 + size
        checksum = int.from_bytes(content[end - 4 : end])
        if end > len(content) or zlib.crc32(content[place + 4 : end - 4]) != checksum:
            yield b"", b""
            return
        yield kind, content[place:end]
        place = end
