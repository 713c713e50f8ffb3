"""``zoo cache``: list and delete the cached outputs of frozen layers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_json, print_lines, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.frozen.cache.entries import Entry


_DAY = 24 * 60 * 60
_SHOWN = 12  # digits of a key

cache = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List or delete the cached outputs of frozen layers."
)


@cache.command("list")
def list_entries(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the cache entries, their size and last use.

    Each entry holds the outputs of a backbone's frozen layers for one split of a dataset. The list shows the state of
    every entry that is not complete.
    """
    from zoo_harness.frozen.cache.entries import cache_folder, cache_limit, entries
    from zoo_harness.util.byte_sizes import bytes_in_words

    folder, limit = cache_folder(), cache_limit()
    found = entries(folder)
    if as_json:
        print_json([_as_dict(entry) for entry in found])
        return
    columns = ["key", "outputs of", "images", "size", "last used"]
    print_table(columns, [_row(entry) for entry in found], right=columns[2:], whole=columns[2:])
    taken = bytes_in_words(sum(entry.bytes for entry in found))
    tell(f"the cache takes {taken} of {bytes_in_words(limit)} in {folder}")


@cache.command("clear")
def clear_entries(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Keys of entries from 'zoo cache list', or their first digits."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all entries.")] = False,
    older_than: Annotated[
        float | None, typer.Option(help="Delete the entries that were not used in the last DAYS days.", metavar="DAYS")
    ] = None,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Delete cache entries without asking first.

    Entries that a running process uses are not deleted.
    """
    from zoo.errors import ZooError
    from zoo_harness.frozen.cache.entries import cache_folder, clear, remove_leftovers
    from zoo_harness.util.byte_sizes import bytes_in_words

    folder = cache_folder()
    chosen = _chosen(folder, keys or [], everything, older_than)
    cleared = [entry for entry in chosen if clear(entry)]
    in_use = [entry for entry in chosen if entry not in cleared]
    if everything:
        remove_leftovers(folder)
    freed = sum(entry.bytes for entry in cleared)
    if as_json:
        kept = [entry.key for entry in in_use]
        print_json({"cleared": [entry.key for entry in cleared], "bytes": freed, "in_use": kept})
    else:
        print_lines(f"deleted {len(cleared)} of {len(chosen)} entries, {bytes_in_words(freed)}")
    faults = [
        f"{entry.key[:_SHOWN]} ({entry.name}) is in use by a running process and was not deleted" for entry in in_use
    ]
    if keys and in_use:
        raise ZooError("; ".join(faults), code="cache-in-use", keys=[entry.key for entry in in_use])
    tell(*faults)


def _chosen(folder: Path, keys: list[str], everything: bool, older_than: float | None) -> list[Entry]:
    """Return the entries to delete: all entries, old entries, or the entries whose keys start with the given digits."""
    from zoo.errors import UnknownNameError, UsageError
    from zoo_harness.frozen.cache.entries import entries

    if bool(keys) + everything + (older_than is not None) != 1:
        fault = "several ways to choose entries are given" if keys or everything else "nothing chooses the entries"
        message = f"{fault}; expected one of KEY ..., --all or --older-than DAYS; zoo cache list prints the keys"
        raise UsageError(message, code="option-conflict")
    if older_than is not None and not older_than >= 0:
        message = f"--older-than {older_than:g} must be 0 or more days"
        raise UsageError(message, code="option-range", option="older_than")
    found = entries(folder)
    if not keys:
        return [entry for entry in found if everything or time.time() - entry.last_used >= (older_than or 0) * _DAY]
    chosen = {}
    for key in keys:
        matching = [entry for entry in found if entry.key.startswith(key.lower())]
        if not matching or not key:
            raise UnknownNameError("key", key, [entry.key[:_SHOWN] for entry in found], "zoo cache list prints them")
        if len(matching) > 1:
            several = [entry.key[:_SHOWN] for entry in matching]
            message = f"key is ambiguous: {key!r} matches {len(several)} keys: {', '.join(several)}; give more digits"
            raise UsageError(message, code="cache-key-ambiguous", given=key, keys=several)
        chosen[matching[0].key] = matching[0]
    return list(chosen.values())


def _row(entry: Entry) -> list[str]:
    from zoo_harness.util.byte_sizes import bytes_in_words

    used = "in use" if entry.in_use else _ago(entry.last_used)
    state: str = entry.state
    if entry.record is None:
        return [entry.key[:_SHOWN], state, "-", bytes_in_words(entry.bytes), used]
    title, images = entry.record.title, entry.record.key.images
    if state == "partial":
        state = f"{entry.images_done / images:.0%} done"
    noted = "" if state == "complete" else f" ({state})"
    about = f"{title.backbone} on {title.dataset}, {title.split}{noted}"
    return [entry.key[:_SHOWN], about, f"{images:,}", bytes_in_words(entry.bytes), used]


def _ago(moment: float) -> str:
    """Describe how long ago a moment was, in days, hours or minutes, such as ``3 d ago``."""
    seconds = max(time.time() - moment, 0)
    for unit, name in ((_DAY, "d"), (60 * 60, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit:,.0f} {name} ago"
    return "just now"


def _as_dict(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "key": entry.key,
        "state": entry.state,
        "in_use": entry.in_use,
        "bytes": entry.bytes,
        "images_done": entry.images_done,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.last_used)),
        "title": record.title.model_dump() if record else None,
        "made_of": record.key.model_dump(mode="json") if record else None,
    }
