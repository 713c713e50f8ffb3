"""Builds the tree of published files from a finished run, and publishes a tree to a folder.

The tree is the same for a repository of the Hub and for a folder: card, checkpoint, configuration, record, history,
plots. The record is the run's own, without the folders of this machine. The training state is never published.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import UsageError, WeightsError, ZooError
from zoo_harness.records.file_names import (
    CARD,
    CHECKPOINT,
    CONFIGURATION,
    CONFUSION,
    HISTORY,
    PUBLISHED_FILES,
    RECORD,
    REQUIRED_FILES,
    SAMPLES,
    is_published,
)
from zoo_harness.records.run import RunRecord, read_run
from zoo_harness.reports.card_merge import merged_card, read_card
from zoo_harness.reports.wording import command_without_folders, without_folders
from zoo_harness.util.atomic_files import create_folder, replacing, write_bytes, write_text
from zoo_harness.util.digests import sha256_of

State = Literal["new", "changed", "same", "deleted"]
_BEGINNINGS = {".png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True)
class Change:
    """The effect on one file: its new size in bytes and SHA-256, ``None`` for a deleted file."""

    path: str
    size: int | None
    sha256: str | None
    state: State


@contextmanager
def new_tree(
    run: Path, old_card: str | None = None, repository: str | None = None, *, samples: bool | None = None
) -> Iterator[Path]:
    """Context manager that yields the published tree of a run in a temporary folder; see :func:`write_tree`."""
    with _temporary_folder_beside(run) as folder:
        write_tree(run, folder, old_card, repository, samples=samples, link=True)
        yield folder


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
    ``None`` includes it unless the images are the user's own. ``link`` allows a hard link to the checkpoint instead of
    a copy, for a folder that nobody writes to.

    Raises :class:`~zoo.errors.UsageError` for an unfinished run, :class:`~zoo.errors.WeightsError` for a checkpoint
    that was changed after the run.
    """
    record = publishable(run)
    plots = tuple(name for name in record.plots if is_published(name) and (run / name).is_file())
    if samples is False or (samples is None and of_own_images(record)):
        plots = tuple(name for name in plots if name != SAMPLES)
    record = without_local_folders(record.model_copy(update={"plots": plots}))
    to.mkdir(parents=True, exist_ok=True)
    _link_or_copy(run / CHECKPOINT, to / CHECKPOINT, link=link)
    counted = [CONFUSION] if record.results.confusion is not None else []
    for name in (CONFIGURATION, HISTORY, *counted, *plots):
        if (run / name).is_file() and (run / name).stat().st_size:
            shutil.copyfile(run / name, to / name)
    where, old = f"card in {repository or 'the folder'}", old_card
    if old is None:
        where, old = f"card of {run}", read_card(run)
    # Bytes, because a text file would change the line ends of an old card.
    write_bytes(to / CARD, _card(record, where, old, repository).encode())
    write_text(to / RECORD, record.to_json())
    check_tree(to)
    return record


def of_own_images(record: RunRecord) -> bool:
    """Whether a run used images from a folder or the memory of this machine, which may be private."""
    return record.dataset.in_memory or (record.dataset.argument is not None and record.dataset.hub_id is None)


def publishable(run: Path) -> RunRecord:
    """Return the record of a run that can be published; raise the errors of :func:`write_tree`."""
    record = read_run(run)
    if record.status != "finished":
        epochs = f"{record.results.epochs_done} of {record.settings.training.epochs} epochs"
        state = "still runs, or was killed" if record.status == "running" else f"is {record.status}"
        verb = "train" if record.command[1:2] == ("train",) else "eval"
        resume = shlex.join(["zoo", verb, "--resume", str(run)])
        raise UsageError(f"{run} cannot be published: the run {state}, after {epochs}; finish it first: {resume}")
    wanted = [CHECKPOINT, CONFIGURATION, *_files_named_in_card(record)]
    missing = [name for name in wanted if not (run / name).is_file()]
    if missing or record.checkpoint_sha256 is None:
        raise UsageError(f"{run} cannot be published: it has no {' and no '.join(missing) or 'digest of a checkpoint'}")
    found = sha256_of(run / CHECKPOINT)
    if found != record.checkpoint_sha256:
        raise WeightsError(
            f"{run / CHECKPOINT}: SHA-256 is {found}, the run wrote {record.checkpoint_sha256}; "
            "it was changed after the run and is not published"
        )
    return record


def _files_named_in_card(record: RunRecord) -> list[str]:
    history = [HISTORY] if record.results.epochs_done else []
    return [*history, *([CONFUSION] if record.results.confusion is not None else [])]


def has_own_text(run: Path) -> bool:
    """Whether the card of a run contains text of a person."""
    from zoo_harness.reports.run_card import render_card

    new = render_card(read_run(run))
    try:
        return merged_card(read_card(run), new) != new
    except UsageError:
        return True


