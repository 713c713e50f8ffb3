"""Merge a new model card into an existing one: replace the part that zoo generated, and preserve the user's text.

The generated part of the body lies between two HTML comments, each on a line of its own. In the YAML front matter the
keys that zoo generates are replaced, and tags are merged. Every other key stays exactly as the user wrote it, comments
included. A card in which the generated part cannot be found is never changed.
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zoo.errors import DataError, ZooError
from zoo_harness.util.safe_files import read_regular

LARGEST_CARD = 4 * 2**20  # bytes; a long card has about 10,000
_LARGEST_FRONT_MATTER = 2**16  # characters; PyYAML reads about 50,000 per second
_DEEPEST_NESTING = 32  # levels; PyYAML takes quadratic time for nested brackets

BEGIN, END = "<!-- zoo:begin -->", "<!-- zoo:end -->"

# These keys are removed from the old card even if the new card lacks them, because they describe another run.
_GO_WITH_THE_RUN = frozenset({"model-index", "base_model", "base_model_relation"})
_OUR_TAGS = frozenset({"image-classification", "timm", "transformers", "zoo", "separation-index"})
_FRONT_MATTER = re.compile(r"\s*^---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^ {0,3}<!--[ \t]*zoo:(?P<which>begin|end)[ \t]*-->[ \t]*\r?$", re.MULTILINE)


class _Card(NamedTuple):
    """A card split into its YAML, the text before the generated part, the generated part, and the text after it."""

    front: str
    before: str
    ours: str
    after: str


def marked(body: str) -> str:
    """Put the markers ``zoo:begin`` and ``zoo:end`` around a card's body.

    >>> print(marked("# A model"), end="")
    <!-- zoo:begin -->
    <BLANKLINE>
    # A model
    <BLANKLINE>
    <!-- zoo:end -->
    """
    return f"{BEGIN}\n\n{body.strip()}\n\n{END}\n"


def merged_card(old: str | None, new: str) -> str:
    r"""Return the new card with the text and the front-matter keys that the user wrote into the old card.

    ``old`` is the existing card; ``None`` or blank text means that no card exists. ``new`` comes from
    :func:`~zoo_harness.reports.run_card.render_card`. Merging the same card again changes nothing. Raises
    :class:`~zoo.errors.DataError` if the markers of the old card are missing, repeated or in the wrong order, or if the
    front matter of the old card cannot be read.

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


def read_card(directory: Path, *, follow_links: bool = False) -> str | None:
    """Read the ``README.md`` of a folder without changing its line endings; return ``None`` if the file is missing.

    Set ``follow_links`` for the Hub's cache, in which files are links. Raises :class:`~zoo.errors.DataError` if the
    card is a link, is not a regular file, is too large or is not text.
    """
    path = directory / "README.md"
    try:
        return read_regular(path, LARGEST_CARD, follow_links=follow_links).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; {_ADVICE}"
        raise DataError(message, code="card-encoding", path=path) from error
    except ZooError as error:
        raise DataError(f"{error}; {_ADVICE}", code="card-unreadable", path=path) from error


_ADVICE = "repair the card, or move it away to get a new one"


def _parts(card: str) -> _Card:
    text = card.removeprefix("\ufeff")
    front, body = "", text
    if text.lstrip().startswith("---"):
        found = _FRONT_MATTER.match(text)
        if found is None:
            raise _front_matter_error("expected a closing line of three dashes")
        front, body = found["yaml"], text[found.end() :]
    if not body.strip():
        return _Card(front, "", "", "")  # the Hub's licence form creates a card that has front matter only
    markers = list(_MARKER.finditer(body))
    which = [marker["which"] for marker in markers]
    if which != ["begin", "end"]:
        raise DataError(
            f"the card has no generated part between markers: found {', '.join(which) or 'no marker'}; expected one "
            f"line {BEGIN} before the part and one line {END} after it; add both, or move the card away to get a new "
            "one",
            code="card-markers",
            found=which,
        )
    begin, end = markers
    return _Card(front, body[: begin.start()], body[begin.start() : end.end()], body[end.end() :])


def _merged_front(old: str, new: str) -> str:
    """Return YAML text with the generated keys, followed by the old card's other keys; the text ends in a newline."""
    content, added = _mapping(new), _mapping(old)
    tags = _united(content.get("tags"), added.get("tags"))
    if tags != content.get("tags", []):
        new = yaml.safe_dump({**content, "tags": tags}, sort_keys=False, allow_unicode=True)
    replaced = {*content, *_GO_WITH_THE_RUN, "tags"}
    if "license" in content:
        replaced.add("license_name")
        if any(content.get(key) != added.get(key) for key in ("license", "license_name")):
            replaced.add("license_link")  # links to the text of another licence
    kept = [_comments(block) if key in replaced else block for key, block in _blocks(old)]
    return "".join(f"{block.rstrip()}\n" for block in (new, *kept) if block.strip())


def _mapping(text: str) -> dict[Any, Any]:
    if len(text) > _LARGEST_FRONT_MATTER:
        raise _front_matter_error(f"it has {len(text):,} characters; expected at most {_LARGEST_FRONT_MATTER:,}")
    try:
        _check_structure(text)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _front_matter_error(f"not YAML: {' '.join(str(error).split()):.200}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or text.lstrip().startswith("{"):
        raise _front_matter_error("expected lines KEY: VALUE")
    return content


def _check_structure(text: str) -> None:
    """Raise an error for YAML aliases and deep nesting while parsing, before the YAML is loaded."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        # With an alias, one key depends on another; also, a few lines of aliases can expand to gigabytes.
        if isinstance(event, yaml.AliasEvent):
            raise _front_matter_error("it uses aliases (*name), which zoo does not merge")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_NESTING:
            raise _front_matter_error(f"its values are nested more than {_DEEPEST_NESTING} levels deep")


def _front_matter_error(fault: str) -> DataError:
    message = f"the front matter of the card cannot be merged: {fault}; {_ADVICE}"
    return DataError(message, code="card-front-matter", fault=fault)


def _united(ours: object, theirs: object) -> list[str]:
    """Return the generated tags, then the user's tags; earlier generated tags are dropped, as they may be outdated."""
    mine = ours if isinstance(ours, list) else []
    given = [theirs] if isinstance(theirs, str) else theirs if isinstance(theirs, list) else []
    return [*mine, *dict.fromkeys(tag for tag in given if tag not in mine and tag not in _OUR_TAGS)]


def _blocks(text: str) -> list[tuple[str, str]]:
    """Return each top-level key with its unchanged source lines, including the comment lines above the key."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return []
    lines = text.splitlines(keepends=True)
    line_of = {start: number for number, start in enumerate(accumulate(map(len, lines), initial=0))}

    def with_comments(start: int) -> int:
        number = line_of.get(start, 0)
        while number > 0 and lines[number - 1].startswith("#"):
            number -= 1
            start -= len(lines[number])
        return start

    keys = [(str(key.value), with_comments(key.start_mark.index)) for key, _value in node.value]
    ends = [start for _key, start in keys[1:]] + [len(text)]
    return [(key, text[start:end]) for (key, start), end in zip(keys, ends, strict=True)]


def _comments(block: str) -> str:
    # An indented "#" may belong to a text of several lines, so only lines that start with "#" are comments.
    return "".join(line for line in block.splitlines(keepends=True) if line.startswith("#"))
