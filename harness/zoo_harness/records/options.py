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

Device = Annotated[str, Option("Device to compute on: auto, cpu, cuda or cuda:N.", "auto")]
Precision = Annotated[
    Literal["fp32", "bf16"], Option("Number format of the computation: fp32, or bf16 (autocast, CUDA only).", "fp32")
]
Metric = Annotated[
    Literal["euclidean", "cosine"], Option("Distance between features: euclidean or cosine.", "euclidean")
]
Normalize = Annotated[
    Literal["none", "zscore"], Option("Scaling of each feature before SI: none, or zscore (mean 0, std 1).", "none")
]
NormalizeOrFlag = Annotated[
    Literal["none", "zscore"],
    Option("Scaling of each feature before SI: none, or zscore (mean 0, std 1).", "none", bare="zscore"),
]
Order = Annotated[int, Option("Number of nearest neighbours for high-order, soft and anti SI.", 2, minimum=1)]
Deterministic = Annotated[
    bool, Option("Use only deterministic algorithms, which are slower on a GPU.", False, "--deterministic")
]
Checkpoint = Annotated[
    str | int | None,
    Option(
        "Checkpoint of a run to load: best, last or an epoch (default: its main one).", metavar="NAME|N", stored=False
    ),
]
InputSize = Annotated[
    str | int | Sequence[int] | None,
    Option("Image size for the network, in pixels (default: the size of its pretraining).", metavar="N|HxW"),
]
OptionalWeights = Annotated[
    str | Path | None, Option("Initial weights: 'pretrained', 'random' or the path of a weight file.")
]
OutputFolder = Annotated[Path | None, Option("Folder for the results (default: a new folder in runs/).", stored=False)]


# A test compares the numbers with the recipes, which only pydantic can read.
EPOCHS_HELP = "Number of epochs (default: 20; with --recipe report 10, scratch 200); 0 trains nothing."


class ReadingOptions(TypedDict, total=False):
    """How images are read."""

    data_dir: Annotated[Path | None, Option("Folder with the dataset's files, or the path of their archive.")]
    image_column: Annotated[str | None, Option("Table column with the images or their paths.")]
    label_column: Annotated[str | None, Option("Table column with the labels.")]
    split_column: Annotated[str | None, Option("Table column that names the split of each image.")]
    skip_unreadable: Annotated[
        bool, Option("Skip images that cannot be read, instead of stopping.", False, "--skip-unreadable")
    ]


class DataOptions(ReadingOptions, total=False):
    """Which images are used."""

    per_class: Annotated[int | None, Option("Use only this many images of each class, drawn with --seed.", minimum=1)]
    limit: Annotated[int | None, Option("Use at most this many images of each split.", minimum=1)]
    fraction: Annotated[float | None, Option("Use this fraction (0 to 1) of each class, drawn with --seed.")]
    eval_limit: Annotated[
        int | None,
        Option("Evaluate on at most this many images, spread over the classes.", minimum=1),
    ]
    eval_fraction: Annotated[float | None, Option("Evaluate on this fraction of each class (1: on all images).")]


class StatsOptions(DataOptions, total=False):
    """The options of ``zoo stats`` and :func:`zoo.dataset_stats`."""

    seed: Annotated[int, Option("Random seed that draws the subset of images.", 0)]


class NormalizationOptions(TypedDict, total=False):
    """The mean and standard deviation that images are normalised by."""

    mean: Annotated[
        str | Sequence[float] | None,
        Option("Mean of the red, green and blue values, 0 to 1; needs --std.", metavar="R,G,B"),
    ]
    std: Annotated[
        str | Sequence[float] | None,
        Option("Standard deviation of the red, green and blue values; needs --mean.", metavar="R,G,B"),
    ]
    normalization: Annotated[
        Literal["weights", "dataset"],
        Option("Mean and std: 'weights' (from pretraining) or 'dataset' (of your images).", "weights"),
    ]


class HeldOutOption(TypedDict, total=False):
    """A held-out part of the training split, where the dataset's own evaluation split is used otherwise."""

    val_fraction: Annotated[float | None, Option("Hold out this fraction of the training split, and evaluate on it.")]


