"""Read files that may be hostile: only regular files of limited size, without following links or blocking."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from zoo.errors import ZooError

# O_NONBLOCK, because opening a named pipe would otherwise block until a process writes to the pipe.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(path: Path, most: int, *, below: Path | None = None, follow_links: bool = False) -> BufferedReader:
    """Open a regular file of at most ``most`` bytes for reading, without following links and without blocking.

    No component of ``path`` below the folder ``below`` may be a link; without ``below``, only the last component is
    checked. ``below`` itself may be a link, because the user chose it. ``follow_links=True`` allows all links, as in
    the Hub's cache. Raises :class:`FileNotFoundError` for a missing file. Any other fault raises
    :class:`~zoo.errors.ZooError` with the fact ``path`` and one of these codes: ``file-is-a-link``,
    ``not-a-regular-file``, ``file-too-large``, ``file-outside`` or ``file-unreadable``.
    """
    if follow_links:
        path = _resolved(path)
    descriptor = _open_below(path.parent if below is None or follow_links else below, path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path)
        if status.st_size > most:
            raise _too_large(path, most, status.st_size)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, most: int, *, below: Path | None = None, follow_links: bool = False) -> bytes:
    """Return the content of a file under the conditions of :func:`open_regular`, which also lists the errors.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "run.json").write_text("{}")
    ...     read_regular(Path(folder, "run.json"), 100)
    b'{}'
    """
    try:
        with open_regular(path, most, below=below, follow_links=follow_links) as file:
            content = file.read(most + 1)  # the file may have grown since its size was checked
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > most:
        raise _too_large(path, most, len(content))
    return content


def _too_large(path: Path, most: int, size: int) -> ZooError:
    message = f"{path} has {size:,} bytes; expected at most {most:,}"
    return ZooError(message, code="file-too-large", path=path, size=size, most=most)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # for example a circle of links
        raise ZooError(f"{path} cannot be read: {error}", code="file-unreadable", path=path) from error


def _open_below(root: Path, path: Path) -> int:
    """Open each component of the path in turn, so that no folder can be replaced by a link between check and use."""
    *folders, name = path.relative_to(root).parts
    if ".." in (*folders, name):
        raise ZooError(f"{path} contains '..'; expected a file below {root}", code="file-outside", path=path)
    reached = root
    try:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                reached /= folder
                inner = os.open(folder, _FLAGS | os.O_DIRECTORY, dir_fd=parent)
                os.close(parent)
                parent = inner
            reached /= name
            return os.open(name, _FLAGS, dir_fd=parent)
        finally:
            os.close(parent)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError if the name contains a null character
        raise _refused(path, reached, error) from error


def _refused(path: Path, reached: Path, error: OSError | ValueError) -> ZooError:
    """Return the error for ``reached``, the component of the path that the operating system did not open."""
    number = getattr(error, "errno", None)
    if number in (errno.ELOOP, errno.EMLINK) or (number == errno.ENOTDIR and reached.is_symlink()):
        message = f"{reached} is a link, and links are not followed; put the file itself there"
        return ZooError(message, code="file-is-a-link", path=path)
    if number in (errno.ENXIO, errno.ENODEV):  # a socket, or a device without a driver
        return _not_regular(path)
    return _unreadable(path, error)


def _not_regular(path: Path) -> ZooError:
    message = f"{path} is not a regular file, but a folder, a pipe or a device; expected a regular file"
    return ZooError(message, code="not-a-regular-file", path=path)


def _unreadable(path: Path, error: OSError | ValueError) -> ZooError:
    reason = getattr(error, "strerror", None) or error
    return ZooError(f"{path} cannot be read: {reason}", code="file-unreadable", path=path)
