"""The torchmetrics wrapper: batches, reset, pickling, collections, two processes, and life without torchmetrics."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

import zoo_harness.separation
from zoo import SeparationMetric, separation
from zoo.errors import UsageError


@pytest.fixture
def cloud():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (60,), generator=generator)
    return torch.randn(60, 4, generator=generator) + labels[:, None], labels


def expected(features, labels, order=2, **options):
    result = separation(features, labels, order, **options)
    return {
        "si": result.si.value,
        "high_order_si": result.high[order].value,
        "soft_si": result.soft[order].value,
        "anti_si": result.anti[order].value,
        "centre_si": result.centre.value,
    }


def computed(metric):
    return {name: float(value) for name, value in metric.compute().items()}


def test_batches_count_as_one_set(cloud):
    metric = SeparationMetric(order=3, metric="cosine", normalize=True)
    for features, labels in zip(cloud[0].split(13), cloud[1].split(13), strict=True):
        metric.update(features.requires_grad_(), labels)
    assert computed(metric) == expected(*cloud, order=3, metric="cosine", normalize=True)


def test_labels_may_be_whole_floats_in_one_column(cloud):
    metric = SeparationMetric()
    metric.update(cloud[0], cloud[1][:, None].bfloat16())
    assert computed(metric) == expected(*cloud)


def test_reset_forgets(cloud):
    features, labels = cloud
    metric = SeparationMetric()
    metric.update(-features, labels.flip(0))
    metric.compute()
    metric.reset()
    metric.update(features, labels)
    assert computed(metric) == expected(features, labels)


def test_survives_pickling_with_its_batches(cloud):
    metric = SeparationMetric(order=1, per_class=10, seed=2)
    metric.update(*cloud)
    again = pickle.loads(pickle.dumps(metric))  # noqa: S301 - our own
    assert computed(again) == expected(*cloud, order=1, per_class=10, seed=2)


def test_forward_gives_the_scores_of_the_batch(cloud):
    metric = SeparationMetric()
    batch = metric(cloud[0][:20], cloud[1][:20])
    metric(cloud[0][20:], cloud[1][20:])
    assert float(batch["si"]) == expected(cloud[0][:20], cloud[1][:20])["si"]
    assert computed(metric) == expected(*cloud)


def test_in_a_collection(cloud):
    collection = MetricCollection({"layer": SeparationMetric()}, postfix="/val")
    collection.update(*cloud)
    assert collection.compute()["soft_si/val"] == expected(*cloud)["soft_si"]


def test_batches_may_be_arrays_and_must_fit_together():
    metric = SeparationMetric(order=1)
    metric.update(np.eye(4), np.array([0, 0, 1, 1]))
    for shapes in (((2, 3, 4), (2,)), ((3, 3), (3,)), ((3, 4), (2,))):
        with pytest.raises(UsageError) as caught:
            metric.update(*(np.zeros(shape) for shape in shapes))
        assert (caught.value.code, caught.value.facts["shapes"]) == ("array-shape", shapes)
    assert float(metric.compute()["si"]) == separation(np.eye(4), np.array([0, 0, 1, 1]), 1).si.value


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")  # torchmetrics' own, before our error
def test_computing_needs_a_batch_with_enough_samples(cloud):
    metric = SeparationMetric()
    with pytest.raises(UsageError) as caught:
        metric.compute()
    assert caught.value.code == "no-batch"
    metric.update(cloud[0][:2], cloud[1][:2])
    with pytest.raises(UsageError) as caught:
        metric.compute()
    assert (caught.value.code, caught.value.facts["most"]) == ("option-range", 1)


def computed_in_process(rank, features, labels, rendezvous):
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    metric = SeparationMetric()
    part = slice(0, 25) if rank == 0 else slice(25, None)  # of different length
    metric.update(features[part][:10], labels[part][:10])
    metric.update(features[part][10:], labels[part][10:])
    found = computed(metric)
    torch.distributed.destroy_process_group()
    return found


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # importing torchmetrics anew takes seconds
def test_two_processes_compute_the_scores_of_both_their_batches(cloud, tmp_path):
    arrays = (given.numpy() for given in cloud)
    given = *arrays, str(tmp_path / "rendezvous")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.starmap_async(computed_in_process, [(rank, *given) for rank in range(2)], chunksize=1).get(120)
    assert found == [expected(*cloud)] * 2


def test_without_torchmetrics_using_it_raises(monkeypatch):
    name = "zoo_harness.separation.torchmetrics_metric"
    monkeypatch.setattr(zoo_harness.separation, "torchmetrics_metric", sys.modules[name])  # restored at the end
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    without = importlib.import_module(name)
    with pytest.raises(UsageError) as caught:
        without.SeparationMetric()
    assert caught.value.code == "torchmetrics-missing"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"order": 0}, "option-range"),
        ({"order": "a"}, "option-range"),
        ({"metric": "cos"}, "option-choice"),
        ({"per_class": -3}, "option-range"),
        ({"memory_budget": 0}, "option-range"),
        ({"seed": -1}, "option-range"),
        ({"references": np.eye(2)}, "missing-labels"),
        ({"ordr": 2}, "option-unknown"),
    ],
)
def test_options_are_refused_before_the_epoch(options, code):
    with pytest.raises(UsageError) as caught:
        SeparationMetric(**options)
    assert caught.value.code == code
