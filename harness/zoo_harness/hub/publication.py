"""Build the folder of files that a finished run publishes, and copy these files to a target folder.

A Hub repository and a folder receive the same files: card, checkpoint, configuration, record, history and plots. The
record is a copy of the run's record without the paths of this machine. The training state is never published.

A run directory may come from an untrusted source. Each file is therefore opened without following links, parsed, and
written again from the parsed content. Plots are published without metadata chunks. The checkpoint is a private copy
with a verified digest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from zoo.errors import DataError, UsageError
from zoo_harness.checkpoints.opened import changed_checkpoint, how_to_finish
from zoo_harness.hub.fetch import MOST_CHECKPOINT_BYTES, MOST_OTHER_BYTES, ListedFile
from zoo_harness.hub.run_files import (
    parse_configuration,
    parse_confusion,
    parse_epochs,
    parse_plot,
    parse_run_predictions,
)
from zoo_harness.records.file_names import (
    CARD,
    CHECKPOINT,
    CONFIGURATION,
    CONFUSION,
    HISTORY,
    PLOTS,
    PREDICTIONS,
    RECORD,
    SAMPLES,
)
from zoo_harness.records.run import LARGEST_RECORD, RunRecord, parse_run, record_file
from zoo_harness.reports.card_merge import merged_card, read_card
from zoo_harness.reports.wording import command_without_folders, without_folders
from zoo_harness.util.atomic_files import (
    create_folder,
    folder_lock,
    full_disk_named,
    remove_temporaries,
    replacing,
)
from zoo_harness.util.digests import copy_with_sha256, sha256_of
from zoo_harness.util.safe_files import open_regular, read_regular

State = Literal["new", "changed", "same", "deleted"]
_Model = TypeVar("_Model", bound=BaseModel)
_MOST_PLOTS = 100
# Optional files: if the new run lacks one, zoo deletes that file of an earlier run, which would be misleading.
_OPTIONAL = (HISTORY, CONFUSION, PREDICTIONS, *PLOTS)


@dataclass(frozen=True)
class Change:
    """Describe how publishing changes one file; ``size`` in bytes and ``sha256`` are ``None`` for a deleted file."""

    path: str
    size: int | None
    sha256: str | None
    state: State


@dataclass(frozen=True)
class RunFiles:
    """Hold a finished run's record and the parsed content of its publishable files, without card and checkpoint."""

    directory: Path
    record: RunRecord
    contents: dict[str, bytes]


def write_tree(
    files: RunFiles,
    to: Path,
    old_card: str | None = None,
    repository: str | None = None,
    *,
    samples: bool | None = None,
) -> RunRecord:
    """Write the files of a :func:`publishable` run into an empty folder; return the published record.

    ``old_card``: the model card at the destination, whose user-written text is preserved. If ``old_card`` is ``None``,
    the text of the run's own card is preserved. ``repository``: the destination, which appears in the card's example
    code. ``samples``: whether to publish the image grid ``samples.png``; ``None`` publishes it unless the images are
    the user's own.

    Raises :class:`~zoo.errors.UsageError` for a card that cannot be merged, :class:`~zoo.errors.WeightsError` if the
    checkpoint changed after the first check, and :class:`~zoo.errors.ZooError` if the disk is full.
    """
    run, record = files.directory, files.record
    hidden = samples is False or (samples is None and of_own_images(record))
    contents = {name: data for name, data in files.contents.items() if not (hidden and name == SAMPLES)}
    plots = tuple(name for name in record.plots if name in contents)
    record = _without_local_folders(record.model_copy(update={"plots": plots}))
    card = _card(run, record, old_card, repository)
    with full_disk_named(to, "free some space, or set TMPDIR to a folder on another disk"):
        to.mkdir(parents=True, exist_ok=True)
        with open_regular(run / CHECKPOINT, MOST_CHECKPOINT_BYTES) as checkpoint:
            _check_digest(run / CHECKPOINT, record, copy_with_sha256(checkpoint, to / CHECKPOINT))
        # Write bytes: text mode would change the line endings of an old card.
        for name, data in {**contents, CARD: card.encode(), RECORD: record.to_json().encode()}.items():
            (to / name).write_bytes(data)
    return record


def of_own_images(record: RunRecord) -> bool:
    """Whether a run used the user's own images, from a local folder or from memory, which may be private."""
    return record.dataset.in_memory or (record.dataset.argument is not None and record.dataset.hub_id is None)


def publishable(run: Path) -> RunFiles:
    """Read and check all files of a run that zoo can publish.

    Raises :class:`~zoo.errors.UsageError` if the folder has no finished run, and :class:`~zoo.errors.DataError` for a
    missing or invalid file. Raises :class:`~zoo.errors.WeightsError` for a checkpoint that was changed after the run.
    Raises :class:`~zoo.errors.ZooError` for a link, a pipe or device, and a file that is too large.
    """
    record = _read_record(run)
    if record.status != "finished":
        progress, resume = how_to_finish(record, run)
        message = f"{run} cannot be published: {progress}; finish the run first: {resume}"
        raise UsageError(message, code="run-not-finished", path=run, status=record.status, resume=resume)
    contents = _read_parsed(run, record)
    try:
        with open_regular(run / CHECKPOINT, MOST_CHECKPOINT_BYTES) as checkpoint:
            found = copy_with_sha256(checkpoint, None)
    except FileNotFoundError:
        found = None
    wanted = [CONFIGURATION, *_files_named_in_card(record)]
    missing = [*([CHECKPOINT] if found is None else []), *(name for name in wanted if name not in contents)]
    if missing or record.checkpoint_sha256 is None or found is None:
        lack = " and no ".join(missing) or "digest of a checkpoint"
        message = f"{run} cannot be published: it has no {lack}"
        raise DataError(message, code="run-incomplete", path=run, missing=missing)
    _check_digest(run / CHECKPOINT, record, found)
    return RunFiles(run, record, contents)


