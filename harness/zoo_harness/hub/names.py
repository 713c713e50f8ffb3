"""Parse names of Hugging Face Hub repositories and revisions, without heavy imports."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UsageError, shortened

# The Hub's rules for names. The Hub accepts only ASCII letters, although its client accepts any alphabet.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?!.*(?:\.\.|--|\.git(?:/|$)))({_PART})/({_PART})")
_LONGEST = 96

# The rules of git check-ref-format, which also allow pull requests such as refs/pr/3.
_NO_REVISION = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^$")


@dataclass(frozen=True)
class RepositoryReference:
    """Name a model repository on the Hub and one of its branches, tags or commits; ``None`` means ``main``."""

    owner: str
    name: str
    revision: str | None = None

    @property
    def id(self) -> str:
        """The name of the repository, ``OWNER/NAME``, without the revision.

        >>> RepositoryReference("ada", "net", "v1").id
        'ada/net'
        """
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def parse_reference(text: str) -> RepositoryReference:
    """Parse ``OWNER/NAME`` or ``OWNER/NAME@REVISION``; raise :class:`~zoo.errors.UsageError` for other text.

    >>> parse_reference("ada/net@refs/pr/1")
    RepositoryReference(owner='ada', name='net', revision='refs/pr/1')
    """
    identifier, at, revision = text.partition("@")
    parts = _NAME.fullmatch(identifier)
    if parts is None or len(identifier) > _LONGEST:
        raise UsageError(
            f"not a repository of the Hub: {shortened(text)}; expected OWNER/NAME or OWNER/NAME@REVISION, in ASCII "
            f"letters, digits and single '-', '_' or '.', at most {_LONGEST} characters, without 'https://' and "
            "'.git'; write ./NAME for a folder",
            code="not-a-repository",
            given=text,
        )
    if at and _NO_REVISION.search(revision):
        raise UsageError(
            f"not a revision: {shortened(revision)}; expected a commit, a tag, or a branch such as main",
            code="not-a-revision",
            given=revision,
        )
    return RepositoryReference(parts[1], parts[2], revision if at else None)


def means_a_path(text: str) -> bool:
    """Whether a destination is a folder rather than a repository: it starts with /, ./, ../ or ~, or ends with /.

    >>> [means_a_path(text) for text in ("./net", "~/net", "out/", "..", "ada/net")]
    [True, True, True, True, False]
    """
    return text.startswith(("/", "./", "../", "~")) or text.endswith("/") or text in (".", "..")
