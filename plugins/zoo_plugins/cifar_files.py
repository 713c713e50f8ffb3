"""Read the files of CIFAR from a folder or from a downloaded archive; archives are not unpacked to disk."""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast

from zoo.errors import DataError

_PIECE = 2**20
_LARGEST_ARCHIVE = 2**30  # in bytes after decompression; the published archives have less than a fifth of this size


@dataclass(frozen=True)
class CifarFiles:
    """The files of CIFAR as pickles or as binary files, in a folder or as the ``contents`` of an archive.

    ``place`` is the folder or the archive. ``warnings`` report MD5 digests that differ from the published digests.
    """

    place: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The name of the folder or archive in run records."""
        return f"{'archive' if self.contents else 'folder'} {self.place.resolve()}"

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file; raise :class:`~zoo.errors.DataError` if the file is missing or too large."""
        if self.contents:
            if name not in self.contents:
                raise DataError(f"{self.place} has no file {name}", code="missing-file", path=str(self.place))
            return self.contents[name]
        path = self.place / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a named pipe would block
                raise OSError(f"{path.name} is not a regular file")
            size = status.st_size
            if size > most:
                raise _too_large(path, size, most)
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path} cannot be read as a CIFAR batch: {error.strerror or error}",
                code="file-unreadable",
                path=str(path),
            ) from error

    def called(self, name: str) -> str:
        """Return the path of a file, or its name in the archive, for messages."""
        return f"{self.place}: {name}" if self.contents else str(self.place / name)


def read_archive(path: Path, wanted: Iterable[str], most: int, published: Mapping[str, str]) -> CifarFiles:
    """Read the files named ``wanted`` from any folder of a ``.tar.gz`` archive into memory.

    The archive's paths, links and sizes are not trusted: only regular files with a wanted name are read, each with at
    most ``most`` bytes. ``published`` maps a file's name to the MD5 of the published archive that contains the file.
    The result has a warning if the archive does not have this MD5. Raises :class:`~zoo.errors.DataError` for a damaged
    archive and for a file that is too large.
    """
    digest = _md5(path)
    try:
        contents = _wanted_contents(path, set(wanted), most)
    except DataError:
        raise
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        raise DataError(
            f"archive {path} is damaged ({type(error).__name__}: {error}); its MD5 is {digest}; expected the published "
            f"{' or '.join(published.values())}; download it again",
            code="archive-damaged",
            path=str(path),
            md5=digest,
        ) from error
    if not contents:
        raise DataError(
            f"archive {path} has none of the files {', '.join(published)}; download it again",
            code="archive-other",
            path=str(path),
        )
    expected = next((md5 for name, md5 in published.items() if name in contents), None)
    return CifarFiles(path, contents, _md5_warning(path, digest, expected))


def _wanted_contents(path: Path, wanted: set[str], most: int) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    total = 0
    with _uncompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            total += member.size
            if total > _LARGEST_ARCHIVE:
                raise _too_large(path, total, _LARGEST_ARCHIVE)
            if not member.isfile() or name not in wanted:
                continue
            if member.size > most:
                raise _too_large(f"{path}: {name}", member.size, most)
            if name in contents:
                raise DataError(f"{path} has {name} twice", code="archive-damaged", path=str(path))
            held = archive.extractfile(member)
            contents[name] = held.read() if held else b""
        while stream.read(_PIECE):  # after the last byte, gzip verifies its checksum
            pass
    return contents


def _uncompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def check_md5(folder: Path, published: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return a warning that names the files in ``folder`` whose MD5 differs from the published MD5."""
    wrong = []
    for name, md5 in published:
        path = folder / name
        if path.is_file() and _md5(path) != md5:
            wrong.append(name)
    if not wrong:
        return ()
    return (
        f"MD5 of {len(wrong)} file(s) in {folder} differs from the published MD5: {', '.join(wrong)}; "
        "the files are read, but results may not be comparable",
    )


def _md5_warning(name: Path, found: str, expected: str | None) -> tuple[str, ...]:
    if expected is None or found == expected:
        return ()
    return (
        f"MD5 of {name} is {found}; the published archive has {expected}; the archive is read, but results may not be "
        "comparable",
    )


def _too_large(name: object, size: int, most: int) -> DataError:
    return DataError(
        f"{name} has {size:,} bytes; expected at most {most:,}", code="file-too-large", path=str(name), size=size
    )
