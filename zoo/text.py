"""Text from files, Hubs and plugins that is safe to print: it controls no terminal, and reads in the order it has."""

from __future__ import annotations

import re
import unicodedata

_BIDI_OVERRIDES = "\u202a-\u202e\u2066-\u2069"
# Control characters (escape sequences begin with one), separators of lines, changes of the writing direction,
# characters of no width (except joiners, which scripts need), and lone surrogates, which no terminal can be sent.
_UNSAFE = re.compile(
    f"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200b\u200e\u200f\u2060\ufeff{_BIDI_OVERRIDES}\ud800-\udfff]"
)


def one_line(value: object) -> str:
    r"""Replace line breaks, control characters and changes of the writing direction in a value's text by single spaces.

    >>> one_line("T-shirt\n---\n top\x1b")
    'T-shirt --- top'
    """
    return " ".join(_UNSAFE.sub(" ", encodable(str(value))).split())


def escaped(text: str) -> str:
    r"""Escape what changes the output itself, as JSON does; line breaks and tabs stay.

    That are control characters, changes of the writing direction, and bytes of paths that are not UTF-8.

    >>> escaped("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\u{ord(found[0]):04x}", text)


def encodable(text: str) -> str:
    r"""Escape the bytes of a path that are not UTF-8, which Python holds as lone surrogates.

    >>> print(encodable("caf\udce9"))
    caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()


def breaks_line(char: str) -> bool:
    """Whether a character ends a line, controls the terminal or changes the writing direction.

    Joiners and marks of direction do not count: names in many scripts need them.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or bool(re.match(f"[{_BIDI_OVERRIDES}]", char))
