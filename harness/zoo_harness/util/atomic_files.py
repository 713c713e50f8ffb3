"""Writing files so that a reader, or a run that is killed, never sees half of one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; what is written there takes its place on success.

    The file is on the disk before it is renamed. When the block raises, ``path`` stays as it was and the
    temporary file is removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "run.json")) as temporary:
    ...         _ = temporary.write_text("{}")
    ...     [file.name for file in Path(folder).iterdir()]
    ['run.json']
    """
    # Not tempfile.mkstemp: its files are readable by their owner alone, whatever the umask says.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all or nothing."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data``, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def create_folder(to: Path, files: Mapping[str, Path]) -> None:
    """Create a folder with copies of ``files``, all or nothing; an empty folder at ``to`` is replaced.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     create_folder(Path(folder, "deep", "copy"), {"a.py": Path(__file__)})
    ...     [str(path.relative_to(folder)) for path in Path(folder).rglob("*.py")]
    ['deep/copy/a.py']
    """
    to = to.absolute()
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        for name, path in files.items():
            shutil.copyfile(path, temporary / name)  # the content of what a cache links to
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