class TuningOptions(TypedDict, total=False):
    """What is tuned, from which weights, and how its frozen layers run."""

    recipe: Annotated[str, Option("How to fine-tune the backbone; 'zoo show NAME' lists its recipes.", "default")]
    weights: Annotated[
        str | Path, Option("Initial weights: 'pretrained', 'random' or the path of a weight file.", "pretrained")
    ]
    unfreeze: Annotated[
        Sequence[str] | None, Option("Train this module instead of the recipe's block; repeatable.", metavar="MODULE")
    ]
    frozen_batchnorm: Annotated[
        Literal["eval", "train"],
        Option("Statistics of frozen BatchNorm layers: eval (fixed) or train (of each batch).", "eval"),
    ]


class InputSizeOption(TypedDict, total=False):
    """Another input size than that of the weights."""

    input_size: InputSize


class TrainingOptions(TypedDict, total=False):
    """Overrides of the recipe's training settings; a test compares them with the fields of :class:`zoo.Training`."""

    epochs: Annotated[int | None, Option(EPOCHS_HELP)]
    learning_rate: Annotated[float | None, Option("Learning rate (default: the recipe's).")]
    batch_size: Annotated[int | None, Option("Number of images per training step (default: the recipe's).")]
    optimizer: Annotated[
        Literal["adam", "adamw", "sgd"] | None, Option("Optimizer: adam, adamw or sgd (default: the recipe's).")
    ]
    momentum: Annotated[float | None, Option("Momentum of optimizer sgd.")]
    nesterov: Annotated[
        bool | None, Option("Use Nesterov momentum with optimizer sgd.", flag="--nesterov/--no-nesterov")
    ]
    weight_decay: Annotated[float | None, Option("Weight decay of the optimizer (default: the recipe's).")]
    schedule: Annotated[
        Literal["constant", "multistep", "cosine"] | None,
        Option("Learning-rate schedule: constant, multistep or cosine."),
    ]
    milestones: Annotated[
        str | Sequence[int] | None,
        Option("Epochs after which schedule multistep lowers the learning rate.", metavar="N,N"),
    ]
    decay: Annotated[float | None, Option("Factor by which schedule multistep multiplies the learning rate.")]
    warmup_epochs: Annotated[float | None, Option("Number of first epochs in which the learning rate rises linearly.")]
    label_smoothing: Annotated[float | None, Option("Share of each label (0 to 1) that is spread over all classes.")]
    class_weights: Annotated[
        Literal["none", "balanced"] | None,
        Option("Class weights in the loss: none, or balanced (rare classes count more)."),
    ]
    augment: Annotated[
        str | Sequence[str] | None, Option("Random augmentations, with commas: crop, flip, rotate.", metavar="A,A")
    ]
    views: Annotated[
        int | None, Option("Number of augmented copies to cache per image (default: new ones each epoch).")
    ]
    patience: Annotated[int | None, Option("Stop after this many epochs in a row without better accuracy.")]
    keep: Annotated[
        Literal["last", "best", "both"] | None,
        Option("Epoch whose weights to save: last, best or both (main checkpoint: best)."),
    ]
    save_every: Annotated[int | None, Option("Also save the weights of every N-th epoch.", metavar="N")]


class ScoringOptions(TypedDict, total=False):
    """What is scored, and how two heads predict."""

    layer: Annotated[
        str | None, Option("Feature layer for the Separation Index, SI (default: the classifier's input).")
    ]
    order: Order
    metric: Metric
    normalize: Normalize
    layer_curve: Annotated[
        bool, Option("Score every feature layer after training.", True, "--layer-curve/--no-layer-curve")
    ]
    predict: Annotated[
        Literal["cls", "mean"],
        Option("For a network with two heads: predict with 'cls', or the 'mean' of both.", "cls"),
    ]


class ComputeOptions(TypedDict, total=False):
    """What a run computes with."""

    seed: Annotated[int, Option("Random seed of the new head, the image order and the subset.", 0)]
    device: Device
    precision: Precision
    deterministic: Deterministic


class CompileOption(TypedDict, total=False):
    """Compiled training steps."""

    compile: Annotated[
        bool, Option("Compile the training step: it starts slowly, then runs faster on a GPU.", False, "--compile")
    ]


