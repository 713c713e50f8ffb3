"""The published tables are read strictly and found by backbone and data set."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from zoo_harness.reports.published_results import ComputeContext, PublishedTable, published_figures

TABLE = {
    "source": "A study",
    "dataset": "cifar10",
    "metric": "validation accuracy (%), 20 epochs, Adam lr 1e-4, batch size 32, 224x224 input",
    "rows": [{"backbone": "tiny", "trainable_parameters": 10, "val_accuracy": 90.5}],
}


def test_both_tables_are_found_by_name() -> None:
    malpure, report = published_figures("deit_base_distilled", "cifar10")
    assert (malpure.row.val_accuracy, malpure.recipe) == (96.45, "paper")
    assert (report.row.val_accuracy, report.recipe) == (96.44, "report")
    assert malpure.table.compute == ComputeContext(20, 1e-4, 32, 224)
    assert report.table.compute == ComputeContext(10, 1e-4, 32, 224)
    assert report.row.train_seconds_per_epoch == 626.44


@pytest.mark.parametrize(("backbone", "dataset"), [("cait_s24", "cifar100"), ("resnet18", "cifar10")])
def test_nothing_published_gives_nothing(backbone: str, dataset: str) -> None:
    assert published_figures(backbone, dataset) == ()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"rows": [{**TABLE["rows"][0], "accuracy": 1.0}]}, "accuracy"),  # type: ignore[dict-item]
        ({"rows": [{**TABLE["rows"][0], "val_accuracy": 101.0}]}, "val_accuracy"),  # type: ignore[dict-item]
        ({"metric": "validation accuracy (%)"}, "metric"),
    ],
)
def test_anything_unexpected_in_a_table_is_an_error(change: dict[str, object], where: str) -> None:
    PublishedTable.model_validate(TABLE)
    with pytest.raises(ValidationError, match=where):
        PublishedTable.model_validate({**TABLE, **change})
