"""Make text from files, Hubs and plugins safe to print: remove or escape characters that control a terminal."""

from __future__ import annotations

import re
import unicodedata

_BIDI_OVERRIDES = "\u202a-\u202e\u2066-\u2069"
# Matched are control characters (escape sequences begin with one), line separators, changes of the writing direction,
# zero-width characters except joiners (some scripts need joiners), and lone surrogates (no terminal accepts them).
_UNSAFE = re.compile(
    f"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200b\u200e\u200f\u2060\ufeff{_BIDI_OVERRIDES}\ud800-\udfff]"
)


def one_line(value: object) -> str:
    r"""Return a value's text on one line, without control characters and changes of the writing direction.

    >>> one_line("T-shirt\n---\n top\x1b")
    'T-shirt --- top'
    """
    return " ".join(_UNSAFE.sub(" ", encodable(str(value))).split())


def escaped(text: str) -> str:
    r"""Escape characters that would control the terminal, in JSON's notation; line breaks and tabs stay.

    Escaped are control characters, changes of the writing direction, and path bytes that are not UTF-8.

    >>> escaped("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\u{ord(found[0]):04x}", text)


def encodable(text: str) -> str:
    r"""Escape path bytes that are not UTF-8; Python represents such bytes as lone surrogates.

    >>> print(encodable("caf\udce9"))
    caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()


def breaks_line(char: str) -> bool:
    """Whether a character ends a line, controls the terminal or overrides the writing direction.

    The result is false for joiners and direction marks, because names in many scripts need these characters.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or bool(re.match(f"[{_BIDI_OVERRIDES}]", char))
