"""Check the options of a command before torch is imported and before any file is written or downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.backbone import Backbone, FeatureLayer, Preprocessing, Training, Tuning
from zoo.dataset import AS_FOUND, Dataset, ReadOptions
from zoo.errors import UsageError
from zoo.registry import load_registry
from zoo.weights import WeightSource
from zoo_harness.compute.distributed import Processes
from zoo_harness.records import option_checks
from zoo_harness.records.checkpoint_choice import choose_checkpoint
from zoo_harness.records.normalization import OF_WEIGHTS, Normalization
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import EvalOptions, LayersOptions, RescoreOptions
from zoo_harness.records.run import DEFAULT_SEPARATION, SeparationSettings, read_run
from zoo_harness.records.stored_options import StoredOptions
from zoo_harness.records.subset import SUBSET_OPTIONS, Subset
from zoo_harness.runs.directory import RUNS, check_out
from zoo_harness.runs.resume import refuse_finished, resumed

STEPS_OF_TENSORBOARD = 10  # with --tensorboard, every tenth step is logged unless --log-steps is given

if TYPE_CHECKING:
    from zoo.value_range import ValueRange
    from zoo_harness.checkpoints.opened import OpenedCheckpoint
    from zoo_harness.data.loading import RunData
    from zoo_harness.data.opened import OpenedDataset
    from zoo_harness.frozen.cache.placement import CachePolicy
    from zoo_harness.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """A checked request for data: the dataset, which of its images to load, and how to read and normalise these images.

    ``opened`` holds the opened dataset between :meth:`open` and :meth:`load`. :meth:`load` empties the list to free the
    memory of the dataset.
    """

    dataset: Dataset
    argument: str | None
    data_dir: Path | None
    subset: Subset
    reading: ReadOptions = AS_FOUND
    normalization: Normalization = OF_WEIGHTS
    opened: list[OpenedDataset] = field(default_factory=list, compare=False, repr=False)

    def open(
        self,
        progress: Progress,
        balanced: Literal["train", "evaluation"] = "train",
        *,
        train_only: bool = False,
        value_range: ValueRange | None = None,
    ) -> OpenedDataset:
        """Call the dataset's loader and check the result without importing torch; :meth:`load` decodes the images."""
        from zoo_harness.data.opened import open_dataset  # imports numpy

        progress.stage(f"loading {self.dataset.title}", 0)
        where = self.dataset, self.argument, self.data_dir, self.subset
        opened = open_dataset(*where, balanced, train_only=train_only, options=self.reading, value_range=value_range)
        self.opened[:] = [opened]
        return opened

    def load(
        self,
        preprocessing: Preprocessing,
        progress: Progress,
        balanced: Literal["train", "evaluation"] = "train",
        *,
        with_test: bool = False,
        train_only: bool = False,
        value_range: ValueRange | None = None,
    ) -> RunData:
        """Load and decode the images; see :func:`zoo_harness.data.loading.load_data`.

        ``preprocessing`` is the preprocessing that the weights declare. If the request sets a mean and a standard
        deviation, these replace the mean and standard deviation of ``preprocessing``.
        """
        from zoo_harness.data.loading import load_data
        from zoo_harness.data.transform import BatchTransform
        from zoo_harness.models.preprocessing import normalised_by

        progress.stage(f"loading {self.dataset.title}", 0)
        where = self.dataset, self.argument, self.data_dir, self.subset
        data = load_data(
            *where,
            BatchTransform(preprocessing),
            balanced,
            with_test=with_test,
            train_only=train_only,
            options=self.reading,
            value_range=value_range,
            count_values=self.normalization.source == "dataset",
            opened=self._take_opened(value_range),
        )
        return data.normalised_by(normalised_by(preprocessing, self.normalization, data.train.counts))

    def _take_opened(self, value_range: ValueRange | None) -> OpenedDataset | None:
        """Remove and return the opened dataset; return ``None`` if it was opened for another pixel value range."""
        opened = self.opened.pop() if self.opened else None
        return opened if opened and opened.value_range == value_range else None


