"""Arguments and options that several commands share, and what shells complete for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_backbone(incomplete: str) -> list[str]:
    """Names of backbones that begin so."""
    return _beginning_with(incomplete, "backbones")


def complete_dataset(incomplete: str) -> list[str]:
    """Names of data sets that begin so."""
    return _beginning_with(incomplete, "datasets")


def _beginning_with(incomplete: str, kind: str) -> list[str]:
    from zoo_harness.cli.catalogue import read_catalogue

    return [row["name"] for row in read_catalogue()[kind] if row["name"].startswith(incomplete)]


BackboneName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A backbone; zoo list names them.", autocompletion=complete_backbone),
]

OptionalBackboneName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A backbone; zoo list names them.", autocompletion=complete_backbone),
]

RecipeName = Annotated[str, typer.Option("--recipe", help="How to tune it; zoo show NAME names the recipes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results, warnings and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

DatasetName = Annotated[
    str | None,
    typer.Option(metavar="D", help="A data set; zoo datasets names them.", autocompletion=complete_dataset),
]

ScoredLayer = Annotated[
    str | None, typer.Option(help="Feature layer to score with SI; the one the classifier sees unless given.")
]

DataFolder = Annotated[Path | None, typer.Option(help="Folder that holds the data set's files.")]
PerClass = Annotated[int | None, typer.Option(help="Use this many images of each class, chosen by seed.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many images of each split.")]
ValFraction = Annotated[float | None, typer.Option(help="Hold this part of the training split out.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs; the recipe's (20) unless given. 0 only scores.")]
LearningRate = Annotated[float | None, typer.Option(help="The learning rate; the recipe's (1e-4).")]
BatchSize = Annotated[int | None, typer.Option(help="Images per step; the recipe's (32).")]
Optimizer = Annotated[str | None, typer.Option(help="adam, adamw or sgd; the recipe's (adam).")]
Momentum = Annotated[float | None, typer.Option(help="Momentum of sgd.")]
WeightDecay = Annotated[float | None, typer.Option(help="Weight decay.")]
Schedule = Annotated[str | None, typer.Option(help="Of the learning rate: constant, multistep or cosine.")]

Milestones = Annotated[
    str | None, typer.Option(metavar="N,N", help="Epochs after which multistep lowers the learning rate.")
]

Decay = Annotated[float | None, typer.Option(help="What multistep multiplies the learning rate by.")]
WarmupEpochs = Annotated[float | None, typer.Option(help="Epochs over which the learning rate rises first.")]
LabelSmoothing = Annotated[float | None, typer.Option(help="Share of each label that goes to all classes.")]
ClassWeights = Annotated[str | None, typer.Option(help="'balanced' weighs rare classes more; or 'none'.")]

Augment = Annotated[
    str | None,
    typer.Option(metavar="A,A", help="Random changes of training images: crop, flip, rotate."),
]

Views = Annotated[
    int | None, typer.Option(help="Keep so many changed views of each image; else they change in every epoch.")
]

Patience = Annotated[int | None, typer.Option(help="Stop after so many epochs without a better accuracy.")]
Keep = Annotated[str | None, typer.Option(help="The checkpoint has the weights of the 'last' or 'best' epoch.")]
Seed = Annotated[int, typer.Option(help="Seed of the head, the order of the images and the subset.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16 (autocast, CUDA only).")]

Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same bits every time on a GPU, at some cost of speed.")
]

Compiled = Annotated[
    bool, typer.Option("--compile", help="Compile training steps (torch.compile): slow to begin, then faster on a GPU.")
]

TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write events for TensorBoard into the run directory.")
]

Predict = Annotated[str, typer.Option(help="With two heads: predict from 'cls', or from their 'mean'.")]

LayerCurve = Annotated[
    bool, typer.Option("--layer-curve/--no-layer-curve", help="Score every feature layer of the trained network.")
]

RunFolder = Annotated[Path | None, typer.Option(help="Run directory; runs/NAME-DATASET-TIME unless given.")]

Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Go on with a run that was cut short, with its own settings."),
]
