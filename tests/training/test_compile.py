"""Compiled steps: the compiler really runs, its steps are tried first, and wrong ones are not used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo import Backbone, FeatureLayer, Head, RandomWeights, TimmArchitecture, Training, load_registry
from zoo_harness.compute.context import ComputeContext
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.records.subset import Subset
from zoo_harness.runs.frozen_features import open_trainable_model
from zoo_harness.runs.plan import Request, RunPlan, prepare_run
from zoo_harness.training import compile as compiling
from zoo_harness.training.loop import Trainer, starting_state
from zoo_harness.util.progress import Silence

VIT = Backbone(
    name="resnet18",  # a name that is declared: the record says by whom
    weights=RandomWeights(),
    architecture=TimmArchitecture("test_vit.r160_in1k"),
    unfreeze=("blocks.5",),
    head=Head("head"),
    features=(FeatureLayer("norm", 64),),
    license=None,
    paper=None,
    pretrained_on=None,
    imagenet_top1=None,
)


def planned(*, compiled: bool) -> RunPlan:
    dataset, argument = load_registry().dataset("digits")
    tuning = VIT.tuning("default")
    request = Request(
        backbone=VIT,
        dataset=dataset,
        argument=argument,
        tuning=tuning,
        unfreeze=None,
        layer=tuning.features[0],
        weights=VIT.weights,
        training=Training(epochs=2, learning_rate=1e-2, batch_size=8, optimizer="sgd"),
        subset=Subset(limit=20),  # the last batch has 4
        compute=ComputeContext(torch.device("cpu"), compiled=compiled),
        data_dir=None,
        command=("zoo",),
    )
    return prepare_run(request, Silence())


def trained(prepared: RunPlan, cache: str) -> tuple[list[str], dict[str, Tensor], bool]:
    lines: list[str] = []
    request = prepared.request
    with open_trainable_model(prepared, CachePolicy.of(cache, None), Silence(), lines.append) as (trainable, _made):
        state = starting_state(prepared.tuned, request.training)
        note = lambda *_arguments: None  # noqa: E731
        Trainer(trainable, request.training, request.compute, state, None, note, Silence()).run()
        return lines, prepared.tuned.network.state_dict(), trainable.logits_in_training is not None


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the compiler's own code
@pytest.mark.parametrize("cache", ["host", "off"])
def test_compiled_steps_train_to_the_same_weights_to_rounding(cache: str) -> None:
    lines, found, used = trained(planned(compiled=True), cache)
    assert used
    assert lines[-1].startswith("training steps are compiled; ")
    _lines, expected, used = trained(planned(compiled=False), cache)
    assert not used
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def twice(module: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    return lambda *inputs: tuple(2 * part for part in module(*inputs))


def failing(_module: nn.Module) -> Callable[..., tuple[Tensor, ...]]:
    def fail(*_inputs: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError("no C++ compiler found\nand much more")

    return fail


@pytest.mark.parametrize(
    ("compiler", "message"),
    [(twice, "training steps are not compiled: head 0 differs by up to "), (failing, "no C++ compiler found")],
)
def test_steps_that_are_not_the_network_s_are_not_used(
    compiler: Callable[[nn.Module], Callable[..., tuple[Tensor, ...]]],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "_compiled", compiler)
    lines, found, used = trained(planned(compiled=True), "host")
    assert not used
    assert message in lines[-1]
    assert "\n" not in lines[-1]
    _lines, expected, _used = trained(planned(compiled=False), "host")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_nothing_is_compiled_for_a_run_without_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_compiled", failing)
    prepared = planned(compiled=True)
    request = replace(prepared.request, training=replace(prepared.request.training, epochs=0))
    assert not any("compiled" in line for line in trained(replace(prepared, request=request), "host")[0])