def without_local_folders(record: RunRecord) -> RunRecord:
    """Return the record with each path of this machine reduced to its last part."""

    def freed(text: str | None) -> str | None:
        return None if text is None else without_folders(text)

    # Not in all texts: a class may have a name such as "/m/01g317".
    weights, dataset, results = record.weights, record.dataset, record.results
    weights = weights.model_copy(update={name: freed(getattr(weights, name)) for name in ("source", "filename")})
    dataset = dataset.model_copy(
        update={name: freed(getattr(dataset, name)) for name in ("argument", "source", "title", "subset")}
    )
    if (frozen := results.frozen_part) is not None:
        frozen = frozen.model_copy(update={name: freed(getattr(frozen, name)) for name in ("reason", "place")})
        results = results.model_copy(update={"frozen_part": frozen})
    return record.model_copy(
        update={
            "command": command_without_folders(record.command),
            "weights": weights,
            "dataset": dataset,
            "results": results,
        }
    )


def check_tree(tree: Path) -> None:
    """Raise :class:`~zoo.errors.ZooError` unless a tree has exactly the plain files of a published run."""
    for path in sorted(tree.iterdir()):
        if not is_published(path.name):
            raise ZooError(f"{path} is not a file of a published run, which are {', '.join(PUBLISHED_FILES)}")
        if path.is_symlink() or not path.is_file():
            raise ZooError(f"{path} is not a plain file")
        with path.open("rb") as file:
            beginning = file.read(8)
        if not beginning.startswith(_BEGINNINGS.get(path.suffix, b"")):
            raise ZooError(f"{path} is not what its name says: it begins with {beginning!r}")
    missing = [name for name in REQUIRED_FILES if not (tree / name).is_file()]
    if missing:
        raise ZooError(f"{tree} has no {' and no '.join(missing)}")


def publish_to_folder(tree: Path, to: Path, *, dry_run: bool = False) -> list[Change]:
    """Copy ``tree`` to a folder and return the changes; files that are not of a run stay.

    A new folder appears whole; in an existing one each file is replaced whole, the record last. Raises
    :class:`~zoo.errors.UsageError` for a folder with other content than a published run.
    """
    before = check_folder(to)
    after = {path.name: path for path in sorted(tree.iterdir())}
    changes = [_change(to / name, path) for name, path in after.items()]
    stale = [name for name in before if name not in after]
    changes += [Change(name, None, None, "deleted") for name in stale]
    if not dry_run:
        _update_folder(to, {one.path: after[one.path] for one in changes if one.state in ("new", "changed")}, stale)
    return changes


def check_folder(to: Path) -> list[str]:
    """List the files of a published run in a folder; empty if the folder does not exist yet.

    Raises :class:`~zoo.errors.UsageError` for a folder with other content than a published run.
    """
    if not to.exists() and not to.is_symlink():
        return []
    if not to.is_dir():
        raise UsageError(f"--to {str(to)!r} is a file; give a folder, or a repository as OWNER/NAME")
    if not any(to.iterdir()):
        return []
    if not (to / RECORD).is_file():
        raise UsageError(f"--to {str(to)!r} holds something else than a published run; give a folder not there yet")
    return select_published(read_run(to), [path.name for path in to.iterdir()])


def select_published(record: RunRecord, names: list[str]) -> list[str]:
    """Select the files that belong to a published record; a person's own pictures do not.

    >>> from types import SimpleNamespace
    >>> select_published(SimpleNamespace(plots=("loss.png",)), ["zoo.json", "loss.png", "my.png", "notes.txt"])
    ['zoo.json', 'loss.png']
    """
    return [name for name in names if is_published(name) and (not name.endswith(".png") or name in record.plots)]


def _card(record: RunRecord, where: str, old: str | None, repository: str | None) -> str:
    from zoo_harness.reports.run_card import render_card

    try:
        return merged_card(old, render_card(record, repository, published=True))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _link_or_copy(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source.resolve(), target)
        except OSError:
            pass  # another file system, or one without links
        else:
            return
    shutil.copyfile(source, target)


@contextmanager
def _temporary_folder_beside(run: Path) -> Iterator[Path]:
    try:
        temporary = tempfile.TemporaryDirectory(prefix=".publish-", dir=run.absolute().parent)
    except OSError:  # a run of another user, in a read-only folder
        temporary = tempfile.TemporaryDirectory(prefix="zoo-publish-")
    with temporary as folder:
        yield Path(folder)


def _change(old: Path, new: Path) -> Change:
    sha256 = sha256_of(new)
    state: State = "new" if not old.is_file() else "same" if sha256_of(old) == sha256 else "changed"
    return Change(new.name, new.stat().st_size, sha256, state)


def _update_folder(to: Path, files: dict[str, Path], stale: list[str]) -> None:
    if not to.exists() or not any(to.iterdir()):
        create_folder(to, files)
        return
    # The record last, because it promises the other files.
    for name in sorted(files, key=lambda name: (name == RECORD, name)):
        with replacing(to / name) as temporary:
            shutil.copyfile(files[name], temporary)
    for name in stale:
        (to / name).unlink()
