"""The state of training after an epoch: a resumed run continues from it bit for bit."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn

from zoo.backbone import Training
from zoo.errors import WeightsError, ZooError
from zoo_harness.models.tensor_files import write_tensors
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.run import EpochRecord
from zoo_harness.training.loop import starting_state
from zoo_harness.training.state import PREVIOUS, STATE, TrainingProgress, mutable_tensors


def network(seed=0, width=6):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))
    layers[0].requires_grad_(False)
    return TunedNetwork(layers, ("3",), ("1", "3"), {"": True, "0": False, "1": True, "2": True, "3": True})


def train(state, steps, start=0):
    state.tuned.train()
    for step in range(start, start + steps):
        torch.manual_seed(step)
        state.optimizer.zero_grad()
        state.tuned.logits(torch.randn(8, 4))[0].square().mean().backward()
        state.optimizer.step()


def epoch(number, accuracy):
    figures = {"train_loss": 1.0, "train_accuracy": 0.1, "evaluation_loss": 1.0, "train_seconds": 0.1}
    return EpochRecord(epoch=number, evaluation_accuracy=accuracy, evaluation_seconds=0.1, **figures)


SETTINGS = [
    Training(),
    Training(optimizer="adamw", weight_decay=0.1),
    Training(optimizer="sgd", momentum=0.9, learning_rate=0.1),
    Training(optimizer="sgd"),
]


@pytest.mark.parametrize("training", SETTINGS, ids=lambda training: training.optimizer)
def test_a_run_goes_on_bit_for_bit(tmp_path, training):
    straight = starting_state(network(), training)
    train(straight, 5)
    straight.end_epoch(epoch(1, 0.5), keep_best=True)
    straight.save(tmp_path)
    train(straight, 5, start=5)

    resumed = starting_state(network(), training)
    resumed.load(tmp_path)
    assert resumed.progress == TrainingProgress(history=(epoch(1, 0.5),))
    train(resumed, 5, start=5)
    expected = straight.tuned.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.tuned.network.state_dict().items())


def test_the_best_epoch_comes_back(tmp_path):
    state = starting_state(network(), Training(learning_rate=0.1))
    kept = {}
    for number, accuracy in enumerate((0.4, 0.7, 0.7, 0.6), 1):
        train(state, 2)
        state.end_epoch(epoch(number, accuracy), keep_best=True)
        kept[state.progress.epoch] = copy.deepcopy(state.tuned.network.state_dict())
    state.save(tmp_path)
    again = starting_state(network(), Training(learning_rate=0.1))
    again.load(tmp_path)
    assert (again.progress.epoch, again.progress.best) == (4, epoch(2, 0.7))
    again.restore_best_weights()
    assert all(torch.equal(value, kept[2][name]) for name, value in again.tuned.network.state_dict().items())


def test_only_what_changes_is_written(tmp_path):
    tuned = network()
    assert "0.weight" not in mutable_tensors(tuned)
    assert {"1.running_mean", "1.weight", "3.bias"} < set(mutable_tensors(tuned))
    tuned.modes["1"] = False
    assert "1.running_mean" not in mutable_tensors(tuned)


def test_nothing_happens_before_the_first_epoch(tmp_path):
    state = starting_state(network(), Training())
    state.load(tmp_path)
    assert state.progress == TrainingProgress()


def test_a_state_of_another_network(tmp_path):
    starting_state(network(), Training()).save(tmp_path)
    with pytest.raises(WeightsError) as raised:
        starting_state(network(width=7), Training()).load(tmp_path)
    assert (raised.value.code, raised.value.facts["name"]) == ("state-of-another-run", "1.weight")
    train(state := starting_state(network(), Training()), 1)
    state.save(tmp_path)
    other = network()
    other.network[1].requires_grad_(False)
    with pytest.raises(WeightsError) as raised:
        starting_state(other, Training()).load(tmp_path)
    assert raised.value.code == "state-of-another-run"


@pytest.mark.parametrize("size", [-9, 0])
def test_a_damaged_state(tmp_path, size):
    starting_state(network(), Training()).save(tmp_path)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError) as raised:
        starting_state(network(), Training()).load(tmp_path)
    assert (raised.value.code, raised.value.facts["path"]) == ("state-damaged", str(path))


def saved(folder, epochs=2, run="one"):
    """A state of some epochs in a folder, with the one before it."""
    state = starting_state(network(), Training(), run)
    for number in range(1, epochs + 1):
        train(state, 1, start=number)
        state.end_epoch(epoch(number, 0.5), keep_best=False)
        state.save(folder)
    return state


def refused(folder, run="one"):
    with pytest.raises(ZooError) as raised:
        starting_state(network(), Training(), run).load(folder)
    return raised.value.code


def test_a_damaged_newest_state_gives_way_to_the_one_before(tmp_path):
    saved(tmp_path)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[:-50] + bytes([content[-50] ^ 1]) + content[-49:])
    state = starting_state(network(), Training(), "one")
    assert len(state.load(tmp_path)) == 1
    assert state.progress.epoch == 1
    previous = (tmp_path / PREVIOUS).read_bytes()
    state.end_epoch(epoch(2, 0.5), keep_best=False)
    state.save(tmp_path)
    assert (tmp_path / PREVIOUS).read_bytes() == previous  # the damaged one does not replace it
    state.save(tmp_path)
    assert (tmp_path / PREVIOUS).read_bytes() != previous
    assert starting_state(network(), Training(), "one").load(tmp_path) == []


def test_a_kill_between_two_renames_loses_one_epoch(tmp_path):
    saved(tmp_path)
    (tmp_path / STATE).unlink()
    state = starting_state(network(), Training(), "one")
    assert (state.load(tmp_path), state.progress.epoch) == ([], 1)


def test_the_state_of_a_like_network_in_another_run_is_refused(tmp_path):
    saved(tmp_path)
    assert refused(tmp_path, "two") == "state-of-another-run"


def test_a_state_without_identity_is_taken_with_a_warning(tmp_path):
    expected = saved(tmp_path)
    tensors = {f"network.{name}": tensor for name, tensor in mutable_tensors(expected.tuned).items()}
    history = {"training": expected.progress.model_dump_json()}
    write_tensors(tmp_path / STATE, tensors, history)
    state = starting_state(network(), Training(), "one")
    (warning,) = state.load(tmp_path)
    assert "no identity" in warning
    assert state.progress == expected.progress
    write_tensors(tmp_path / STATE, tensors, {**history, "other": ""})
    (tmp_path / PREVIOUS).unlink()
    assert refused(tmp_path) == "state-damaged"


@pytest.mark.timeout(20)
def test_links_and_pipes_are_no_states(tmp_path):
    saved(tmp_path)
    (tmp_path / STATE).rename(tmp_path / "elsewhere")
    (tmp_path / STATE).symlink_to("elsewhere")
    assert refused(tmp_path) == "file-is-a-link"
    (tmp_path / STATE).unlink()
    os.mkfifo(tmp_path / STATE)
    assert refused(tmp_path) == "not-a-regular-file"
