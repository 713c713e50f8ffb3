"""Every option of the commands, declared once: the command line and the Python functions read it here.

To add a training option, add a field to :class:`zoo.Training`, a key to :class:`TrainingOptions`, and use the field.
Nothing here imports typer, pydantic or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import TypedDict

from zoo_harness.records.option import Option

Device = Annotated[str, Option("auto, cpu, cuda or cuda:N.", "auto")]
Precision = Annotated[Literal["fp32", "bf16"], Option("fp32, or bf16 (autocast, CUDA only).", "fp32")]
Metric = Annotated[Literal["euclidean", "cosine"], Option("euclidean or cosine.", "euclidean")]
Normalize = Annotated[Literal["none", "zscore"], Option("none, or zscore: z-score each feature first.", "none")]
NormalizeOrFlag = Annotated[
    Literal["none", "zscore"], Option("none, or zscore: z-score each feature first.", "none", bare="zscore")
]
Order = Annotated[int, Option("Number of nearest neighbours of high-order, soft and anti SI.", 2, minimum=1)]
Deterministic = Annotated[bool, Option("Use deterministic algorithms only; slower on a GPU.", False, "--deterministic")]
Checkpoint = Annotated[
    str | int | None,
    Option("Weights of a run: best, last or an epoch (default: the main ones).", metavar="NAME|N", stored=False),
]
InputSize = Annotated[
    str | int | Sequence[int] | None,
    Option("Size of the images that the network sees (default: that of the weights).", metavar="N|HxW"),
]
OutputFolder = Annotated[Path | None, Option("Folder for the results (default: one in runs/).", stored=False)]


# A test compares the numbers with the recipes, which only pydantic can read.
EPOCHS_HELP = "Number of epochs (default: the recipe's: 20; report 10; scratch 200); 0 only scores."


class ReadingOptions(TypedDict, total=False):
    """How images are read."""

    data_dir: Annotated[Path | None, Option("Folder that holds the dataset's files, or their archive.")]
    image_column: Annotated[str | None, Option("Column of a table that holds the images or their paths.")]
    label_column: Annotated[str | None, Option("Column of a table that holds the labels.")]
    split_column: Annotated[str | None, Option("Column of a table that names the split of each image.")]
    skip_unreadable: Annotated[
        bool, Option("Continue without the images that cannot be read.", False, "--skip-unreadable")
    ]


class DataOptions(ReadingOptions, total=False):
    """Which images are used."""

    per_class: Annotated[int | None, Option("Use this many images of each class, chosen by --seed.", minimum=1)]
    limit: Annotated[int | None, Option("Use at most this many images of each split.", minimum=1)]
    fraction: Annotated[float | None, Option("Use this fraction of each class, rounded, chosen by --seed.")]
    eval_limit: Annotated[
        int | None,
        Option("Evaluate at most this many images, from the classes in turn; training is unaffected.", minimum=1),
    ]
    eval_fraction: Annotated[
        float | None, Option("Evaluate this fraction of each class (1: all); training is unaffected.")
    ]


class StatsOptions(DataOptions, total=False):
    """The options of ``zoo stats`` and :func:`zoo.dataset_stats`."""

    seed: Annotated[int, Option("Seed of the subset.", 0)]


class NormalizationOptions(TypedDict, total=False):
    """The mean and standard deviation that images are normalised by."""

    mean: Annotated[
        str | Sequence[float] | None, Option("Mean of each channel, of values in [0, 1]; needs --std.", metavar="R,G,B")
    ]
    std: Annotated[
        str | Sequence[float] | None, Option("Standard deviation of each channel; needs --mean.", metavar="R,G,B")
    ]
    normalization: Annotated[
        Literal["weights", "dataset"],
        Option("Mean and std: those of the weights, or of the training images ('dataset').", "weights"),
    ]


class HeldOutOption(TypedDict, total=False):
    """A held-out part of the training split, where the dataset's own evaluation split is used otherwise."""

    val_fraction: Annotated[float | None, Option("Hold out this fraction of the training split for evaluation.")]


class TuningOptions(TypedDict, total=False):
    """What is tuned, from which weights, and how its frozen layers run."""

    recipe: Annotated[str, Option("How to tune it; 'zoo show NAME' lists the recipes.", "default")]
    weights: Annotated[str | Path, Option("'pretrained', 'random' or the path of a weight file.", "pretrained")]
    unfreeze: Annotated[
        Sequence[str] | None, Option("Train this module, not the recipe's; repeatable.", metavar="MODULE")
    ]
    frozen_batchnorm: Annotated[
        Literal["eval", "train"],
        Option("Statistics of frozen BatchNorm: eval (fixed) or train (those of each batch).", "eval"),
    ]


