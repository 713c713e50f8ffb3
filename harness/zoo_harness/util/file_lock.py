"""Lock files between processes; the kernel releases a lock however the process that holds it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """Lock a file, shared or exclusively, without ever waiting; the file may be deleted meanwhile.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one, other = FileLock(Path(folder, "lock")), FileLock(Path(folder, "lock"))
    ...     one.acquire(exclusive=True), other.acquire(exclusive=False), one.release(), other.acquire(exclusive=False)
    (True, False, None, True)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, *, exclusive: bool) -> bool:
        """Acquire the lock and return true, or return false if another process has it; create a missing file.

        Raises :class:`FileNotFoundError` if the folder is missing, and :class:`OSError` if the file system has no
        locks.
        """
        if self.held:
            raise RuntimeError(f"{self.path}: this lock is held already")
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                if self._names(descriptor):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            except BlockingIOError:
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _names(self, descriptor: int) -> bool:
        """Whether the path still names the open file; a lock on a deleted file locks nobody out."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False
