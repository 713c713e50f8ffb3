"""Check the class names of a dataset: each name must be printable, and no two names may be equal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from zoo.errors import DataError, shortened

_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need these invisible characters


def normalised(name: str) -> str:
    r"""Return a class name in Unicode form NFC, the form in which zoo compares class names.

    >>> normalised("cafe\u0301") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def check_class_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    r"""Return class names in Unicode form NFC, or raise :class:`~zoo.errors.DataError` for an unusable name.

    A name is unusable if it is empty, occurs twice, or contains line breaks, control characters, terminal escapes,
    invisible marks or bytes that are not UTF-8. ``where`` names the dataset in the error.

    >>> check_class_names(["cat", "cafe\u0301"], "example")
    ('cat', 'caf\xe9')
    """
    found = tuple(normalised(name) for name in names)
    for index, name in enumerate(found):
        fault = _fault(name)
        if fault:
            raise DataError(
                f"{where}: the name of class {index}, {shortened(name)}, {fault}; rename the class",
                code="class-name",
                index=index,
                name=ascii(name),
            )
    twice = sorted({name for name in found if found.count(name) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise DataError(
            f"{where}: {found.count(twice[0])} classes are named {twice[0]!r} (zoo compares names in Unicode form NFC, "
            "in which different encodings of the same letters are equal); rename or merge the classes",
            code="class-twice",
            name=twice[0],
        )
    return found


def look_alikes(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return groups of class names that are equal if case and spaces are ignored.

    >>> look_alikes(["Cat", "dog", "cat "])
    [('Cat', 'cat ')]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _fault(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    for char in name:
        category = unicodedata.category(char)
        if category == "Cs":
            return "holds bytes that are not UTF-8"
        if category in ("Cc", "Zl", "Zp"):
            return f"holds the control character U+{ord(char):04X}"
        if category == "Cf" and char not in _JOINERS:
            return f"holds the invisible mark U+{ord(char):04X} ({unicodedata.name(char, 'no name').lower()})"
    return None
