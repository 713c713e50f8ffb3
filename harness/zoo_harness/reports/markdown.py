"""Escape untrusted text such as class names, titles and paths for Markdown.

Every value that a card's template inserts is escaped, unless it is :class:`Markdown` already.
"""

from __future__ import annotations

import re

from zoo.text import escaped, one_line

# These characters start emphasis, code, links, HTML, entities, table cells, strike-through or, on the Hub, formulas.
# An underscore between letters or digits is harmless; it is not escaped, so that names can be copied.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_MARKER = re.compile(r"<!--[ \t]*zoo:")
_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9./?=&%#:~_+,;@-]+")


class Markdown(str):
    """Text that is valid Markdown and must not be escaped again."""

    __slots__ = ()


def text(value: object) -> Markdown:
    r"""Escape text for use within a line or table cell; at the start of a line, the escaped text could form a heading.

    >>> print(text("<b>_a_b</b> | c"))
    \<b\>\_a_b\</b\> \| c
    """
    if isinstance(value, Markdown):
        return value
    return Markdown(_SPECIAL.sub(r"\\\g<0>", one_line(value)))


def code(value: object) -> Markdown:
    """Format text as a code span, even if it contains backticks; do not use this in table cells.

    >>> print(code("T-shirt/top"), code("a`b"))
    `T-shirt/top` ``a`b``
    """
    inside = one_line(value) or " "
    ticks = "`" * (_longest_run("`", inside) + 1)
    space = " " if inside.startswith("`") or inside.endswith("`") else ""
    return Markdown(f"{ticks}{space}{inside}{space}{ticks}")


def code_list(values: tuple[str, ...] | list[str]) -> Markdown:
    """Format each text as a code span, and join the code spans by commas."""
    return Markdown(", ".join(map(code, values)))


def fenced(value: str, language: str) -> Markdown:
    """Format text as a code block in which no line can be mistaken for the markers of a card's generated part.

    >>> print(fenced("zoo list", "shell"))
    ```shell
    zoo list
    ```
    """
    value = _MARKER.sub("<!-- zoo :", escaped(value))
    fence = "`" * max(3, _longest_run("`", value) + 1)
    return Markdown(f"{fence}{language}\n{value}\n{fence}")


def link(value: str) -> Markdown:
    """Format a web address as a link; escape any other text.

    >>> print(link("https://arxiv.org/abs/2103.17239"))
    <https://arxiv.org/abs/2103.17239>
    """
    return Markdown(f"<{value}>") if _WEB_ADDRESS.fullmatch(value) else text(value)


def _longest_run(char: str, value: str) -> int:
    return max(map(len, re.findall(f"{re.escape(char)}+", value)), default=0)
