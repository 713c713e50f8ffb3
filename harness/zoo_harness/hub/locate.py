"""Finds the checkpoint that a user names: a folder on this machine, or a repository of the Hub.

It never imports torch, and imports huggingface_hub only for a repository.
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
    """The folder of a checkpoint, and the repository it was fetched from, ``None`` for a local folder."""

    path: Path
    reference: RepositoryReference | None = None

    @property
    def commit(self) -> str | None:
        """The commit that the folder holds, ``None`` if the folder is not in the Hub's cache."""
        return self.path.name if self.reference is not None and self.path.parent.name == "snapshots" else None


def names_a_checkpoint(text: str) -> bool:
    """Whether a text names a folder or a repository, not a backbone: it has a slash, or is a folder with a run.

    >>> names_a_checkpoint("someone/cats"), names_a_checkpoint("resnet18"), names_a_checkpoint(".")
    (True, False, True)
    """
    from zoo.registry import load_registry
    from zoo_harness.records.run import record_file

    if "/" in text or text in (".", "..", "~"):
        return True
    # os.path, because Path.exists raises for a name too long for a file.
    return text not in load_registry().backbones and os.path.exists(record_file(Path(text)))  # noqa: PTH110


def find_checkpoint(named: str | Path, say: Callable[[str], None] = lambda _line: None) -> CheckpointPlace:
    """Return the folder of a checkpoint, fetched if necessary; ``say`` receives what is fetched.

    A string that names an existing folder is a path, any other is ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. Raises
    :class:`~zoo.errors.UsageError` if it is neither, and a :class:`~zoo.errors.ZooError` if a repository cannot be
    fetched.
    """
    path = _expanded(named)
    if isinstance(named, Path) or os.path.isdir(path):  # noqa: PTH112 - as above
        return CheckpointPlace(path)
    if os.path.exists(path):  # noqa: PTH110
        raise UsageError(f"{named!r} is a file; give the folder it is in, {str(path.parent)!r}")
    reference = reference_of(named)
    try:
        return fetched(reference, say)
    except ZooError as error:  # the name may be a misspelt folder
        error.args = (f"there is no folder {named!r} here; {error}",)
        raise


def _expanded(named: str | Path) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{str(named)!r}: {error}") from error


def reference_of(named: str) -> RepositoryReference:
    """Parse the name of a repository; raise :class:`~zoo.errors.UsageError` for a missing folder."""
    from zoo_harness.hub.names import parse_reference

    if "/" not in named.strip("/") or named.startswith(("/", ".", "~")):
        raise UsageError(f"no such folder {named!r}; a repository of the Hub is written OWNER/NAME")
    try:
        return parse_reference(named)
    except UsageError as error:
        raise UsageError(f"{named!r} is no folder here, and no repository: {error}") from error


def fetched(reference: RepositoryReference, say: Callable[[str], None]) -> CheckpointPlace:
    """Fetch a repository into the Hub's cache; without network use what is cached."""
    from zoo_harness.hub.fetch import fetch_snapshot

    return CheckpointPlace(fetch_snapshot(reference, None, say), reference)
