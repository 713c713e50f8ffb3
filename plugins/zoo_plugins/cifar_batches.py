"""Read CIFAR's batch files, which are pickles, without running code of a pickle."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError


def read_batch(path: Path, content: bytes | None = None) -> dict[str, Any]:
    """Read the dictionary in a batch file, or in its content, written by Python 2 or 3, with text keys.

    Raises :class:`~zoo.errors.DataError`, which names the path, if the file is missing, damaged or no dictionary, or
    needs anything but numpy arrays.
    """
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            loaded = _ArraysOnly(file, path).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything, from EOFError to UnicodeDecodeError
        raise DataError(
            f"{path} cannot be read as a CIFAR batch: {type(error).__name__}: {error}",
            code="file-unreadable",
            path=str(path),
        ) from error
    if not isinstance(loaded, dict):
        raise DataError(
            f"{path} holds a {type(loaded).__name__}; expected the dictionary of a CIFAR batch",
            code="file-kind",
            path=str(path),
        )
    return {as_text(key): value for key, value in loaded.items()}


def as_text(text: object) -> str:
    """Return text that is stored as text or, in files of Python 2, as bytes.

    >>> as_text(b"frog")
    'frog'
    """
    return text.decode("latin1") if isinstance(text, bytes) else str(text)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


_ARRAY_MAKER: Any = np.empty(0).__reduce__()[0]  # numpy's own way to find it: its module changed name in numpy 2

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY_MAKER,
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY_MAKER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,  # how protocol 2 of Python 3 writes bytes
}


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self._path} tries to load {module}.{name}, refused: a CIFAR batch needs only numpy arrays; the file "
                "is not CIFAR or was tampered with; download it again",
                code="file-unsafe",
                path=str(self._path),
            )
        return _ALLOWED[module, name]
