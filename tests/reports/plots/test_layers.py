"""Layer curves: each one can be seen, also where others have the same values."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo_harness.records.run import LayerScores, ScoreMeasurement, SplitSeparation
from zoo_harness.reports.plots.layers import _COLOURS, _covering, plot_layers

from .test_run import pixels, where


def layers(*values: float) -> list[LayerScores]:
    found = []
    for depth, value in enumerate(values):
        si = ScoreMeasurement(value=value, standard_error=0.01, n=100, bootstrap_error=0.01, tied=0)
        none = dict.fromkeys(("high", "soft", "anti"))
        separation = SplitSeparation(order=1, si=si, centre=si, duplicates=0, duplicates_unlike=0, **none)
        found.append(LayerScores(path=f"layer{depth}", width=8, vector="mean", separation=separation))
    return found


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(colour[1:]))  # type: ignore[return-value]


RISING = (0.2, 0.4, 0.6, 0.8)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_of_several_equal_curves_can_be_seen(count: int, tmp_path: Path) -> None:
    plot_layers([(f"net {place}", layers(*RISING)) for place in range(count)], "100 images", tmp_path / "l.png")
    image = pixels(tmp_path / "l.png")[140:]  # without the legend
    widths = []
    for place in range(count):
        _rows, columns = where(image, rgb(_COLOURS[place]))
        widths.append(columns.max() - columns.min())
    assert min(widths) > 0.8 * max(widths), "along the whole curve"


def test_a_curve_is_wider_where_others_cover_it_only() -> None:
    ours, apart = ("ours", layers(*RISING)), ("apart", layers(0.2, 0.5, 0.7, 0.9))
    frozen, shorter = ("frozen", layers(0.2, 0.4, 0.7, 0.9)), ("shorter", layers(0.2, 0.4))
    assert _covering([ours]) == 0
    assert _covering([ours, apart]) == 0, "all curves begin at the pixels"
    assert _covering([ours, apart, frozen, ours]) == 2
    assert _covering([ours, shorter]) == 0, "their layers lie elsewhere"
