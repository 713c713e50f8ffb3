"""Locks between processes, on files that may be deleted meanwhile; the kernel frees them however their holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """A lock that many share or one has alone; asking never waits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, other = FileLock(Path(folder, "lock")), FileLock(Path(folder, "lock"))
    ...     one.take(alone=True), other.take(alone=False), one.release(), other.take(alone=False)
    (True, False, None, True)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._descriptor is not None

    def take(self, *, alone: bool) -> bool:
        """Take the lock if it can be had at once; the file is made where it is missing.

        Raises :class:`FileNotFoundError` where its folder is gone, and :class:`OSError` where the file system has no
        locks.
        """
        if self.held:
            raise RuntimeError(f"{self.path}: this lock is held already")
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                if self._is(descriptor):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            except BlockingIOError:
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is(self, descriptor: int) -> bool:
        """Whether the open file is still the one of that name; a lock on a deleted file locks nobody out."""
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(descriptor), named)
