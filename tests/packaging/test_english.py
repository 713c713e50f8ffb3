"""No text of this repository uses the phrases that plain English avoids: documents, code, help, templates, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .test_repository import ROOT, committed_text_files

# Each phrase beside what to write in its place. A phrase may be broken by the end of a line, in a comment too.
PHRASES = {
    "is|are|was|were|be|been told|said": "name who says it: zoo warns, zoo reports, the error names",
    "so many|often": "give the number, or write N",
    "go|goes|going on": "continue, resume",
    "at most so": "at most N",
    "shall": "must, or say what happens",
    "cannot be meant": "is wrong: GIVEN; expected X",
    "costs nobody else": "does not affect the others",
    "data set|sets": "dataset, datasets",
    "at hand": "available, or name the place",
    "worth its|the while": "useful, or say what it found",
    "beginning with Of": "begin with the subject: the first process, not of the processes the first",
}
BREAK = r"(?:[ \t]+|[ \t]*\n[ \t]*(?:[#>|*-]+[ \t]*)?)"
BANNED = re.compile(
    r"\b(?:" + "|".join(BREAK.join(f"(?:{word})" for word in phrase.split()) for phrase in PHRASES) + r")\b"
    r"|(?-i:(?<![\w-])Of(?= [a-z]))",  # no sentence begins with the partitive of
    re.IGNORECASE,
)
# The licence is not ours, this file names the phrases, and the earlier records are what earlier versions wrote.
EXEMPT = {"LICENSE", "tests/packaging/test_english.py"}


def findings(text: str) -> list[tuple[int, str]]:
    """The line and the words of every phrase in a text."""
    return [(text.count("\n", 0, match.start()) + 1, " ".join(match[0].split())) for match in BANNED.finditer(text)]


def exempt(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return name in EXEMPT or name.startswith("tests/golden/earlier/")


def test_no_text_uses_a_banned_phrase() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for path, text in committed_text_files().items()
        if not exempt(path)
        for line, words in findings(text)
    ]
    assert found == [], "write instead: " + "; ".join(f"{phrase!r}: {better}" for phrase, better in PHRASES.items())


@pytest.mark.parametrize(
    "text",
    [
        "what is told",
        "were\n    # said",
        "At most so many",
        "it goes\non",
        "so often",
        "Shall we",
        "that cannot be meant",
        "a data\n# set",
        "Data sets at",
        "is at hand",
        "One reads. Of the others, none does.",
    ],
)
def test_a_banned_phrase_is_found_with_its_line(text: str) -> None:
    assert [line for line, _ in findings(f"first line\n{text}\n")] == [2]


@pytest.mark.parametrize(
    "text",
    ["marshall", "is not told", "sold", "going once", "so man", "shallow", "egos on", "part of the", "data setup"],
)
def test_other_words_are_not_found(text: str) -> None:
    assert findings(text) == []
