"""Turn each ``rank.json`` into a table with rank, tier, scores, download size and licence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo_harness.ranking.scores import RANK_SCORES
from zoo_harness.records.rank import RankedBackbone, RankRecord
from zoo_harness.reports.page.columns import MISSING, TIER, Value
from zoo_harness.reports.page.entries import shown
from zoo_harness.reports.page.svg import compact
from zoo_harness.util.byte_sizes import bytes_in_words


@dataclass(frozen=True)
class RankTable:
    """A ranking as a table: ``values`` sort its rows, ``cells`` has its texts, ``head`` has headings and help texts."""

    title: str
    about: str
    head: list[tuple[str, str]]
    cells: list[list[str]]
    values: list[list[Value]]


def rank_table(name: str, record: RankRecord) -> RankTable:
    """Return the table of a ranking; ``name`` is the name of its folder."""
    defined = {score.key: score for score in RANK_SCORES}
    keys = list(dict.fromkeys(key for row in record.backbones for key in row.scores))
    keys.sort(key=lambda key: key != record.sort)
    head = [
        ("Backbone", "The network."),
        ("Rank", "Place in the ranking."),
        ("Tier", "1: the best backbone, and each backbone that the paired test cannot tell from the best."),
        *((defined[key].heading, defined[key].explanation) if key in defined else (shown(key, 24), "") for key in keys),
        ("Parameters", "Number of parameters."),
        ("ImageNet top-1, %", "Published accuracy."),
        ("Download", "Size of the weight file."),
        ("Licence", "Licence of the weights."),
    ]
    rows = [[*_row(number, row, keys)] for number, row in enumerate(record.backbones, 1)]
    images = f"{record.images_seen:,} training images, {len(record.classes):,} classes"
    return RankTable(
        title=shown(record.title),
        about=f"{shown(name)}: {images}, sorted by {head[3][0]}",
        head=head,
        cells=[[text for _value, text in row] for row in rows],
        values=[[value for value, _text in row] for row in rows],
    )


def _row(number: int, row: RankedBackbone, keys: list[str]) -> Iterator[tuple[Value, str]]:
    yield shown(row.name), shown(row.name)
    yield number, str(number)
    yield row.tier, TIER if row.tier == 1 else "dropped" if row.dropped else _text(row.tier)
    for key in keys:
        value = row.scores[key].value if key in row.scores else None
        yield value, MISSING if value is None else f"{value:.4f}"
    yield row.parameters or None, compact(row.parameters) if row.parameters else MISSING
    yield row.imagenet_top1, MISSING if row.imagenet_top1 is None else f"{row.imagenet_top1:.2f}"
    size = row.weights.bytes if row.weights else None
    yield size, MISSING if size is None else bytes_in_words(size)
    yield row.license and shown(row.license, 40), shown(row.license, 40) if row.license else MISSING


def _text(value: Value) -> str:
    return MISSING if value is None else str(value)
