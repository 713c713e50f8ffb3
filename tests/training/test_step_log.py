"""The log of steps: every N-th one with its loss, rate and speed, whatever else is logged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from zoo import Training, ZooError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.records.steps import StepRecord
from zoo_harness.training.loop import Trainer, starting_state
from zoo_harness.training.optimizer import learning_rate
from zoo_harness.training.step_log import StepLog
from zoo_harness.util.progress import Silence

from ..two_heads import LAYER, load_digits, tiny
from .test_loop import run, trainable

SETTINGS = Training(epochs=2, batch_size=8, learning_rate=1e-2, schedule="cosine", warmup_epochs=1)


def logged(every: int | None, training: Training = SETTINGS) -> tuple[list[StepRecord], list[float]]:
    """The logged steps, and the training loss of each epoch."""
    steps: list[StepRecord] = []
    losses: list[float] = []
    tuned, digits = tiny(), load_digits()
    state = starting_state(tuned, training)
    compute = ComputeContext(torch.device("cpu"))
    ended = lambda epoch, _result: losses.append(epoch.train_loss)  # noqa: E731
    log = StepLog(every, steps.extend)
    parts = trainable(tuned, digits, training), training, compute, state, LAYER, ended, Silence()
    try:
        Trainer(*parts, evaluation_split="held-out", log=log).run()
    finally:
        assert all(StepRecord.model_validate_json(step.model_dump_json(), strict=True) == step for step in steps)
    assert all(line.evaluation_split == "held-out" for line in state.progress.history)
    return steps, losses


def test_each_step_has_the_loss_and_rate_of_its_batch() -> None:
    steps, losses = logged(1)
    assert [(step.step, step.epoch) for step in steps] == [(number, 1 + (number > 9)) for number in range(1, 19)]
    assert [step.learning_rate for step in steps] == [learning_rate(SETTINGS, step, 9) for step in range(18)]
    sizes = [8] * 8 + [6]  # of 70 images
    for epoch, expected in enumerate(losses, 1):
        found = [step.loss for step in steps if step.epoch == epoch]
        assert sum(map(float.__mul__, found, map(float, sizes))) / 70 == pytest.approx(expected, rel=1e-6)
    assert all(step.images_per_second > 0 for step in steps)
    assert losses == [epoch.train_loss for epoch in run(tiny(), load_digits(), SETTINGS)], "logging changes nothing"


@pytest.mark.parametrize(("every", "numbers"), [(4, [4, 8, 12, 16]), (9, [9, 18]), (18, [18]), (19, []), (None, [])])
def test_every_nth_step_is_the_same_step(every: int | None, numbers: list[int]) -> None:
    all_steps = {step.step: step for step in logged(1)[0]}
    found = logged(every)[0]
    assert [step.step for step in found] == numbers
    assert [step.loss for step in found] == [all_steps[number].loss for number in numbers]


def test_images_per_second_count_from_the_last_logged_step_or_the_start_of_the_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([10.0, 12.0, 13.0, 100.0, 101.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    steps: list[StepRecord] = []
    log, losses = StepLog(2, steps.extend), torch.full((5,), 8.0)
    for epoch, first in ((1, 0), (2, 5)):
        log.begin(torch.device("cpu"))
        for index in range(5 if epoch == 1 else 1):
            log.add(index, first + index, 4, 0.1)
        log.flush(losses, epoch)
    assert [(step.step, step.images_per_second) for step in steps] == [(2, 4.0), (4, 8.0), (6, 4.0)]
    assert {step.loss for step in steps} == {2.0}


def test_the_steps_before_a_loss_that_is_not_finite_are_kept() -> None:
    steps: list[StepRecord] = []
    diverging = replace(SETTINGS, learning_rate=1e30, schedule="constant", warmup_epochs=0)
    with pytest.raises(ZooError, match="batch"):
        steps = logged(1, diverging)[0]
    log = StepLog(1, steps.extend)
    log.begin(torch.device("cpu"))
    for index in range(3):
        log.add(index, index, 2, 0.1)
    log.flush(torch.tensor([2.0, float("nan"), float("inf")]), 1)
    assert [(step.step, step.loss) for step in steps] == [(1, 1.0)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_device_measures_the_time() -> None:
    steps: list[StepRecord] = []
    log, factor = StepLog(1, steps.extend), torch.rand(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    log.begin(factor.device)
    losses = torch.zeros(2, device="cuda")
    for index, rounds in enumerate((1, 400)):
        for _round in range(rounds):
            factor @ factor
        log.add(index, index, 8, 0.1)
    log.flush(losses, 1)
    assert steps[0].images_per_second > 20 * steps[1].images_per_second, "the host was done long before"
