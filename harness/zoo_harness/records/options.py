"""Declare every option of the commands once, for both the command line and the Python functions.

To add a training option, add a field to :class:`zoo.Training`, add a key to :class:`TrainingOptions`, and use the
field in the training code. This module imports neither typer, pydantic nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import TypedDict

from zoo_harness.records.option import Option

Device = Annotated[str, Option("Device: auto, cpu, cuda or cuda:N.", "auto")]
Precision = Annotated[Literal["fp32", "bf16"], Option("fp32, or bf16 (mixed precision, CUDA only).", "fp32")]
Metric = Annotated[Literal["euclidean", "cosine"], Option("Distance: euclidean or cosine.", "euclidean")]
Normalize = Annotated[Literal["none", "zscore"], Option("Scaling of each feature: none or zscore.", "none")]
NormalizeOrFlag = Annotated[
    Literal["none", "zscore"], Option("Scaling of each feature: none or zscore.", "none", bare="zscore")
]
Order = Annotated[int, Option("Number of nearest neighbours for high-order, soft and anti SI.", 2, minimum=1)]
Deterministic = Annotated[bool, Option("Use only deterministic algorithms; slower on a GPU.", False, "--deterministic")]
Checkpoint = Annotated[
    str | int | None,
    Option("Saved weights: best, last or an epoch (default: the main checkpoint).", metavar="NAME|N", stored=False),
]
InputSize = Annotated[
    str | int | Sequence[int] | None,
    Option("Input size of the network in pixels (default: the weights' input size).", metavar="N|HxW"),
]
Svg = Annotated[bool, Option("Also write each plot as SVG.", False, "--svg", fixed=False)]
OutputFolder = Annotated[Path | None, Option("Folder for the results (default: a new folder in runs/).", stored=False)]


# A test compares the epochs in this text with the recipes. Reading the recipes here would import pydantic.
EPOCHS_HELP = "Number of epochs (default: 20; recipe report 10, recipe scratch 200); 0 scores without training."


class ReadingOptions(TypedDict, total=False):
    """Options that say where images and labels are read from."""

    data_dir: Annotated[Path | None, Option("Folder with the dataset's files, or an archive of the files.")]
    image_column: Annotated[str | None, Option("Name of the table column with the images or their paths.")]
    label_column: Annotated[str | None, Option("Name of the table column with the labels.")]
    split_column: Annotated[str | None, Option("Name of the table column with the split of each image.")]
    skip_unreadable: Annotated[
        bool, Option("Skip images that cannot be read, instead of stopping.", False, "--skip-unreadable")
    ]


class DataOptions(ReadingOptions, total=False):
    """Options that select the images to use."""

    per_class: Annotated[int | None, Option("Use this many images of each class, chosen by --seed.", minimum=1)]
    limit: Annotated[int | None, Option("Use at most this many images of each split.", minimum=1)]
    fraction: Annotated[float | None, Option("Use this fraction of each class, rounded, chosen by --seed.")]
    eval_limit: Annotated[
        int | None,
        Option("Evaluate at most this many images, equally from all classes; training is unaffected.", minimum=1),
    ]
    eval_fraction: Annotated[
        float | None, Option("Evaluate this fraction of each class (1: all images); training is unaffected.")
    ]


class StatsOptions(DataOptions, total=False):
    """The options of ``zoo stats`` and :func:`zoo.dataset_stats`."""

    seed: Annotated[int, Option("Seed for the random choice of images.", 0)]


class NormalizationOptions(TypedDict, total=False):
    """Options that select the mean and standard deviation by which images are normalised."""

    mean: Annotated[
        str | Sequence[float] | None, Option("Channel means of pixels in [0, 1]; needs --std.", metavar="R,G,B")
    ]
    std: Annotated[str | Sequence[float] | None, Option("Channel standard deviations; needs --mean.", metavar="R,G,B")]
    normalization: Annotated[
        Literal["weights", "dataset"],
        Option("Source of mean and std: 'weights', or 'dataset' for the training images.", "weights"),
    ]


class HeldOutOption(TypedDict, total=False):
    """The option that holds out a part of the training split; otherwise the dataset's evaluation split is used."""

    val_fraction: Annotated[float | None, Option("Hold out this fraction of the training split for evaluation.")]


