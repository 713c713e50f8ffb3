"""Text that is safe to print on one line."""

from __future__ import annotations

import unicodedata

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(value: object) -> str:
    r"""Remove line breaks, control characters and changes of the writing direction from a value's text.

    >>> one_line("T-shirt\n---\n top\x1b")
    'T-shirt --- top'
    """
    return " ".join("".join(" " if breaks_line(char) else char for char in str(value)).split())


def escaped(text: str) -> str:
    r"""Escape control characters and changes of the writing direction as JSON does; line breaks and tabs stay.

    >>> escaped("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"\\u{ord(char):04x}" if char not in "\n\t" and breaks_line(char) else char for char in text)


def breaks_line(char: str) -> bool:
    """Whether a character ends a line, controls the terminal or changes the writing direction.

    Joiners do not count: names in many scripts need them.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or char in _BIDI_CONTROLS
