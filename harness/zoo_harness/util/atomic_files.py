"""Write files and folders atomically: readers never see a partial file, even if the writing process is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.errors import ZooError
from zoo.text import encodable


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; if the ``with`` block succeeds, that file replaces ``path``.

    The temporary file is flushed to disk before it is renamed. If the ``with`` block raises an error, ``path`` stays
    unchanged. If ``keep`` is given, the previous file is first renamed to ``keep``; if the process is killed between
    the two renames, only ``keep`` exists.

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
    """Write ``text`` as UTF-8 atomically; bytes of file paths that are not valid UTF-8 are escaped."""
    write_bytes(path, encodable(text).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def create_folder(to: Path, files: Mapping[str, Path]) -> None:
    """Create a folder with copies of ``files`` atomically; an empty folder at ``to`` is replaced.

    The keys of ``files`` are the names of the copies. Raises :class:`~zoo.errors.ZooError` if the disk is full.
    """
    to = to.resolve()
    to.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_named(to, "make room there"), scratch_folder(to.parent, f".{to.name}.") as temporary:
        for name, path in files.items():
            shutil.copyfile(path, temporary / name)  # follows symbolic links, because the Hub's cache consists of links
        temporary.rename(to)


@contextmanager
def scratch_folder(parent: Path, prefix: str, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder whose name begins with ``prefix``; remove the folder afterwards, unless it was renamed.

    The function also removes folders with the same prefix that killed processes left in ``parent``. Each process locks
    its folder; an unlocked folder therefore belonged to a killed process.
    """
    _remove_leftovers(parent, prefix)
    folder, descriptor = _locked_folder(parent, prefix, mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Lock a folder against other callers of this function; yield false if another process holds the lock."""
    try:
        descriptor = _locked(folder, wait=False)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def full_disk_named(folder: Path, advice: str) -> Iterator[None]:
    """If a disk is full, replace the system's error by an error that names ``folder`` and gives advice.

    The operating system's own error may name the source of a copy, although the disk of the destination is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ZooError(f"the disk of {folder} is full; {advice}", code="disk-full", path=folder) from error


def remove_temporaries(folder: Path, names: Iterable[str]) -> None:
    """Remove temporary files that killed calls of :func:`replacing` left; no other process may write there."""
    for name in names:
        for path in _matching(folder, f".{name}."):
            with suppress(OSError):
                path.unlink()


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for path in _matching(parent, prefix):
        with suppress(OSError):  # another user owns the folder, or a process is using it
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            descriptor = _locked(path, wait=False)
            if descriptor is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)


def _matching(folder: Path, prefix: str) -> list[Path]:
    name = re.compile(re.escape(prefix) + r"[0-9a-f]{8}\.tmp")
    return [Path(entry.path) for entry in os.scandir(folder) if name.fullmatch(entry.name)]


def _locked_folder(parent: Path, prefix: str, mode: int) -> tuple[Path, int | None]:
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(4)}.tmp"
        folder.mkdir(mode)
        descriptor = _locked(folder, wait=True)
        if folder.is_dir():  # false if another process removed the folder as a leftover before it was locked
            return folder, descriptor
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder and return the lock's file descriptor, or ``None`` if the file system does not support locks.

    If ``wait`` is false and another process holds the lock, this function raises :class:`BlockingIOError`.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _beside(path: Path) -> Path:
    # tempfile.mkstemp would ignore the umask and create files that only their owner can read.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