class InputSizeOption(TypedDict, total=False):
    """Another input size than that of the weights."""

    input_size: InputSize


class TrainingOptions(TypedDict, total=False):
    """Overrides of the recipe's training settings; a test compares them with the fields of :class:`zoo.Training`."""

    epochs: Annotated[int | None, Option(EPOCHS_HELP)]
    learning_rate: Annotated[float | None, Option("Learning rate (default: the recipe's).")]
    batch_size: Annotated[int | None, Option("Images per step (default: the recipe's).")]
    optimizer: Annotated[Literal["adam", "adamw", "sgd"] | None, Option("adam, adamw or sgd (default: the recipe's).")]
    momentum: Annotated[float | None, Option("Momentum of sgd.")]
    nesterov: Annotated[bool | None, Option("Use Nesterov's momentum.", flag="--nesterov/--no-nesterov")]
    weight_decay: Annotated[float | None, Option("Weight decay.")]
    schedule: Annotated[Literal["constant", "multistep", "cosine"] | None, Option("constant, multistep or cosine.")]
    milestones: Annotated[str | Sequence[int] | None, Option("Epochs after which multistep decays.", metavar="N,N")]
    decay: Annotated[float | None, Option("Factor by which multistep multiplies the learning rate.")]
    warmup_epochs: Annotated[float | None, Option("Epochs of linear learning-rate warm-up.")]
    label_smoothing: Annotated[float | None, Option("Label smoothing: share of each label that goes to all classes.")]
    class_weights: Annotated[Literal["none", "balanced"] | None, Option("'balanced' gives rare classes more weight.")]
    augment: Annotated[str | Sequence[str] | None, Option("Random augmentations: crop, flip, rotate.", metavar="A,A")]
    views: Annotated[int | None, Option("Augmented copies to cache per image (default: new ones every epoch).")]
    patience: Annotated[int | None, Option("Stop after this many epochs without a better accuracy.")]
    keep: Annotated[
        Literal["last", "best", "both"] | None,
        Option("Epoch whose weights are kept: last, best, or both (best is the main checkpoint)."),
    ]
    save_every: Annotated[int | None, Option("Also keep the weights of every N-th epoch.", metavar="N")]


class ScoringOptions(TypedDict, total=False):
    """What is scored, and how two heads predict."""

    layer: Annotated[str | None, Option("Feature layer to score with SI (default: the classifier's input).")]
    order: Order
    metric: Metric
    normalize: Normalize
    layer_curve: Annotated[bool, Option("Score every layer after training.", True, "--layer-curve/--no-layer-curve")]
    predict: Annotated[Literal["cls", "mean"], Option("With two heads: predict from 'cls' or their 'mean'.", "cls")]


class ComputeOptions(TypedDict, total=False):
    """What a run computes with."""

    seed: Annotated[int, Option("Seed of the head, the order of the images and the subset.", 0)]
    device: Device
    precision: Precision
    deterministic: Deterministic


class CompileOption(TypedDict, total=False):
    """Compiled training steps."""

    compile: Annotated[bool, Option("Compile training steps: a slow start, then faster on a GPU.", False, "--compile")]


class CacheOptions(TypedDict, total=False):
    """Where the outputs of the frozen layers are cached."""

    cache: Annotated[
        Literal["auto", "device", "host", "disk", "off"],
        Option("Where to cache frozen outputs: auto, device, host, disk or off.", "auto", stored=False),
    ]
    cache_budget: Annotated[str | None, Option("Memory for the cache, such as 8GiB.", metavar="SIZE", stored=False)]
    cache_dtype: Annotated[
        Literal["exact", "fp16", "bf16"],
        Option("Precision of cached outputs: exact, or fp16 or bf16 in half the space.", "exact"),
    ]


class RunOutputOptions(TypedDict, total=False):
    """Where a run is written."""

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
    tensorboard: Annotated[bool, Option("Write TensorBoard events too.", False, "--tensorboard", fixed=False)]
    out: Annotated[Path | None, Option("Run directory (default: runs/NAME-DATASET-TIME).", stored=False)]
    resume: Annotated[Path | None, Option("Resume this run with its own settings.", metavar="RUN", stored=False)]


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
    """The options of ``zoo eval`` and :func:`zoo.evaluate`; ``checkpoint`` is for a run that is scored again."""

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

    weights: Annotated[str | Path, Option("'random', 'pretrained' or the path of a weight file.", "random")]
    val_fraction: Annotated[float, Option("Fraction of the training split held out to choose the best epoch.", 0.2)]


