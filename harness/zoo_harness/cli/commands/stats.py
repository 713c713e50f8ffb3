"""``zoo stats``: measure the mean, standard deviation, sizes, classes, duplicates and brightness of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, DatasetName, Quiet
from zoo_harness.cli.output import print_json, print_lines, print_notes, print_table
from zoo_harness.cli.run_output import display_for, ended_in_order
from zoo_harness.records.options import StatsOptions

if TYPE_CHECKING:
    from zoo_harness.records.statistics import DatasetStatistics, Range, SplitStatistics


def _stats(dataset: DatasetName = None, *, given: Given, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Measure a dataset: images, mean, std, duplicates, brightness.

    mean and std are the mean and standard deviation of the red, green and blue values.
    """
    from zoo.errors import UsageError
    from zoo_harness.api import dataset_stats

    if dataset is None:
        message = "missing --dataset; run 'zoo datasets' to list the datasets"
        raise UsageError(message, code="missing-dataset")
    with ended_in_order(), display_for(quiet=quiet) as display:
        found = dataset_stats(dataset, progress=display, **given)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)


stats_command = command(StatsOptions, _stats)


def _print(found: DatasetStatistics) -> None:
    print_notes(f"{found.title}: {len(found.classes):,} classes, {found.subset}")
    print_lines("")
    one_size = all(split.size for split in found.splits.values())
    cells = {name: _cells(split, one_size=one_size) for name, split in found.splits.items()}
    rows = [[label, *(column[label] for column in cells.values())] for label in cells["train"]]
    print_table(["", *cells], rows)
    train = found.splits["train"]
    mean, std = (",".join(f"{value:.4f}" for value in each) for each in (train.mean, train.std))
    hint = "to use the mean and std of train, add --normalization dataset, or rounded:"
    print_lines("")
    print_notes(*_notes(found))
    print_lines("", hint, f"  --mean {mean} --std {std}")


def _cells(split: SplitStatistics, *, one_size: bool) -> dict[str, str]:
    """Return the table column of a split, as a mapping from row label to cell."""
    height, width = split.size or (0, 0)
    sizes = {"width": _range(split.width), "height": _range(split.height)}
    brightness, (fewest, most) = split.brightness, _extremes(split)
    return {
        "images": f"{split.images:,}",
        "mean (R G B)": " ".join(f"{value:.4f}" for value in split.mean),
        "std (R G B)": " ".join(f"{value:.4f}" for value in split.std),
        **({"width x height": f"{width:,} x {height:,}"} if one_size else sizes),
        "width / height": _range(split.aspect_ratio, ".2f"),
        "images per class": f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}",
        "brightness": f"{brightness.darkest.value:.2f} / {brightness.median:.2f} / {brightness.brightest.value:.2f}",
        "  90 % within": f"{brightness.percentile_5:.2f} to {brightness.percentile_95:.2f}",
        "grey images": "all" if split.grey == split.images else f"{split.grey:,}",
    }


def _range(found: Range, form: str = ",.10g") -> str:
    values = [format(value, form) for value in (found.min, found.median, found.max)]
    return values[0] if found.min == found.max else " / ".join(values)


def _extremes(split: SplitStatistics) -> tuple[int, int]:
    return min(split.per_class), max(split.per_class)


def _notes(found: DatasetStatistics) -> Iterator[str]:
    """Yield notes on the row labels, the darkest and brightest images, duplicates, and how zoo read the files."""
    yield "a / b / c: smallest, median and largest value; mean, std: over all pixels, values 0 to 1"
    yield "brightness: mean luma of an image; 0 is black and 1 is white"
    for name, split in found.splits.items():
        shown, (fewest, most) = split.brightness, _extremes(split)
        yield f"split {name}: darkest {shown.darkest.name}, brightest {shown.brightest.name}"
        if fewest < most:
            smallest, largest = (found.classes[split.per_class.index(count)] for count in (fewest, most))
            yield f"split {name}: smallest class {smallest!r} ({fewest:,}), largest {largest!r} ({most:,})"
    yield from (each.in_words() for each in found.duplicates)
    if not found.duplicates:
        yield "no image occurs twice, within a split or in two splits"
    yield from found.reading
    if found.skipped:
        yield f"skipped: {', '.join(f'{count:,} {kind}' for kind, count in found.skipped.items())}"
