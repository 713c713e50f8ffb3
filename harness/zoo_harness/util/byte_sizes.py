"""Parse and format amounts of memory and disk."""

from __future__ import annotations

import re
from contextlib import suppress

from pydantic import ByteSize, TypeAdapter, ValidationError

from zoo.errors import UsageError

_LARGEST = 2**63


def parse_bytes(option: str, given: str) -> int:
    """Parse a size such as ``8GiB``, ``500 MB`` or ``1048576`` and return the number of bytes.

    KiB, MiB, GiB and TiB count by 1,024, KB to TB by 1,000. Raises :class:`~zoo.errors.UsageError`, which names the
    ``option``, for anything else.

    >>> parse_bytes("--cache-budget", "1.5 GiB")
    1610612736
    """
    size = _LARGEST
    # ByteSize alone ignores what follows a number: it takes 1,5GiB for one byte.
    if re.fullmatch(r"\d+(\.\d+)?\s*[a-z]*", given.strip(), re.ASCII | re.IGNORECASE):
        with suppress(ValidationError, OverflowError):
            size = TypeAdapter(ByteSize).validate_python(given.strip())
    if size >= _LARGEST:
        raise UsageError(f"{option} {given!r} is not a size; write it as 8GiB, 500MB or a number of bytes")
    return int(size)


def bytes_in_words(size: int) -> str:
    """Format a number of bytes with one decimal, in the unit that keeps it short.

    >>> bytes_in_words(3 * 2**29)
    '1.5 GiB'
    >>> bytes_in_words(12)
    '12 bytes'
    """
    return f"{size} bytes" if size < 2**10 else ByteSize(size).human_readable(separator=" ")
