"""Parses the files of a run that are published beside the checkpoint, and writes their content anew.

What comes back is what was parsed: bytes that a schema does not account for, such as a key given twice, are not in it.
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
"""The chunks that make the picture; others hold text, times or data of other programs."""


def parse_configuration(content: bytes, path: Path, _record: RunRecord) -> bytes:
    """Return ``config.json`` as zoo writes it; its content is compared with the record when the tree is loaded."""
    try:
        configuration = json.loads(content)
        if not isinstance(configuration, dict):
            raise ValueError("not an object")
        return (json.dumps(configuration, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError) as error:
        message = f"{path} is not a JSON configuration: {error!s:.100}; it is not published"
        raise DataError(message, code="configuration-unreadable", path=path) from error


def parse_epochs(content: bytes, path: Path, record: RunRecord) -> bytes:
    """Return ``history.jsonl`` as zoo writes it; it must have the epochs that the record counts."""
    epochs, expected = parse_history(content, path), record.results.epochs_done
    if len(epochs) != expected:
        message = f"{path} has {len(epochs):,} epochs; expected {expected:,}, as the record says; it is not published"
        raise DataError(message, code="history-invalid", path=path, epochs=len(epochs))
    loss = record.results.evaluation_loss
    # The split is scored again after training, with the weights of one of the epochs; rounding may differ.
    if (
        epochs
        and loss is not None
        and not any(math.isclose(each.evaluation_loss, loss, rel_tol=1e-3) for each in epochs)
    ):
        message = f"{path} has no epoch with the record's evaluation loss of {loss:.6g}: it is that of another run"
        raise DataError(f"{message}; it is not published", code="history-of-another-run", path=path)
    return "".join(f"{epoch.model_dump_json(exclude_none=True)}\n" for epoch in epochs).encode()


def parse_confusion(content: bytes, path: Path, record: RunRecord) -> bytes:
    """Return ``confusion.json`` as zoo writes it; classes, images and largest errors must be those of the record."""
    try:
        confusion = Confusion.model_validate_json(content)
        split, size = record.headline[1], len(record.dataset.classes)
        if confusion.classes != record.dataset.classes or confusion.split != split.split:
            raise ValueError("its classes or its split are not those of the record")
        if any(len(row) != size for row in confusion.counts) or len(confusion.counts) != size:
            raise ValueError(f"its counts are not {size:,} rows of {size:,}")
        if any(count < 0 or count > split.images for row in confusion.counts for count in row):
            raise ValueError(f"a count is not between 0 and the {split.images:,} images of the split")
        if tuple(np.array(confusion.counts).sum(axis=1).tolist()) != split.per_class:
            raise ValueError("its images of each class are not those of the record")
        if summarize(confusion) != record.results.confusion:
            raise ValueError("its largest errors are not those of the record")
    except ValueError as error:  # pydantic's is one too
        fault = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
        message = f"{path} is not the confusion matrix of this run: {fault:.200}; it is not published"
        raise DataError(message, code="confusion-invalid", path=path) from error
    return (confusion.model_dump_json() + "\n").encode()


def parse_run_predictions(content: bytes, path: Path, record: RunRecord) -> bytes:
    """Return ``predictions.safetensors``; images, accuracy and measures must be those of the record."""
    fault = _fault_of_predictions(content, path, record)
    if fault is not None:
        message = f"{path} does not hold the predictions of this run: {fault}; it is not published"
        raise DataError(message, code="predictions-invalid", path=path)
    return content


def check_pulled_predictions(folder: Path, record: RunRecord) -> int | None:
    """Return the number of images in ``predictions.safetensors`` of a fetched folder, ``None`` without such a file.

    Raises :class:`~zoo.errors.UsageError` if the file contradicts the record.
    """
    path = folder / PREDICTIONS
    try:
        content = read_regular(path, MOST_BYTES, follow_links=True)  # as in the Hub's cache
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
        return "its digest is not the one of the record"
    of_record = split.split, split.fingerprint, len(record.dataset.classes)
    if (found.split, found.fingerprint, found.classes) != of_record or recorded.split != split.split:
        return "its split, fingerprint or number of classes is not that of the record"
    if tuple(np.bincount(found.label, minlength=found.classes).tolist()) != split.per_class:
        return "its images of each class are not those of the record"
    if accuracy is None or not math.isclose(found.hits.mean(), accuracy.value, abs_tol=1e-9):
        return "its accuracy is not that of the record"
    if not _same_measures(describe_predictions(found), recorded):
        return "its measures are not those of the record"
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
    """Return a PNG image that consists of whole chunks of right checksums, without those that hold text or metadata."""
    chunks = list(_chunks(content))
    kinds = [kind for kind, _chunk in chunks]
    if not chunks or kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or b"IDAT" not in kinds:
        raise DataError(f"{path} is not a PNG image; it is not published", code="not-png", path=path)
    return _PNG + b"".join(chunk for kind, chunk in chunks if kind in _PICTURE)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and bytes of the chunks of a PNG image; bytes that are no whole chunk count as one without kind."""
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
