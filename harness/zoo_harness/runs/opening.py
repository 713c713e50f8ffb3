"""Open the data and checkpoints of a request, and download its weights, all without importing torch.

Call these functions after the options of the request are checked and before torch is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from zoo.backbone import Backbone, FeatureLayer
from zoo.class_names import normalised
from zoo.dataset import Dataset, ReadOptions
from zoo.errors import UsageError
from zoo.registry import load_registry
from zoo.weights import WeightSource
from zoo_harness.checkpoints.opened import OpenedCheckpoint, open_checkpoint
from zoo_harness.compute.distributed import Processes
from zoo_harness.data.opened import open_training_split, title_of
from zoo_harness.models.weight_files import fetch_weights
from zoo_harness.records.file_names import RECORD
from zoo_harness.records.option import with_defaults
from zoo_harness.records.option_checks import check_order, choose_layer
from zoo_harness.records.options import EvalOptions, RescoreOptions
from zoo_harness.records.run import RunRecord, read_run, record_file
from zoo_harness.records.stored_options import OPTIONS, read_options
from zoo_harness.records.subset import Subset
from zoo_harness.runs.rank_request import RankRequest
from zoo_harness.runs.request import CheckedRun, Checkpoint, DataRequest, LayerRequest, choose_data, find_dataset
from zoo_harness.util.file_lock import one_at_a_time
from zoo_harness.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class RescoreRequest:
    """A checked request to score a checkpoint again: the opened checkpoint, the data, the scored layer, and options."""

    checkpoint: Checkpoint
    opened: OpenedCheckpoint
    data: DataRequest
    layer: FeatureLayer
    options: RescoreOptions


def open_fine_tuning(checked: CheckedRun, progress: Progress) -> None:
    """Open the data of a run, check that it has enough images, and download the weights."""
    settings = checked.settings
    named = settings.data_dir is not None or settings.dataset.is_path(settings.argument)  # nothing is downloaded
    data = f"data {settings.dataset.name}:{settings.argument}"
    with nullcontext() if named else one_at_a_time(data):
        opened = settings.open(progress)
    check_sizes(*opened.images, opened.evaluation_name, settings.training.epochs, Processes.launched().count)
    _fetch(settings.backbone, settings.weights, progress)


def check_sizes(images: int, evaluation: int, split: str, epochs: int, processes: int) -> None:
    """Raise :class:`~zoo.errors.UsageError` if there are too few images for training or for the number of processes.

    ``images`` counts the training images, ``evaluation`` the images of the evaluation split, whose name is ``split``.
    """
    if epochs and images < 2:
        message = f"too few images to train: {images}; expected at least 2; try --epochs 0 to score without training"
        raise UsageError(message, code="too-few-images", given=images)
    for name, number in (("training", images), (split, evaluation)):
        if number < processes:
            message = f"too many processes: {processes} for {number} {name} image(s); start fewer processes"
            raise UsageError(message, code="too-many-processes", split=name, given=number)


def open_layers(request: LayerRequest, progress: Progress) -> LayerRequest:
    """Open checkpoints and data, download weights, and return the request with the opened checkpoints."""
    options = request.options
    with ExitStack() as stack:
        checkpoints = tuple(stack.enter_context(open_checkpoint(run)) for run in request.runs)
        first = None if request.backbones else checkpoints[0].record.dataset.read_range
        opened = request.open(progress, request.balanced, train_only=options["split"] == "train", value_range=first)
        for split, images in zip(("train", "test"), opened.images, strict=True):
            if options["split"] in (split, "both"):
                check_order(options["order"], split, images)
        for backbone, source in request.backbones:
            _fetch(backbone, source, progress)
        stack.pop_all()  # the checkpoints stay open until another function has loaded and closed them
    return replace(request, checkpoints=checkpoints)


def open_ranking(request: RankRequest, progress: Progress) -> None:
    """Open the training split of a ranking. The weights are downloaded later, backbone by backbone."""
    progress.stage(f"loading {request.dataset.title}", 0)
    where = request.dataset, request.argument, request.data_dir, request.subset
    opened = open_training_split(*where, request.reading)
    check_class_sizes(opened.class_sizes(request.subset), request.subset)
    request.opened[:] = [opened]


def check_class_sizes(counts: Sequence[int], subset: Subset) -> None:
    """Raise :class:`~zoo.errors.UsageError` if no class has two images, so no image has a same-class neighbour."""
    if max(counts) > 1:
        return
    options = {"per_class": "--per-class", "limit": "--images", "fraction": "--fraction"}
    given = {spelled: getattr(subset, name) for name, spelled in options.items() if getattr(subset, name) is not None}
    cause, advice = "no class has more than one image", "add images"
    for spelled, value in given.items():
        cause, advice = f"{spelled} {value} selects at most one image of each class", "try --per-class 10"
    message = f"{cause}; expected two or more, because each image is compared with other images of its class; {advice}"
    raise UsageError(message, code="too-few-images", given=1)


def open_rescoring(
    checkpoint: Checkpoint, dataset: str | Dataset | None, given: RescoreOptions, progress: Progress
) -> RescoreRequest:
    """Open a checkpoint and the data to score it on.

    Raises a :class:`~zoo.errors.ZooError` if the data and the checkpoint have different classes.
    """
    options = with_defaults(RescoreOptions, given)
    layer = _layer(read_run(checkpoint.folder), options["layer"])
    with ExitStack() as stack:
        opened = stack.enter_context(open_checkpoint(checkpoint.folder))
        record = opened.record
        data = recorded_data_request(checkpoint, record, dataset, given)
        found = data.open(progress, value_range=record.dataset.read_range)
        _check_classes(record.dataset.classes, title_of(data.dataset, data.argument), found.loaded.classes)
        stack.pop_all()  # the checkpoint stays open until another function has loaded and closed it
    return RescoreRequest(checkpoint=checkpoint, opened=opened, data=data, layer=layer, options=options)


def _fetch(backbone: Backbone, source: WeightSource, progress: Progress) -> None:
    progress.stage(f"loading weights of {backbone.name}", 0)
    with one_at_a_time(f"weights {source.describe()}"):
        fetch_weights(backbone, source)


def _layer(record: RunRecord, path: str | None) -> FeatureLayer:
    features, scored = record.backbone.features, record.results.separation_after
    if path is None and scored is not None and any(layer.path == scored.layer for layer in features):
        path = scored.layer
    return choose_layer("the checkpoint", features, path)


def recorded_data_request(
    checkpoint: Checkpoint, record: RunRecord, dataset: str | Dataset | None, given: RescoreOptions
) -> DataRequest:
    """Describe the data to score a checkpoint on: the given dataset, or by default the dataset of its record.

    For the recorded dataset, the recorded options apply unless the caller gives other options.
    """
    own, chosen = record.dataset, with_defaults(RescoreOptions, given)
    kept: EvalOptions = {}
    if dataset is None:
        dataset, kept = _recorded_data(checkpoint, record)
        chosen["data_dir"] = chosen["data_dir"] or kept.get("data_dir")
    named, argument = find_dataset(dataset)
    recorded: dict[str, Any] = {"seed": 0}
    if named.name == own.name and (argument == own.argument or named.is_path(argument)):
        recorded = {"seed": record.settings.seed, "val_fraction": own.val_fraction}
        if not {"per_class", "limit", "fraction"} & given.keys():
            recorded |= {"per_class": own.per_class, "limit": own.limit, "fraction": own.fraction}
            if not {"eval_limit", "eval_fraction"} & given.keys():
                recorded |= {"eval_limit": own.eval_limit, "eval_fraction": own.eval_fraction}
    reading = ReadOptions.of(kept).given
    return choose_data(dataset, {**chosen, **recorded, **reading, **given, "data_dir": chosen["data_dir"]})


def _recorded_data(checkpoint: Checkpoint, record: RunRecord) -> tuple[str, EvalOptions]:
    """Return the dataset's name and the options of the run; without stored options, return the recorded name only."""
    recorded = record.dataset
    if record_file(checkpoint.folder).name != RECORD and (checkpoint.folder / OPTIONS).is_file():
        kept = read_options(checkpoint.folder)
        if "dataset" not in kept.in_python:
            return kept.dataset or recorded.name, kept.given
    declared = load_registry().datasets.get(recorded.name)
    if declared is not None and (declared.argument == "PATH" or recorded.argument_is_lost):
        raise UsageError(
            f"missing data: the run was scored on a folder of images ({recorded.title}), and the run's record does not "
            f"name the folder; give the folder with --dataset {recorded.name}:PATH, or give another dataset",
            code="missing-dataset",
        )
    return (f"{recorded.name}:{recorded.argument}" if recorded.argument else recorded.name), {}


def _check_classes(classes: tuple[str, ...], name: str, found: tuple[str, ...]) -> None:
    if [*map(normalised, found)] == [*map(normalised, classes)]:  # class names in earlier records are not normalised
        return
    message = f"the checkpoint has {len(classes)} classes, {name} has {len(found)}"
    for number, (one, other) in enumerate(zip(classes, found, strict=False)):
        if one != other:
            message += f"; class {number} is {one!r:.80} in the checkpoint and {other!r:.80} in the data"
            break
    advice = "give the dataset that the checkpoint was trained on, or fine-tune a backbone on this dataset"
    raise UsageError(
        f"{message}; expected the same classes in the same order; {advice}", code="other-classes", dataset=name
    )
