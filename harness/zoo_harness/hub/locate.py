"""Find a checkpoint folder on this machine, or download a checkpoint from the Hugging Face Hub.

Finding a checkpoint never imports torch. huggingface_hub is imported only for a repository of the Hub.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import UsageError, ZooError
from zoo_harness.hub.names import RepositoryReference, parse_reference
from zoo_harness.records.file_names import PREDICTIONS, RECORD

if TYPE_CHECKING:
    from zoo_harness.records.run import RunRecord

_ANY_SIZE = 2**63  # a limit in bytes that every checkpoint satisfies, because a comparison does not load the checkpoint


@dataclass(frozen=True)
class CheckpointPlace:
    """Hold the folder of a checkpoint, and for a downloaded checkpoint the repository and the commit id."""

    path: Path
    reference: RepositoryReference | None = None
    commit: str | None = None


def names_a_checkpoint(text: str) -> bool:
    """Whether a command-line argument names a run folder or a Hub repository, rather than a backbone.

    >>> names_a_checkpoint("someone/cats"), names_a_checkpoint("resnet18"), names_a_checkpoint(".")
    (True, False, True)
    """
    from zoo.registry import load_registry
    from zoo_harness.records.run import record_file

    if "/" in text or text in (".", "..", "~"):
        return True
    # Use os.path: Path.exists raises an error if the name is too long.
    return text not in load_registry().backbones and os.path.exists(record_file(Path(text)))  # noqa: PTH110


def find_checkpoint(
    named: str | Path, say: Callable[[str], None] = lambda _line: None, only: Collection[str] | None = None
) -> CheckpointPlace:
    """Return the folder of a checkpoint, and download the checkpoint first if a Hub repository is given.

    ``only`` names the files to download, and must include the record; ``None`` downloads all published files.
    A string that names an existing folder is a path. Any other string must have the form ``OWNER/NAME`` or
    ``OWNER/NAME@REVISION``. ``say`` receives progress messages. Raises :class:`~zoo.errors.UsageError` for an invalid
    name, and another :class:`~zoo.errors.ZooError` if a repository cannot be downloaded.
    """
    try:
        path = Path(named).expanduser()
    except RuntimeError as error:
        raise UsageError(f"no such folder: {str(named)!r}: {error}", code="no-such-folder", given=named) from error
    if isinstance(named, Path) or os.path.isdir(path):  # noqa: PTH112 - as above
        return CheckpointPlace(path)
    if os.path.exists(path):  # noqa: PTH110
        message = f"{named!r} is a file; expected the folder of a checkpoint; try {str(path.parent)!r}"
        raise UsageError(message, code="not-a-folder", given=named)
    if "/" not in named.strip("/") or named.startswith(("/", ".", "~")):
        message = f"no such folder: {named!r}; a repository of the Hub is written OWNER/NAME"
        raise UsageError(message, code="no-such-folder", given=named)
    try:
        from zoo_harness.hub.fetch import fetch_snapshot

        reference = parse_reference(named)
        snapshot = fetch_snapshot(reference, say, only)
        return CheckpointPlace(snapshot, reference, snapshot.name)
    except ZooError as error:  # the user may have misspelt the name of a folder
        error.args = (f"there is no folder {named!r} here; {error}",)
        raise


def fetch_record(named: str, say: Callable[[str], None]) -> tuple[Path, RunRecord, str | None]:
    """Download the record and the predictions of a repository without the checkpoint; return folder, record and commit.

    Raises a :class:`~zoo.errors.ZooError` if there is no such run, or if the fetched files contradict each other.
    """
    place = find_checkpoint(named, say, (RECORD, PREDICTIONS))

    from zoo_harness.hub.run_files import check_pulled_predictions  # imports numpy
    from zoo_harness.records.run import read_run
    from zoo_harness.records.untrusted import check_record

    try:
        record = read_run(place.path)
        check_record(record, RECORD, _ANY_SIZE, published=True)
        if record.results.predictions is not None:
            check_pulled_predictions(place.path, record)
    except ZooError as error:
        error.args = (f"{place.reference}: {error}",)
        raise
    return place.path, record, place.commit


def pull_checkpoint(repository: str, to: str | Path | None, say: Callable[[str], None]) -> tuple[Path, str | None]:
    """Download a checkpoint, check it by running it once, and copy it to ``to``; return folder and commit id.

    ``to`` must be empty or must not exist. The files appear in ``to`` only after all checks succeeded. Raises a
    :class:`~zoo.errors.ZooError` if the repository cannot be downloaded. Raises :class:`~zoo.errors.WeightsError` if
    the checkpoint differs from its record.
    """
    reference, target = parse_reference(repository), None if to is None else Path(to).expanduser()
    if target is not None:
        _check_target(target)
    from zoo_harness.checkpoints.opened import check_digest, open_checkpoint
    from zoo_harness.hub.errors import translate_hub_errors
    from zoo_harness.hub.fetch import fetch_snapshot
    from zoo_harness.hub.run_files import check_pulled_predictions
    from zoo_harness.records.file_names import CHECKPOINT, is_published
    from zoo_harness.util.atomic_files import create_folder

    snapshot = fetch_snapshot(reference, say)
    opened = open_checkpoint(snapshot)

    from zoo_harness.checkpoints.load import load_folder  # imports torch, which takes seconds

    model = load_folder(opened)
    model.check_that_it_runs()
    images = check_pulled_predictions(snapshot, model.record)
    say(f"{reference}: the tensors match the record in digest, names, types and shapes, and the network runs")
    if images is not None:
        say(f"{reference}: the predictions for {images:,} images match the record")
    if target is not None:
        with translate_hub_errors("fetch", reference):
            create_folder(target, {file.name: file for file in snapshot.iterdir() if is_published(file.name)})
        assert model.record.checkpoint_sha256 is not None  # noqa: S101 - loading checked the digest
        check_digest(target / CHECKPOINT, model.record.checkpoint_sha256)
    return target or snapshot, snapshot.name


def _check_target(to: Path) -> None:
    if to.is_symlink() or (os.path.lexists(to) and not (to.is_dir() and not any(to.iterdir()))):
        kind = "is a link" if to.is_symlink() else "is not empty" if to.is_dir() else "is a file"
        message = f"--to {str(to)!r} {kind}; expected a folder that does not exist yet"
        raise UsageError(message, code="folder-in-use", option="to", path=to)
