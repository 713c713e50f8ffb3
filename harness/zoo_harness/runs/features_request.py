"""Check the options of ``zoo.features`` before torch is imported and before any file is written or downloaded."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.backbone import Backbone, FeatureLayer
from zoo.dataset import Dataset
from zoo.errors import UnknownNameError, UsageError, shortened
from zoo.weights import WeightSource
from zoo_harness.evaluation.feature_writer import check_ending
from zoo_harness.records import option_checks
from zoo_harness.records.option import declared, with_defaults
from zoo_harness.records.options import FeaturesOptions, NormalizationOptions, RescoreOptions
from zoo_harness.records.run import RunRecord, read_run
from zoo_harness.runs.request import Checkpoint, DataRequest, check_checkpoints, check_rescore, choose_data


@dataclass(frozen=True, kw_only=True)
class FeaturesRequest:
    """A checked request for features: a backbone or a run, the layers to read, and all options.

    ``backbone`` is a pair of a backbone and its weight source. ``run`` is a pair of a run and its record. ``data``
    describes the images, or is ``None`` to use the images of the run. ``given`` holds the options that the user set,
    without defaults.
    """

    backbone: tuple[Backbone, WeightSource] | None
    run: tuple[Checkpoint, RunRecord] | None
    layers: tuple[FeatureLayer, ...]
    dataset: str | Dataset | None
    data: DataRequest | None
    given: FeaturesOptions
    options: FeaturesOptions
    input_size: tuple[int, int] | None = None


def check_features(
    subject: Backbone | Checkpoint, dataset: str | Dataset | None, given: FeaturesOptions
) -> FeaturesRequest:
    """Resolve the names and check the options of ``zoo.features``; raise :class:`~zoo.errors.ZooError` on a mistake."""
    options = with_defaults(FeaturesOptions, given)
    option_checks.check_device_name(options["device"])
    _check_file(options["out"])
    if isinstance(subject, Backbone):
        return _of_backbone(subject, dataset, given, options)
    if options["weights"] is not None:
        given_weights = shortened(str(options["weights"]))
        message = f"--weights {given_weights} cannot be used: {subject.called} is a run with its own weights; remove it"
        raise UsageError(message, code="option-unused", option="weights")
    record = read_run(subject.folder)
    check_checkpoints([subject.folder], options["checkpoint"], options["epoch"])
    if options["input_size"] is not None:
        message = f"--input-size {options['input_size']} cannot be used: a run keeps its input size; remove the option"
        raise UsageError(message, code="option-unused", option="input_size")
    if normalization := [name for name in declared(NormalizationOptions) if given.get(name)]:
        message = f"--{normalization[0]} cannot be used: a run keeps its own mean and std; remove the option"
        raise UsageError(message, code="option-unused", option=normalization[0])
    shared = declared(RescoreOptions).keys() - {"layer", "out", "checkpoint"}
    check_rescore(dataset, {key: value for key, value in given.items() if key in shared})  # type: ignore[arg-type]
    return FeaturesRequest(
        backbone=None,
        run=(subject, record),
        layers=_layers(f"run {subject.called}", record.backbone.features, options["layer"]),
        dataset=dataset,
        data=None,
        given=given,
        options=options,
    )


def _of_backbone(
    backbone: Backbone, dataset: str | Dataset | None, given: FeaturesOptions, options: FeaturesOptions
) -> FeaturesRequest:
    if dataset is None:
        message = f"missing --dataset for {backbone.name}; run 'zoo datasets' to list the datasets"
        raise UsageError(message, code="missing-dataset")
    for name in ("checkpoint", "epoch"):
        if options[name] is not None:
            message = f"--{name} {options[name]} selects weights of a run, but {backbone.name} is a backbone; remove it"
            raise UsageError(message, code="option-unused", option=name)
    options["seed"] = options["seed"] or 0
    return FeaturesRequest(
        backbone=(backbone, option_checks.choose_source(backbone, options["weights"])),
        run=None,
        layers=_layers(backbone.name, backbone.tuning("default").features, options["layer"]),
        dataset=dataset,
        data=choose_data(dataset, options),
        given=given,
        options=options,
        input_size=option_checks.parse_input_size(options["input_size"]),
    )


def _layers(
    owner: str, declared: Sequence[FeatureLayer], given: str | Sequence[str] | None
) -> tuple[FeatureLayer, ...]:
    """Return the layers that match the given paths or glob patterns, in depth order; by default the last layer."""
    if given is None:
        return (declared[-1],)
    paths = [layer.path for layer in declared]
    wanted: set[str] = set()
    for pattern in [given] if isinstance(given, str) else given:
        found = [path for path in paths if path == pattern] or fnmatch.filter(paths, pattern)
        if not found:
            raise UnknownNameError(f"feature layer of {owner}", pattern, paths)
        wanted.update(found)
    return tuple(layer for layer in declared if layer.path in wanted)


def _check_file(out: Path | None) -> None:
    if out is None:
        return
    check_ending(out)
    if out.exists():
        message = f"--out {str(out)!r} exists; give a file that does not exist yet"
        raise UsageError(message, code="out-exists", path=out)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        message = f"--out {str(out)!r} cannot be created: {str(parent)!r} is a file; expected a folder"
        raise UsageError(message, code="out-parent-is-a-file", path=parent)
