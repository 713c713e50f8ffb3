"""Parse and format numbers of bytes, for amounts of memory and disk space."""

from __future__ import annotations

import re
from contextlib import suppress

from zoo.errors import UsageError


def parse_bytes(option: str, given: str) -> int:
    """Parse a size such as ``8GiB``, ``500 MB`` or ``1048576`` and return the number of bytes.

    KiB, MiB, GiB and TiB are powers of 1,024; KB, MB, GB and TB are powers of 1,000. For any other text, raises
    :class:`~zoo.errors.UsageError`; the message contains ``option``.

    >>> parse_bytes("--cache-budget", "1.5 GiB")
    1610612736
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError  # imported here, because zoo list must start fast

    # ByteSize alone ignores text after a number: it parses 1,5GiB as one byte.
    if re.fullmatch(r"\d+(\.\d+)?\s*[a-z]*", given.strip(), re.ASCII | re.IGNORECASE):
        with suppress(ValidationError, OverflowError):
            size = TypeAdapter(ByteSize).validate_python(given.strip())
            if size < 2**63:
                return int(size)
    raise UsageError(
        f"{option} {given!r} is not a size; expected a number of bytes, or a number with a unit such as 8GiB or 500MB",
        code="option-size",
        option=option,
        given=given,
    )


def bytes_in_words(size: int) -> str:
    """Format a number of bytes with one decimal, in the largest binary unit that fits.

    >>> bytes_in_words(3 * 2**29), bytes_in_words(12)
    ('1.5 GiB', '12 bytes')
    """
    if size < 2**10:
        return f"{size} bytes"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = next((power for power in range(1, 6) if size < 2 ** (10 * (power + 1))), 6)
    return f"{size / 2 ** (10 * power):.1f} {units[power - 1]}"
