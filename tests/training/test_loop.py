"""Training: the same bits as a plain PyTorch loop, the same history for the same seed, and loud failure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import DualHead, FeatureLayer, Head, Preprocessing, Training, UsageError, ZooError, load_registry
from zoo.backbone import Tuning
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.batches import ImageSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.evaluation.split_evaluation import SplitEvaluation, evaluate_split, measure, summed_loss
from zoo_harness.models.surgery import prepare
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork, prediction
from zoo_harness.records.run import EpochRecord
from zoo_harness.records.subset import Subset
from zoo_harness.training.loop import Trainer, batches, starting_state
from zoo_harness.util.progress import Silence

CPU = ComputeContext(torch.device("cpu"))
LAYER = FeatureLayer("pool", 16, pool="flatten")
TRAINING = Training(epochs=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def digits() -> RunData:
    transform = BatchTransform(Preprocessing(input_size=(8, 8)))
    return load_data(load_registry().dataset("digits")[0], None, None, Subset(per_class=7), transform)


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, the second with dropout after it, and two heads."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(dropout))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, 10)
        self.other = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(self.block(self.stem(images)))
        return (self.head(features) + self.other(features)) / 2


def tiny(*, dropout: float = 0.0, head: Head | DualHead = Head("head")) -> TunedNetwork:  # noqa: B008 - it is frozen
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        tuning = Tuning("default", ("block",), head, TRAINING, (FeatureLayer("block", 1),))
        return prepare(Tiny(dropout), tuning, 10, torch.rand(2, 3, 8, 8))


BOTH = DualHead(cls=Head("head"), dist=Head("other"))


def run(
    tuned: TunedNetwork, digits: RunData, training: Training = TRAINING, compute: ComputeContext = CPU
) -> list[EpochRecord]:
    """The history, without the wall-clock seconds."""
    history: list[EpochRecord] = []

    def keep(epoch: EpochRecord, _result: SplitEvaluation) -> None:
        history.append(epoch.model_copy(update={"train_seconds": 0.0, "evaluation_seconds": 0.0}))

    fine_tune(tuned, digits, training, compute, keep, Silence())
    return history


def fine_tune(tuned, digits, training, compute, on_epoch, progress):
    state = starting_state(tuned, training)
    Trainer(trainable(tuned, digits, training), training, compute, state, LAYER, on_epoch, progress).run()


def trainable(tuned: TunedNetwork, digits: RunData, training: Training = TRAINING) -> TrainableModel:
    train = ImageSource(digits.train, CPU.device, training.augment)
    return TrainableModel.whole(tuned, train, ImageSource(digits.evaluation, CPU.device), 10)


def evaluated(tuned: TunedNetwork, data: ImageData, compute: ComputeContext = CPU) -> SplitEvaluation:
    source = ImageSource(data, CPU.device)
    return evaluate_split(TrainableModel.whole(tuned, source, source, 10), source, compute, LAYER, Silence())


# The loop


@pytest.mark.parametrize("head", [Head("head"), BOTH], ids=["one head", "two heads"])
def test_same_bits_as_a_plain_loop(digits: RunData, head: Head | DualHead) -> None:
    tuned, twin = tiny(head=head), tiny(head=head).network
    history = run(tuned, digits)
    losses = plain_loop(twin, digits.train, two_heads=isinstance(head, DualHead))
    assert [epoch.train_loss for epoch in history] == pytest.approx(losses)
    expected = twin.state_dict()
    assert [name for name, value in tuned.network.state_dict().items() if not torch.equal(value, expected[name])] == []


def plain_loop(network: nn.Module, data: ImageData, *, two_heads: bool) -> list[float]:
    """Two epochs over 70 images in batches of 32, 32 and 6, with nothing of ours but the order of the images.

    Gives the mean loss of each epoch.
    """
    images, labels = data.transform(torch.from_numpy(data.images)), data.labels
    heads = [network.head, network.other] if two_heads else [network.head]
    for parameter in network.parameters():
        parameter.requires_grad = False
    trained = [value for part in (network.block, *heads) for value in part.parameters()]
    for parameter in trained:
        parameter.requires_grad = True
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    network.eval()
    history = []
    for epoch in (1, 2):
        total = 0.0
        network.block.train()
        order = torch.from_numpy(np.random.default_rng((0, epoch)).permutation(70))
        for indices in (order[:32], order[32:64], order[64:]):
            features = network.pool(network.block(network.stem(images[indices])))
            loss = torch.stack([nn.functional.cross_entropy(head(features), labels[indices]) for head in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(indices)
        history.append(total / 70)
    return history


def test_it_learns(digits: RunData) -> None:
    history = run(tiny(), digits, Training(epochs=20, learning_rate=3e-2))
    assert history[-1].train_loss < 0.7 * history[0].train_loss
    assert history[-1].train_accuracy > 0.6
    assert history[-1].evaluation_accuracy > 0.5


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_same_seed_same_history_other_seed_another(digits: RunData, dropout: float) -> None:
    once = run(tiny(dropout=dropout), digits)
    torch.rand(7)  # what the process drew before must not matter
    again = run(tiny(dropout=dropout), digits)
    other = run(tiny(dropout=dropout), digits, compute=replace(CPU, seed=1))
    assert once == again
    assert once != other
    assert [epoch.epoch for epoch in once] == [1, 2]


def test_first_epoch_does_not_depend_on_how_many_follow(digits: RunData) -> None:
    assert run(tiny(dropout=0.5), digits, replace(TRAINING, epochs=1)) == run(tiny(dropout=0.5), digits)[:1]


def test_callback_gets_every_epoch_after_its_evaluation(digits: RunData) -> None:
    events: list[str] = []

    class Watcher:
        def stage(self, name: str, images: int) -> None:
            events.append(f"{name} of {images}")

        def advance(self, images: int) -> None:
            events.append(str(images))

    def note(epoch: EpochRecord, result: SplitEvaluation) -> None:
        assert (epoch.evaluation_loss, epoch.evaluation_accuracy) == (result.loss, result.accuracy.value)
        assert epoch.train_seconds > 0
        assert epoch.evaluation_seconds > 0
        events.append(f"epoch {epoch.epoch} done")

    fine_tune(tiny(), digits, TRAINING, CPU, note, Watcher())
    expected = []
    for epoch in (1, 2):
        expected += [f"epoch {epoch}/2: training of 70", "32", "32", "6"]
        expected += [f"epoch {epoch}/2: evaluating of 70", "32", "32", "6", f"epoch {epoch} done"]
    assert events == expected


def test_error_in_the_callback_stops_the_run(digits: RunData) -> None:
    def interrupt(_epoch: EpochRecord, _result: SplitEvaluation) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(tiny(), digits, TRAINING, CPU, interrupt, Silence())


def test_no_epochs_change_nothing(digits: RunData) -> None:
    tuned = tiny()
    assert run(tuned, digits, replace(TRAINING, epochs=0)) == []
    fresh = tiny().network.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in tuned.network.state_dict().items())


def test_loss_that_is_not_finite_stops_the_run(digits: RunData) -> None:
    with pytest.raises(
        ZooError, match=r"training, epoch 1, batch 2: the loss is (nan|inf); lower --learning-rate, or check"
    ):
        run(tiny(), digits, Training(epochs=3, learning_rate=1e35))


def test_network_that_is_broken_from_the_start_says_so(digits: RunData) -> None:
    tuned = tiny()
    nn.init.constant_(tuned.network.get_submodule("head").bias, math.nan)
    with pytest.raises(ZooError, match="evaluation: the loss is nan"):
        evaluated(tuned, digits.evaluation)


def test_one_image_is_not_enough(digits: RunData) -> None:
    single = replace(digits.train, images=digits.train.images[:1], labels=digits.train.labels[:1])
    with pytest.raises(UsageError, match="training needs at least 2 images, given 1"):
        run(tiny(), replace(digits, train=single))


def test_a_run_that_stops_and_goes_on_ends_with_the_same_bits(digits: RunData, tmp_path: Path) -> None:
    training = Training(epochs=4, learning_rate=1e-2, schedule="cosine", warmup_epochs=1, augment=("crop", "flip"))
    straight = tiny(dropout=0.5)
    whole = run(straight, digits, training)

    def stop(epoch: EpochRecord, _result: SplitEvaluation) -> None:
        state.save(tmp_path)
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    state = starting_state(tiny(dropout=0.5), training)
    with pytest.raises(KeyboardInterrupt):
        Trainer(trainable(state.tuned, digits, training), training, CPU, state, LAYER, stop, Silence()).run()
    resumed = starting_state(tiny(dropout=0.5), training)
    resumed.load(tmp_path)
    Trainer(trainable(resumed.tuned, digits, training), training, CPU, resumed, LAYER, lambda *_: None, Silence()).run()
    assert [line.train_loss for line in resumed.progress.history] == [line.train_loss for line in whole]
    expected = straight.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.tuned.network.state_dict().items())


def test_patience_ends_a_run_that_gets_no_better(digits: RunData) -> None:
    history = run(tiny(), digits, Training(epochs=30, learning_rate=1e-9, patience=3))
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]


def test_augmentation_changes_what_training_sees_and_not_what_is_evaluated(digits: RunData) -> None:
    standing_still = Training(epochs=1, learning_rate=1e-30)
    plain, changed = (
        run(tiny(), digits, replace(standing_still, augment=augment))[0] for augment in ((), ("crop", "rotate"))
    )
    assert plain.train_loss != changed.train_loss
    assert plain.evaluation_loss == pytest.approx(changed.evaluation_loss, rel=0.2)  # but for the batch statistics


# Batches


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [
        (64, 32, [32, 32]),
        (66, 32, [32, 32, 2]),
        (65, 32, [32, 33]),
        (33, 32, [33]),
        (32, 32, [32]),
        (1, 32, [1]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batch_lengths(count: int, size: int, lengths: list[int]) -> None:
    found = list(batches(count, size, seed=0, epoch=1))
    assert [len(indices) for indices in found] == lengths
    assert sorted(np.concatenate(found).tolist()) == list(range(count))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(np.concatenate(list(batches(50, 8, seed, epoch)))) for seed in (0, 1) for epoch in (1, 2)}
    assert len(orders) == 4
    assert tuple(np.concatenate(list(batches(50, 7, 0, 1)))) in orders, "but not on the size of the batches"


# Two heads


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


# SplitEvaluation


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
