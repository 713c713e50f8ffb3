"""``zoo eval REPO|RUN --epochs 0``: score a checkpoint again, and say whether its figures come out here too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo_harness.cli.commands.run import Manner, is_given
from zoo_harness.cli.output import print_lines, print_table, tell, warn_of

if TYPE_CHECKING:
    import torch

    from zoo.backbone import FeatureLayer
    from zoo_harness.checkpoints.loaded_model import LoadedModel
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.hub.locate import CheckpointPlace
    from zoo_harness.records.options import RunOptions
    from zoo_harness.records.run import Measurement, RunRecord
    from zoo_harness.records.subset import Subset
    from zoo_harness.runs.rescore import Figure, RescoreRecord, RescoreRequest


_OF_SCORING = frozenset(("name", "dataset", "data_dir", "per_class", "limit", "val_fraction", "seed", "layer"))
_OF_COMPUTING = frozenset(("epochs", "device", "precision", "deterministic"))
_OF_TRAINING = ("cache", "cache_budget", "tensorboard")


@dataclass(frozen=True)
class _Asked:
    """The options, and which of them were given; the others are as the record says."""

    options: RunOptions
    given: frozenset[str]

    def or_recorded(self, name: str, recorded: Any) -> Any:
        return getattr(self.options, name) if name in self.given else recorded


def rescore_checkpoint(context: typer.Context, asked: Mapping[str, Any], manner: Manner) -> None:
    """Score the checkpoint that ``name`` means as its record says, and report; exit status 1 where a figure differs."""
    from zoo_harness.records.options import RunOptions

    given = frozenset(name for name in (*asked, *_OF_TRAINING) if is_given(context, name))
    wanted = _Asked(RunOptions.model_validate(dict(asked)), given)
    _check(wanted, manner)

    from zoo_harness.hub.locate import find_checkpoint
    from zoo_harness.records.run import read_run

    silent = manner.quiet or manner.as_json
    place = find_checkpoint(str(wanted.options.name), (lambda _line: None) if silent else tell)
    _check_layer(read_run(place.path), wanted.options.layer)

    # From here on torch is imported, which takes seconds; what could be checked without it has been.
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.compute.allocator import keep_freed_memory
    from zoo_harness.util.signals import Terminated, raise_on_sigterm

    keep_freed_memory()
    try:
        with TerminalProgress(quiet=silent) as progress, raise_on_sigterm():
            found = _rescore(wanted, place, progress)
    except Terminated as error:
        raise typer.Exit(error.exit_code) from error
    _report(found, manner)
    if not found.reproduced:
        raise typer.Exit(1)


def _check(asked: _Asked, manner: Manner) -> None:
    from zoo.errors import UsageError, check_choice
    from zoo_harness.records import option_checks as choices
    from zoo_harness.records.subset import Subset
    from zoo_harness.runs.directory import RunDirectory

    options = asked.options
    if options.epochs != 0:
        raise UsageError(
            f"{options.name!r} is a checkpoint, not a backbone: --epochs 0 scores it again, as it is; to train on from "
            "its weights, zoo eval BACKBONE --weights FOLDER/model.safetensors (zoo pull --to FOLDER fetches it)"
        )
    others = sorted(asked.given - _OF_SCORING - _OF_COMPUTING)
    if others:
        told = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise UsageError(f"{told}: {options.name!r} is a checkpoint and is scored as it is; leave that out")
    Subset(options.per_class, options.limit, options.val_fraction, choices.check_seed(options.seed))
    choices.check_device_name(options.device)
    check_choice("--precision", options.precision, choices.PRECISIONS)
    if options.data_dir is not None and not options.data_dir.expanduser().is_dir():
        raise UsageError(f"--data-dir {str(options.data_dir)!r}: no such folder")
    if manner.out is not None:
        RunDirectory(manner.out).check()


def _check_layer(record: RunRecord, path: str | None) -> None:
    from zoo.errors import UnknownNameError

    if path is not None and path not in (layers := [layer.path for layer in record.backbone.features]):
        raise UnknownNameError("feature layer of the checkpoint", path, layers)


def _rescore(asked: _Asked, place: CheckpointPlace, progress: TerminalProgress) -> RescoreRecord:
    from zoo_harness.checkpoints.load import load_folder
    from zoo_harness.compute.device import choose_device
    from zoo_harness.runs.rescore import load_scored_data, rescore

    progress.stage("loading the checkpoint", 0)
    model = load_folder(place.path, choose_device(asked.options.device))
    request = _request(asked, model, place, progress.say)
    data = load_scored_data(request, progress)
    for warning in data.warnings:
        progress.warn(warning)
    progress.say(
        f"{place.reference or place.path} on {data.record.title}: {data.record.evaluation.images:,} "
        f"{data.record.evaluation.split} images, {data.record.subset}, {request.compute.device}"
    )
    return rescore(request, data, str(place.reference or place.path), place.commit, progress)


def _request(asked: _Asked, model: LoadedModel, place: CheckpointPlace, say: Callable[[str], None]) -> RescoreRequest:
    from zoo.registry import load_registry
    from zoo_harness.compute.context import ComputeContext
    from zoo_harness.records import option_checks as choices
    from zoo_harness.runs.rescore import RescoreRequest

    registry = load_registry()
    warn_of(registry.problems)
    record, options = model.record, asked.options
    text, data_dir = _data(asked, place, record)
    dataset, argument = registry.dataset(text)
    same = dataset.name == record.dataset.name and (argument == record.dataset.argument or dataset.argument == "PATH")
    choices.check_folders(dataset, argument, data_dir)
    device = next(model.parameters()).device
    return RescoreRequest(
        model=model,
        dataset=dataset,
        argument=argument,
        data_dir=data_dir,
        subset=_subset(asked, record) if same else _own_subset(options),
        layer=_layer(asked, record),
        compute=ComputeContext(
            device=device,
            precision=_precision(asked, record, device, say),
            predict=record.settings.predict,
            seed=choices.check_seed(asked.or_recorded("seed", record.settings.seed)),
            deterministic=options.deterministic,
        ),
    )


def _data(asked: _Asked, place: CheckpointPlace, record: RunRecord) -> tuple[str, Path | None]:
    """What names the data set, and the folder with its files: as asked, else as the run has it, else as recorded."""
    from zoo.errors import UsageError
    from zoo.registry import load_registry
    from zoo_harness.records.options import OPTIONS, read_options
    from zoo_harness.records.run import RUN, record_file

    options, recorded = asked.options, record.dataset
    folder = options.data_dir.expanduser() if options.data_dir else None
    if options.dataset is not None:
        return options.dataset, folder
    if record_file(place.path).name == RUN and (place.path / OPTIONS).is_file():
        kept = read_options(place.path)
        return kept.dataset or recorded.name, folder or kept.data_dir
    declared = load_registry().datasets.get(recorded.name)
    if declared is not None and declared.argument == "PATH":
        raise UsageError(
            f"the run was scored on a folder of images ({recorded.title}), which its record does not have; give the "
            f"folder with --dataset {recorded.name}:PATH, or another data set"
        )
    return (f"{recorded.name}:{recorded.argument}" if recorded.argument else recorded.name), folder


def _subset(asked: _Asked, record: RunRecord) -> Subset:
    """The part of the recorded data set that was used, unless another is asked for."""
    from zoo_harness.records.option_checks import check_seed
    from zoo_harness.records.subset import Subset

    recorded = record.dataset
    other = bool({"per_class", "limit"} & asked.given)
    return Subset(
        per_class=asked.options.per_class if other else recorded.per_class,
        limit=asked.options.limit if other else recorded.limit,
        val_fraction=asked.or_recorded("val_fraction", recorded.val_fraction),
        seed=check_seed(asked.or_recorded("seed", record.settings.seed)),
    )


def _own_subset(options: RunOptions) -> Subset:
    from zoo_harness.records.subset import Subset

    return Subset(options.per_class, options.limit, options.val_fraction, options.seed)


def _layer(asked: _Asked, record: RunRecord) -> FeatureLayer:
    from zoo_harness.runs.rescore import scored_layer_of

    layers = {layer.path: layer for layer in record.backbone.features}
    return layers[asked.options.layer] if asked.options.layer else scored_layer_of(record)


def _precision(asked: _Asked, record: RunRecord, device: torch.device, say: Callable[[str], None]) -> str:
    from zoo_harness.compute.precision import check_precision

    if "precision" not in asked.given and record.settings.precision == "bf16" and device.type != "cuda":
        say("the run computed in bf16, which needs a CUDA device; this is fp32")
        return "fp32"
    return check_precision(asked.or_recorded("precision", record.settings.precision), device)


def _report(found: RescoreRecord, manner: Manner) -> None:
    from zoo_harness.runs.directory import claim_folder

    written = found.write(claim_folder(manner.out, "rescore")) if manner.out is not None else None
    if manner.as_json:
        print_lines(found.to_json().rstrip())
        return
    rows = [
        [each.split, each.name, _shown(each.recorded), _shown(each.found), _verdict(each)] for each in found.figures
    ]
    print_table(["split", "figure", "recorded", "here", "verdict"], rows, right=["recorded", "here"])
    if not manner.quiet:
        print_lines("", *_notes(found))
    if written is not None:
        print_lines(f"record  {written}")


def _shown(measurement: Measurement | None) -> str:
    from zoo_harness.runs.rescore import error_of

    return f"{measurement.value:.4f} ± {error_of(measurement):.4f}" if measurement else "-"


def _verdict(figure: Figure) -> str:
    apart = "" if figure.errors_apart is None else f"{figure.errors_apart:+.1f} standard errors"
    if figure.verdict == "not comparable":
        return f"not comparable: other data (fingerprint differs){apart and ', ' + apart}"
    if figure.verdict == "not recorded":
        return "not recorded"
    return f"{figure.verdict}: {_count(figure)}{', ' + apart if figure.verdict == 'not reproduced' and apart else ''}"


def _count(figure: Figure) -> str:
    """Return the difference of a figure in images; a record does not say which images they are."""
    if not figure.images_apart or figure.recorded is None:
        return f"the same count of {figure.found.n:,} images"
    more = "more" if figure.found.value > figure.recorded.value else "fewer"
    return f"{figure.images_apart:g} of {figure.found.n:,} images {more}"


def _notes(found: RescoreRecord) -> list[str]:
    lines = [f"SI scores: outputs of layer {found.layer}. ± is one standard error, of SI by bootstrap."]
    if found.device != found.recorded_device or found.precision != found.recorded_precision:
        lines.append(
            f"recorded on {found.recorded_device} in {found.recorded_precision}, here on {found.device} in "
            f"{found.precision}: rounding differences can change the predictions of a few images."
        )
    if not all(found.same_data.values()):
        lines.append("The images are not those of the record: a figure may differ though the checkpoint is the same.")
    return lines
