"""Write a run's predictions to ``predictions.safetensors``, read this file, and compute metrics from the predictions.

Reading the file does not require torch. The same predictions always give a file with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo_harness.records.file_names import PREDICTIONS
from zoo_harness.records.run import CALIBRATION_BINS, Measurement, PredictionsRecord
from zoo_harness.util.atomic_files import write_bytes
from zoo_harness.util.safe_files import read_regular

MOST_BYTES = 2**30  # largest accepted file size; one image takes 20 bytes
_FORMAT = "blockzoo predictions 1"
_ARRAYS = {
    "label": "<i4",
    "predicted": "<i4",
    "label_rank": "<i4",
    "label_probability": "<f4",
    "predicted_probability": "<f4",
}
_DRAWS = 200  # number of bootstrap resamples
_TOP = 5


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's predictions for the N images of a split, as read-only arrays of shape (N,).

    ``fingerprint``: a digest of the split's images and labels. The arrays list the images in the order of the split.
    ``classes``: the number of classes. ``label`` and ``predicted``: class indices, int32. ``label_rank``: the rank of
    the label among all classes by probability, int32; rank 1 is the most likely class. ``label_probability`` and
    ``predicted_probability``: the softmax probabilities of the label and of the predicted class, float32.
    """

    split: str
    fingerprint: str
    classes: int
    label: NDArray[np.int32]
    predicted: NDArray[np.int32]
    label_rank: NDArray[np.int32]
    label_probability: NDArray[np.float32]
    predicted_probability: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the predicted class of each image equals the image's label, (N,) bool."""
        hits: NDArray[np.bool_] = self.label == self.predicted
        return hits

    def to_bytes(self) -> bytes:
        """Return the predictions in the format of the file ``predictions.safetensors``."""
        # The safetensors library is not used, because it writes the keys of the metadata in a random order.
        about = {"classes": str(self.classes), "fingerprint": self.fingerprint, "format": _FORMAT, "split": self.split}
        described: dict[str, Any] = {"__metadata__": about}
        size = 4 * len(self)
        for place, (name, kind) in enumerate(_ARRAYS.items()):
            offsets = [place * size, (place + 1) * size]
            described[name] = {"dtype": f"{kind[1]}32".upper(), "shape": [len(self)], "data_offsets": offsets}
        header = json.dumps(described, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        arrays = [np.ascontiguousarray(getattr(self, name), kind).tobytes() for name, kind in _ARRAYS.items()]
        return b"".join([len(header).to_bytes(8, "little"), header, *arrays])


def read_predictions(directory: Path, record: PredictionsRecord | None = None) -> Predictions | None:
    """Read ``predictions.safetensors`` in a run directory; return ``None`` if the file does not exist.

    Raises :class:`~zoo.errors.DataError` if the file is damaged, or if its digest differs from the digest in
    ``record``.
    """
    path = directory / PREDICTIONS
    try:
        content = read_regular(path, MOST_BYTES, follow_links=True)  # files in the Hub's cache are symbolic links
    except FileNotFoundError:
        return None
    if record is not None and hashlib.sha256(content).hexdigest() != record.sha256:
        raise _invalid(path, "the file's digest differs from the digest in the record")
    return parse_predictions(content, path)


def parse_predictions(content: bytes, path: Path) -> Predictions:
    """Parse the content of a file ``predictions.safetensors``. ``path``: the path of the file, for error messages.

    Raises :class:`~zoo.errors.DataError` if the content is invalid.
    """
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        about, count = header["__metadata__"], int(header["label"]["shape"][0])
        data = np.frombuffer(content, "<i4", offset=start).reshape(len(_ARRAYS), count)
        arrays = {name: row.view(kind) for row, (name, kind) in zip(data, _ARRAYS.items(), strict=True)}
        found = Predictions(str(about["split"]), str(about["fingerprint"]), int(about["classes"]), **arrays)
        _check(found)
        same = found.to_bytes() == content  # false if the file contains anything besides the predictions
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise _invalid(path, f"{error!s:.100}") from error
    if not same:
        raise _invalid(path, f"the file does not have the format {_FORMAT!r}")
    return found


def _check(found: Predictions) -> None:
    probabilities = found.label_probability, found.predicted_probability
    if not len(found) or not 0 < found.classes < 2**31:
        raise ValueError("the file holds no images or no classes")
    if any((part < 0).any() or (part >= found.classes).any() for part in (found.label, found.predicted)):
        raise ValueError(f"a class index is not between 0 and {found.classes - 1:,}")
    if (found.label_rank < 1).any() or (found.label_rank > found.classes).any():
        raise ValueError(f"a rank is not between 1 and {found.classes:,}")
    if not all(((part >= 0) & (part <= 1)).all() for part in probabilities):
        raise ValueError("a probability is not between 0 and 1")
    if ((found.label_rank == 1) != found.hits).any():
        raise ValueError("the rank of a label contradicts the predicted class")


def _invalid(path: Path, fault: str) -> DataError:
    return DataError(f"{path} does not hold the predictions of a run: {fault}", code="predictions-invalid", path=path)


def write_predictions(found: Predictions, directory: Path) -> PredictionsRecord:
    """Write predictions to ``predictions.safetensors`` in a directory, and return the file's digest and the metrics."""
    write_bytes(directory / PREDICTIONS, found.to_bytes())
    return describe_predictions(found)


def describe_predictions(found: Predictions) -> PredictionsRecord:
    """Return the digest of the file of predictions, and metrics such as macro F1 with their standard errors.

    >>> label, predicted = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 1, 1], np.int32)
    >>> right, likely = np.float32([0.9, 0.2, 0.8, 0.7]), np.float32([0.9, 0.8, 0.8, 0.7])
    >>> made = Predictions("test", "", 2, label, predicted, np.int32([1, 2, 1, 1]), right, likely)
    >>> measured = describe_predictions(made)
    >>> [round(each.value, 4) for each in (measured.macro_f1, measured.calibration_error, measured.auroc)]
    [0.7333, 0.25, 0.625]
    """
    return PredictionsRecord(
        sha256=hashlib.sha256(found.to_bytes()).hexdigest(),
        split=found.split,
        macro_f1=_bootstrapped(found, _macro_f1),
        calibration_error=_bootstrapped(found, _calibration_error),
        auroc=_auroc(found) if found.classes == 2 else None,
        top5=_share(found.label_rank <= _TOP) if found.classes > _TOP else None,
    )


def _bootstrapped(found: Predictions, measure: Callable[[Predictions, NDArray[np.float64]], float]) -> Measurement:
    """Compute a metric with its bootstrap standard error.

    ``measure``: a function that computes the metric from the predictions and a weight for each image. A bootstrap
    resample draws images with replacement, and the weight of an image is the number of times that the image is drawn.
    Every call draws the same resamples.
    """
    n, draws = len(found), np.random.default_rng(0)
    weights = (np.bincount(draws.integers(n, size=n), minlength=n).astype(np.float64) for _draw in range(_DRAWS))
    error = float(np.std([measure(found, each) for each in weights], ddof=1))
    return Measurement(value=min(measure(found, np.ones(n)), 1), standard_error=error, n=n)


def _macro_f1(found: Predictions, weights: NDArray[np.float64]) -> float:
    """Return the mean F1 score of all classes that occur as a label or as a prediction."""
    counted = [
        np.bincount(classes, part, minlength=found.classes)
        for classes, part in ((found.label, weights), (found.predicted, weights), (found.label, weights * found.hits))
    ]
    either = counted[0] + counted[1]
    return float((2 * counted[2][either > 0] / either[either > 0]).mean())


def _calibration_error(found: Predictions, weights: NDArray[np.float64]) -> float:
    """Return the expected calibration error: the gap between accuracy and predicted probability, averaged over bins.

    The weight of a bin of predicted probabilities is the number of images in the bin.
    """
    likely = found.predicted_probability.astype(np.float64)
    bins = np.clip(np.ceil(likely * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights * (found.hits - likely), minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def _auroc(found: Predictions) -> Measurement | None:
    """Return the area under the ROC curve with DeLong's standard error; ``None`` if a class has fewer than 2 images."""
    from scipy.stats import rankdata

    score = np.where(found.predicted == 1, found.predicted_probability, 1 - found.predicted_probability)
    second, first = score[found.label == 1], score[found.label == 0]
    if min(len(second), len(first)) < 2:
        return None
    ranks = rankdata(np.concatenate([second, first]))
    below = (ranks[: len(second)] - rankdata(second)) / len(first)
    above = 1 - (ranks[len(second) :] - rankdata(first)) / len(second)
    variance = below.var(ddof=1) / len(second) + above.var(ddof=1) / len(first)
    return Measurement(value=min(float(below.mean()), 1), standard_error=math.sqrt(variance), n=len(found))


def _share(hits: NDArray[np.bool_]) -> Measurement:
    value = float(hits.mean())
    return Measurement(value=value, standard_error=math.sqrt(value * (1 - value) / len(hits)), n=len(hits))
