"""Builds the tree of published files from a finished run, and publishes a tree to a folder.

The tree is the same for a repository of the Hub and for a folder: card, checkpoint, configuration, record, history,
plots. The record is the run's own, without the folders of this machine. The training state is never published.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from zoo.errors import UsageError
from zoo_harness.checkpoints.load import how_to_finish
from zoo_harness.checkpoints.tensor_checks import check_digest
from zoo_harness.hub.fetch import ListedFile
from zoo_harness.records.file_names import CARD, CHECKPOINT, CONFIGURATION, CONFUSION, HISTORY, PLOTS, RECORD, SAMPLES
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
    record: RunRecord,
    to: Path,
    old_card: str | None = None,
    repository: str | None = None,
    *,
    samples: bool | None = None,
) -> RunRecord:
    """Write the published files of a :func:`publishable` run into an empty folder, and return the published record.

    The checkpoint becomes a link. ``old_card`` is the card at the destination; a person's text in it is preserved, or
    that in the run's card if it is ``None``. ``repository`` is the destination, for the code in the card. ``samples``
    includes the grid of images; ``None`` includes it unless the images are the user's own. Raises
    :class:`~zoo.errors.UsageError` for a card that cannot be merged.
    """
    hidden = samples is False or (samples is None and of_own_images(record))
    plots = tuple(name for name in record.plots if (run / name).is_file() and not (hidden and name == SAMPLES))
    record = _without_local_folders(record.model_copy(update={"plots": plots}))
    to.mkdir(parents=True, exist_ok=True)
    (to / CHECKPOINT).symlink_to((run / CHECKPOINT).resolve())
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
    """Return the record of a run that can be published.

    Raises :class:`~zoo.errors.UsageError` for an unfinished run, :class:`~zoo.errors.WeightsError` for a checkpoint
    that was changed after the run.
    """
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
    check_digest(run / CHECKPOINT, record.checkpoint_sha256)
    return record


def _files_named_in_card(record: RunRecord) -> list[str]:
    history = [HISTORY] if record.results.epochs_done else []
    return [*history, *([CONFUSION] if record.results.confusion is not None else [])]


def _without_local_folders(record: RunRecord) -> RunRecord:
    """Return the record with each path of this machine reduced to its last part."""

    def shortened(part: _Model, *names: str) -> _Model:
        texts = {name: getattr(part, name) for name in names}
        return part.model_copy(update={name: text and without_folders(text) for name, text in texts.items()})

    # Not in all texts: a class may have a name such as "/m/01g317".
    results, frozen = record.results, record.results.frozen_part
    reading = tuple(map(without_folders, record.dataset.reading))
    parts = {
        "command": command_without_folders(record.command),
        "weights": shortened(record.weights, "source", "filename"),
        "dataset": shortened(record.dataset, "argument", "source", "title", "subset").model_copy(
            update={"reading": reading}
        ),
        "results": results.model_copy(update={"frozen_part": frozen and shortened(frozen, "reason", "place")}),
    }
    return record.model_copy(update=parts)


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
    changes = []
    for path in sorted(tree.iterdir()):
        listed, sha256 = there.get(path.name), sha256_of(path)
        state: State = "new" if listed is None else "same" if listed.matches(path, sha256) else "changed"
        changes.append(Change(path.name, path.stat().st_size, sha256, state))
    stale = sorted(name for name in there if name in _OPTIONAL and not (tree / name).exists())
    return [*changes, *(Change(name, None, None, "deleted") for name in stale)]


def compare_with_folder(tree: Path, to: Path) -> list[Change]:
    """Compare a tree with a folder that :func:`check_folder` accepts."""
    names = {*_OPTIONAL, *(path.name for path in tree.iterdir())}
    files = [to / name for name in names if (to / name).is_file()]
    return compare(tree, {path.name: ListedFile(path.stat().st_size, sha256_of(path)) for path in files})


def check_folder(to: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` for a folder with other content than a published run."""
    if to.is_dir() and any(to.iterdir()) and not (to / RECORD).is_file():
        message = f"--to {str(to)!r} holds something else than a published run; expected a folder not there yet"
        raise UsageError(message, code="folder-in-use", option="to", path=to)
    if (to.exists() or to.is_symlink()) and not to.is_dir():
        message = f"--to {str(to)!r} is a file; expected a folder, or a repository as OWNER/NAME"
        raise UsageError(message, code="not-a-folder", option="to", path=to)


def publish_to_folder(tree: Path, to: Path, changes: Iterable[Change]) -> None:
    """Bring a folder to the content of ``tree``; files that are not of a run stay.

    A new folder appears whole; in an existing one each file is replaced whole, the record last.
    """
    if not to.exists() or not any(to.iterdir()):
        create_folder(to, {path.name: path for path in tree.iterdir()})
        return
    # The record last, because it promises the other files.
    for change in sorted(changes, key=lambda change: change.path == RECORD):
        if change.state == "deleted":
            (to / change.path).unlink()
        elif change.state != "same":
            with replacing(to / change.path) as temporary:
                shutil.copyfile(tree / change.path, temporary)
