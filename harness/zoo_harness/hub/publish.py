"""Publish a finished run, on the Hub or into a folder, after proof that the checkpoint loads everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, ZooError
from zoo_harness.hub.fetch import without_bars
from zoo_harness.hub.names import RepositoryReference, means_a_path, parse_reference
from zoo_harness.hub.publication import (
    Change,
    check_folder,
    has_own_text,
    new_tree,
    of_own_images,
    publish_to_folder,
    publishable,
)
from zoo_harness.hub.round_trip import Check, verify_tree
from zoo_harness.hub.upload import (
    RepositoryState,
    UploadResult,
    changes,
    inspect_repository,
    require_token,
    send_tree,
    tag_of,
)
from zoo_harness.records.file_names import SAMPLES
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import PublishOptions
from zoo_harness.records.run import RunRecord
from zoo_harness.reports.card_merge import read_card
from zoo_harness.reports.wording import percent
from zoo_harness.util.text import one_line

Say = Callable[[str], None]


@dataclass(frozen=True)
class Publication:
    """The published files of a run, or with ``dry_run`` those that would be published.

    ``place``: the address of the repository, of its pull request, or the folder. ``files``: the effect on each file.
    ``checks``: how each library loads the checkpoint. ``details``: the repository, commit and tag, or the folder.
    """

    place: str
    dry_run: bool
    changed: bool
    files: tuple[Change, ...]
    checks: tuple[Check, ...]
    details: dict[str, str | None]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        lists = {"files": [asdict(change) for change in self.files], "checks": [asdict(check) for check in self.checks]}
        return {**self.details, "dry_run": self.dry_run, "changed": self.changed, **lists}


def publish_run(run: Path, to: str, given: PublishOptions, say: Say, *, show_bars: bool = False) -> Publication:
    """Publish the run in a directory to ``OWNER/NAME`` on the Hub, or to a folder written as a path."""
    options, run = with_defaults(PublishOptions, given), run.expanduser()
    if means_a_path(to):
        _refuse_hub_options(options)
        return _to_folder(run, Path(to).expanduser(), options, say)
    with nullcontext() if show_bars else without_bars():
        return _to_hub(run, to, options, say)


def _to_folder(run: Path, to: Path, options: PublishOptions, say: Say) -> Publication:
    check_folder(to)
    samples, dry_run = options["samples"], options["dry_run"]
    _say_what_is_left_out(publishable(run), samples, say)
    with new_tree(run, read_card(to), samples=samples) as tree:
        files = publish_to_folder(tree, to, dry_run=True)
        checks = _check(tree, run, say)
        if not dry_run:
            publish_to_folder(tree, to)
    changed = not dry_run and any(change.state != "same" for change in files)
    return Publication(str(to), dry_run, changed, tuple(files), tuple(checks), {"folder": str(to)})


def _to_hub(run: Path, to: str, options: PublishOptions, say: Say) -> Publication:
    reference = _repository(to, say)
    record, samples, dry_run = publishable(run), options["samples"], options["dry_run"]
    if not dry_run:
        require_token()
    state = _inspect(reference, say, tolerant=dry_run)
    if state.card is not None and has_own_text(run):
        say("your own text in the run's card is not sent: the repository's card keeps the text outside zoo's part")
    tag = tag_of(record)
    _say_what_is_left_out(record, samples, say)
    with new_tree(run, state.card, reference.id, samples=samples) as tree:
        files = changes(tree, state)
        checks = _check(tree, run, say)
        sent = None if dry_run else _send(tree, state, record, tag, options, say)
    if sent is None:
        details = {"repository": reference.id, "tag": None if options["create_pr"] else tag}
        return Publication(reference.id, True, False, tuple(files), tuple(checks), details)
    details = {"repository": reference.id, "url": sent.url, "commit": sent.commit, "tag": sent.tag}
    details["pull_request"] = sent.pull_request
    return Publication(sent.pull_request or sent.url, False, sent.changed, tuple(files), tuple(checks), details)


def _send(
    tree: Path, state: RepositoryState, record: RunRecord, tag: str, options: PublishOptions, say: Say
) -> UploadResult:
    message = options["message"] or _message(record)
    private, create_pr = options["private"], options["create_pr"]
    return send_tree(tree, state, tag=tag, message=message, private=private, create_pr=create_pr, say=say)


def _repository(to: str, say: Say) -> RepositoryReference:
    reference = parse_reference(to)
    if reference.revision is not None:
        raise UsageError(
            f"--to {to}: a run goes to the main branch and gets a tag of its own; write {reference.id}",
            code="publish-revision",
        )
    if Path(to).is_dir():
        say(f"publishing to the Hub; for the folder of that name here, write --to ./{to}")
    return reference


def _inspect(reference: RepositoryReference, say: Say, *, tolerant: bool) -> RepositoryState:
    try:
        state = inspect_repository(reference, say)
    except ZooError as error:
        if not tolerant:
            raise
        say(f"not compared with the repository: {error}")
        return RepositoryState(reference)
    kind = "private" if state.private else "public"
    there = "not there yet" if not state.exists else f"{kind}, at commit {state.head or '(none)'}"
    say(f"{reference}: {there}")
    return state


def _check(tree: Path, run: Path, say: Say) -> list[Check]:
    checks = verify_tree(tree, run)
    for check in checks:
        say(f"{check.loader}: {check.result}")
    return checks


def _say_what_is_left_out(record: RunRecord, samples: bool | None, say: Say) -> None:
    if samples is None and of_own_images(record) and SAMPLES in record.plots:
        say(f"{SAMPLES} is not published, because it shows images of your own; --samples publishes it")


def _message(record: RunRecord) -> str:
    accuracy, _split = record.headline
    measured = f": accuracy {percent(accuracy)}" if accuracy else ""
    return one_line(f"Publish {record.backbone.name} on {record.dataset.title}{measured}")


def _refuse_hub_options(options: PublishOptions) -> None:
    given: Sequence[tuple[str, bool]] = (
        ("--private", options["private"]),
        ("--create-pr", options["create_pr"]),
        ("--message", options["message"] is not None),
    )
    for option, is_given in given:
        if is_given:
            raise UsageError(
                f"{option} is for a repository of the Hub, and --to names a folder; leave it out", code="option-unused"
            )
