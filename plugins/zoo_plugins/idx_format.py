"""Read files in the format idx, which MNIST and Fashion-MNIST use (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError

_UNSIGNED_BYTE = 8


def read_idx(path: Path, dimensions: int) -> np.ndarray[Any, Any]:
    """Return the uint8 array in an idx file, which is decompressed if its name ends in ``.gz``.

    ``dimensions`` is the expected number of dimensions. Raises :class:`~zoo.errors.DataError`, which names the path, if
    the file is damaged, has another type or number of dimensions, or has another length than its header states.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, dimensions, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as an idx file: {error}", code="file-unreadable", path=str(path)
        ) from error


def _parse(file: BufferedIOBase, dimensions: int, path: Path) -> np.ndarray[Any, Any]:
    expected_magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    magic = file.read(4)
    if magic != expected_magic:
        raise DataError(
            f"{path} starts with bytes {magic.hex(' ') or '(none)'}; expected {expected_magic.hex(' ')}, an idx file "
            f"of unsigned bytes with {dimensions} dimension(s)",
            code="file-kind",
            path=str(path),
        )
    header = file.read(4 * dimensions)
    if len(header) != 4 * dimensions:
        raise DataError(
            f"{path} ends within its header: {4 + len(header)} bytes; expected {4 + 4 * dimensions}",
            code="file-damaged",
            path=str(path),
        )
    shape = struct.unpack(f">{dimensions}I", header)
    return _read_body(file, shape, path)


def _read_body(file: BufferedIOBase, shape: tuple[int, ...], path: Path) -> np.ndarray[Any, Any]:
    expected = math.prod(shape)
    body = file.read(expected + 1)  # reading one byte more than expected detects a file that is too long
    if len(body) != expected:
        found = "more" if len(body) > expected else f"only {len(body)}"
        raise DataError(
            f"{path} holds {found} bytes of data; expected {expected} for the shape {shape} in its header",
            code="file-damaged",
            path=str(path),
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(shape).copy()  # copied, because the buffer is read-only
