"""Escape text from outside (class names, titles, paths) for Markdown.

Every value of a card that is not :class:`Markdown` yet is escaped when it is filled in.
"""

from __future__ import annotations

import re

from zoo.text import escaped, one_line

# Starts emphasis, code, links, HTML, entities, table cells, strike-through or, on the Hub, mathematics.
# An underscore between letters or digits starts nothing, and a name that can be copied is worth more.
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_MARKER = re.compile(r"<!--[ \t]*zoo:")
_WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9./?=&%#:~_+,;@-]+")


class Markdown(str):
    """Text that is Markdown already and is not escaped again."""

    __slots__ = ()


def text(value: object) -> Markdown:
    r"""Escape running text, also inside a table cell; a value must not be the first thing on its line.

    >>> print(text("<b>_a_b</b> | c"))
    \<b\>\_a_b\</b\> \| c
    """
    if isinstance(value, Markdown):
        return value
    return Markdown(_SPECIAL.sub(r"\\\g<0>", one_line(value)))


def code(value: object) -> Markdown:
    """Make a code span that backticks inside it cannot end; not for table cells.

    >>> print(code("T-shirt/top"), code("a`b"))
    `T-shirt/top` ``a`b``
    """
    inside = one_line(value) or " "
    ticks = "`" * (_longest_run("`", inside) + 1)
    space = " " if inside.startswith("`") or inside.endswith("`") else ""
    return Markdown(f"{ticks}{space}{inside}{space}{ticks}")


def code_list(values: tuple[str, ...] | list[str]) -> Markdown:
    """Make code spans with commas between them."""
    return Markdown(", ".join(map(code, values)))


def fenced(value: str, language: str) -> Markdown:
    """Make a block of code, in which no line can look like the end of our part of a card.

    >>> print(fenced("zoo list", "shell"))
    ```shell
    zoo list
    ```
    """
    value = _MARKER.sub("<!-- zoo :", escaped(value))
    fence = "`" * max(3, _longest_run("`", value) + 1)
    return Markdown(f"{fence}{language}\n{value}\n{fence}")


def link(value: str) -> Markdown:
    """Make a link of a web address; anything else becomes running text.

    >>> print(link("https://arxiv.org/abs/2103.17239"))
    <https://arxiv.org/abs/2103.17239>
    """
    return Markdown(f"<{value}>") if _WEB_ADDRESS.fullmatch(value) else text(value)


def _longest_run(char: str, value: str) -> int:
    return max(map(len, re.findall(f"{re.escape(char)}+", value)), default=0)
