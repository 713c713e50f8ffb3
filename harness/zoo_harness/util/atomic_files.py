"""Write files and folders so that no reader and no killed process leaves or sees a partial one."""

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
    """Create a folder with copies of ``files``, all or nothing; an empty folder at ``to`` is replaced.

    Raises :class:`~zoo.errors.ZooError` if the disk is full.
    """
    to = to.resolve()
    to.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_named(to, "make room there"), scratch_folder(to.parent, f".{to.name}.") as temporary:
        for name, path in files.items():
            shutil.copyfile(path, temporary / name)  # follows the symbolic links of a cache
        temporary.rename(to)


@contextmanager
def scratch_folder(parent: Path, prefix: str, mode: int = 0o777) -> Iterator[Path]:
    """Yield a new folder whose name begins with ``prefix``, and remove it afterwards unless it was renamed.

    Folders of the same prefix that killed processes left in ``parent`` are removed. A lock on each folder shows that
    its process lives.
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
    """Lock a folder against other processes that call this function; yield false if another process holds the lock."""
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
    """Context manager that turns the error of a full disk into one that names the folder on it.

    The operating system's error may name the source of a copy, although the destination is on the full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ZooError(f"the disk of {folder} is full; {advice}", code="disk-full", path=folder) from error


def remove_temporaries(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes left of :func:`replacing` files of these names; the caller alone writes there."""
    for name in names:
        for path in _matching(folder, f".{name}."):
            with suppress(OSError):
                path.unlink()


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for path in _matching(parent, prefix):
        with suppress(OSError):  # of another user, or in use
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
        if folder.is_dir():  # else another process took it for a leftover before it was locked
            return folder, descriptor
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder and return its descriptor, or ``None`` if the file system has no locks.

    Without ``wait``, :class:`BlockingIOError` says that another process has the lock.
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
    # Not tempfile.mkstemp, whose files only their owner can read, whatever the umask.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
