"""Text from files, Hubs and plugins that is safe to print: it controls no terminal, and reads in the order it has."""

from __future__ import annotations

import re
import unicodedata

_BIDI_OVERRIDES = "\u202a-\u202e\u2066-\u2069"
# Control characters (escape sequences begin with one), separators of lines, changes of the writing direction, and
# halves of characters, which no terminal can be sent.
_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f{_BIDI_OVERRIDES}\ud800-\udfff]")


def one_line(value: object) -> str:
    r"""Replace line breaks, control characters and changes of the writing direction in a value's text by single spaces.

    >>> one_line("T-shirt\n---\n top\x1b")
    'T-shirt --- top'
    """
    return " ".join(_UNSAFE.sub(" ", str(value)).split())


def printable(text: str) -> str:
    r"""Replace the same characters in a text of several lines by one space each; its line breaks and tabs stay.

    >>> printable("a\x1b[2Jb\n\tc\u202e")
    'a [2Jb\n\tc '
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else " ", text)


def escaped(text: str) -> str:
    r"""Write the same characters as JSON's escapes, line breaks and tabs excepted; for text that is JSON.

    >>> escaped('["\x9b\u202e"]')
    '["\\u009b\\u202e"]'
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else f"\\u{ord(found[0]):04x}", text)


def breaks_line(char: str) -> bool:
    """Whether a character ends a line, controls the terminal or changes the writing direction.

    Joiners and marks of direction do not count: names in many scripts need them.
    """
    return unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") or bool(re.match(f"[{_BIDI_OVERRIDES}]", char))
