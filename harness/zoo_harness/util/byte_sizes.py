"""Amounts of memory and disk: how a user writes them, and how they are told."""

from __future__ import annotations

import re

from zoo.errors import UsageError

_DECIMAL = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_UNITS = {unit.casefold(): scale for unit, scale in (_DECIMAL | _BINARY).items()}


def parse_bytes(option: str, given: str) -> int:
    """How many bytes ``8GiB``, ``500 MB`` or ``1048576`` are; KiB, MiB, GiB, TiB count by 1,024, KB to TB by 1,000.

    Raises :class:`~zoo.errors.UsageError` for anything else; ``option`` names what was given it.

    >>> parse_bytes("--cache-budget", "1.5 GiB")
    1610612736
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*", given)
    if match is None or match[2].casefold() not in _UNITS:
        raise UsageError(f"{option} {given!r} is not a size; write it as 8GiB, 500MB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].casefold()])


def bytes_in_words(size: int) -> str:
    """An amount with one decimal, in the unit that keeps it short.

    >>> bytes_in_words(3 * 2**29)
    '1.5 GiB'
    >>> bytes_in_words(12)
    '12 bytes'
    """
    if size < 2**10:
        return f"{size} bytes"
    unit, scale = next((name, scale) for name, scale in reversed(_BINARY.items()) if size >= scale)
    return f"{size / scale:.1f} {unit}"
