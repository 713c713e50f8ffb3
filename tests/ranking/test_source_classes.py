"""LEEP and NCE against published figures, bounds and awkward logits."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import DataError
from zoo_harness.ranking.source_classes import leep, nce


def test_the_example_has_the_published_values(narrow):
    assert leep(narrow.logits, narrow.labels).value == pytest.approx(-0.696275947, abs=1e-8)
    assert nce(narrow.logits, narrow.labels).value == pytest.approx(-0.635634506, abs=1e-8)


def test_leep_lies_between_the_bounds_and_above_or_at_none(narrow):
    score = leep(narrow.logits, narrow.labels)
    assert -np.log(3) <= score.value <= 0
    assert score.details["relative"] == pytest.approx(score.value / np.log(3) + 1)


def test_a_source_class_that_nobody_reaches_changes_nothing(narrow):
    never = np.concatenate([narrow.logits, np.full((60, 2), -1e5)], axis=1)
    assert leep(never, narrow.labels).value == pytest.approx(leep(narrow.logits, narrow.labels).value)
    assert nce(never, narrow.labels).value == pytest.approx(nce(narrow.logits, narrow.labels).value)


def test_many_images_are_the_same_in_chunks(narrow, monkeypatch):
    expected = leep(narrow.logits, narrow.labels).value
    monkeypatch.setattr("zoo_harness.ranking.source_classes._CHUNK", 7)
    assert leep(narrow.logits, narrow.labels).value == pytest.approx(expected, rel=1e-12)


def test_logits_that_are_no_numbers_are_refused(narrow):
    narrow.logits[0, 0] = np.nan
    for score in (leep, nce):
        with pytest.raises(DataError) as caught:
            score(narrow.logits, narrow.labels)
        assert caught.value.code == "not-finite"


def test_classes_with_gaps_are_the_same(narrow):
    moved = np.where(narrow.labels == 2, 9, narrow.labels)
    assert leep(narrow.logits, moved).value == leep(narrow.logits, narrow.labels).value
    assert nce(narrow.logits, moved).value == nce(narrow.logits, narrow.labels).value