@dataclass(frozen=True, kw_only=True)
class RunSettings(DataRequest):
    """The settings of a run, with names resolved and every option checked except the device.

    ``with_test`` sets the test split aside and scores it once, after training. ``layer_curve`` scores every declared
    layer of the trained network. ``input_size`` is the height and width of the network's input if the user set them.
    """

    backbone: Backbone
    tuning: Tuning
    unfreeze: tuple[str, ...] | None
    layer: FeatureLayer
    weights: WeightSource
    training: Training
    command: tuple[str, ...]
    with_test: bool = False
    layer_curve: bool = True
    separation: SeparationSettings = DEFAULT_SEPARATION
    input_size: tuple[int, int] | None = None
    frozen_batchnorm: Literal["eval", "train"] = "eval"


@dataclass(frozen=True, kw_only=True)
class LayerRequest(DataRequest):
    """A checked request for ``zoo.layers``: backbones with weights, run folders, the data, and all options.

    ``checkpoints`` is empty until the checkpoints of the runs are opened.
    """

    backbones: tuple[tuple[Backbone, WeightSource], ...]
    runs: tuple[Path, ...]
    input_size: tuple[int, int] | None
    checkpoints: tuple[OpenedCheckpoint, ...] = ()
    options: LayersOptions
    command: tuple[str, ...]

    @property
    def balanced(self) -> Literal["train", "evaluation"]:
        """The split that must have at least ``--per-class`` images of each class."""
        return "evaluation" if self.options["split"] == "test" else "train"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to open: its folder, its name in messages, and the commit of its repository on the Hub."""

    folder: Path
    called: str
    commit: str | None = None


@dataclass(frozen=True)
class RunCall:
    """A call of ``zoo.evaluate`` or ``zoo.train``: the backbone, the dataset, and the options that the user set.

    ``command`` is the command line that the run's record stores.
    """

    backbone: str | Backbone | None
    dataset: str | Dataset | None
    given: EvalOptions
    command: tuple[str, ...]
    from_scratch: bool = False

    @property
    def stored(self) -> StoredOptions:
        """The options in the form that ``options.json`` of the run stores."""
        records = {"backbone": self.backbone, "dataset": self.dataset}
        in_python = tuple(key for key, value in records.items() if isinstance(value, Backbone | Dataset))
        name, dataset = (value.name if isinstance(value, Backbone | Dataset) else value for value in records.values())
        return StoredOptions(name, dataset, self.given, self.from_scratch, in_python)


@dataclass(frozen=True)
class CheckedRun:
    """The checked settings of a run, its folder, and its options, which a resumed run reads from its folder."""

    settings: RunSettings
    options: StoredOptions
    cache: CachePolicy
    tensorboard: bool
    svg: bool
    log_steps: int | None
    out: Path | None
    resume: Path | None


def check_run(call: RunCall) -> CheckedRun:
    """Resolve the names and check the options of a run; raise :class:`~zoo.errors.ZooError` for any mistake."""
    call = replace(call, given=_with_named_weights(call.given))
    given = call.given
    out, resume = given.get("out"), given.get("resume")
    options = call.stored if resume is None else resumed(resume, call.stored)
    values = options.values
    backbone = call.backbone if isinstance(call.backbone, Backbone) else _named_backbone(options)
    data = choose_data(call.dataset if isinstance(call.dataset, Dataset) else _dataset_name(options), values)
    tuning = backbone.tuning(values["recipe"])
    option_checks.check_prediction(values["predict"], tuning, load_registry().backbones.values())
    option_checks.check_device(values["device"], values["precision"])
    _check_run_directory(out, resume)
    if values["tensorboard"] and importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs TensorBoard; try: pip install 'blockzoo[tensorboard]'", code="tensorboard-missing"
        )
    settings = RunSettings(
        **vars(data),
        backbone=backbone,
        tuning=tuning,
        unfreeze=tuple(values["unfreeze"]) if values["unfreeze"] else None,
        layer=option_checks.choose_layer(backbone.name, tuning.features, values["layer"]),
        weights=option_checks.choose_source(backbone, values["weights"]),
        training=option_checks.apply_overrides(tuning.training, values),
        command=call.command,
        with_test=options.from_scratch,
        layer_curve=values["layer_curve"],
        separation=SeparationSettings(order=values["order"], metric=values["metric"], normalize=values["normalize"]),
        input_size=option_checks.parse_input_size(values["input_size"]),
        frozen_batchnorm=values["frozen_batchnorm"],
    )
    cache, tensorboard = _cache_policy(given, values), values["tensorboard"]
    log_steps = values["log_steps"] or (STEPS_OF_TENSORBOARD if tensorboard else None)
    return CheckedRun(settings, options, cache, tensorboard, values["svg"], log_steps, out, resume)


def _with_named_weights(given: EvalOptions) -> EvalOptions:
    """Return the options; if ``--weights`` names a run, put the file that ``--checkpoint`` selects in its place."""
    checkpoint, weights = given.get("checkpoint"), given.get("weights", "pretrained")
    if checkpoint is None:
        return given
    folder = Path(weights).expanduser()
    if weights in ("pretrained", "random") or given.get("resume") is not None or not folder.is_dir():
        message = (
            f"--checkpoint {checkpoint} needs a run: expected --weights RUN to train from the checkpoint, or a run "
            "with --epochs 0 to score the checkpoint again"
        )
        raise UsageError(message, code="option-unused", option="checkpoint")
    kept = choose_checkpoint(folder, read_run(folder), checkpoint)
    chosen: EvalOptions = {**given, "weights": folder if kept is None else folder / kept.file}
    del chosen["checkpoint"]
    return chosen


def check_layers(
    backbones: Sequence[str | Backbone],
    runs: Sequence[Path],
    dataset: str | Dataset,
    given: LayersOptions,
    command: tuple[str, ...],
) -> LayerRequest:
    """Resolve the names and check the options of ``zoo.layers``; raise :class:`~zoo.errors.ZooError` on a mistake."""
    options = with_defaults(LayersOptions, given)
    found = [each if isinstance(each, Backbone) else load_registry().backbone(each) for each in backbones]
    weights, folders = options["weights"], tuple(run.expanduser() for run in runs)
    if not found and not folders:
        message = "missing backbone; run 'zoo list' to list the backbones, or give the folder of a run with --run RUN"
        raise UsageError(message, code="missing-backbone")
    if weights is not None and not found:
        message = f"--weights {str(weights)!r} cannot be used: a run keeps its own weights; remove the option"
        raise UsageError(message, code="option-unused", option="weights")
    for name in ("checkpoint", "epoch"):
        if options[name] is not None and not folders:
            message = f"--{name} {options[name]} selects weights of a run, but no run is given; add --run RUN"
            raise UsageError(message, code="option-unused", option=name)
    if options["last"] and options["svg"]:
        message = "--svg has no effect with --last, which draws no plot; remove one of the options"
        raise UsageError(message, code="option-unused", option="svg")
    check_checkpoints(folders, options["checkpoint"], options["epoch"])
    if options["input_size"] is not None and not found:
        message = f"--input-size {options['input_size']} cannot be used: a run keeps its input size; remove the option"
        raise UsageError(message, code="option-unused", option="input_size")
    subjects = [*(backbone.name for backbone in found), *(str(run.resolve()) for run in folders)]
    for subject in subjects:
        if subjects.count(subject) > 1:
            message = f"{subject!r} is given {subjects.count(subject)} times; give it once"
            raise UsageError(message, code="repeated-subject", name=subject)
    option_checks.check_device(options["device"], options["precision"])
    data = choose_data(dataset, options)
    if data.normalization.source != "weights" and not found:
        option = "mean" if data.normalization.source == "given" else "normalization"
        message = f"--{option} cannot be used: a run keeps its own mean and std; remove the option"
        raise UsageError(message, code="option-unused", option=option)
    if options["split"] == "train" and data.subset.has_own_evaluation:
        message = "--eval-limit and --eval-fraction select images of the test split; expected --split test or both"
        raise UsageError(message, code="option-unused", option="split")
    check_out(options["out"], default=RUNS)
    return LayerRequest(
        **vars(data),
        backbones=tuple((backbone, option_checks.choose_source(backbone, weights)) for backbone in found),
        runs=folders,
        input_size=option_checks.parse_input_size(options["input_size"]),
        options=options,
        command=command,
    )


def check_checkpoints(folders: Iterable[Path], checkpoint: str | int | None, epoch: int | None = None) -> None:
    """Raise :class:`~zoo.errors.UsageError` if a run lacks the requested checkpoint or epoch."""
    if checkpoint is None and epoch is None:
        return  # reading the checkpoint reports an unreadable record later, with better advice
    for folder in folders:
        choose_checkpoint(folder, read_run(folder), checkpoint, epoch)


def check_rescore(dataset: str | Dataset | None, given: RescoreOptions) -> None:
    """Check the options of ``zoo.rescore`` that can be checked without reading the checkpoint's record."""
    options = with_defaults(RescoreOptions, given)
    values = {**options, "seed": options["seed"] or 0}
    if dataset is None:
        _subset(values)
        option_checks.check_folders(None, None, options["data_dir"])
    else:
        choose_data(dataset, values)
    option_checks.check_device(options["device"], options["precision"])
    check_out(options["out"])