class TuningOptions(TypedDict, total=False):
    """Options that select the recipe, the initial weights, the modules to train, and the mode of frozen BatchNorm."""

    recipe: Annotated[str, Option("Fine-tuning recipe; 'zoo show NAME' lists the recipes.", "default")]
    weights: Annotated[
        str | Path,
        Option("Initial weights: 'pretrained', 'random', a file, or a run (with --checkpoint N).", "pretrained"),
    ]
    unfreeze: Annotated[
        Sequence[str] | None, Option("Train this module instead of the recipe's; repeatable.", metavar="MODULE")
    ]
    frozen_batchnorm: Annotated[
        Literal["eval", "train"],
        Option("Frozen BatchNorm uses stored statistics (eval) or those of each batch (train).", "eval"),
    ]


class InputSizeOption(TypedDict, total=False):
    """The option that replaces the input size of the weights."""

    input_size: InputSize


class TrainingOptions(TypedDict, total=False):
    """Options that replace training settings of the recipe; their names are the fields of :class:`zoo.Training`."""

    epochs: Annotated[int | None, Option(EPOCHS_HELP)]
    learning_rate: Annotated[float | None, Option("Learning rate (default: the recipe's).")]
    batch_size: Annotated[int | None, Option("Images per step (default: the recipe's).")]
    optimizer: Annotated[Literal["adam", "adamw", "sgd"] | None, Option("adam, adamw or sgd (default: the recipe's).")]
    momentum: Annotated[float | None, Option("Momentum of optimizer sgd.")]
    nesterov: Annotated[bool | None, Option("Use Nesterov momentum with sgd.", flag="--nesterov/--no-nesterov")]
    weight_decay: Annotated[float | None, Option("Weight decay.")]
    schedule: Annotated[
        Literal["constant", "multistep", "cosine"] | None,
        Option("Schedule of the learning rate: constant, multistep or cosine."),
    ]
    milestones: Annotated[
        str | Sequence[int] | None, Option("Epochs after which the multistep schedule decays the rate.", metavar="N,N")
    ]
    decay: Annotated[float | None, Option("Factor by which the multistep schedule multiplies the learning rate.")]
    warmup_epochs: Annotated[float | None, Option("Epochs of linear learning-rate warm-up.")]
    label_smoothing: Annotated[float | None, Option("Label smoothing: fraction of each label spread over all classes.")]
    class_weights: Annotated[Literal["none", "balanced"] | None, Option("'balanced' gives rare classes more weight.")]
    augment: Annotated[str | Sequence[str] | None, Option("Random augmentations: crop, flip, rotate.", metavar="A,A")]
    views: Annotated[int | None, Option("Augmented copies to cache per image (default: new ones every epoch).")]
    patience: Annotated[int | None, Option("Stop after this many epochs without a better evaluation accuracy.")]
    keep: Annotated[
        Literal["last", "best", "both"] | None,
        Option("Epoch whose weights are saved: last, best, or both (main checkpoint: best)."),
    ]
    save_every: Annotated[int | None, Option("Also save the weights of every N-th epoch.", metavar="N")]


class ScoringOptions(TypedDict, total=False):
    """Options of the Separation Index, and of the predictions of networks with two heads."""

    layer: Annotated[str | None, Option("Layer whose features are scored with SI (default: the classifier's input).")]
    order: Order
    metric: Metric
    normalize: Normalize
    layer_curve: Annotated[bool, Option("Score every layer after training.", True, "--layer-curve/--no-layer-curve")]
    predict: Annotated[Literal["cls", "mean"], Option("With two heads, predict from head 'cls' or the 'mean'.", "cls")]


class ComputeOptions(TypedDict, total=False):
    """Options of the computation: the seed, the device, the precision and determinism."""

    seed: Annotated[int, Option("Seed for the new head, the image order and the choice of images.", 0)]
    device: Device
    precision: Precision
    deterministic: Deterministic


