"""Read CIFAR's batch files, which are pickles, without running code that a pickle could contain."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError


def read_batch(path: Path, content: bytes | None = None) -> dict[str, Any]:
    """Read the dictionary in a batch file of Python 2 or 3, and convert its keys to text.

    If ``content`` is given, the dictionary is read from these bytes. Raises :class:`~zoo.errors.DataError`, which names
    ``path``, if the file is missing or damaged, is not a dictionary, or would import Python objects
    other than numpy arrays.
    """
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            loaded = _ArraysOnly(file, path).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any exception, from EOFError to UnicodeDecodeError
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
    """Return a text as ``str``; files that Python 2 wrote store texts as bytes.

    >>> as_text(b"frog")
    'frog'
    """
    return text.decode("latin1") if isinstance(text, bytes) else str(text)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


_ARRAY_MAKER: Any = np.empty(0).__reduce__()[0]  # numpy 2 renamed the module of this function

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY_MAKER,
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY_MAKER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,  # Python 3 writes bytes with this function in pickle protocol 2
}


class _ArraysOnly(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self._path} tries to load {module}.{name}; expected only numpy arrays in a CIFAR batch; the file "
                "is not CIFAR or was tampered with; download it again",
                code="file-unsafe",
                path=str(self._path),
            )
        return _ALLOWED[module, name]
