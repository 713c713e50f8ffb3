"""Score a checkpoint again as its record says, unless the caller gives other data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.backbone import FeatureLayer
from zoo.dataset import Dataset, ReadOptions
from zoo.errors import UnknownNameError, UsageError
from zoo.registry import load_registry
from zoo_harness.records import option_checks
from zoo_harness.records.file_names import RECORD
from zoo_harness.records.options import EvalOptions, RescoreOptions
from zoo_harness.records.run import RunRecord, read_run, record_file
from zoo_harness.records.stored_options import OPTIONS, read_options
from zoo_harness.records.subset import Subset
from zoo_harness.runs.directory import RunDirectory, claim_folder

if TYPE_CHECKING:
    import torch

    from zoo_harness.checkpoints.loaded_model import LoadedModel
    from zoo_harness.runs.reporter import Reporter
    from zoo_harness.runs.rescore import RescoreRecord, RescoreRequest


@dataclass(frozen=True)
class Checkpoint:
    """The folder of a checkpoint, what the caller calls it, and the commit of its repository."""

    folder: Path
    called: str
    commit: str | None = None


def check_rescore(given: RescoreOptions) -> None:
    """Refuse wrong options before anything is fetched."""
    Subset(given.get("per_class"), given.get("limit"), given.get("val_fraction"))
    option_checks.check_seed(given.get("seed") or 0)
    option_checks.check_device_name(given.get("device", "auto"))
    data_dir, out = given.get("data_dir"), given.get("out")
    if data_dir is not None and not data_dir.expanduser().exists():
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder", code="missing-folder")
    if out is not None:
        RunDirectory(out.expanduser()).check()


def rescore_checkpoint(
    checkpoint: Checkpoint, dataset: str | Dataset | None, given: RescoreOptions, reporter: Reporter
) -> RescoreRecord:
    """Score a checkpoint, compare each figure with its record, and write ``rescore.json`` if a folder is given."""
    layer = _layer(read_run(checkpoint.folder), given.get("layer"))

    # From here on torch is imported, which takes seconds; what could be checked without it has been.
    from zoo_harness.checkpoints.load import load_folder
    from zoo_harness.compute.allocator import keep_freed_memory
    from zoo_harness.compute.device import choose_device
    from zoo_harness.compute.isolation import isolated
    from zoo_harness.runs.rescore import load_scored_data, rescore

    keep_freed_memory()
    with isolated():
        reporter.stage("loading the checkpoint", 0)
        model = load_folder(checkpoint.folder, choose_device(given.get("device", "auto")))
        request = _request(checkpoint, model, layer, dataset, given, reporter)
        data = load_scored_data(request, reporter)
        for line in data.record.reading:
            reporter.log(line)
        for warning in data.warnings:
            reporter.warn(warning)
        evaluation = data.record.evaluation
        reporter.log(
            f"{checkpoint.called} on {data.record.title}: {evaluation.images:,} {evaluation.split} images, "
            f"{data.record.subset}, {request.compute.device}"
        )
        found = rescore(request, data, checkpoint.called, checkpoint.commit, reporter)
    out = given.get("out")
    if out is not None:
        found.write(claim_folder(out.expanduser(), "rescore"))
    return found


def _layer(record: RunRecord, path: str | None) -> FeatureLayer:
    layers = {layer.path: layer for layer in record.backbone.features}
    if path is not None:
        if path not in layers:
            raise UnknownNameError("feature layer of the checkpoint", path, layers)
        return layers[path]
    scored = record.results.separation_after
    return layers.get(scored.layer if scored else "", record.backbone.features[-1])


def _request(
    checkpoint: Checkpoint,
    model: LoadedModel,
    layer: FeatureLayer,
    dataset: str | Dataset | None,
    given: RescoreOptions,
    reporter: Reporter,
) -> RescoreRequest:
    from zoo_harness.compute.context import ComputeContext
    from zoo_harness.runs.rescore import RescoreRequest

    record, data_dir = model.record, given.get("data_dir")
    data_dir = data_dir.expanduser() if data_dir else None
    argument: str | None = None
    options = ReadOptions.of({**_recorded_options(checkpoint, named=dataset), **given})
    if not isinstance(dataset, Dataset):
        named, data_dir = _data(checkpoint, record, dataset, data_dir)
        dataset, argument = load_registry().dataset(named)
    recorded = record.dataset
    same = dataset.name == recorded.name and (argument == recorded.argument or dataset.argument == "PATH")
    option_checks.check_folders(dataset, argument, data_dir)
    device = next(model.parameters()).device
    seed = given.get("seed")
    return RescoreRequest(
        model=model,
        dataset=dataset,
        argument=argument,
        data_dir=data_dir,
        subset=_subset(given, record, same_data_set=same),
        layer=layer,
        compute=ComputeContext(
            device=device,
            precision=_precision(given.get("precision"), record, device, reporter),
            predict=record.settings.predict,
            seed=record.settings.seed if seed is None else seed,
            deterministic=given.get("deterministic", False),
        ),
        options=options,
    )


def _recorded_options(checkpoint: Checkpoint, named: object) -> EvalOptions:
    """Return the options of a run on this machine, if its own data set is read again."""
    kept = record_file(checkpoint.folder).name != RECORD and (checkpoint.folder / OPTIONS).is_file()
    return read_options(checkpoint.folder).given if kept and named is None else {}


def _data(checkpoint: Checkpoint, record: RunRecord, named: str | None, folder: Path | None) -> tuple[str, Path | None]:
    """Return the name of the data set, and the folder of its files: as given, else as the run has it, else recorded."""
    recorded = record.dataset
    if named is not None:
        return named, folder
    if record_file(checkpoint.folder).name != RECORD and (checkpoint.folder / OPTIONS).is_file():
        kept = read_options(checkpoint.folder)
        if "dataset" not in kept.in_python:
            return kept.dataset or recorded.name, folder or kept.given.get("data_dir")
    declared = load_registry().datasets.get(recorded.name)
    if declared is not None and declared.argument == "PATH":
        raise UsageError(
            f"missing data: the run was scored on a folder of images ({recorded.title}), and its record does not name "
            f"the folder; give it with --dataset {recorded.name}:PATH, or give another data set",
            code="missing-dataset",
        )
    return (f"{recorded.name}:{recorded.argument}" if recorded.argument else recorded.name), folder


def _subset(given: RescoreOptions, record: RunRecord, *, same_data_set: bool) -> Subset:
    """Return the recorded subset of the recorded data set with the given options in place; else the given one."""
    own = record.dataset
    recorded: dict[str, Any] = {"seed": 0}
    if same_data_set:
        recorded = {"seed": record.settings.seed, "val_fraction": own.val_fraction}
    if same_data_set and not {"per_class", "limit"} & given.keys():
        recorded |= {"per_class": own.per_class, "limit": own.limit}
    chosen: dict[str, Any] = {**recorded, **given}
    return Subset(
        chosen.get("per_class"),
        chosen.get("limit"),
        chosen.get("val_fraction"),
        option_checks.check_seed(chosen["seed"]),
    )


def _precision(given: str | None, record: RunRecord, device: torch.device, reporter: Reporter) -> str:
    from zoo_harness.compute.precision import check_precision

    if given is None and record.settings.precision == "bf16" and device.type != "cuda":
        reporter.log("the run computed in bf16, which needs a CUDA device; this scoring computes in fp32")
        return "fp32"
    return check_precision(given or record.settings.precision, device)