def find_dataset(dataset: str | Dataset) -> tuple[Dataset, str | None]:
    """Return a dataset's record and the argument in its name; a :class:`~zoo.Dataset` has no argument."""
    if isinstance(dataset, Dataset):
        return dataset, None
    if not isinstance(dataset, str):
        message = (
            f"the dataset is of a wrong type: {type(dataset).__name__}; expected a name such as 'digits', or a "
            "zoo.Dataset; try zoo.in_memory(images, labels, test=(images, labels))"
        )
        raise UsageError(message, code="dataset-type", given=type(dataset).__name__)
    return load_registry().dataset(dataset)


def choose_data(dataset: str | Dataset, values: Mapping[str, Any]) -> DataRequest:
    """Resolve a dataset name, and check the options that select images and say how to read and normalise them."""
    found, argument = find_dataset(dataset)
    data_dir, reading = values["data_dir"], ReadOptions.of(values)
    option_checks.check_folders(found, argument, data_dir)
    return DataRequest(
        dataset=found,
        argument=argument,
        data_dir=data_dir,
        subset=_subset(values),
        reading=reading,
        normalization=Normalization.of(values),
    )


def _subset(values: Mapping[str, Any]) -> Subset:
    seed = option_checks.check_seed(values["seed"])
    return Subset(seed=seed, **{name: values.get(name) for name in SUBSET_OPTIONS})


