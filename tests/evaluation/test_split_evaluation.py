"""The evaluation of a split: what a direct pass computes, and a network that stays as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from zoo import DualHead, Head, ZooError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.batches import ImageSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData
from zoo_harness.evaluation.split_evaluation import SplitEvaluation, evaluate_split, summed_loss
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork, prediction
from zoo_harness.records.run import measure
from zoo_harness.util.progress import Silence

from ..two_heads import BOTH, LAYER, load_digits, tiny

CPU = ComputeContext(torch.device("cpu"))


@pytest.fixture
def digits() -> RunData:
    return load_digits()


def evaluated(tuned: TunedNetwork, data: ImageData, compute: ComputeContext = CPU) -> SplitEvaluation:
    source = ImageSource(data, CPU.device)
    return evaluate_split(TrainableModel.whole(tuned, source, source, 10), source, compute, LAYER, Silence())


def test_network_that_is_broken_from_the_start_says_so(digits: RunData) -> None:
    tuned = tiny()
    nn.init.constant_(tuned.network.get_submodule("head").bias, math.nan)
    with pytest.raises(ZooError, match="evaluation: ") as raised:
        evaluated(tuned, digits.evaluation)
    assert raised.value.code == "loss-not-finite"


def test_loss_of_two_heads_is_the_sum() -> None:
    one, other = torch.rand(2, 6, 4).unbind()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = [nn.functional.cross_entropy(logits, labels, reduction="sum") for logits in (one, other)]
    torch.testing.assert_close(summed_loss((one, other), labels), expected[0] + expected[1])


def test_prediction_is_of_the_first_head_or_the_mean() -> None:
    one, other = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 4.0]])
    assert torch.equal(prediction((one, other), "cls"), one)
    assert torch.equal(prediction((one, other), "mean"), torch.tensor([[1.0, 2.5]]))
    assert torch.equal(prediction((one,), "mean"), one)


def test_accuracy_follows_the_rule_of_prediction(digits: RunData) -> None:
    tuned = tiny(head=BOTH)
    for path, favourite, strength in (("head", 3, 1.0), ("other", 8, 2.0)):
        layer = tuned.network.get_submodule(path)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        with torch.no_grad():
            layer.bias[favourite] = strength
    few = replace(digits.evaluation, images=digits.evaluation.images[:20], labels=torch.tensor([3] * 15 + [8] * 5))
    accuracies = {rule: evaluated(tuned, few, replace(CPU, predict=rule)).accuracy.value for rule in ("cls", "mean")}
    assert accuracies == {"cls": 0.75, "mean": 0.25}


def test_features_come_in_order_and_equal_a_direct_forward(digits: RunData) -> None:
    tuned = tiny(dropout=0.5)
    result = evaluated(tuned, digits.evaluation)
    network = tuned.network.eval()
    images = digits.evaluation.transform(torch.from_numpy(digits.evaluation.images))
    with torch.no_grad():
        features = network.pool(network.block(network.stem(images)))
        logits = network.head(features)
    assert result.features.dtype == torch.float32
    torch.testing.assert_close(result.features, features)
    correct = int((logits.argmax(1) == digits.evaluation.labels).sum())
    assert result.accuracy == measure(correct / 70, 70)
    assert result.loss == pytest.approx(float(nn.functional.cross_entropy(logits, digits.evaluation.labels)), rel=1e-5)


def test_evaluation_leaves_the_network_as_it_was(digits: RunData) -> None:
    tuned = tiny(dropout=0.5)
    before = {name: value.clone() for name, value in tuned.network.state_dict().items()}
    evaluated(tuned, digits.evaluation)
    assert all(torch.equal(value, before[name]) for name, value in tuned.network.state_dict().items())
    assert all(parameter.grad is None for parameter in tuned.network.parameters())


@pytest.mark.parametrize(("value", "n", "error"), [(0.5, 100, 0.05), (1.0, 10, 0.0), (0.9, 900, 0.01)])
def test_standard_error_is_binomial(value: float, n: int, error: float) -> None:
    assert measure(value, n).standard_error == pytest.approx(error)


def test_accuracy_of_two_heads_by_either_rule(digits: RunData) -> None:
    tuned = tiny(head=DualHead(cls=Head("head"), dist=Head("other")))
    trainable = TrainableModel.whole(
        tuned, ImageSource(digits.train, CPU.device), ImageSource(digits.evaluation, CPU.device), 10
    )
    first, mean = (
        evaluate_split(trainable, trainable.evaluation, replace(CPU, predict=rule), None, Silence())
        for rule in ("cls", "mean")
    )
    images, labels = digits.evaluation.batch(np.arange(len(digits.evaluation)), CPU.device)
    with torch.inference_mode():
        heads = tuned.logits(images)
    assert first.accuracy.value == pytest.approx(float((heads[0].argmax(1) == labels).double().mean()))
    assert mean.accuracy.value == pytest.approx(float(((heads[0] + heads[1]).argmax(1) == labels).double().mean()))
    assert (first.alternate_accuracy, mean.alternate_accuracy) == (mean.accuracy, first.accuracy)
    alone = TrainableModel.whole(tiny(), trainable.train, trainable.evaluation, 10)
    assert evaluate_split(alone, alone.evaluation, CPU, None, Silence()).alternate_accuracy is None
