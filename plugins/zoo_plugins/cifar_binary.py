"""Read the binary files of CIFAR; each image is a record of one or two label bytes and 3,072 colour values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.dataset import ImageSplit
from zoo.errors import DataError
from zoo_plugins.cifar_files import CifarFiles
from zoo_plugins.labels import checked_split

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


def read_binary_batch(files: CifarFiles, name: str, labels: int, classes: Sequence[str], most: int) -> ImageSplit:
    """Read one binary batch file of CIFAR, such as ``data_batch_1.bin``.

    Each record begins with ``labels`` label bytes, and the last label byte is the label. CIFAR-100 has two label bytes.
    Raises :class:`~zoo.errors.DataError` if the file's size is not a multiple of the record size, or if a label has no
    class.
    """
    content = files.read(name, most)
    record = labels + _PIXELS
    if not content or len(content) % record:
        raise DataError(
            f"{files.called(name)} has {len(content):,} bytes; expected a multiple of {record:,}, the size of a record",
            code="batch-damaged",
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    images = np.ascontiguousarray(rows[:, labels:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1))
    return checked_split(images, rows[:, labels - 1], classes, files.called(name))


def read_class_names(files: CifarFiles, name: str) -> tuple[str, ...]:
    """Read the class names from a text file with one name per line."""
    text = files.read(name, 2**16).decode("utf-8", errors="replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())
