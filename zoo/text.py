"""Make text from files, Hubs and plugins safe to print: remove or escape characters that control a terminal."""

from __future__ import annotations

import re
import unicodedata

_BIDI_OVERRIDES = "\u202a-\u202e\u2066-\u2069"
# The pattern matches control characters (escape sequences begin with a control character), line separators, characters
# that change the writing direction, zero-width characters, and lone surrogates (no terminal accepts lone surrogates).
# The pattern does not match zero-width joiners, because some scripts need joiners.
_UNSAFE = re.compile(
    f"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200b\u200e\u200f\u2060\ufeff{_BIDI_OVERRIDES}\ud800-\udfff]"
)


def one_line(value: object) -> str:
    r"""Return a value's text on one line, without control characters and marks that change the writing direction.

    >>> one_line("T-shirt\n---\n top\x1b")
    'T-shirt --- top'
    """
    return " ".join(_UNSAFE.sub(" ", encodable(str(value))).split())


def escaped(text: str) -> str:
    r"""Replace characters that would control the terminal by JSON escapes, except line breaks and tabs.

    The function escapes control characters, marks that change the writing direction, and path bytes that are not UTF-8.

    >>> escaped("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\u{ord(found[0]):04x}", text)


def encodable(text: str) -> str:
    r"""Escape bytes of a path that are not UTF-8, which Python represents as lone surrogates.

    >>> print(encodable("caf\udce9"))
    caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()


def breaks_line(char: str) -> bool:
    """Whether a character ends a line, controls the terminal or overrides the writing direction.

    The result is false for joiners and direction marks, because names in many scripts need these characters.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp") or bool(re.match(f"[{_BIDI_OVERRIDES}]", char))