class RescoreOptions(DataOptions, HeldOutOption, total=False):
    """The options of :func:`zoo.rescore`: those of ``zoo eval CHECKPOINT --epochs 0``."""

    checkpoint: Checkpoint
    layer: Annotated[str | None, Option("Feature layer to score with SI (default: the recorded one).")]
    order: Annotated[int | None, Option("Order of the SI scores (default: the recorded one).", minimum=1)]
    metric: Annotated[Literal["euclidean", "cosine"] | None, Option("Distance of SI (default: the recorded one).")]
    normalize: Annotated[Literal["none", "zscore"] | None, Option("none or zscore (default: the recorded one).")]
    seed: Annotated[int | None, Option("Seed of the subset (default: the recorded one).")]
    device: Device
    precision: Annotated[Literal["fp32", "bf16"] | None, Option("fp32 or bf16 (default: the recorded one).")]
    deterministic: Deterministic
    out: Annotated[Path | None, Option("Folder for rescore.json (default: nothing is written).", stored=False)]


class KeptWeightsOptions(TypedDict, total=False):
    """Which of the weights that a run kept."""

    checkpoint: Checkpoint
    epoch: Annotated[int | None, Option("Weights of a run after epoch N, if it kept them.", metavar="N", minimum=1)]


class LayersOptions(DataOptions, NormalizationOptions, HeldOutOption, KeptWeightsOptions, total=False):
    """The options of ``zoo layers`` and :func:`zoo.layers`."""

    split: Annotated[Literal["train", "test", "both"], Option("train, test or both.", "test")]
    weights: Annotated[str | Path | None, Option("'pretrained', 'random' or the path of a weight file.")]
    last: Annotated[
        bool,
        Option("Score only the classifier's input: one table, a row per network and split.", False, "--last"),
    ]
    input_size: InputSize
    pool: Annotated[bool, Option("Score each layer's declared vector, not its whole output; fast.", False, "--pool")]
    order: Order
    metric: Metric
    normalize: NormalizeOrFlag
    seed: Annotated[int, Option("Seed of the subset and of random weights.", 0)]
    memory: Annotated[int, Option("MiB for features and search; more goes to a file.", 1024, minimum=1)]
    device: Device
    precision: Precision
    out: OutputFolder


class FeaturesOptions(DataOptions, NormalizationOptions, HeldOutOption, KeptWeightsOptions, total=False):
    """The options of ``zoo features`` and :func:`zoo.features`."""

    layer: Annotated[
        str | Sequence[str] | None,
        Option(
            "Layer to read, or a pattern such as 'layer*'; repeatable (default: the classifier's input).",
            metavar="LAYER",
            repeatable=True,
        ),
    ]
    split: Annotated[Literal["train", "test", "both"], Option("train, test or both.", "both")]
    pool: Annotated[
        bool, Option("Each layer's declared vector, or its whole output, flattened.", True, flag="--pool/--whole")
    ]
    input_size: InputSize
    weights: Annotated[str | Path | None, Option("'pretrained', 'random' or the path of a weight file.")]
    seed: Annotated[int | None, Option("Seed of the subset and of random weights (default: 0, or the run's).")]
    device: Device
    precision: Precision
    out: Annotated[Path | None, Option("File to write: .safetensors, .npz or .parquet.", metavar="FILE", stored=False)]


class RankOptions(ReadingOptions, NormalizationOptions, total=False):
    """The options of ``zoo rank`` and :func:`zoo.rank`."""

    scores: Annotated[
        str | Sequence[str] | None, Option("Scores, or all (default: those that need no seed).", metavar="A,A")
    ]
    sort: Annotated[str, Option("Score that orders the table and makes the tiers: si, knn or ridge.", "si")]
    weights: Annotated[Literal["pretrained", "random"], Option("pretrained, or random for all of them.", "pretrained")]
    input_size: InputSize
    per_class: Annotated[int | None, Option("Use this many training images of each class.", minimum=1)]
    images: Annotated[int | None, Option("Use at most this many training images, from the classes in turn.", minimum=1)]
    fraction: Annotated[float | None, Option("Use this fraction of the training images of each class.")]
    license: Annotated[
        Sequence[str] | None, Option("Only backbones of this licence; globs; repeatable.", metavar="LICENSE")
    ]
    max_parameters: Annotated[
        str | None, Option("Only backbones with at most this many parameters, such as 30M.", metavar="N")
    ]
    halving: Annotated[
        bool | None,
        Option("Drop backbones early that are worse for certain (default: above 8).", flag="--halving/--no-halving"),
    ]
    budget: Annotated[
        str | None, Option("Stop after about this time, such as 10m; begins with few images.", metavar="TIME")
    ]
    tune: Annotated[int | None, Option("Fine-tune the N best as zoo eval does.", metavar="N", minimum=1)]
    epochs: Annotated[int | None, Option("Epochs of --tune (default: the recipe's).", minimum=1)]
    against: Annotated[
        Sequence[str] | None,
        Option("Compare the scores with the accuracies of these runs, or folders of runs; repeatable.", metavar="RUN"),
    ]
    cache: Annotated[
        Literal["auto", "disk", "off"], Option("Cache the features: auto, disk or off.", "auto", stored=False)
    ]
    seed: Annotated[int, Option("Seed of the subset and of random weights.", 0)]
    device: Device
    precision: Precision
    out: OutputFolder
    resume: Annotated[Path | None, Option("Continue the ranking in this folder.", metavar="FOLDER", stored=False)]


