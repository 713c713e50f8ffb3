"""Scales have round ticks around all values, and labels overlap neither each other nor points."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from zoo_harness.reports.page import svg

VALUES = st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=20)


@given(VALUES, st.booleans())
def test_every_value_is_between_the_ends_of_its_scale(values: list[float], is_log: bool) -> None:
    scale = (svg.logarithmic if is_log else svg.linear)(values, 40, 388)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] >= 40
    assert places[-1] <= 388
    ticks = [scale(value) for value, _text in scale.ticks]
    assert ticks == sorted(ticks)
    assert 1 <= len(ticks) <= 7
    assert len({text for _value, text in scale.ticks}) == len(ticks)


def test_ticks_are_round() -> None:
    assert [text for _value, text in svg.linear([81.3, 97.2], 0, 1).ticks] == ["80", "85", "90", "95", "100"]
    assert svg.logarithmic([300, 420], 0, 1).ticks[0] == (250, "250")


@pytest.mark.parametrize("count", [2, 12])
def test_labels_overlap_nothing(count: int) -> None:
    points = [(100 + 9.0 * number, 150 - 4.0 * number, f"network{number}") for number in range(count)]
    drawn = svg.labels(points, [(x, y) for x, y, _text in points])
    found = re.findall(r'class="label (.)" x="([\d.]+)" y="([\d.]+)">(\w+)<', drawn)
    assert found
    boxes = []
    for anchor, x, y, text in found:
        left = float(x) - 5.9 * len(text) * {"s": 0, "m": 0.5, "e": 1}[anchor]
        boxes.append((left, float(y) - 9, left + 5.9 * len(text), float(y) + 2))
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            assert box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]


def test_text_of_a_picture_is_escaped() -> None:
    scale = svg.linear([0, 1], 0, 1)
    drawn = svg.picture(svg.axes(scale, scale, "<script>", "a&b"), '"><script>')
    assert "<script>" not in drawn
    assert "a&amp;b" in drawn
