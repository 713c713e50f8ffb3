"""``zoo eval NAME --dataset D``: fine-tune one block, score, write the run down; or score a checkpoint again."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo_harness.cli.commands.run import Manner, carry_out, chosen_options
from zoo_harness.cli.options import (
    AsJson,
    Augment,
    BatchSize,
    ClassWeights,
    Compiled,
    DataFolder,
    DatasetName,
    Debug,
    Decay,
    Deterministic,
    Device,
    Epochs,
    Keep,
    LabelSmoothing,
    LayerCurve,
    LearningRate,
    Limit,
    Milestones,
    Momentum,
    Optimizer,
    Patience,
    PerClass,
    Precision,
    Predict,
    Quiet,
    RecipeName,
    Resume,
    RunFolder,
    Schedule,
    ScoredLayer,
    Seed,
    TensorBoard,
    ValFraction,
    Views,
    WarmupEpochs,
    WeightDecay,
    complete_backbone,
)


def evaluate(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A backbone; zoo list names them. With --epochs 0 also a run, or OWNER/NAME[@REV] on the Hub.",
            autocompletion=complete_backbone,
        ),
    ] = None,
    dataset: DatasetName = None,
    recipe: RecipeName = "default",
    weights: Annotated[str, typer.Option(help="'pretrained', 'random', or the path of a weight file.")] = "pretrained",
    unfreeze: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Train this module instead of the recipe's; repeatable."),
    ] = None,
    layer: ScoredLayer = None,
    data_dir: DataFolder = None,
    per_class: PerClass = None,
    limit: Limit = None,
    val_fraction: ValFraction = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    optimizer: Optimizer = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = None,
    milestones: Milestones = None,
    decay: Decay = None,
    warmup_epochs: WarmupEpochs = None,
    label_smoothing: LabelSmoothing = None,
    class_weights: ClassWeights = None,
    augment: Augment = None,
    views: Views = None,
    patience: Patience = None,
    keep: Keep = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    deterministic: Deterministic = False,
    compile: Compiled = False,  # noqa: A002 - the name of the option
    predict: Predict = "cls",
    layer_curve: LayerCurve = True,
    cache: Annotated[
        str, typer.Option(help="Where outputs of the frozen part are kept: auto, device, host, disk or off.")
    ] = "auto",
    cache_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that these may take, such as 8GiB.")
    ] = None,
    cache_dtype: Annotated[
        str, typer.Option(help="Keep them exact (bit for bit), or in half the space as fp16 or bf16.")
    ] = "exact",
    tensorboard: TensorBoard = False,
    out: RunFolder = None,
    resume: Resume = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    _debug: Debug = False,
) -> None:
    """Fine-tune one block of a backbone on a data set, score it, and write checkpoint, card and plots.

    Of a run or a published checkpoint, with --epochs 0: score it again on the data it was scored on, or on another
    data set with the same classes, and say whether its figures come out here too (exit status 1 if not).
    """
    from zoo_harness.hub.locate import names_a_checkpoint
    from zoo_harness.records.options import RunOptions

    asked = {option: value for option, value in locals().items() if option in RunOptions.model_fields}
    manner = Manner(out, resume, cache, cache_budget, tensorboard=tensorboard, as_json=as_json, quiet=quiet)
    if name is not None and resume is None and names_a_checkpoint(name):
        from zoo_harness.cli.commands.rescore import rescore_checkpoint

        rescore_checkpoint(context, asked, manner)
        return
    carry_out(chosen_options(context, asked, resume), manner)