class CacheOptions(TypedDict, total=False):
    """Where the outputs of the frozen layers are cached."""

    cache: Annotated[
        Literal["auto", "device", "host", "disk", "off"],
        Option("Where to cache outputs of frozen layers: auto, device, host, disk or off.", "auto", stored=False),
    ]
    cache_budget: Annotated[
        str | None, Option("Largest memory that the cache may take, such as 8GiB.", metavar="SIZE", stored=False)
    ]
    cache_dtype: Annotated[
        Literal["exact", "fp16", "bf16"],
        Option("Number format of cached outputs: exact, or half the space with fp16 or bf16.", "exact"),
    ]


class RunOutputOptions(TypedDict, total=False):
    """Where a run is written."""

    log_steps: Annotated[
        int | None,
        Option(
            "Log every N-th training step in steps.jsonl (default with --tensorboard: 10).",
            None,
            None,
            "N",
            1,
            fixed=False,
        ),
    ]
    tensorboard: Annotated[bool, Option("Also write the log for TensorBoard.", False, "--tensorboard", fixed=False)]
    out: Annotated[Path | None, Option("Folder for the run (default: runs/NAME-DATASET-TIME).", stored=False)]
    resume: Annotated[
        Path | None, Option("Continue this interrupted run with its own settings.", metavar="RUN", stored=False)
    ]


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

    weights: Annotated[
        str | Path, Option("Initial weights: 'random', 'pretrained' or the path of a weight file.", "random")
    ]
    val_fraction: Annotated[
        float, Option("Fraction of the training split that is held out to choose the best epoch.", 0.2)
    ]


class RescoreOptions(DataOptions, HeldOutOption, total=False):
    """The options of :func:`zoo.rescore`: those of ``zoo eval CHECKPOINT --epochs 0``."""

    checkpoint: Checkpoint
    layer: Annotated[str | None, Option("Feature layer to score with SI (default: the recorded one).")]
    order: Annotated[int | None, Option("Order of the SI scores (default: the recorded order).", minimum=1)]
    metric: Annotated[
        Literal["euclidean", "cosine"] | None, Option("Distance between features (default: the recorded metric).")
    ]
    normalize: Annotated[
        Literal["none", "zscore"] | None,
        Option("Scaling of each feature before SI: none or zscore (default: the recorded scaling)."),
    ]
    seed: Annotated[int | None, Option("Random seed that draws the subset (default: the recorded seed).")]
    device: Device
    precision: Annotated[
        Literal["fp32", "bf16"] | None, Option("Number format: fp32 or bf16 (default: the recorded format).")
    ]
    deterministic: Deterministic
    out: Annotated[Path | None, Option("Folder for rescore.json (default: nothing is written).", stored=False)]


class KeptWeightsOptions(TypedDict, total=False):
    """Which of the weights that a run kept."""

    checkpoint: Checkpoint
    epoch: Annotated[int | None, Option("Load the weights that a run saved after epoch N.", metavar="N", minimum=1)]


class LayersOptions(DataOptions, NormalizationOptions, HeldOutOption, KeptWeightsOptions, total=False):
    """The options of ``zoo layers`` and :func:`zoo.layers`."""

    split: Annotated[Literal["train", "test", "both"], Option("Split to score: train, test or both.", "test")]
    weights: OptionalWeights
    last: Annotated[
        bool,
        Option("Score only the classifier's input, and print one table for all networks.", False, "--last"),
    ]
    input_size: InputSize
    pool: Annotated[
        bool, Option("Score the pooled vector of each layer instead of its whole output; faster.", False, "--pool")
    ]
    order: Order
    metric: Metric
    normalize: NormalizeOrFlag
    seed: Annotated[int, Option("Random seed of the subset and of random weights.", 0)]
    memory: Annotated[
        int, Option("MiB of memory for features and search; larger features go to a file.", 1024, minimum=1)
    ]
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
    split: Annotated[Literal["train", "test", "both"], Option("Split to read: train, test or both.", "both")]
    pool: Annotated[
        bool,
        Option("Write the pooled vector of each layer, or its whole output, flattened.", True, flag="--pool/--whole"),
    ]
    input_size: InputSize
    weights: OptionalWeights
    seed: Annotated[int | None, Option("Random seed of the subset and of random weights (default: 0, or the run's).")]
    device: Device
    precision: Precision
    out: Annotated[
        Path | None, Option("File to write, ending in .safetensors, .npz or .parquet.", metavar="FILE", stored=False)
    ]


