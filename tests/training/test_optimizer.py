"""The optimizer, its learning rate and the loss, against torch's own."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from zoo.backbone import Training
from zoo_harness.training.optimizer import TrainingLoss, learning_rate, make_optimizer

STEPS = 5  # in an epoch


def rates(training):
    return [learning_rate(training, step, STEPS) for step in range(training.epochs * STEPS)]


def rates_of_torch(training, schedule, steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=training.learning_rate)
    scheduler = schedule(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_constant_rate():
    assert set(rates(Training(epochs=3))) == {1e-4}


def test_the_rate_falls_after_each_milestone():
    training = Training(epochs=8, learning_rate=0.1, schedule="multistep", milestones=(3, 5), decay=0.2)

    def schedule(optimizer):
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [3 * STEPS, 5 * STEPS], 0.2)

    assert rates(training) == pytest.approx(rates_of_torch(training, schedule, 8 * STEPS))


def test_the_rate_falls_as_a_cosine():
    training = Training(epochs=4, learning_rate=0.3, schedule="cosine")

    def schedule(optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * STEPS)

    assert rates(training) == pytest.approx(rates_of_torch(training, schedule, 4 * STEPS))


def test_the_rate_rises_first():
    training = Training(epochs=4, learning_rate=0.3, schedule="cosine", warmup_epochs=1.0)
    found = rates(training)
    assert found[:STEPS] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3])
    assert found[STEPS:] == sorted(found[STEPS:], reverse=True)


def test_the_studies_recipe_from_scratch():
    training = Training(
        epochs=200, learning_rate=0.1, optimizer="sgd", momentum=0.9, weight_decay=5e-4, batch_size=128,
        schedule="multistep", milestones=(60, 120, 160), decay=0.2, warmup_epochs=1,
    )  # fmt: skip
    found = rates(training)
    assert found[0] == pytest.approx(0.1 / STEPS)
    at_epochs = [found[epoch * STEPS] for epoch in (1, 59, 60, 119, 120, 160, 199)]
    assert at_epochs == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.0008, 0.0008])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"optimizer": "adam", "weight_decay": 0.1}, torch.optim.Adam),
        ({"optimizer": "adamw", "weight_decay": 0.1}, torch.optim.AdamW),
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
    ],
)
def test_the_optimizer_that_is_named(settings, kind):
    optimizer = make_optimizer(Training(**settings), [torch.nn.Parameter(torch.ones(3))])
    assert type(optimizer) is kind
    assert {name: optimizer.defaults[name] for name in settings if name != "optimizer"} == {
        name: value for name, value in settings.items() if name != "optimizer"
    }


def test_smoothing_is_torch_s_and_heads_add_up():
    logits, labels = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 3, 1, 1])
    loss = TrainingLoss(Training(label_smoothing=0.1), labels, 4)((logits, 2 * logits), labels)
    expected = sum(
        torch.nn.functional.cross_entropy(part, labels, label_smoothing=0.1, reduction="sum")
        for part in (logits, 2 * logits)
    )
    torch.testing.assert_close(loss, expected)


def test_balanced_weights_count_every_class_the_same():
    labels = torch.tensor([0] * 6 + [1] * 2)
    loss = TrainingLoss(Training(class_weights="balanced"), labels, 2)
    logits = (torch.zeros(8, 2),)
    of_one_image = float(torch.log(torch.tensor(2.0)))
    assert float(loss(logits, labels)) == pytest.approx(8 * of_one_image)  # the mean weight of an image is 1
    assert float(loss((logits[0][:6],), labels[:6])) == pytest.approx(4 * of_one_image)
    assert float(loss((logits[0][6:],), labels[6:])) == pytest.approx(4 * of_one_image)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"momentum": 0.9}, "momentum 0.9 is a setting of optimizer 'sgd', not of 'adam'"),
        ({"optimizer": "sgd", "nesterov": True}, "needs a momentum above 0"),
        ({"schedule": "multistep"}, "needs milestones"),
        ({"milestones": (3,)}, "need schedule 'multistep'; given"),
        ({"schedule": "multistep", "milestones": (5, 3)}, "ascending"),
        ({"augment": ("flip", "flip")}, "contains a duplicate"),
        ({"augment": ("blur",)}, "'crop', 'flip' or 'rotate'"),
    ],
)
def test_settings_that_do_not_go_together(settings, told):
    with pytest.raises(ValidationError, match=told):
        Training(**settings)