def _check_run_directory(out: Path | None, resume: Path | None) -> None:
    if resume is not None and out is not None:
        raise UsageError(f"--resume {resume} continues in the run's folder; leave out --out", code="resume-with-out")
    if not Processes.launched().is_main:
        return
    if resume is not None:
        refuse_finished(resume)
    else:
        check_out(out, default=RUNS)


def _named_backbone(options: StoredOptions) -> Backbone:
    if "backbone" in options.in_python:
        message = (
            f"the run's backbone {options.name!r} is a zoo.Backbone that was passed in Python; resume the run in "
            "Python with the same zoo.Backbone: zoo.evaluate(backbone, resume=RUN)"
        )
        raise UsageError(message, code="resume-needs-backbone", name=options.name)
    if options.name is None:
        raise UsageError(
            "missing backbone; run 'zoo list' to list the backbones, or give --resume RUN", code="missing-backbone"
        )
    return load_registry().backbone(options.name)


def _dataset_name(options: StoredOptions) -> str:
    if "dataset" in options.in_python:
        message = (
            f"the run's dataset {options.dataset!r} is a zoo.Dataset that was passed in Python; resume the run in "
            "Python with the same zoo.Dataset: zoo.evaluate(dataset=dataset, resume=RUN)"
        )
        raise UsageError(message, code="resume-needs-dataset", name=options.dataset)
    if options.dataset is None:
        raise UsageError(
            f"missing --dataset for {options.name}; run 'zoo datasets' to list the datasets", code="missing-dataset"
        )
    return options.dataset


def _cache_policy(given: EvalOptions, values: EvalOptions) -> CachePolicy:
    from zoo_harness.frozen.cache.placement import CachePolicy  # imports numpy

    policy = CachePolicy.of(given.get("cache", "auto"), given.get("cache_budget"))
    if policy.cache == "off" and values["cache_dtype"] != "exact":
        message = f"--cache-dtype {values['cache_dtype']} is unused with --cache off; leave out one of the two options"
        raise UsageError(message, code="cache-dtype-without-cache")
    return policy