class RankOptions(ReadingOptions, NormalizationOptions, total=False):
    """The options of ``zoo rank`` and :func:`zoo.rank`."""

    scores: Annotated[
        str | Sequence[str] | None,
        Option("Scores to compute, with commas, or all (default: all without randomness).", metavar="A,A"),
    ]
    sort: Annotated[str, Option("Score that orders the table and forms the tiers: si, knn or ridge.", "si")]
    weights: Annotated[
        Literal["pretrained", "random"], Option("Weights of every backbone: pretrained or random.", "pretrained")
    ]
    input_size: InputSize
    per_class: Annotated[int | None, Option("Use only this many training images of each class.", minimum=1)]
    images: Annotated[int | None, Option("Use at most this many training images, spread over the classes.", minimum=1)]
    fraction: Annotated[float | None, Option("Use this fraction (0 to 1) of the training images of each class.")]
    license: Annotated[
        Sequence[str] | None,
        Option("Rank only backbones with this licence, such as 'apache*'; repeatable.", metavar="LICENSE"),
    ]
    max_parameters: Annotated[
        str | None, Option("Rank only backbones with at most N parameters, such as 30M.", metavar="N")
    ]
    halving: Annotated[
        bool | None,
        Option(
            "Drop backbones early that are clearly worse (default: with more than 8).", flag="--halving/--no-halving"
        ),
    ]
    budget: Annotated[
        str | None, Option("Stop after about this time, such as 10m; the first round has few images.", metavar="TIME")
    ]
    tune: Annotated[int | None, Option("Fine-tune the N best backbones, as zoo eval does.", metavar="N", minimum=1)]
    epochs: Annotated[int | None, Option("Number of epochs for --tune (default: the recipe's).", minimum=1)]
    against: Annotated[
        Sequence[str] | None,
        Option("Compare the scores with the accuracy of this run, or of a folder's runs; repeatable.", metavar="RUN"),
    ]
    cache: Annotated[
        Literal["auto", "disk", "off"], Option("Where to cache the features: auto, disk or off.", "auto", stored=False)
    ]
    seed: Annotated[int, Option("Random seed of the subset and of random weights.", 0)]
    device: Device
    precision: Precision
    out: OutputFolder
    resume: Annotated[
        Path | None, Option("Continue the interrupted ranking in this folder.", metavar="FOLDER", stored=False)
    ]


class SeparationOptions(TypedDict, total=False):
    """The options of ``zoo si`` and :func:`zoo.score_features`."""

    features: Annotated[
        str | None, Option("Array of features in the file, or table columns such as 'x,f*'.", metavar="NAME")
    ]
    exclude: Annotated[str | None, Option("Table columns that are not features, such as 'id,meta*'.", metavar="NAMES")]
    labels: Annotated[
        str | None, Option("Array or column with the labels; for an .npy file, a file of labels.", metavar="NAME|FILE")
    ]
    split: Annotated[
        Literal["train", "test"] | None,
        Option("For a file of 'zoo features': split to score, train or test (default: test)."),
    ]
    references: Annotated[
        Path | None, Option("Search the nearest neighbours in this file instead of in FILE.", metavar="FILE")
    ]
    reference_labels: Annotated[
        str | None, Option("Labels of the --references file, given as for --labels.", metavar="NAME|FILE")
    ]
    order: Annotated[
        int | None, Option("Number of nearest neighbours for high-order, soft and anti SI (default: 2).", minimum=1)
    ]
    metric: Metric
    normalize: NormalizeOrFlag
    per_class: Annotated[int | None, Option("Score only this many samples of each class.", minimum=1)]
    seed: Annotated[int, Option("Random seed of the subset and of the bootstrap.", 0)]
    memory: Annotated[int, Option("MiB of memory for the search, in addition to the features.", 768, minimum=1)]


class PublishOptions(TypedDict, total=False):
    """The options of ``zoo publish`` and :func:`zoo.publish`."""

    private: Annotated[bool, Option("Make the repository private if zoo creates it.", False, "--private")]
    create_pr: Annotated[bool, Option("Open a pull request instead of committing to the branch.", False, "--create-pr")]
    dry_run: Annotated[bool, Option("Check everything and list the files, but send nothing.", False, "--dry-run")]
    samples: Annotated[
        bool | None,
        Option(
            "Upload samples.png, which shows images (default: not if they are your own).", flag="--samples/--no-samples"
        ),
    ]
    message: Annotated[str | None, Option("Commit message.", metavar="TEXT")]