def _read_record(run: Path) -> RunRecord:
    path = record_file(run)
    try:
        return parse_run(read_regular(path, LARGEST_RECORD), path)
    except FileNotFoundError as error:
        message = f"{run} is not a run directory: {path.name}: {error.strerror}"
        raise UsageError(message, code="not-a-run", path=path) from error


def _read_parsed(run: Path, record: RunRecord) -> dict[str, bytes]:
    """Return a mapping from file name to the content to publish, without the checkpoint and without missing files."""
    if len(record.plots) > _MOST_PLOTS:
        message = f"{run} cannot be published: it lists {len(record.plots):,} plots; expected at most {_MOST_PLOTS}"
        raise DataError(message, code="too-many-plots", path=run)
    parsers: dict[str, Callable[[bytes, Path, RunRecord], bytes]] = {
        CONFIGURATION: parse_configuration,
        HISTORY: parse_epochs,
        CONFUSION: parse_confusion,
        PREDICTIONS: parse_run_predictions,
        **dict.fromkeys(record.plots, parse_plot),
    }
    described = {CONFUSION: record.results.confusion, PREDICTIONS: record.results.predictions}
    contents = {}
    for name, parse in parsers.items():
        try:
            content = read_regular(run / name, MOST_OTHER_BYTES if name == PREDICTIONS else LARGEST_RECORD)
        except FileNotFoundError:
            continue
        # A run without epochs has an empty history, which is not published.
        if content and not (name in described and described[name] is None):
            contents[name] = parse(content, run / name, record)
    return contents


def _check_digest(path: Path, record: RunRecord, found: str) -> None:
    if record.checkpoint_sha256 is not None and found != record.checkpoint_sha256:
        raise changed_checkpoint(path, found, record.checkpoint_sha256)


def _files_named_in_card(record: RunRecord) -> list[str]:
    history = [HISTORY] if record.results.epochs_done else []
    predictions = [PREDICTIONS] if record.results.predictions is not None else []
    return [*history, *([CONFUSION] if record.results.confusion is not None else []), *predictions]


def _without_local_folders(record: RunRecord) -> RunRecord:
    """Return a copy of the record in which each local path is reduced to its last component."""

    def shortened(part: _Model, *names: str) -> _Model:
        texts = {name: getattr(part, name) for name in names}
        return part.model_copy(update={name: text and without_folders(text) for name, text in texts.items()})

    # Shorten only these fields: a class name such as "/m/01g317" is not a path.
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
    except DataError as error:
        error.args = (f"{where}: {error}",)
        raise


def compare(tree: Path, there: Mapping[str, ListedFile]) -> list[Change]:
    """List the changes that publishing ``tree`` makes: its own files first, then deleted files of an earlier run."""
    changes = []
    for path in sorted(tree.iterdir()):
        listed, sha256 = there.get(path.name), sha256_of(path)
        state: State = "new" if listed is None else "same" if listed.matches(path, sha256) else "changed"
        changes.append(Change(path.name, path.stat().st_size, sha256, state))
    stale = sorted(name for name in there if name in _OPTIONAL and not (tree / name).exists())
    return [*changes, *(Change(name, None, None, "deleted") for name in stale)]


def compare_with_folder(tree: Path, to: Path) -> list[Change]:
    """List the changes that publishing ``tree`` makes in a local folder that :func:`check_folder` accepts."""
    files = {}
    for name in {*_OPTIONAL, *(path.name for path in tree.iterdir())}:
        try:
            with open_regular(to / name, MOST_CHECKPOINT_BYTES) as file:
                size = os.fstat(file.fileno()).st_size
                files[name] = ListedFile(size, copy_with_sha256(file, None))
        except FileNotFoundError:
            continue
    return compare(tree, files)


def check_folder(to: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` if a target folder has content that is not a published run."""
    if to.is_dir() and any(to.iterdir()) and not (to / RECORD).is_file():
        message = f"--to {str(to)!r} has content that is not a published run; expected a folder that does not exist yet"
        raise UsageError(message, code="folder-in-use", option="to", path=to)
    if (to.exists() or to.is_symlink()) and not to.is_dir():
        message = f"--to {str(to)!r} is a file; expected a folder, or a repository as OWNER/NAME"
        raise UsageError(message, code="not-a-folder", option="to", path=to)


def publish_to_folder(tree: Path, to: Path, changes: Iterable[Change]) -> None:
    """Copy the files of ``tree`` to a folder, as ``changes`` lists; unrelated files in the folder stay.

    A new folder appears only when it is complete. In an existing folder, each file is replaced atomically, and the
    record is replaced last. Temporary files of a killed process are removed. Raises :class:`~zoo.errors.UsageError` if
    another process is publishing to the folder, and :class:`~zoo.errors.ZooError` if the disk is full.
    """
    if not to.exists() or not any(to.iterdir()):
        create_folder(to, {path.name: path for path in tree.iterdir()})
        return
    with full_disk_named(to, "free some space"), folder_lock(to) as locked:
        if not locked:
            message = f"another process publishes to {to} now; try again when that process has finished"
            raise UsageError(message, code="folder-locked", option="to", path=to)
        remove_temporaries(to, (path.name for path in tree.iterdir()))
        # Write the record last, because it lists the other files.
        for change in sorted(changes, key=lambda change: change.path == RECORD):
            if change.state == "deleted":
                (to / change.path).unlink()
            elif change.state != "same":
                with replacing(to / change.path) as temporary:
                    shutil.copyfile(tree / change.path, temporary)
