"""Training: the same bits as a plain PyTorch loop, the same history for the same seed, and loud failure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from zoo import DualHead, Head, Training, UsageError, ZooError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.batches import ImageSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData
from zoo_harness.evaluation.split_evaluation import SplitEvaluation
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.run import EpochRecord
from zoo_harness.training.loop import Trainer, batches, divergence, starting_state
from zoo_harness.util.progress import Silence

from ..two_heads import BOTH, LAYER, TRAINING, load_digits, tiny

CPU = ComputeContext(torch.device("cpu"))


@pytest.fixture
def digits() -> RunData:
    return load_digits()


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
    with pytest.raises(ZooError, match="training, epoch 1, batch 2: ") as raised:
        run(tiny(), digits, Training(epochs=3, learning_rate=1e35))
    assert raised.value.code == "loss-not-finite"
    assert not math.isfinite(raised.value.facts["loss"])


def test_one_image_is_not_enough(digits: RunData) -> None:
    single = replace(digits.train, images=digits.train.images[:1], labels=digits.train.labels[:1])
    with pytest.raises(UsageError) as raised:
        run(tiny(), replace(digits, train=single))
    assert (raised.value.code, raised.value.facts["images"]) == ("too-few-images", 1)


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


@pytest.mark.parametrize(
    ("train", "evaluation", "diverged"),
    [
        ([2.4, 1.9], [2.3, 2.0], False),
        ([40.0, 9.0], [30.0, 8.0], False),  # a bad start that gets better
        ([2.4, 2.3], [2.4, 30.0], False),  # overfits
        ([2.4, 11.6], [2.4, 11.6], True),
        ([2.4, 1e16], [2.4, 1e16], True),
        ([0.7, 2.9], [0.7, 2.9], True),  # far above the first epoch, and above guessing
        ([0.2, 1.0], [0.2, 1.0], False),
        ([2.4, 1.0], [2.4, 1e9], True),
    ],
)
def test_a_diverged_training_is_told_from_a_bad_one(
    train: list[float], evaluation: list[float], diverged: bool
) -> None:
    history = [
        EpochRecord(epoch=epoch, train_loss=losses[0], train_accuracy=0.1, evaluation_loss=losses[1],
                    evaluation_accuracy=0.1, train_seconds=1, evaluation_seconds=1)
        for epoch, losses in enumerate(zip(train, evaluation, strict=True), 1)
    ]  # fmt: skip
    told = divergence(history, math.log(10))
    assert (told is not None) == diverged
    assert not diverged or "epoch 2" in str(told)
