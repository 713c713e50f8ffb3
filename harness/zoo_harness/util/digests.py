"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def md5_of(path: Path) -> str:
    """The MD5 of a file as 32 hexadecimal digits: against accidents and substitutes, as publishers give no other."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_mismatch(
    path: Path, *, sha256: str | None = None, md5: str | None = None, found_sha256: str | None = None
) -> str | None:
    """Say which of the published digests differs from the file's, ``None`` if none does.

    ``sha256`` may be the beginning of the digest; ``found_sha256`` is that of the file, if it is known.
    """
    if sha256 and not (found := found_sha256 or sha256_of(path)).startswith(sha256):
        return f"SHA-256 is {found}, published is {sha256}"
    if md5 and (found := md5_of(path)) != md5:
        return f"MD5 is {found}, published is {md5}"
    return None
