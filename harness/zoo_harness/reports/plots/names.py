"""Prepare class names and titles for plots: put them on one line, shorten them, and find fonts for their characters.

matplotlib's own font lacks Chinese, Japanese, Korean and many other scripts; another installed font often has them.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

import matplotlib
from matplotlib.font_manager import FontEntry, FontProperties, findfont, findSystemFonts, fontManager, get_font

from zoo.text import one_line

_LONGEST_NAME = 24
# Debian's font packages by the first word of a character's Unicode name. fonts-noto-core has all other scripts.
_PACKAGES = dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH"), "fonts-noto-cjk")


def shown_name(name: str, otherwise: str, longest: int = _LONGEST_NAME) -> str:
    """Put a name on one line and shorten it; return ``otherwise`` if no installed font has all its characters."""
    line = one_line(name)
    if not line or _unwritable([line]):
        return otherwise
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "\u2026"


def shown_classes(classes: Iterable[tuple[int, str]]) -> list[str]:
    """Return the name that a plot shows for each class; ``names`` has pairs of a label and a class name.

    >>> shown_classes([(0, "cat"), (1, " ")])
    ['cat', 'class 1']
    """
    return [shown_name(name, f"class {label}") for label, name in classes]


def font_families(texts: Iterable[str]) -> list[str]:
    """Return the default font family, and further families for the characters of ``texts`` that the default lacks."""
    fallbacks = dict.fromkeys(family for char in _unusual(texts) if (family := _family_with(char)))
    return [*matplotlib.rcParams["font.family"], *fallbacks]


def missing_font_note(classes: Sequence[str]) -> str | None:
    """Return a line that names fonts to install, if plots show class numbers because fonts are missing."""
    unwritable = [name for name in map(one_line, classes) if _unwritable([name])]
    if not unwritable:
        return None
    scripts = {unicodedata.name(char, "").split(" ")[0].split("-")[0] for char in _unwritable(unwritable)}
    packages = sorted({_PACKAGES.get(script, "fonts-noto-core") for script in scripts})
    return (
        f"plots show numbers instead of names for {len(unwritable)} classes, because no installed font has the "
        f"characters of names such as {unwritable[0]!r}; try installing {' and '.join(packages)} (Debian, Ubuntu)"
    )


def columns(text: str) -> int:
    """Return the width of a text in Latin letters; a Chinese, Japanese or Korean character counts as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _unusual(texts: Iterable[str]) -> list[str]:
    usual = _characters(findfont(FontProperties()))
    return [char for char in dict.fromkeys("".join(texts)) if ord(char) not in usual]


def _unwritable(texts: Iterable[str]) -> list[str]:
    return [char for char in _unusual(texts) if _family_with(char) is None]


@cache
def _family_with(char: str) -> str | None:
    """Return an installed font family that has a character, preferably an upright sans-serif one, or ``None``."""
    for font in _installed():
        if ord(char) in _characters(font.fname):
            return font.name
    return None


@cache
def _installed() -> list[FontEntry]:
    known = {font.fname for font in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in known:  # matplotlib's list of fonts is older than this font
            with contextlib.suppress(Exception):  # a damaged font file must not stop the run
                fontManager.addfont(path)
    fonts = [font for font in fontManager.ttflist if not font.name.startswith("Last Resort")]  # draws boxes
    return sorted(fonts, key=lambda font: (font.style != "normal", font.weight != 400, "Sans" not in font.name))


@cache
def _characters(path: str) -> frozenset[int]:
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
