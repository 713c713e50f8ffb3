"""TensorBoard gets everything of a run, each point once, whatever became of the processes that ran it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import zoo
from zoo import Backbone, Dataset
from zoo_harness.records.run import RunRecord

Scalars = dict[str, list[tuple[int, float]]]


def read(run: Path) -> tuple[Scalars, EventAccumulator]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}, events


def settings(run: Path) -> tuple[dict[str, Any], list[str], bool]:
    """The settings that TensorBoard compares runs by, the figures that it shows for them, and whether the run ended."""
    chosen: dict[str, Any] = {}
    figures: list[str] = []
    ended = False
    (path,) = (run / "tensorboard").iterdir()
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                figures += [each.name.tag for each in data.experiment.metric_infos]
                for name, setting in data.session_start_info.hparams.items():
                    chosen[name] = setting.string_value or setting.number_value
                ended |= data.HasField("session_end_info")
    return chosen, figures, ended


@pytest.fixture(scope="module")
def resumed(interrupted_run: Path, backbone: Backbone, digits: Dataset, tmp_path_factory: Any) -> zoo.Run:
    """The interrupted run, whose process was killed in the middle of its second epoch, resumed to its end."""
    out = Path(shutil.copytree(interrupted_run, tmp_path_factory.mktemp("runs") / "run"))
    lines = (out / "steps.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 2
    torn = lines[-1].replace('"step":4,"epoch":1', '"step":6,"epoch":2')
    (out / "steps.jsonl").write_text("".join([*lines, torn, torn[:20]]))
    return zoo.evaluate(backbone, digits, resume=out)


def test_a_resumed_run_has_each_step_once(resumed: zoo.Run, finished: zoo.Run) -> None:
    assert [(step.step, step.epoch) for step in resumed.steps] == [(2, 1), (4, 1), (6, 2), (8, 2), (10, 2)]
    untimed = [[step.model_copy(update={"images_per_second": 0}) for step in run.steps] for run in (resumed, finished)]
    assert untimed[0] == untimed[1]
    assert resumed.steps.to_pandas().step.tolist() == [2, 4, 6, 8, 10]
    assert "<th>learning rate</th>" in resumed.steps._repr_html_()


def test_a_resumed_run_has_each_point_once(resumed: zoo.Run) -> None:
    scalars, events = read(resumed.directory)
    history, results = resumed.history, resumed.record.results
    for name in ("loss", "accuracy", "seconds"):
        for split, shown in (("train", "train"), ("evaluation", "test")):
            expected = [(line.epoch, getattr(line, f"{split}_{name}")) for line in history]
            assert scalars.pop(f"{name}/{shown}") == [(epoch, pytest.approx(value)) for epoch, value in expected]
    for tag, name in (("loss", "loss"), ("learning rate", "learning_rate"), ("images per second", "images_per_second")):
        expected = [(step.step, getattr(step, name)) for step in resumed.steps]
        assert scalars.pop(f"steps/{tag}") == [(step, pytest.approx(value)) for step, value in expected]
    assert [epoch for epoch, _rate in scalars.pop("learning rate")] == [1, 2]
    for split, shown in (("train", "train"), ("evaluation", "test")):
        before, after = (
            getattr(found, split).si.value for found in (results.separation_before, results.separation_after)
        )
        assert scalars.pop(f"SI/{shown}") == [(0, pytest.approx(before)), (2, pytest.approx(after))]
    layers = [(depth, layer.separation.si.value) for depth, layer in enumerate(results.layer_curve.layers)]
    assert scalars.pop("SI of each layer/test") == [(depth, pytest.approx(value)) for depth, value in layers]
    assert {tag.partition("/")[0] for tag in scalars} == {
        *("high-order SI", "soft SI", "anti SI", "centre SI"),
        *(f"raw pixels {name}" for name in ("SI", "high-order SI", "soft SI", "anti SI", "centre SI")),
    }
    assert {tag: len(events.Images(tag)) for tag in events.Tags()["images"]} == {
        "samples": 1, "confusion": 1, "layers": 1,
    }  # fmt: skip
    assert events.Images("samples")[0].encoded_image_string.startswith(b"\x89PNG")


def test_settings_for_comparing_runs(resumed: zoo.Run) -> None:
    chosen, figures, ended = settings(resumed.directory)
    assert (chosen["backbone"], chosen["batch_size"], chosen["optimizer"]) == ("unregistered_resnet", 16, "adam")
    assert chosen["nesterov"] == "False"
    assert figures == ["accuracy/test", "loss/test", "SI/test"]
    assert set(figures) <= read(resumed.directory)[0].keys()
    assert ended


def test_held_out_and_test_figures_have_names_of_their_own(
    backbone: Backbone, scans: Callable[..., Dataset], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"tensorboard": True, "layer_curve": False, "val_fraction": 0.25, "batch_size": 16}
    run = zoo.train(backbone, scans(), epochs=1, out=tmp_path / "run", **options)
    record: RunRecord = run.record
    scalars = read(run.directory)[0]
    assert scalars["accuracy/held-out"] == [(1, pytest.approx(record.results.accuracy.value))]
    assert scalars["accuracy/test"] == [(1, pytest.approx(record.results.test_accuracy.value))]
    assert [step for step, _value in scalars["SI/test"]] == [1]
    assert settings(run.directory)[1] == ["accuracy/test", "loss/test", "SI/test"]
    assert record.results.evaluation_split == run.history[0].evaluation_split == "held-out"
    assert "held-out accuracy" in run.history._repr_html_()
    assert "test accuracy" in repr(run)
    assert "mean_train_seconds" not in run._repr_html_()
    assert run.steps == (), "four steps, and every tenth is logged"


def test_log_and_events_may_be_asked_for_when_a_run_is_resumed(
    backbone: Backbone, digits: Dataset, interrupted_run: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(interrupted_run, tmp_path / "run"))
    run = zoo.evaluate(backbone, digits, resume=out, log_steps=5, layer_curve=True)
    assert [step.step for step in run.steps] == [2, 4, 10]
