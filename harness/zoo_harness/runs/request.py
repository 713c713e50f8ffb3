"""A run as the caller asked for it, checked before torch is imported and before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.backbone import Backbone, FeatureLayer, Training, Tuning
from zoo.dataset import Dataset, ReadOptions
from zoo.errors import UsageError
from zoo.registry import load_registry
from zoo.weights import WeightSource
from zoo_harness.compute.distributed import Processes
from zoo_harness.records import option_checks
from zoo_harness.records.options import EvalOptions
from zoo_harness.records.overrides import apply_overrides, training_overrides
from zoo_harness.records.stored_options import StoredOptions
from zoo_harness.records.subset import Subset
from zoo_harness.runs.directory import RunDirectory
from zoo_harness.runs.resume import refuse_finished, resumed
from zoo_harness.runs.tensorboard import check_tensorboard

if TYPE_CHECKING:
    from zoo_harness.frozen.cache.placement import CachePolicy
    from zoo_harness.runs.plan import Request


@dataclass(frozen=True)
class Asked:
    """What the caller asked for: names or records, and the options that were given.

    ``command`` is what the record of the run says about how it was started.
    """

    backbone: str | Backbone | None
    dataset: str | Dataset | None
    given: EvalOptions
    command: tuple[str, ...]
    from_scratch: bool = False

    @property
    def stored(self) -> StoredOptions:
        """The options as they are kept with the run."""
        name = self.backbone.name if isinstance(self.backbone, Backbone) else self.backbone
        dataset = self.dataset.name if isinstance(self.dataset, Dataset) else self.dataset
        records = {"backbone": self.backbone, "dataset": self.dataset}
        in_python = tuple(key for key, value in records.items() if isinstance(value, Backbone | Dataset))
        return StoredOptions(name, dataset, self.given, self.from_scratch, in_python)


@dataclass(frozen=True)
class CheckedRun:
    """A run whose names are resolved and whose options are checked.

    ``options`` are those of the run itself: the given ones, or those of the run that is resumed.
    """

    command: tuple[str, ...]
    options: StoredOptions
    backbone: Backbone
    dataset: Dataset
    argument: str | None
    tuning: Tuning
    layer: FeatureLayer
    weights: WeightSource
    training: Training
    subset: Subset
    data_dir: Path | None
    cache: CachePolicy
    tensorboard: bool
    out: Path | None
    resume: Path | None

    def request(self, processes: Processes) -> Request:
        """Make the request of a process, on its own device; torch is imported here."""
        from zoo_harness.compute.context import ComputeContext
        from zoo_harness.compute.device import choose_device
        from zoo_harness.compute.precision import check_precision
        from zoo_harness.runs.plan import Request

        values = self.options.values
        device = choose_device(values["device"], processes)
        unfreeze = values["unfreeze"]
        return Request(
            backbone=self.backbone,
            dataset=self.dataset,
            argument=self.argument,
            tuning=self.tuning,
            unfreeze=tuple(unfreeze) if unfreeze else None,
            layer=self.layer,
            weights=self.weights,
            training=self.training,
            subset=self.subset,
            compute=ComputeContext(
                device=device,
                precision=check_precision(values["precision"], device),
                predict=values["predict"],
                seed=values["seed"],
                deterministic=values["deterministic"],
                compiled=values["compile"],
                cache_dtype=values["cache_dtype"],
                processes=processes,
            ),
            data_dir=self.data_dir,
            command=self.command,
            with_test=self.options.from_scratch,
            layer_curve=values["layer_curve"],
            options=ReadOptions.of(values),
        )


def check_run(asked: Asked) -> CheckedRun:
    """Resolve names and check options; raises a :class:`~zoo.errors.ZooError` for whatever is wrong with them."""
    out, resume = _folder(asked.given.get("out")), _folder(asked.given.get("resume"))
    options = asked.stored if resume is None else resumed(resume, asked.stored)
    values = options.values
    backbone, (dataset, argument) = _backbone(asked, options), _dataset(asked, options)
    tuning = backbone.tuning(values["recipe"])
    data_dir = _folder(values["data_dir"])
    option_checks.choose_prediction(values["predict"], tuning, load_registry().backbones.values())
    option_checks.check_seed(values["seed"])
    option_checks.check_device_name(values["device"])
    option_checks.check_folders(dataset, argument, data_dir)
    _check_run_directory(out, resume)
    if asked.given.get("tensorboard"):
        check_tensorboard()
    return CheckedRun(
        command=asked.command,
        options=options,
        backbone=backbone,
        dataset=dataset,
        argument=argument,
        tuning=tuning,
        layer=option_checks.choose_layer(backbone.name, tuning, values["layer"]),
        weights=option_checks.choose_source(backbone, values["weights"]),
        training=apply_overrides(tuning.training, training_overrides(values)),
        subset=Subset(values["per_class"], values["limit"], values["val_fraction"], values["seed"]),
        data_dir=data_dir,
        cache=_cache_policy(asked.given, values),
        tensorboard=asked.given.get("tensorboard", False),
        out=out,
        resume=resume,
    )


def _folder(given: Path | None) -> Path | None:
    return None if given is None else given.expanduser()


def _check_run_directory(out: Path | None, resume: Path | None) -> None:
    if resume is not None and out is not None:
        raise UsageError(f"--resume {resume} continues in its own folder; leave --out out", code="resume-with-out")
    if not Processes.launched().is_main:
        return
    if resume is not None:
        refuse_finished(resume)
    elif out is not None:
        RunDirectory(out).check()


def _backbone(asked: Asked, options: StoredOptions) -> Backbone:
    if isinstance(asked.backbone, Backbone):
        return asked.backbone
    if "backbone" in options.in_python:
        raise UsageError(
            f"the run's backbone {options.name!r} was a zoo.Backbone given in Python; resume it from Python, with the "
            "record: zoo.evaluate(backbone, resume=RUN)",
            code="resume-needs-backbone",
        )
    if options.name is None:
        raise UsageError(
            "missing backbone; run 'zoo list' to list the backbones, or give --resume RUN", code="missing-backbone"
        )
    return load_registry().backbone(options.name)


def _dataset(asked: Asked, options: StoredOptions) -> tuple[Dataset, str | None]:
    if isinstance(asked.dataset, Dataset):
        return asked.dataset, None
    if "dataset" in options.in_python:
        raise UsageError(
            f"the run's data set {options.dataset!r} was a zoo.Dataset given in Python; resume it from Python, with "
            "the data set: zoo.evaluate(dataset=dataset, resume=RUN)",
            code="resume-needs-dataset",
        )
    if options.dataset is None:
        raise UsageError(
            f"missing --dataset for {options.name}; run 'zoo datasets' to list the data sets", code="missing-dataset"
        )
    return load_registry().dataset(options.dataset)


def _cache_policy(given: EvalOptions, values: EvalOptions) -> CachePolicy:
    from zoo_harness.frozen.cache.placement import CachePolicy  # imports numpy

    policy = CachePolicy.of(given.get("cache", "auto"), given.get("cache_budget"))
    if policy.cache == "off" and values["cache_dtype"] != "exact":
        raise UsageError(
            f"--cache-dtype {values['cache_dtype']} needs a cache; leave it out with --cache off",
            code="cache-dtype-without-cache",
        )
    return policy
