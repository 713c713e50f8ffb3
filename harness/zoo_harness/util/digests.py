"""Compute SHA-256 and MD5 digests of files, and compare them with published digests."""

from __future__ import annotations

import hashlib
from io import BufferedReader
from pathlib import Path


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits, for publishers that give no stronger digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_with_sha256(file: BufferedReader, to: Path | None) -> str:
    """Return the SHA-256 of the rest of an open file; if ``to`` is given, also copy the rest to this new file."""
    if to is None:
        return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    with to.open("xb") as target:
        while block := file.read(2**20):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


def digest_mismatch(
    path: Path, *, sha256: str | None = None, md5: str | None = None, found_sha256: str | None = None
) -> str | None:
    """Describe how a file's digest differs from the published digest; return ``None`` if the digests are equal.

    ``sha256`` may be only the first digits of the published SHA-256. ``found_sha256`` is the file's own SHA-256, if the
    caller knows it.
    """
    if sha256 and not (found := found_sha256 or sha256_of(path)).startswith(sha256):
        return f"SHA-256 is {found}; expected {sha256}"
    if md5 and (found := md5_of(path)) != md5:
        return f"MD5 is {found}; expected {md5}"
    return None