class CompileOption(TypedDict, total=False):
    """The option that compiles the training steps."""

    compile: Annotated[bool, Option("Compile training steps: slow start, then faster on a GPU.", False, "--compile")]


class CacheOptions(TypedDict, total=False):
    """Options of the cache for the outputs of the frozen layers."""

    cache: Annotated[
        Literal["auto", "device", "host", "disk", "off"],
        Option("Where to cache outputs of frozen layers: auto, device, host, disk or off.", "auto", stored=False),
    ]
    cache_budget: Annotated[str | None, Option("Memory for the cache, such as 8GiB.", metavar="SIZE", stored=False)]
    cache_dtype: Annotated[
        Literal["exact", "fp16", "bf16"],
        Option("Precision of cached outputs: exact, or fp16 or bf16 in half the space.", "exact"),
    ]


class RunOutputOptions(TypedDict, total=False):
    """Options that say where and how a run writes its results."""

    log_steps: Annotated[
        int | None,
        Option(
            "Log every N-th step in steps.jsonl (default: none; 10 with --tensorboard).",
            None,
            None,
            "N",
            1,
            fixed=False,
        ),
    ]
    tensorboard: Annotated[bool, Option("Also write TensorBoard logs.", False, "--tensorboard", fixed=False)]
    svg: Svg
    out: Annotated[Path | None, Option("Run directory (default: runs/NAME-DATASET-TIME).", stored=False)]
    resume: Annotated[Path | None, Option("Resume this run with its stored settings.", metavar="RUN", stored=False)]


class EvalOptions(
    TuningOptions,
    InputSizeOption,
    ScoringOptions,
    DataOptions,
    NormalizationOptions,
    HeldOutOption,
    TrainingOptions,
    ComputeOptions,
    CompileOption,
    CacheOptions,
    RunOutputOptions,
    total=False,
):
    """The options of ``zoo eval`` and :func:`zoo.evaluate`.

    ``checkpoint`` selects saved weights of a run: the run to score again, or the run that ``weights`` names.
    """

    checkpoint: Checkpoint


class TrainOptions(
    InputSizeOption,
    ScoringOptions,
    DataOptions,
    NormalizationOptions,
    TrainingOptions,
    ComputeOptions,
    CompileOption,
    RunOutputOptions,
    total=False,
):
    """The options of ``zoo train`` and :func:`zoo.train`."""

    weights: Annotated[str | Path, Option("Initial weights: 'random', 'pretrained' or a file.", "random")]
    val_fraction: Annotated[float, Option("Fraction of the training split to hold out for choosing the epoch.", 0.2)]


class RescoreOptions(DataOptions, HeldOutOption, total=False):
    """The options of :func:`zoo.rescore`, which equal the options of ``zoo eval CHECKPOINT --epochs 0``."""

    checkpoint: Checkpoint
    layer: Annotated[str | None, Option("Layer whose features are scored with SI (default: as recorded).")]
    order: Annotated[int | None, Option("Nearest neighbours for the SI scores (default: as recorded).", minimum=1)]
    metric: Annotated[Literal["euclidean", "cosine"] | None, Option("Distance for SI (default: as recorded).")]
    normalize: Annotated[Literal["none", "zscore"] | None, Option("none or zscore (default: as recorded).")]
    seed: Annotated[int | None, Option("Seed for the random choice of images (default: as recorded).")]
    device: Device
    precision: Annotated[Literal["fp32", "bf16"] | None, Option("fp32 or bf16 (default: as recorded).")]
    deterministic: Deterministic
    out: Annotated[Path | None, Option("Folder for rescore.json (default: write no file).", stored=False)]


class KeptWeightsOptions(TypedDict, total=False):
    """Options that select one of the checkpoints that a run saved."""

    checkpoint: Checkpoint
    epoch: Annotated[int | None, Option("Weights after epoch N, if the run saved them.", metavar="N", minimum=1)]


