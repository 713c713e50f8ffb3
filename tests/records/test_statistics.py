"""The record of ``zoo stats`` is strict, and the same after JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

import zoo
from zoo_harness.records.statistics import DatasetStatistics


@pytest.fixture(scope="module")
def found() -> DatasetStatistics:
    return zoo.dataset_stats("digits", limit=30)


def test_the_record_survives_json(found: DatasetStatistics) -> None:
    assert DatasetStatistics.model_validate_json(found.to_json()) == found
    assert json.loads(found.to_json()) == found.to_dict()
    assert found.to_json().endswith("}\n")


@pytest.mark.parametrize(
    "change",
    [{"colour": 1}, {"mean": [0.5, 0.5]}, {"std": [0.1, 0.1, 1.5]}, {"images": 0}, {"size": [8]}, {"per_class": [-1]}],
)
def test_what_no_dataset_has_is_refused(found: DatasetStatistics, change: dict[str, Any]) -> None:
    content = found.to_dict()
    content["splits"]["test"] |= change
    with pytest.raises(ValidationError, match=next(iter(change))):
        DatasetStatistics.model_validate(content)
