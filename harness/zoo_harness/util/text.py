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
    r"""Escape what changes the output itself, as JSON does; line breaks and tabs stay.

    That are control characters, changes of the writing direction, and bytes of paths that are not UTF-8.

    >>> escaped("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"\\u{ord(char):04x}" if _must_be_escaped(char) else char for char in text)


def _must_be_escaped(char: str) -> bool:
    return char not in "\n\t" and (breaks_line(char) or unicodedata.category(char) == "Cs")


def encodable(text: str) -> str:
    r"""Escape the bytes of a path that are not UTF-8, which Python holds as lone surrogates.

    >>> print(encodable("caf\udce9"))
    caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()


def breaks_line(char: str) -> bool:
    """Whether a character ends a line, controls the terminal or changes the writing direction.

    Joiners do not count: names in many scripts need them.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or char in _BIDI_CONTROLS
