"""Write files and folders so that no reader and no killed process leaves or sees a partial one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo_harness.util.text import encodable


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success the file there replaces ``path``.

    The file is flushed to disk before it is renamed. If the body raises, ``path`` stays unchanged. The file that was
    there is moved to ``keep``, if that is given; a kill between the two renames leaves it there alone.

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
        if keep is not None:
            with suppress(FileNotFoundError):
                path.replace(keep)
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


def remove_temporaries(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes left of :func:`replacing` files of these names; the caller alone writes there."""
    for name in names:
        for path in _matching(folder, f".{name}."):
            with suppress(OSError):
                path.unlink()


def _matching(folder: Path, prefix: str) -> list[Path]:
    name = re.compile(re.escape(prefix) + r"[0-9a-f]{8}\.tmp")
    return [Path(entry.path) for entry in os.scandir(folder) if name.fullmatch(entry.name)]


def _beside(path: Path) -> Path:
    # Not tempfile.mkstemp, whose files only their owner can read, whatever the umask.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
