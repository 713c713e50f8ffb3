"""Where a checkpoint lies that a user names: a folder of this machine, or a repository of the Hub.

Nothing here imports torch, and huggingface_hub is imported only where a repository is meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from zoo_harness.hub.names import RepositoryReference


@dataclass(frozen=True)
class CheckpointPlace:
    """The folder a checkpoint is in, and the repository it was fetched from, ``None`` for a folder of the user's."""

    path: Path
    reference: RepositoryReference | None = None

    @property
    def commit(self) -> str | None:
        """The commit of the repository that the folder holds, where the Hub's cache says which."""
        return self.path.name if self.reference is not None and self.path.parent.name == "snapshots" else None


def names_a_checkpoint(text: str) -> bool:
    """Whether a name means a folder or a repository rather than a backbone: it has a slash, or a folder holds a run.

    >>> names_a_checkpoint("someone/cats"), names_a_checkpoint("resnet18"), names_a_checkpoint(".")
    (True, False, True)
    """
    from zoo.registry import load_registry
    from zoo_harness.records.run import record_file

    if "/" in text or text in (".", "..", "~"):
        return True
    # os.path: a name too long for a file is no folder either, and no error.
    return text not in load_registry().backbones and os.path.exists(record_file(Path(text)))  # noqa: PTH110


def find_checkpoint(named: str | Path, say: Callable[[str], None] = lambda _line: None) -> CheckpointPlace:
    """The folder of a checkpoint, fetched if it must be; ``say`` is told what is fetched.

    A string that names an existing folder is a path, else ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. Raises
    :class:`~zoo.errors.UsageError` for what is neither, and a :class:`~zoo.errors.ZooError` where a repository cannot
    be fetched.
    """
    path = _expanded(named)
    if isinstance(named, Path) or os.path.isdir(path):  # noqa: PTH112 - as above
        return CheckpointPlace(path)
    if os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"{named!r} is a file; give the folder it is in, {str(path.parent)!r}")
    reference = reference_of(named)
    try:
        return fetched(reference, say)
    except ZooError as error:  # perhaps a folder was meant, and misspelt
        error.args = (f"there is no folder {named!r} here; {error}",)
        raise


def _expanded(named: str | Path) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{str(named)!r}: {error}") from error


def reference_of(named: str) -> RepositoryReference:
    """The repository that a text names which names no folder."""
    from zoo_harness.hub.names import parse_reference

    if "/" not in named.strip("/") or named.startswith(("/", ".", "~")):
        raise UsageError(f"no such folder {named!r}; a repository of the Hub is written OWNER/NAME")
    try:
        return parse_reference(named)
    except UsageError as error:
        raise UsageError(f"{named!r} is no folder here, and no repository: {error}") from error


def fetched(reference: RepositoryReference, say: Callable[[str], None]) -> CheckpointPlace:
    """A repository in the Hub's cache, brought up to date where the Hub can be reached."""
    from zoo_harness.hub.fetch import fetch_snapshot

    return CheckpointPlace(fetch_snapshot(reference, None, say), reference)
