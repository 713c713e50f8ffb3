"""Find the files of CIFAR in a folder or in a downloaded archive; nothing of an archive is written to disk."""

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
_LARGEST_ARCHIVE = 2**30  # bytes when unpacked; the published ones have less than a fifth


@dataclass(frozen=True)
class CifarFiles:
    """The files of one version of CIFAR: in a folder, or as ``contents`` of an archive.

    ``place`` is the folder or the archive; ``warnings`` tell of MD5 digests that are not the published ones.
    """

    place: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """How the record names the place."""
        return f"{'archive' if self.contents else 'folder'} {self.place.resolve()}"

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file; raises :class:`~zoo.errors.DataError` if it is missing or too large."""
        if self.contents:
            if name not in self.contents:
                raise DataError(f"{self.place} has no file {name}", code="missing-file", path=str(self.place))
            return self.contents[name]
        path = self.place / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
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
        """How messages name a file."""
        return f"{self.place}: {name}" if self.contents else str(self.place / name)


def read_archive(path: Path, wanted: Iterable[str], most: int, published: Mapping[str, str]) -> CifarFiles:
    """Read the wanted files of a ``.tar.gz`` archive into memory, whatever folder they are in.

    Only regular files of these names are read, each of at most ``most`` bytes: no path, link or size in the archive is
    trusted. ``published``: the MD5 of the published archive that has a file of this name; another is warned of. Raises
    :class:`~zoo.errors.DataError` for a damaged archive and files over the limit.
    """
    digest = _md5(path)
    try:
        contents = _wanted_contents(path, set(wanted), most)
    except DataError:
        raise
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        raise DataError(
            f"archive {path} is damaged ({type(error).__name__}: {error}); its MD5 is {digest}, that of the published "
            f"one {' or '.join(published.values())}; download it again",
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
        while stream.read(_PIECE):  # the checksum is at the end
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
    """Return a warning that names the files in a folder whose MD5 is not the published one."""
    wrong = []
    for name, md5 in published:
        path = folder / name
        if path.is_file() and _md5(path) != md5:
            wrong.append(name)
    if not wrong:
        return ()
    return (
        f"MD5 of {len(wrong)} file(s) in {folder} is not that of the published ones: {', '.join(wrong)}; "
        "they are read, and the figures may not be comparable",
    )


def _md5_warning(name: Path, found: str, expected: str | None) -> tuple[str, ...]:
    if expected is None or found == expected:
        return ()
    return (
        f"MD5 of {name} is {found}, that of the published archive {expected}; it is read, and the figures may not be "
        "comparable",
    )


def _too_large(name: object, size: int, most: int) -> DataError:
    return DataError(
        f"{name} has {size:,} bytes; expected at most {most:,}", code="file-too-large", path=str(name), size=size
    )
