"""Reads idx files, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist)."""

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
    """The uint8 array in an idx file of so many dimensions; a name that ends in ``.gz`` is unpacked.

    Raises :class:`~zoo.errors.DataError` that names the path where the file is damaged, of another type or
    number of dimensions, or longer or shorter than its header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, dimensions, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an idx file: {error}") from error


def _parse(file: BufferedIOBase, dimensions: int, path: Path) -> np.ndarray[Any, Any]:
    expected_magic = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    magic = file.read(4)
    if magic != expected_magic:
        raise DataError(
            f"{path} starts with bytes {magic.hex(' ') or '(none)'}, expected {expected_magic.hex(' ')}:"
            f" an idx file of unsigned bytes with {dimensions} dimension(s)"
        )
    header = file.read(4 * dimensions)
    if len(header) != 4 * dimensions:
        raise DataError(f"{path} ends within its header: {4 + len(header)} bytes, expected {4 + 4 * dimensions}")
    shape = struct.unpack(f">{dimensions}I", header)
    return _read_body(file, shape, path)


def _read_body(file: BufferedIOBase, shape: tuple[int, ...], path: Path) -> np.ndarray[Any, Any]:
    expected = math.prod(shape)
    body = file.read(expected + 1)  # one more than needed shows that more follow, without reading them all
    if len(body) != expected:
        found = "more" if len(body) > expected else f"only {len(body)}"
        raise DataError(f"{path} says it has {expected} bytes of data, shape {shape}, but holds {found}")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape).copy()  # a copy, because the buffer is read-only
