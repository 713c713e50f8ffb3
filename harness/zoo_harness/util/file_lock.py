"""Hold locks on files against other processes; the kernel releases a lock when its process ends, even by a crash."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FileLock:
    """A shared or exclusive lock on a file, acquired without waiting; another process may delete the locked file.

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
        """Whether this object currently holds the lock."""
        return self._descriptor is not None

    def acquire(self, *, exclusive: bool) -> bool:
        """Acquire the lock and return true, or return false if another process holds it; create a missing file.

        For a shared lock, permission to read the file is enough, for example on a read-only disk. Raises
        :class:`FileNotFoundError` if the folder is missing, and :class:`OSError` if the file is a link or the file
        system has no locks.
        """
        if self.held:
            raise RuntimeError(f"{self.path}: this lock is already held")
        while True:
            descriptor = self._open(readable=not exclusive)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                # If the file was deleted meanwhile, a lock on the deleted file would not exclude other processes.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                        self._descriptor, descriptor = descriptor, -1
                        return True
            except BlockingIOError:
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _open(self, *, readable: bool) -> int:
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | flags, 0o600)
        except OSError as error:
            if readable and error.errno in (errno.EROFS, errno.EACCES):
                with suppress(FileNotFoundError):
                    return os.open(self.path, os.O_RDONLY | flags)
            raise

    def release(self) -> None:
        """Release the lock; do nothing if this object does not hold the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Let one process of this user and machine execute the body for ``what`` at a time; the others wait.

    Without a temporary folder, or locks in it, nobody waits.

    >>> with one_at_a_time("weights of resnet18"):
    ...     "downloaded by one process, found by the others"
    'downloaded by one process, found by the others'
    """
    folder = Path(tempfile.gettempdir()) / f"blockzoo-{os.getuid()}"
    lock = FileLock(folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.lock")
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        while not lock.acquire(exclusive=True):
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.release()
