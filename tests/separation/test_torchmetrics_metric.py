"""The torchmetrics wrapper: batches, reset, pickling, collections, two processes, and life without torchmetrics."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

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


def test_bad_batches(cloud):
    metric = SeparationMetric()
    with pytest.raises(UsageError, match=r"shape \(2, 3, 4\) and labels of shape \(2,\); expected \(N, D\)"):
        metric.update(torch.zeros(2, 3, 4), torch.zeros(2))
    metric.update(cloud[0][:2], cloud[1][:2])
    with pytest.raises(UsageError, match=r"order 2 .* the largest order is 1"):
        metric.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")  # torchmetrics' own, before our error
def test_no_batch_at_all():
    with pytest.raises(UsageError, match="no batch was given"):
        SeparationMetric().compute()


TWO_PROCESSES = """
import sys, torch, torch.distributed as dist
from zoo import SeparationMetric
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
features, labels = torch.load(sys.argv[3])
metric = SeparationMetric()
part = slice(0, 25) if rank == 0 else slice(25, None)  # of different length
metric.update(features[part][:10], labels[part][:10])
metric.update(features[part][10:], labels[part][10:])
print({name: float(value) for name, value in metric.compute().items()})
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_compute_the_scores_of_both_their_batches(cloud, tmp_path):
    torch.save(cloud, tmp_path / "cloud.pt")
    command = [sys.executable, "-c", TWO_PROCESSES]
    files = [str(tmp_path / "rendezvous"), str(tmp_path / "cloud.pt")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen([*command, str(rank), *files], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(2)
    ]
    said = [run.communicate(timeout=300)[0].strip() for run in runs]
    assert said == [str(expected(*cloud))] * 2


def test_without_torchmetrics_using_it_says_what_to_install(tmp_path: Path):
    program = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "from zoo import *\n"
        "try:\n    SeparationMetric()\nexcept UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "SeparationMetric needs torchmetrics: pip install 'blockzoo[torchmetrics]'"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"order": 0}, "order 0"),
        ({"order": "a"}, "order 'a'"),
        ({"metric": "cos"}, "metric 'cos' is not one of euclidean, cosine"),
        ({"per_class": -3}, "per_class -3"),
        ({"memory_budget": 0}, "memory_budget 0"),
        ({"seed": -1}, "seed -1"),
        ({"ordr": 2}, "ordr"),
    ],
)
def test_what_cannot_be_meant_is_told_before_the_epoch(options, told):
    with pytest.raises(UsageError, match=told):
        SeparationMetric(**options)


def test_batches_may_be_arrays_and_must_be_of_one_width():
    metric = SeparationMetric(order=1)
    metric.update(np.eye(4), np.array([0, 0, 1, 1]))
    with pytest.raises(UsageError, match="features of this batch are 3 wide, those before it 4"):
        metric.update(np.eye(3), np.array([0, 0, 1]))
    assert float(metric.compute()["si"]) == separation(np.eye(4), np.array([0, 0, 1, 1]), 1).si.value
