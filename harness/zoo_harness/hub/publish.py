"""Publish a finished run on the Hub or to a folder, after checking that zoo, timm and transformers can load it."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, ZooError
from zoo.license_terms import binding_terms
from zoo.text import one_line
from zoo_harness.hub import publication
from zoo_harness.hub.client import Say, without_bars
from zoo_harness.hub.fetch import CommitListing
from zoo_harness.hub.names import RepositoryReference, means_a_path, parse_reference
from zoo_harness.hub.upload import inspect_repository, require_token, send_tree, tag_of
from zoo_harness.records.file_names import CHECKPOINT, CHECKPOINTS, SAMPLES
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import PublishOptions
from zoo_harness.records.run import RunRecord
from zoo_harness.reports.card_merge import read_card
from zoo_harness.reports.wording import percent
from zoo_harness.util.atomic_files import scratch_folder

if TYPE_CHECKING:
    from zoo_harness.hub.round_trip import Check


@dataclass(frozen=True)
class Publication:
    """Describe a publication, or with ``dry_run`` the publication that would happen.

    ``place``: the URL of the repository or of the pull request, or the path of the folder. ``files``: the change of
    each file. ``checks``: the result of loading the checkpoint with each library. ``details``: the repository, commit
    and tag, or the folder. ``epoch``: the epoch after which the weights were saved; ``None`` if an old version of zoo
    did not record the epoch.
    """

    place: str
    dry_run: bool
    changed: bool
    files: tuple[publication.Change, ...]
    checks: tuple[Check, ...]
    details: dict[str, str | None]
    epoch: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert the publication to plain data for JSON output."""
        lists = {"files": [asdict(change) for change in self.files], "checks": [asdict(check) for check in self.checks]}
        return {**self.details, "epoch": self.epoch, "dry_run": self.dry_run, "changed": self.changed, **lists}


def publish_run(run: Path, to: str, given: PublishOptions, say: Say, *, show_bars: bool = False) -> Publication:
    """Publish a run directory to the Hub repository ``OWNER/NAME``, or to a folder whose path looks like ``./NAME``."""
    options, run = with_defaults(PublishOptions, given), run.expanduser()
    to_folder = means_a_path(to)
    _check_options(to, options, to_folder=to_folder)
    bars = nullcontext() if show_bars else without_bars()
    # Work in a private folder, so that nobody can change a file between its check and its upload.
    with scratch_folder(Path(tempfile.gettempdir()), "zoo-publish-", 0o700) as scratch, bars:
        tree = scratch / "tree"
        if to_folder:
            return _to_folder(run, tree, Path(to).expanduser(), options, say)
        return _to_hub(run, tree, parse_reference(to), options, say)


def _check_options(to: str, options: PublishOptions, *, to_folder: bool) -> None:
    if not to_folder and (revision := parse_reference(to).revision):
        raise UsageError(
            f"--to {to}: zoo publishes to the main branch and creates a tag for the run; omit @{revision}",
            code="publish-revision",
            option="to",
        )
    for name in ("private", "create_pr", "message"):
        if to_folder and options[name]:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} only applies to a Hub repository, but --to names a folder; omit the option",
                code="option-unused",
                option=name,
            )


def _to_folder(run: Path, tree: Path, to: Path, options: PublishOptions, say: Say) -> Publication:
    publication.check_folder(to)
    source, dry_run = publication.publishable(run), options["dry_run"]
    checks = _build(source, tree, read_card(to), None, options["samples"], say)
    files = publication.compare_with_folder(tree, to)
    if not dry_run:
        publication.publish_to_folder(tree, to, files)
    changed = not dry_run and any(change.state != "same" for change in files)
    return Publication(str(to), dry_run, changed, tuple(files), checks, {"folder": str(to)}, source.record.main_epoch)


def _to_hub(run: Path, tree: Path, reference: RepositoryReference, options: PublishOptions, say: Say) -> Publication:
    source, dry_run, create_pr = publication.publishable(run), options["dry_run"], options["create_pr"]
    record = source.record
    if not dry_run:
        require_token()
    there = _inspect(reference, say, tolerant=dry_run)
    card = there.card if there else None
    checks = _build(source, tree, card, reference.id, options["samples"], say)
    files, tag = tuple(publication.compare(tree, there.files if there else {})), tag_of(record)
    if dry_run:
        details = {"repository": reference.id, "tag": None if create_pr else tag}
        return Publication(reference.id, True, False, files, checks, details, record.main_epoch)
    message, private = options["message"] or _message(record), options["private"]
    sent = send_tree(tree, reference, there, tag=tag, message=message, private=private, create_pr=create_pr, say=say)
    details = {name: value for name, value in asdict(sent).items() if name != "changed"}
    place = sent.pull_request or sent.url
    return Publication(place, False, sent.changed, files, checks, details, record.main_epoch)


def _inspect(reference: RepositoryReference, say: Say, *, tolerant: bool) -> CommitListing | None:
    try:
        found = inspect_repository(reference, say)
    except ZooError as error:
        if not tolerant:
            raise
        say(f"cannot compare with the repository: {error}")
        return None
    kind = "private" if found and found.private else "public"
    say(f"{reference}: {f'{kind}, at commit {found.commit}' if found else 'not there yet'}")
    return found


def _build(
    source: publication.RunFiles,
    tree: Path,
    card: str | None,
    repository: str | None,
    samples: bool | None,
    say: Say,
) -> tuple[Check, ...]:
    """Write the files to publish into the folder ``tree``, and check that each library loads the folder."""
    if samples is None and publication.of_own_images(source.record) and SAMPLES in source.record.plots:
        say(f"{SAMPLES} is not published, because it shows your own images; --samples publishes it")
    if terms := binding_terms(source.record.weights.license):
        say(f"licence of the initial weights: {source.record.weights.license}, {terms}")
    publication.write_tree(source, tree, card, repository, samples=samples)
    from zoo_harness.hub.round_trip import verify_tree  # imports torch, which takes seconds

    checks = verify_tree(tree, source.directory)
    for check in checks:
        say(f"{check.loader}: {check.result}")
    if epoch := source.record.main_epoch:
        others = f"; the checkpoints in {CHECKPOINTS}/ are not published" if source.record.checkpoints else ""
        say(f"{CHECKPOINT} has the weights of epoch {epoch}{others}")
    return tuple(checks)


def _message(record: RunRecord) -> str:
    accuracy, split = record.headline
    measured = f": {record.dataset.name_of(split)} accuracy {percent(accuracy)}" if accuracy else ""
    return one_line(f"Publish {record.backbone.name} on {record.dataset.title}{measured}")
