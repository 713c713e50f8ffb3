"""``zoo train NAME --dataset D``: train a whole network from scratch, choose by a held-out part, test at the end."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo_harness.cli.commands.run import Manner, carry_out, chosen_options
from zoo_harness.cli.options import (
    AsJson,
    Augment,
    ClassWeights,
    Compiled,
    DataFolder,
    DatasetName,
    Debug,
    Decay,
    Deterministic,
    Device,
    Keep,
    LabelSmoothing,
    LayerCurve,
    Limit,
    Milestones,
    Momentum,
    OptionalBackboneName,
    Patience,
    PerClass,
    Precision,
    Predict,
    Quiet,
    Resume,
    RunFolder,
    Schedule,
    ScoredLayer,
    Seed,
    TensorBoard,
    WarmupEpochs,
    WeightDecay,
)


def train(
    context: typer.Context,
    name: OptionalBackboneName = None,
    dataset: DatasetName = None,
    weights: Annotated[
        str, typer.Option(help="What to start from: 'random', 'pretrained', or the path of a weight file.")
    ] = "random",
    layer: ScoredLayer = None,
    data_dir: DataFolder = None,
    per_class: PerClass = None,
    limit: Limit = None,
    val_fraction: Annotated[
        float, typer.Option(help="Part of the training split that is held out, to choose the best epoch by.")
    ] = 0.2,
    epochs: Annotated[int | None, typer.Option(help="Epochs; the recipe's (200) unless given. 0 only scores.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The learning rate; the recipe's (0.1).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step; the recipe's (128).")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw or sgd; the recipe's (sgd).")] = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = None,
    milestones: Milestones = None,
    decay: Decay = None,
    warmup_epochs: WarmupEpochs = None,
    label_smoothing: LabelSmoothing = None,
    class_weights: ClassWeights = None,
    augment: Augment = None,
    patience: Patience = None,
    keep: Keep = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    deterministic: Deterministic = False,
    compile: Compiled = False,  # noqa: A002 - the name of the option
    predict: Predict = "cls",
    layer_curve: LayerCurve = True,
    tensorboard: TensorBoard = False,
    out: RunFolder = None,
    resume: Resume = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    _debug: Debug = False,
) -> None:
    """Train a whole network from scratch: choose the epoch by a held-out part, and test when all is done."""
    from zoo_harness.records.options import RunOptions

    asked = {option: value for option, value in locals().items() if option in RunOptions.model_fields}
    asked |= {"from_scratch": True, "recipe": "scratch"}
    # Nothing is frozen here; "auto" is for a run of zoo eval that is resumed.
    manner = Manner(out, resume, cache="auto", cache_budget=None, tensorboard=tensorboard, as_json=as_json, quiet=quiet)
    carry_out(chosen_options(context, asked, resume), manner)