class LayersOptions(DataOptions, NormalizationOptions, HeldOutOption, KeptWeightsOptions, total=False):
    """The options of ``zoo layers`` and :func:`zoo.layers`."""

    split: Annotated[Literal["train", "test", "both"], Option("Split to score: train, test or both.", "test")]
    weights: Annotated[str | Path | None, Option("Weights to load: 'pretrained', 'random' or a file.")]
    last: Annotated[
        bool,
        Option("Score only the classifier's input; print one row per network and split.", False, "--last"),
    ]
    input_size: InputSize
    pool: Annotated[
        bool, Option("Score each layer's pooled vector instead of its whole output; faster.", False, "--pool")
    ]
    published: Annotated[
        bool, Option("Add published scores, and list the differences in the settings.", False, "--published")
    ]
    order: Order
    metric: Metric
    normalize: NormalizeOrFlag
    seed: Annotated[int, Option("Seed for random weights and the choice of images.", 0)]
    memory: Annotated[int, Option("Memory for features and search in MiB; the rest goes to a file.", 1024, minimum=1)]
    device: Device
    precision: Precision
    svg: Svg
    out: OutputFolder


class FeaturesOptions(DataOptions, NormalizationOptions, HeldOutOption, KeptWeightsOptions, total=False):
    """The options of ``zoo features`` and :func:`zoo.features`."""

    layer: Annotated[
        str | Sequence[str] | None,
        Option(
            "Layer to read, or a glob such as 'layer*'; repeatable (default: the classifier's input).",
            metavar="LAYER",
            repeatable=True,
        ),
    ]
    split: Annotated[Literal["train", "test", "both"], Option("Split to write: train, test or both.", "both")]
    pool: Annotated[bool, Option("Write each layer's pooled vector, or its whole output.", True, flag="--pool/--whole")]
    input_size: InputSize
    weights: Annotated[str | Path | None, Option("Weights to load: 'pretrained', 'random' or a file.")]
    seed: Annotated[int | None, Option("Seed for random weights and the choice of images (default: 0, or the run's).")]
    device: Device
    precision: Precision
    out: Annotated[Path | None, Option("File to write: .safetensors, .npz or .parquet.", metavar="FILE", stored=False)]


class RankOptions(ReadingOptions, NormalizationOptions, total=False):
    """The options of ``zoo rank`` and :func:`zoo.rank`."""

    scores: Annotated[
        str | Sequence[str] | None, Option("Scores, or 'all' (default: scores that need no seed).", metavar="A,A")
    ]
    sort: Annotated[str, Option("Score that sorts the table and defines the tiers: si, knn or ridge.", "si")]
    weights: Annotated[
        Literal["pretrained", "random"], Option("Weights of all networks: pretrained or random.", "pretrained")
    ]
    input_size: InputSize
    per_class: Annotated[int | None, Option("Use this many training images of each class.", minimum=1)]
    images: Annotated[int | None, Option("Use at most this many training images, equally from all classes.", minimum=1)]
    fraction: Annotated[float | None, Option("Use this fraction of the training images of each class.")]
    license: Annotated[
        str | Sequence[str] | None,
        Option(
            "Rank only backbones with this licence, such as 'apache*'; repeatable.", metavar="LICENSE", repeatable=True
        ),
    ]
    max_parameters: Annotated[
        str | int | None, Option("Rank only backbones with at most N parameters, such as 30M.", metavar="N")
    ]
    halving: Annotated[
        bool | None,
        Option(
            "Drop clearly worse backbones early (default: with more than 8 backbones).", flag="--halving/--no-halving"
        ),
    ]
    budget: Annotated[
        str | int | float | None,
        Option("Stop after about this time, such as 10m; starts with few images.", metavar="TIME"),
    ]
    tune: Annotated[int | None, Option("Fine-tune the N best backbones as zoo eval does.", metavar="N", minimum=1)]
    epochs: Annotated[int | None, Option("Number of epochs for --tune (default: the recipe's).", minimum=1)]
    against: Annotated[
        Sequence[str] | None,
        Option("Compare the scores with the accuracies of this run or folder of runs; repeatable.", metavar="RUN"),
    ]
    cache: Annotated[
        Literal["auto", "disk", "off"], Option("Where to cache features: auto, disk or off.", "auto", stored=False)
    ]
    seed: Annotated[int, Option("Seed for random weights and the choice of images.", 0)]
    device: Device
    precision: Precision
    svg: Svg
    out: OutputFolder
    resume: Annotated[Path | None, Option("Resume the ranking in this folder.", metavar="FOLDER", stored=False)]


