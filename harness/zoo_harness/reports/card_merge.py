"""Putting a new card where one already stands: what a person wrote stays, and our part is replaced.

Our part of the body stands between two HTML comments, each on a line of its own. In the front matter keys of ours are
set anew, tags are united, and every other key stays as it was written, comments included. A card in which our part
cannot be told from the rest is left alone: there is no telling what in it is worth keeping.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zoo.errors import UsageError

BEGIN, END = "<!-- zoo:begin -->", "<!-- zoo:end -->"

# Ours even where a card has none of them: what is left from another run would be false of this one.
_GO_WITH_THE_RUN = frozenset({"model-index", "base_model", "base_model_relation"})
_OUR_TAGS = frozenset({"image-classification", "timm", "transformers", "zoo", "separation-index"})
_FRONT_MATTER = re.compile(r"\s*^---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^ {0,3}<!--[ \t]*zoo:(?P<which>begin|end)[ \t]*-->[ \t]*\r?$", re.MULTILINE)


class _Card(NamedTuple):
    """A card in pieces: YAML, what stands before and after our part, and our part with its markers."""

    front: str
    before: str
    ours: str
    after: str


def marked(body: str) -> str:
    """A body between the two markers.

    >>> print(marked("# A model"), end="")
    <!-- zoo:begin -->
    <BLANKLINE>
    # A model
    <BLANKLINE>
    <!-- zoo:end -->
    """
    return f"{BEGIN}\n\n{body.strip()}\n\n{END}\n"


def merged_card(old: str | None, new: str) -> str:
    r"""The new card with everything that a person wrote in the old one, outside of our part and of our keys.

    ``old``: what is there, ``None`` or blank for nothing; ``new``: from :func:`zoo_harness.card.render_card`. Merging
    the same card again changes nothing. Raises :class:`~zoo.errors.UsageError` where the markers of the old card are
    missing, doubled or in the wrong order, or its front matter cannot be read.

    >>> new = "---\nlicense: mit\n---\n\n" + marked("# New")
    >>> print(merged_card("---\nlanguage: en\n---\nMine.\n\n" + marked("# Old") + "\nMine too.\n", new), end="")
    ---
    license: mit
    language: en
    ---
    Mine.
    <BLANKLINE>
    <!-- zoo:begin -->
    <BLANKLINE>
    # New
    <BLANKLINE>
    <!-- zoo:end -->
    <BLANKLINE>
    Mine too.
    """
    if old is None or not old.strip():
        return new
    theirs, ours = _parts(old), _parts(new)
    before = theirs.before or ours.before
    return f"---\n{_merged_front(theirs.front, ours.front)}---\n{before}{ours.ours}{theirs.after}"


def read_card(directory: Path) -> str | None:
    """The ``README.md`` of a folder with its own line ends, ``None`` where there is none.

    Raises :class:`~zoo.errors.UsageError` where it is not text.
    """
    path = directory / "README.md"
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; {_WHAT_TO_DO}") from error


_WHAT_TO_DO = "repair it, or move it away to have a new one written"


def _parts(card: str) -> _Card:
    text = card.removeprefix("\ufeff")
    front, body = "", text
    if text.lstrip().startswith("---"):
        found = _FRONT_MATTER.match(text)
        if found is None:
            raise UsageError(f"the card's front matter has no closing line of three dashes; {_WHAT_TO_DO}")
        front, body = found["yaml"], text[found.end() :]
    if not body.strip():
        return _Card(front, "", "", "")  # what the Hub's own form makes of a licence: there is nothing to tell apart
    markers = list(_MARKER.finditer(body))
    if [marker["which"] for marker in markers] != ["begin", "end"]:
        raise UsageError(_which_markers(markers))
    begin, end = markers
    return _Card(front, body[: begin.start()], body[begin.start() : end.end()], body[end.end() :])


def _which_markers(markers: list[re.Match[str]]) -> str:
    which = [marker["which"] for marker in markers]
    if not which:
        fault = "the card has no part marked as made by zoo, so none of it is replaced"
    elif which == ["end", "begin"]:
        fault = f"the card has {END} before {BEGIN}, so which part zoo made cannot be told"
    else:
        counts = f"{which.count('begin')} line(s) {BEGIN} and {which.count('end')} line(s) {END}"
        fault = f"the card has {counts}, so which part zoo made cannot be told"
    return (
        f"{fault}; put one line {BEGIN} before that part and one line {END} after it, "
        "or move the card away to have a new one written"
    )


def _merged_front(old: str, new: str) -> str:
    """YAML of our keys, then of those keys of the old one that are not ours; ends in a newline."""
    content, added = _mapping(new), _mapping(old)
    tags = _united(content.get("tags"), added.get("tags"))
    if tags != content.get("tags", []):
        new = yaml.safe_dump({**content, "tags": tags}, sort_keys=False, allow_unicode=True)
    replaced = {*content, *_GO_WITH_THE_RUN, "tags"}
    if "license" in content:
        replaced.add("license_name")
        if any(content.get(key) != added.get(key) for key in ("license", "license_name")):
            replaced.add("license_link")  # to the text of another licence
    kept = [_comments(block) if key in replaced else block for key, block in _blocks(old)]
    return "".join(f"{block.rstrip()}\n" for block in (new, *kept) if block.strip())


def _mapping(text: str) -> dict[Any, Any]:
    """The content of front matter.

    Raises :class:`~zoo.errors.UsageError` where it is not plain YAML of keys and values.
    """
    try:
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
        # One part of it could not be replaced without the other, and a few lines of it can be gigabytes.
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            raise UsageError(f"the card's front matter uses aliases (*name), which zoo does not merge; {_WHAT_TO_DO}")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = " ".join(str(error).split())
        raise UsageError(f"the card's front matter is not YAML: {first:.200}; {_WHAT_TO_DO}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or text.lstrip().startswith("{"):
        raise UsageError(f"the card's front matter is not a list of lines KEY: VALUE; {_WHAT_TO_DO}")
    return content


def _united(ours: object, theirs: object) -> list[str]:
    """Our tags, then those that a person added; which of ours hold may have changed."""
    mine = ours if isinstance(ours, list) else []
    given = [theirs] if isinstance(theirs, str) else theirs if isinstance(theirs, list) else []
    return [*mine, *dict.fromkeys(tag for tag in given if tag not in mine and tag not in _OUR_TAGS)]


def _blocks(text: str) -> list[tuple[str, str]]:
    """Each key with the lines it stands on as they were written, and the comments above it."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return []
    keys = [(str(key.value), _with_comments(text, key.start_mark.index)) for key, _value in node.value]
    ends = [start for _key, start in keys[1:]] + [len(text)]
    return [(key, text[start:end]) for (key, start), end in zip(keys, ends, strict=True)]


def _with_comments(text: str, start: int) -> int:
    """Where the comment lines begin that stand right above a position."""
    lines = text[:start].splitlines(keepends=True)
    while lines and lines[-1].startswith("#"):
        start -= len(lines.pop())
    return start


def _comments(block: str) -> str:
    """The comments of a key that is replaced: we write none."""
    # At the beginning of a line: further in, it may be the rest of a long title.
    return "".join(line for line in block.splitlines(keepends=True) if line.startswith("#"))
