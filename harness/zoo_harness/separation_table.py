"""The table that a :class:`~zoo_harness.separation.Separation` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo_harness.separation import Separation

_HEADINGS = ("order", "high-order SI", "soft SI", "anti SI", "decided by a tie")


def separation_table(result: Separation) -> str:
    """Return what was compared, one line per order, centre SI, and how much depends on chance; no line end."""
    lines = [_HEADINGS]
    for order in range(1, result.order + 1):
        high, soft, anti = result.high[order], result.soft[order], result.anti[order]
        lines.append((str(order), str(high), str(soft), str(anti), f"{soft.tied:,}"))
    lines.append(("centre", str(result.centre), "", "", f"{result.centre.tied:,}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([f"SI {result.si}  {_what(result)}", "", *table, "", _reading(result)])


def _what(result: Separation) -> str:
    against = "each other" if result.references is None else _count(result.references, "reference")
    samples, classes = _count(result.n, "sample"), _count(len(result.classes), "class", "classes")
    scaled = ", z-scored" if result.normalize else ""
    return f"({samples} of {classes} against {against}, {result.metric} distance{scaled})"


def _reading(result: Separation) -> str:
    where = "another sample" if result.references is None else "a reference"
    unlike = f", {result.duplicates_unlike:,} of them one of another class" if result.duplicates else ""
    equal = f"{_count(result.duplicates, 'sample')} equal {where}{unlike}" if result.duplicates else ""
    return "± is one bootstrap standard error. " + (f"{equal}." if equal else f"No sample equals {where}.")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
