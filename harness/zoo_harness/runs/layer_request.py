"""What ``zoo layers`` was asked for, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.backbone import Backbone
from zoo.dataset import Dataset
from zoo.errors import UsageError
from zoo.registry import load_registry
from zoo.weights import WeightSource
from zoo_harness.records import option_checks
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import LayersOptions
from zoo_harness.records.subset import Subset
from zoo_harness.runs.directory import RunDirectory


@dataclass(frozen=True)
class LayerRequest:
    """Backbones with their weights, the directories of runs, a data set, and all options."""

    backbones: tuple[tuple[Backbone, WeightSource], ...]
    runs: tuple[Path, ...]
    dataset: Dataset
    argument: str | None
    data_dir: Path | None
    subset: Subset
    options: LayersOptions
    command: tuple[str, ...]


def check_layers(
    backbones: Sequence[str | Backbone],
    runs: Sequence[Path],
    dataset: str | Dataset,
    given: LayersOptions,
    command: tuple[str, ...],
) -> LayerRequest:
    """Resolve names and check options; raises a :class:`~zoo.errors.ZooError` for whatever is wrong with them."""
    registry, options = load_registry(), with_defaults(LayersOptions, given)
    found = [each if isinstance(each, Backbone) else registry.backbone(each) for each in backbones]
    weights, data_dir, out = options["weights"], options["data_dir"], options["out"]
    folders = tuple(run.expanduser() for run in runs)
    if not found and not folders:
        raise UsageError("nothing to score; give a backbone, or a run with --run", code="missing-backbone")
    if weights is not None and not found:
        raise UsageError(f"--weights {weights!r} is for backbones; a run has weights of its own", code="option-unused")
    _refuse_repeated([*(backbone.name for backbone in found), *(str(run.resolve()) for run in folders)])
    data, argument = (dataset, None) if isinstance(dataset, Dataset) else registry.dataset(dataset)
    option_checks.check_device_name(options["device"])
    folder = data_dir.expanduser() if data_dir else None
    option_checks.check_folders(data, argument, folder)
    if out is not None:
        RunDirectory(out.expanduser()).check()
    return LayerRequest(
        backbones=tuple((backbone, option_checks.choose_source(backbone, weights)) for backbone in found),
        runs=folders,
        dataset=data,
        argument=argument,
        data_dir=folder,
        subset=Subset(
            options["per_class"],
            options["limit"],
            options["val_fraction"],
            option_checks.check_seed(options["seed"]),
        ),
        options=options,
        command=command,
    )


def _refuse_repeated(subjects: list[str]) -> None:
    repeated = [subject for subject in subjects if subjects.count(subject) > 1]
    if repeated:
        raise UsageError(
            f"{repeated[0]!r} is given {subjects.count(repeated[0])} times; give it once", code="repeated-subject"
        )
