"""Builds the tree of published files from a finished run, and publishes a tree to a folder.

The tree is the same for a repository of the Hub and for a folder: card, checkpoint, configuration, record, history,
plots. The record is the run's own, without the folders of this machine. The training state is never published.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from zoo.errors import UsageError, WeightsError
from zoo_harness.checkpoints.load import how_to_finish
from zoo_harness.hub.fetch import ListedFile
from zoo_harness.records.file_names import (
    CARD,
    CHECKPOINT,
    CONFIGURATION,
    CONFUSION,
    HISTORY,
    PLOTS,
    RECORD,
    SAMPLES,
    is_published,
)
from zoo_harness.records.run import RunRecord, read_run
from zoo_harness.reports.card_merge import merged_card, read_card
from zoo_harness.reports.wording import command_without_folders, without_folders
from zoo_harness.util.atomic_files import create_folder, replacing, write_bytes, write_text
from zoo_harness.util.digests import sha256_of

State = Literal["new", "changed", "same", "deleted"]
_Model = TypeVar("_Model", bound=BaseModel)
_PNG = b"\x89PNG\r\n\x1a\n"
_OPTIONAL = (HISTORY, CONFUSION, *PLOTS)  # a run may lack them; those of an earlier run would be taken for its own


@dataclass(frozen=True)
class Change:
    """The effect on one file: its new size in bytes and SHA-256, ``None`` for a deleted file."""

    path: str
    size: int | None
    sha256: str | None
    state: State


def write_tree(
    run: Path,
    to: Path,
    old_card: str | None = None,
    repository: str | None = None,
    *,
    samples: bool | None = None,
    link: bool = False,
) -> RunRecord:
    """Write the published files of a finished run into an empty folder, and return the published record.

    ``old_card`` is the card at the destination; a person's text in it is preserved, or that in the run's card if it is
    ``None``. ``repository`` is the destination, for the code in the card. ``samples`` includes the grid of images;
    ``None`` includes it unless the images are the user's own. ``link`` links to the checkpoint instead of copying it.

    Raises :class:`~zoo.errors.UsageError` for an unfinished run, :class:`~zoo.errors.WeightsError` for a checkpoint
    that was changed after the run.
    """
    record = publishable(run)
    hidden = samples is False or (samples is None and of_own_images(record))
    plots = tuple(name for name in record.plots if (run / name).is_file() and not (hidden and name == SAMPLES))
    record = without_local_folders(record.model_copy(update={"plots": plots}))
    to.mkdir(parents=True, exist_ok=True)
    if link:
        (to / CHECKPOINT).symlink_to((run / CHECKPOINT).resolve())
    else:
        shutil.copyfile(run / CHECKPOINT, to / CHECKPOINT)
    for name in (CONFIGURATION, HISTORY, *_files_named_in_card(record), *plots):
        if (run / name).is_file() and (run / name).stat().st_size:
            shutil.copyfile(run / name, to / name)
    # Bytes, because a text file would change the line ends of an old card.
    write_bytes(to / CARD, _card(run, record, old_card, repository).encode())
    write_text(to / RECORD, record.to_json())
    return record


def of_own_images(record: RunRecord) -> bool:
    """Whether a run used images from a folder or the memory of this machine, which may be private."""
    return record.dataset.in_memory or (record.dataset.argument is not None and record.dataset.hub_id is None)


def publishable(run: Path) -> RunRecord:
    """Return the record of a run that can be published; raise the errors of :func:`write_tree`."""
    record = read_run(run)
    if record.status != "finished":
        progress, resume = how_to_finish(record, run)
        message = f"{run} cannot be published: {progress}; finish it first: {resume}"
        raise UsageError(message, code="run-not-finished", path=run, status=record.status, resume=resume)
    wanted = [CHECKPOINT, CONFIGURATION, *_files_named_in_card(record)]
    missing = [name for name in wanted if not (run / name).is_file()]
    if missing or record.checkpoint_sha256 is None:
        lack = " and no ".join(missing) or "digest of a checkpoint"
        message = f"{run} cannot be published: it has no {lack}"
        raise UsageError(message, code="run-incomplete", path=run, missing=missing)
    for name in record.plots:
        if (run / name).is_file() and not (run / name).read_bytes().startswith(_PNG):
            raise UsageError(f"{run / name} is not a PNG image; it is not published", code="not-png", path=run / name)
    if (found := sha256_of(run / CHECKPOINT)) != record.checkpoint_sha256:
        raise WeightsError(
            f"{run / CHECKPOINT}: SHA-256 is {found}, the run wrote {record.checkpoint_sha256}; "
            "it was changed after the run and is not published",
            code="checkpoint-changed",
            path=run / CHECKPOINT,
        )
    return record


def _files_named_in_card(record: RunRecord) -> list[str]:
    history = [HISTORY] if record.results.epochs_done else []
    return [*history, *([CONFUSION] if record.results.confusion is not None else [])]


def without_local_folders(record: RunRecord) -> RunRecord:
    """Return the record with each path of this machine reduced to its last part."""
    # Not in all texts: a class may have a name such as "/m/01g317".
    results, reading = record.results, tuple(map(without_folders, record.dataset.reading))
    if results.frozen_part is not None:
        results = results.model_copy(update={"frozen_part": _freed(results.frozen_part, "reason", "place")})
    return record.model_copy(
        update={
            "command": command_without_folders(record.command),
            "weights": _freed(record.weights, "source", "filename"),
            "dataset": _freed(record.dataset, "argument", "source", "title", "subset").model_copy(
                update={"reading": reading}
            ),
            "results": results,
        }
    )


def _freed(part: _Model, *names: str) -> _Model:
    texts = {name: getattr(part, name) for name in names}
    return part.model_copy(update={name: text and without_folders(text) for name, text in texts.items()})


def _card(run: Path, record: RunRecord, old: str | None, repository: str | None) -> str:
    from zoo_harness.reports.run_card import render_card

    where = f"card in {repository or 'the folder'}"
    if old is None:
        where, old = f"card of {run}", read_card(run)
    try:
        return merged_card(old, render_card(record, repository, published=True))
    except UsageError as error:
        error.args = (f"{where}: {error}",)
        raise


def compare(tree: Path, there: Mapping[str, ListedFile]) -> list[Change]:
    """Compare a tree with a destination: each file of the tree, then the stale files of an earlier run."""
    names = sorted(path.name for path in tree.iterdir())
    stale = sorted(name for name in there if name in _OPTIONAL and name not in names)
    changes = [_change(tree / name, there.get(name)) for name in names]
    return [*changes, *(Change(name, None, None, "deleted") for name in stale)]


def _change(path: Path, listed: ListedFile | None) -> Change:
    size, sha256 = path.stat().st_size, sha256_of(path)
    state: State = "new" if listed is None else "same" if listed.matches(path, sha256) else "changed"
    return Change(path.name, size, sha256, state)


def compare_with_folder(tree: Path, to: Path) -> list[Change]:
    """Compare a tree with a folder.

    Raises :class:`~zoo.errors.UsageError` for a folder with other content than a published run.
    """
    check_folder(to)
    files = [path for path in to.iterdir() if path.is_file() and is_published(path.name)] if to.is_dir() else []
    return compare(tree, {path.name: ListedFile(path.stat().st_size, sha256_of(path)) for path in files})


def check_folder(to: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` for a folder with other content than a published run."""
    if to.is_dir() and any(to.iterdir()) and not (to / RECORD).is_file():
        message = f"--to {str(to)!r} holds something else than a published run; expected a folder not there yet"
        raise UsageError(message, code="folder-in-use", option="to", path=to)
    if (to.exists() or to.is_symlink()) and not to.is_dir():
        message = f"--to {str(to)!r} is a file; expected a folder, or a repository as OWNER/NAME"
        raise UsageError(message, code="not-a-folder", option="to", path=to)


def publish_to_folder(tree: Path, to: Path) -> list[Change]:
    """Copy ``tree`` to a folder and return the changes; files that are not of a run stay.

    A new folder appears whole; in an existing one each file is replaced whole, the record last. Raises the errors of
    :func:`compare_with_folder`.
    """
    changes = compare_with_folder(tree, to)
    if not to.exists() or not any(to.iterdir()):
        create_folder(to, {change.path: tree / change.path for change in changes})
        return changes
    # The record last, because it promises the other files.
    for change in sorted(changes, key=lambda change: change.path == RECORD):
        if change.state == "deleted":
            (to / change.path).unlink()
        elif change.state != "same":
            with replacing(to / change.path) as temporary:
                shutil.copyfile(tree / change.path, temporary)
    return changes
