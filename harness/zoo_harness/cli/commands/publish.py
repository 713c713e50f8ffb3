"""``zoo publish RUN --to ...``: a finished run to the Hub, or into a folder, after proof that it loads everywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_harness.cli.options import AsJson, Debug, Quiet
from zoo_harness.cli.output import print_json, print_lines, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.hub.names import RepositoryReference
    from zoo_harness.hub.publication import Change
    from zoo_harness.hub.round_trip import Check
    from zoo_harness.hub.upload import RepositoryState
    from zoo_harness.records.run import RunRecord


Say = Callable[[str], None]


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="OWNER/NAME|PATH",
            help="A repository of the Hub, or a folder: a path begins with /, ./, ../ or ~, or ends in /.",
        ),
    ],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is made.")] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all and show what would be sent; send nothing.")] = (
        False
    ),
    samples: Annotated[
        bool | None,
        typer.Option(
            "--samples/--no-samples",
            help="Send samples.png, a grid of the data's images; unless given, not that of images of your own.",
        ),
    ] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="The commit's message.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    _debug: Debug = False,
) -> None:
    """Publish a finished run, on the Hub or into a folder, so that zoo, timm and transformers load it as it is.

    The token is the one of HF_TOKEN, or of the Hub's login (hf auth login).
    """
    from zoo_harness.hub.names import means_a_path

    say = _silent if quiet or as_json else tell
    shown = Shown(as_json=as_json, table=not as_json and (dry_run or not quiet))
    asked = HubOptions(private, create_pr, message)
    run = run.expanduser()
    if means_a_path(to):
        _refuse_hub_options(asked)
        _to_folder(run, Path(to).expanduser(), samples, say, dry_run=dry_run, shown=shown)
    else:
        from zoo_harness.hub.fetch import without_bars

        with without_bars() if quiet or as_json else nullcontext():
            _to_hub(run, to, samples, asked, say, dry_run=dry_run, shown=shown)


@dataclass(frozen=True)
class HubOptions:
    """What holds for a repository alone."""

    private: bool
    create_pr: bool
    message: str | None


@dataclass(frozen=True)
class Shown:
    """What goes to standard output: one JSON object, or a table of the files and a last line, or that line alone."""

    as_json: bool
    table: bool


def _silent(_line: str) -> None:
    pass


def _to_folder(run: Path, to: Path, samples: bool | None, say: Say, *, dry_run: bool, shown: Shown) -> None:
    from zoo_harness.hub.publication import check_folder, new_tree, publish_to_folder, publishable
    from zoo_harness.reports.card_merge import read_card

    check_folder(to)
    _say_what_stays(publishable(run), samples, say)
    with new_tree(run, read_card(to), samples=samples) as tree:
        planned = publish_to_folder(tree, to, dry_run=True)
        _show_changes(planned, shown)
        checks = _checked(tree, run, say)
        if not dry_run:
            publish_to_folder(tree, to)
    changed = any(change.state != "same" for change in planned)
    _show_end({"folder": str(to), **_told(planned, checks, dry_run, changed)}, str(to), shown)


def _to_hub(
    run: Path, to: str, samples: bool | None, asked: HubOptions, say: Say, *, dry_run: bool, shown: Shown
) -> None:
    from zoo.errors import UsageError
    from zoo_harness.hub.names import parse_reference
    from zoo_harness.hub.publication import has_own_text, new_tree, publishable
    from zoo_harness.hub.upload import changes, require_token, send_tree, tag_of

    reference = parse_reference(to)
    if reference.revision is not None:
        raise UsageError(f"--to {to}: a run goes to the main branch and gets a tag of its own; write {reference.id}")
    if Path(to).is_dir():
        say(f"publishing to the Hub; for the folder of that name here, write --to ./{to}")
    record = publishable(run)
    if not dry_run:
        require_token()
    remote = _looked_at(reference, say, tolerant=dry_run)
    if remote.card is not None and has_own_text(run):
        say(
            "the card there is kept outside of the part that zoo writes; what you wrote into the run's card is not sent"
        )
    tag = tag_of(record)
    _say_what_stays(record, samples, say)
    with new_tree(run, remote.card, reference.id, samples=samples) as tree:
        planned = changes(tree, remote)
        _show_changes(planned, shown)
        checks = _checked(tree, run, say)
        sent = None
        if not dry_run:
            sent = send_tree(
                tree,
                remote,
                tag=tag,
                message=asked.message or _message(record),
                private=asked.private,
                create_pr=asked.create_pr,
                say=say,
            )
    told = {"repository": reference.id, **_told(planned, checks, dry_run, sent is not None and sent.changed)}
    if sent is None:
        _show_end({**told, "tag": None if asked.create_pr else tag}, reference.id, shown)
    else:
        place = {"url": sent.url, "commit": sent.commit, "tag": sent.tag, "pull_request": sent.pull_request}
        _show_end({**told, **place}, sent.pull_request or sent.url, shown)


def _say_what_stays(record: RunRecord, samples: bool | None, say: Say) -> None:
    from zoo_harness.hub.publication import of_own_images
    from zoo_harness.records.file_names import SAMPLES

    if samples is None and of_own_images(record) and SAMPLES in record.plots:
        say(f"{SAMPLES} stays here, since it shows images of your own; --samples sends it")


def _looked_at(reference: RepositoryReference, say: Say, *, tolerant: bool) -> RepositoryState:
    from zoo.errors import ZooError
    from zoo_harness.hub.upload import RepositoryState, inspect_repository

    try:
        remote = inspect_repository(reference, say)
    except ZooError as error:
        if not tolerant:
            raise
        say(f"not compared with what is there: {error}")
        return RepositoryState(reference)
    kind = "private" if remote.private else "public"
    state = "not there yet" if not remote.exists else f"{kind}, at commit {remote.head or '(none)'}"
    say(f"{reference}: {state}")
    return remote


def _checked(tree: Path, run: Path, say: Say) -> list[Check]:
    from zoo_harness.hub.round_trip import verify_tree

    checks = verify_tree(tree, run)
    for check in checks:
        say(f"{check.loader}: {check.result}")
    return checks


def _message(record: RunRecord) -> str:
    from zoo_harness.reports.wording import percent
    from zoo_harness.util.text import one_line

    accuracy, _split = record.headline
    measured = f": accuracy {percent(accuracy)}" if accuracy else ""
    return one_line(f"Publish {record.backbone.name} on {record.dataset.title}{measured}")


def _refuse_hub_options(asked: HubOptions) -> None:
    from zoo.errors import UsageError

    given = {"--private": asked.private, "--create-pr": asked.create_pr, "--message": asked.message is not None}
    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"{option} is for a repository of the Hub, and --to names a folder; leave it out")


def _told(planned: list[Change], checks: list[Check], dry_run: bool, changed: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "changed": changed and not dry_run,
        "files": [asdict(change) for change in planned],
        "checks": [asdict(check) for check in checks],
    }


def _show_changes(planned: list[Change], shown: Shown) -> None:
    from zoo_harness.util.byte_sizes import bytes_in_words

    if not shown.table:
        return
    rows = [
        [
            change.path,
            "-" if change.size is None else bytes_in_words(change.size),
            (change.sha256 or "-")[:16],
            change.state,
        ]
        for change in planned
    ]
    print_table(["file", "size", "sha256", "there"], rows, right=["size"])


def _show_end(told: dict[str, Any], place: str, shown: Shown) -> None:
    if shown.as_json:
        print_json(told)
    elif told["dry_run"]:
        print_lines(f"nothing was sent to {place} (--dry-run)")
    elif not told["changed"]:
        print_lines(f"already published, nothing changed: {place}")
    else:
        print_lines(f"published: {place}")