class SweepOptions(TypedDict, total=False):
    """The options of ``zoo sweep`` and :func:`zoo.sweep`."""

    backbones: Annotated[
        str | Sequence[str] | None,
        Option(
            "Backbones, globs, or rank:FILE for the best tier of a ranking; these replace the plan's.", metavar="A,A"
        ),
    ]
    datasets: Annotated[str | Sequence[str] | None, Option("Datasets in place of the plan's.", metavar="A,A")]
    recipes: Annotated[str | Sequence[str] | None, Option("Recipes in place of the plan's.", metavar="A,A")]
    seeds: Annotated[str | Sequence[int] | None, Option("Seeds in place of the plan's.", metavar="N,N")]
    set: Annotated[
        Sequence[str] | None,
        Option(
            "Any key of the plan, such as epochs=1 or 'learning_rate=[1e-3, 1e-4]'; repeatable.", metavar="KEY=VALUE"
        ),
    ]
    dry_run: Annotated[bool, Option("List the runs, downloads and an estimate of the time.", False, "--dry-run")]
    workers: Annotated[int, Option("Number of runs at a time on this machine.", 1, minimum=1)]
    threads: Annotated[int, Option("CPU threads of each run; the last bits of results depend on it.", 1, minimum=1)]
    address: Annotated[str | None, Option("Compute on Ray: local, auto, HOST:PORT or ray://HOST:PORT.")]
    gpus_per_run: Annotated[float | None, Option("GPUs of each run on Ray; 0.5 puts two runs on a GPU.")]
    task_timeout: Annotated[str | None, Option("Restart a run that ends no epoch in this time.", metavar="TIME")]
    out: Annotated[Path | None, Option("Folder of the runs (default: the plan's, or runs/PLAN).", stored=False)]


class SeparationOptions(TypedDict, total=False):
    """The options of ``zoo si`` and :func:`zoo.score_features`."""

    features: Annotated[str | None, Option("Name of the features, or table columns: 'x,f*'.", metavar="NAME")]
    exclude: Annotated[str | None, Option("Columns of a table that are no features: 'id,meta*'.", metavar="NAMES")]
    labels: Annotated[str | None, Option("Name of the labels; of an .npy file, their file.", metavar="NAME|FILE")]
    split: Annotated[
        Literal["train", "test"] | None,
        Option("Split to score of a file of 'zoo features': train or test (default: test, if it has both)."),
    ]
    references: Annotated[Path | None, Option("Compare with the samples of this file.", metavar="FILE")]
    reference_labels: Annotated[str | None, Option("As --labels, for the references.", metavar="NAME|FILE")]
    order: Annotated[int | None, Option("Largest number of neighbours that must agree (default: 2).", minimum=1)]
    metric: Metric
    normalize: NormalizeOrFlag
    per_class: Annotated[int | None, Option("Score this many samples of each class.", minimum=1)]
    seed: Annotated[int, Option("Seed of the subset and of the bootstrap.", 0)]
    memory: Annotated[int, Option("Memory to work in beyond the features, in MiB.", 768, minimum=1)]


class PublishOptions(TypedDict, total=False):
    """The options of ``zoo publish`` and :func:`zoo.publish`."""

    private: Annotated[bool, Option("Make a new repository private.", False, "--private")]
    create_pr: Annotated[bool, Option("Propose the commit as a pull request.", False, "--create-pr")]
    dry_run: Annotated[bool, Option("Check everything and list the files; send nothing.", False, "--dry-run")]
    samples: Annotated[
        bool | None, Option("Send samples.png (default: not for images of your own).", flag="--samples/--no-samples")
    ]
    message: Annotated[str | None, Option("Message of the commit.", metavar="TEXT")]
