"""The published tables are read strictly and found by backbone and dataset."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from zoo_harness.reports.published_results import PublishedTable, TrainingSetting, published_figures

SETTING = {"epochs": 20, "optimizer": "adam", "learning_rate": 1e-4, "batch_size": 32, "input_side": 224}
ROW = {"backbone": "tiny", "trainable_parameters": 10, "val_accuracy": 90.5}
TABLE = {
    "source": "A study",
    "dataset": "cifar10",
    "metric": "validation accuracy (%)",
    "setting": SETTING,
    "rows": [ROW],
}


def test_both_tables_are_found_by_name() -> None:
    malpure, report = published_figures("deit_base_distilled", "cifar10")
    assert (malpure.row.val_accuracy, malpure.recipe) == (96.45, "paper")
    assert (report.row.val_accuracy, report.recipe) == (96.44, "report")
    assert malpure.table.setting == TrainingSetting.model_validate(SETTING)
    assert report.table.setting == TrainingSetting.model_validate({**SETTING, "epochs": 10})
    assert report.row.train_seconds_per_epoch == 626.44


@pytest.mark.parametrize("backbone", ["resnet152v2", "densenet201", "vgg16_bn_cifar"])
def test_the_words_of_a_table_say_what_its_fields_say(backbone: str) -> None:
    for figure in published_figures(backbone):
        setting, rates = figure.table.setting, {1e-4: "1e-4", 0.1: "0.1"}
        words = [
            f"{setting.epochs} epochs",
            f"{setting.optimizer} lr {rates[setting.learning_rate]}",
            f"batch size {setting.batch_size}",
            f"{setting.input_side}x{setting.input_side} input",
        ]
        assert ", ".join(words) in figure.table.metric.replace("Adam", "adam").replace("SGD", "sgd")


@pytest.mark.parametrize(("backbone", "dataset"), [("cait_s24", "cifar100"), ("resnet18", "cifar10")])
def test_nothing_published_gives_nothing(backbone: str, dataset: str) -> None:
    assert published_figures(backbone, dataset) == ()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"surprise": 1}, "surprise"),
        ({"rows": [{**ROW, "accuracy": 1.0}]}, "accuracy"),
        ({"rows": [{**ROW, "val_accuracy": 101.0}]}, "val_accuracy"),
        ({"setting": None}, "setting"),
        ({"setting": {**SETTING, "optimizer": "Adam"}}, "optimizer"),
        ({"setting": {**SETTING, "epochs": 0}}, "epochs"),
        ({"setting": {**SETTING, "momentum": 0.9}}, "momentum"),
        ({"setting": {name: value for name, value in SETTING.items() if name != "batch_size"}}, "batch_size"),
    ],
)
def test_anything_unexpected_in_a_table_is_an_error(change: dict[str, object], where: str) -> None:
    PublishedTable.model_validate(TABLE)
    with pytest.raises(ValidationError, match=where):
        PublishedTable.model_validate({**TABLE, **change})
