"""Parses the names of the Hub's repositories and revisions; imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UsageError

# The Hub's rules: at most 96 characters; parts of letters, digits, - _ . that neither begin nor end with - or a dot.
# The Hub's client accepts letters of any alphabet, the Hub only ASCII.
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_LONGEST = 96

# git check-ref-format, and the numbers of pull requests (refs/pr/3).
_NO_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.|\.lock(?:/|$)")
_EXPECTED = "write it as OWNER/NAME or OWNER/NAME@REVISION"


@dataclass(frozen=True)
class RepositoryReference:
    """A model repository of the Hub, and a branch, tag or commit of it; ``None`` means ``main``."""

    owner: str
    name: str
    revision: str | None = None

    @property
    def id(self) -> str:
        """The name of the repository without the revision.

        >>> RepositoryReference("ada", "net", "v1").id
        'ada/net'
        """
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def parse_reference(text: str) -> RepositoryReference:
    """Read ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

    Raises :class:`~zoo.errors.UsageError` for names that the Hub forbids: with ``..``, spaces, more slashes, or letters
    that are not ASCII.

    >>> parse_reference("ada/net@refs/pr/1")
    RepositoryReference(owner='ada', name='net', revision='refs/pr/1')
    """
    identifier, at, revision = text.partition("@")
    if "://" in text:
        raise UsageError(f"{text!r} is an address; {_EXPECTED}, which stand at its end")
    parts = identifier.split("/")
    if ".." in identifier:
        raise UsageError(f"{text!r} is not a repository of the Hub: it has '..'; {_EXPECTED}")
    if len(parts) != 2:
        raise UsageError(f"{text!r} is not a repository of the Hub: it has {len(parts)} part(s); {_EXPECTED}")
    for part in parts:
        _check_part(text, part)
    if len(identifier) > _LONGEST:
        raise UsageError(f"{text!r} is {len(identifier)} characters long; a repository's name has at most {_LONGEST}")
    if at:
        check_revision(revision)
    return RepositoryReference(parts[0], parts[1], revision if at else None)


def check_revision(revision: str) -> None:
    """Raise :class:`~zoo.errors.UsageError` unless a text can name a branch, a tag or a commit.

    >>> check_revision("run-20261122")
    """
    if not revision or revision[0] in "-/." or revision[-1] in "/." or _NO_REVISION.search(revision):
        raise UsageError(f"{revision!r} is not a revision; give a branch, a tag or a commit such as main")


def means_a_path(text: str) -> bool:
    """Whether a destination is a folder: it begins with /, ./, ../ or ~, or ends in /.

    >>> [means_a_path(text) for text in ("./net", "~/net", "out/", "..", "ada/net")]
    [True, True, True, True, False]
    """
    return text.startswith(("/", "./", "../", "~")) or text.endswith("/") or text in (".", "..")


def _check_part(text: str, part: str) -> None:
    wrong = sorted({repr(character) for character in part if not re.match(r"[A-Za-z0-9_.-]", character)})
    if wrong:
        raise UsageError(f"{text!r} is not a repository of the Hub: it has {', '.join(wrong)}; {_EXPECTED}")
    if "--" in part:
        raise UsageError(f"{text!r} is not a repository of the Hub: it has '--'; {_EXPECTED}")
    if _PART.fullmatch(part) is None:
        which = "a part of it is empty" if not part else f"{part!r} begins or ends with '-' or '.'"
        raise UsageError(f"{text!r} is not a repository of the Hub: {which}; {_EXPECTED}")
    if part.endswith(".git"):
        raise UsageError(f"{text!r} is not a repository of the Hub: no name ends in '.git'; leave that out")
