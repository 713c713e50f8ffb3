"""Write files and folders so that no reader and no killed process leaves or sees a partial one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zoo_harness.util.text import encodable


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success the file there replaces ``path``.

    The file is flushed to disk before it is renamed. If the body raises, ``path`` stays unchanged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "run.json")) as temporary:
    ...         _ = temporary.write_text("{}")
    ...     [file.name for file in Path(folder).iterdir()]
    ['run.json']
    """
    temporary = _beside(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all or nothing; bytes of paths that are not UTF-8 are escaped."""
    write_bytes(path, encodable(text).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data``, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def create_folder(to: Path, files: Mapping[str, Path]) -> None:
    """Create a folder with copies of ``files``, all or nothing; an empty folder at ``to`` is replaced."""
    to = to.absolute()
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(to)
    try:
        temporary.mkdir()
        for name, path in files.items():
            shutil.copyfile(path, temporary / name)  # follows the symbolic links of a cache
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    # Not tempfile.mkstemp, whose files only their owner can read, whatever the umask.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