class SweepOptions(TypedDict, total=False):
    """The options of ``zoo sweep`` and :func:`zoo.sweep`."""

    backbones: Annotated[
        str | Sequence[str] | None,
        Option(
            "Backbones, globs, or rank:FILE for the best tier of a ranking, instead of those of the plan.",
            metavar="A,A",
        ),
    ]
    datasets: Annotated[str | Sequence[str] | None, Option("Datasets instead of those of the plan.", metavar="A,A")]
    recipes: Annotated[str | Sequence[str] | None, Option("Recipes instead of those of the plan.", metavar="A,A")]
    seeds: Annotated[str | Sequence[int] | None, Option("Seeds instead of those of the plan.", metavar="N,N")]
    set: Annotated[
        Sequence[str] | None,
        Option(
            "Set a key of the plan, such as epochs=1 or 'learning_rate=[1e-3, 1e-4]'; repeatable.", metavar="KEY=VALUE"
        ),
    ]
    dry_run: Annotated[
        bool, Option("List the runs, the downloads and the estimated time; run nothing.", False, "--dry-run")
    ]
    workers: Annotated[int, Option("Number of runs at a time on this machine.", 1, minimum=1)]
    threads: Annotated[
        int, Option("CPU threads of each run; other numbers may change the last bits of results.", 1, minimum=1)
    ]
    address: Annotated[str | None, Option("Execute the runs on Ray: local, auto, HOST:PORT or ray://HOST:PORT.")]
    gpus_per_run: Annotated[float | None, Option("GPUs of each run on Ray; with 0.5, two runs share a GPU.")]
    task_timeout: Annotated[str | None, Option("Restart a run that ends no epoch within this time.", metavar="TIME")]
    out: Annotated[
        Path | None, Option("Folder of the runs (default: the folder that the plan names, or runs/PLAN).", stored=False)
    ]


class SeparationOptions(TypedDict, total=False):
    """The options of ``zoo si`` and :func:`zoo.score_features`."""

    features: Annotated[str | None, Option("Name of the features, or table columns: 'x,f*'.", metavar="NAME")]
    exclude: Annotated[str | None, Option("Table columns that are not features: 'id,meta*'.", metavar="NAMES")]
    labels: Annotated[str | None, Option("Name of the labels; for an .npy file, the label file.", metavar="NAME|FILE")]
    split: Annotated[
        Literal["train", "test"] | None,
        Option("Split to score if 'zoo features' wrote the file: train or test (default: test, or the only split)."),
    ]
    references: Annotated[Path | None, Option("Search the neighbours among the samples of this file.", metavar="FILE")]
    reference_labels: Annotated[str | None, Option("Like --labels, for --references.", metavar="NAME|FILE")]
    order: Annotated[int | None, Option("Largest order of high-order, soft and anti SI (default: 2).", minimum=1)]
    metric: Metric
    normalize: NormalizeOrFlag
    per_class: Annotated[int | None, Option("Score this many samples of each class.", minimum=1)]
    seed: Annotated[int, Option("Seed for the bootstrap and the choice of samples.", 0)]
    memory: Annotated[int, Option("Working memory in MiB, not counting the features.", 768, minimum=1)]


class PublishOptions(TypedDict, total=False):
    """The options of ``zoo publish`` and :func:`zoo.publish`."""

    private: Annotated[bool, Option("Make a new repository private.", False, "--private")]
    create_pr: Annotated[bool, Option("Propose the commit as a pull request.", False, "--create-pr")]
    dry_run: Annotated[bool, Option("Check everything and list the files, but send nothing.", False, "--dry-run")]
    samples: Annotated[
        bool | None, Option("Publish samples.png (default: not for your own images).", flag="--samples/--no-samples")
    ]
    message: Annotated[str | None, Option("Message of the commit.", metavar="TEXT")]
