"""Put the Separation Index scores of a run beside the tables of the 2023 report, and list how the settings differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from zoo_harness.records.comparison import PublishedScores
from zoo_harness.records.run import RunRecord, ScoreMeasurement, SeparationSettings, SplitSeparation
from zoo_harness.reports.published_results import agrees, differences, published_figures, read_table
from zoo_harness.separation.scores import SCORES

RAW_PIXELS, BEFORE, AFTER = "raw pixels", "before training", "after training"
_DATASET, _SIDE = "cifar100", 32
# This maps our names of the networks trained from scratch to the names in the report of 2023.
_SCRATCH = {"vgg16_bn_cifar": "vgg16", "resnet18_cifar": "resnet18", "efficientnet_b0_cifar": "efficientnet_b0"}
_LAYERED = "efficientnet_v2_s"
_ROUNDING = 1.5e-3  # the largest rounding error of an anti SI that is computed from the other printed scores
_TRAINING_UNKNOWN = "the report does not state how it trained the network"
_ABOUT_ROW = {
    "raw CIFAR-100": "the report does not state the split",
    "EfficientNetV2-S latent features": _TRAINING_UNKNOWN,
    "vgg16_test": "SI of the test split exceeds that of the training split",
    "resnet18_test": "SI of the test split exceeds that of the training split",
    "efficientnet_b0_train": "its values are multiples of 1/400, as those of 400 images are",
    "efficientnet_b0_test": "its values are multiples of 1/2,000, as those of 1,000 images are; centre SI 0.927 beside "
    "SI 0.365 and an accuracy of 69.78 % is not plausible",
}
GENERAL = (
    "Published SI: the report states neither the order of its scores (order 2 fits nine of fifteen rows) nor the "
    "number of images, on which SI depends. docs/studies.md lists the inconsistencies of its tables."
)


class PublishedSeparation(NamedTuple):
    """The separation scores of one backbone on CIFAR-100 that the report of 2023 published.

    ``scores`` maps a split to its values in the order of ``columns``. ``layers`` maps a split to its values in depth
    order.
    """

    source: str
    setting: str
    columns: list[str]
    scores: dict[str, list[float]]
    layers: dict[str, list[float]]


class PublishedRow(NamedTuple):
    """One row of the 2023 report: the scored features, the split, the scores by key, and remarks on inconsistencies.

    ``features`` is ``raw pixels``, ``before training`` or ``after training`` for the input of the classifier, or the
    path of a layer.
    """

    features: str
    split: str
    values: dict[str, float]
    remarks: tuple[str, ...]


class Network(NamedTuple):
    """A network whose layers are scored; ``record`` is the record of its run, or ``None`` before training."""

    backbone: str
    pretrained: bool
    weights: str
    size: tuple[int, int]
    record: RunRecord | None


class Scored(NamedTuple):
    """The scores that zoo measured for some features on one split.

    ``part`` describes the part of the data that was used; ``None`` means all images.
    """

    images: int
    scores: Mapping[str, ScoreMeasurement]
    settings: SeparationSettings
    part: str | None
    pooled: bool = False


def published_separation(backbone: str) -> PublishedSeparation | None:
    """Return the scores that the 2023 report has for a backbone, or ``None`` if the report has no scores for it.

    >>> published_separation("resnet18_cifar").scores["test"][0]
    0.599
    """
    report = _report()
    source, columns = report["source"], report["columns"]
    if backbone == _LAYERED:
        layers = dict(report["layerwise_si_efficientnet_v2_s_cifar100"])
        setting = layers.pop("layers")
        return PublishedSeparation(source, setting, columns, {}, layers)
    key, network = _table_of(backbone)
    setting = "trained from scratch" if backbone in _SCRATCH else "as pretrained on ImageNet"
    names = {split: f"{network}_{split}" for split in ("train", "test")}
    scores = {split: report[key][name] for split, name in names.items() if name in report[key]}
    return PublishedSeparation(source, setting, columns, scores, {}) if scores else None


def published_rows(backbone: str) -> Iterator[PublishedRow]:
    """Yield the rows of the 2023 report for a backbone on CIFAR-100: raw pixels, the classifier's input, and layers.

    >>> [(row.features, row.split, row.values["si"]) for row in published_rows("resnet18")]
    [('raw pixels', 'train', 0.1741), ('before training', 'train', 0.229), ('before training', 'test', 0.2171)]
    """
    report, (key, network) = _report(), _table_of(backbone)
    yield _row(RAW_PIXELS, "train", "raw CIFAR-100", report["trained_from_scratch"])
    for split in ("train", "test"):
        if (name := f"{network}_{split}") in report[key]:
            yield _row(AFTER if backbone in _SCRATCH else BEFORE, split, name, report[key], backbone in _SCRATCH)
    if backbone == _LAYERED:
        yield _row(AFTER, "train", "EfficientNetV2-S latent features", report["latest_full_data"])
        layers = report["layerwise_si_efficientnet_v2_s_cifar100"]
        for split in ("train", "test"):
            for number, value in enumerate(layers[split]):
                yield PublishedRow(f"features.{number}", split, {"si": value}, (_TRAINING_UNKNOWN,))


def scores_of_run(record: RunRecord) -> Iterator[PublishedScores]:
    """Yield the published scores that a run on CIFAR-100 measured too, each with the score of the run."""
    if record.dataset.name != _DATASET:
        return
    for row in published_rows(record.backbone.name):
        if (ours := _of_run(record, row)) is not None:
            yield beside(row, ours, *_setting_of_run(record, row))


def scores_of_layers(
    layers: Mapping[str, SplitSeparation], split: str, part: str | None, *, pooled: bool, network: Network
) -> Iterator[PublishedScores]:
    """Yield the published scores of a network's layers on a split of CIFAR-100, each with the score that zoo measured.

    ``layers`` maps the path of each layer to its scores: raw pixels come first, the classifier's input comes last.
    """
    for row in published_rows(network.backbone):
        named = {RAW_PIXELS: RAW_PIXELS, AFTER if network.record else BEFORE: [*layers][-1]}
        path = row.features if network.record and row.features in layers else named.get(row.features, "")
        if row.split != split or path not in layers:
            continue
        setting: tuple[bool, list[str]] = (True, [])
        if row.features == BEFORE:
            setting = setting_before_training(network.pretrained, network.weights, network.size)
        elif row.features != RAW_PIXELS and network.record:
            setting = setting_after_training(network.record)
        yield beside(row, _scored(layers[path], part, pooled=pooled), *setting)


def _scored(found: SplitSeparation, part: str | None, *, pooled: bool) -> Scored:
    settings = SeparationSettings(order=found.order, metric=found.metric, normalize=found.normalize)
    return Scored(found.si.n, found.scores, settings, part, pooled)


def beside(row: PublishedRow, ours: Scored, alike: bool, clauses: list[str]) -> PublishedScores:
    """Return a published row beside the scores that zoo measured.

    ``alike`` is true if our network and the published network have the same settings. ``clauses`` lists the known
    differences between the two networks.
    """
    layer = row.features not in (RAW_PIXELS, BEFORE, AFTER)
    scoring = [
        (ours.settings.order != 2 and len(row.values) > 1, f"order {ours.settings.order} instead of 2"),
        (ours.settings.metric != "euclidean", f"{ours.settings.metric} distance instead of Euclidean"),
        (layer and ours.settings.normalize == "none", "features not z-scored"),
        (not layer and ours.settings.normalize == "zscore", "z-scored features"),
        (layer and ours.pooled, "layers pooled instead of flattened"),
        (ours.part is not None, f"part of the data: {ours.part}"),
    ]
    found = [*clauses, *(clause for differs, clause in scoring if differs)]
    si = ours.scores["si"]
    return PublishedScores(
        source=_report()["source"],
        features=row.features,
        split=row.split,
        images=ours.images,
        ours={key: ours.scores[key].value for key in row.values if key in ours.scores},
        si_error=si.bootstrap_error,
        published=row.values,
        agrees=alike and not (layer and (ours.pooled or ours.settings.normalize == "none")),
        differences=tuple(dict.fromkeys(found)),
        remarks=row.remarks,
    )


def setting_before_training(pretrained: bool, weights: str, size: tuple[int, int]) -> tuple[bool, list[str]]:
    """Return whether a network has the weights and input size of the 2023 report, and a list of the differences."""
    height, width = size
    clauses = [] if pretrained else [f"weights {weights} instead of those of ImageNet"]
    if size != (_SIDE, _SIDE):
        clauses.append(f"input size {height} x {width} instead of {_SIDE} x {_SIDE}")
    return not clauses, clauses


def setting_after_training(record: RunRecord) -> tuple[bool, list[str]]:
    """Return whether a run has the recipe, epochs and splits of the 2023 report, and a list of the differences."""
    figures = [each for each in published_figures(record.backbone.name, _DATASET) if each.recipe == "scratch"]
    if figures:
        return agrees(record, figures[0]), differences(record, figures[0])
    if "*" in record.settings.unfreeze:
        return True, []
    return False, [f"trained {', '.join(record.settings.unfreeze)} instead of the whole network"]


def notes(scores: Iterable[PublishedScores], above: Sequence[str] = (), told: set[str] | None = None) -> Iterator[str]:
    """Yield a note for each published score that has a remark, or whose settings differ from ours.

    ``above`` has the differences that an earlier note lists. ``told`` has the notes on raw pixels that were yielded
    before, because runs on the same images share these notes.
    """
    alike: dict[tuple[str, bool, object, object], list[PublishedScores]] = {}
    for each in scores:
        kind = each.features if len(each.published) > 1 else "layers"
        alike.setdefault((kind, each.agrees, each.differences, each.remarks), []).append(each)
    for (kind, agreeing, *_), several in alike.items():
        clauses = [clause for clause in several[0].differences if clause not in above]
        clauses = ["as above"] * (len(clauses) < len(several[0].differences)) + clauses
        differs = [f"ours differ: {', '.join(clauses)}"] if clauses else []
        parts = [_named(kind, several, agreeing=agreeing), *differs, *several[0].remarks]
        line = f"published SI {'; '.join(parts)}."
        if len(parts) > 1 and not (told is not None and kind == RAW_PIXELS and line in told):
            yield line
            if told is not None:
                told.add(line)


def _named(kind: str, scores: Sequence[PublishedScores], *, agreeing: bool) -> str:
    """Name published scores, with their values if the printed table does not show the scores."""
    if agreeing:
        return f"{kind}, {' and '.join(dict.fromkeys(each.split for each in scores))} split"
    named = [each.split if len(each.published) > 1 else f"{each.features} {each.split}" for each in scores]
    pairs = [(each.published["si"], each.ours["si"]) for each in scores]
    values = [f"{name} {theirs:.4f} (ours {ours:.4f})" for name, (theirs, ours) in zip(named, pairs, strict=True)]
    return f"in another setting, {kind}: {', '.join(values)}"


def _setting_of_run(record: RunRecord, row: PublishedRow) -> tuple[bool, list[str]]:
    if row.features == RAW_PIXELS:
        return True, []
    if row.features != BEFORE:
        return setting_after_training(record)
    pretrained = record.weights.declared and record.weights.kind != "random"
    return setting_before_training(pretrained, record.weights.source, record.settings.preprocessing.input_size)


def _of_run(record: RunRecord, row: PublishedRow) -> Scored | None:
    results, dataset = record.results, record.dataset
    splits = {"train": "train", "test": "test" if dataset.test else "evaluation"}
    if row.split == "test" and dataset.test is None and dataset.evaluation_name != "test":
        return None
    tables = {
        RAW_PIXELS: results.separation_raw_pixels,
        BEFORE: results.separation_before,
        AFTER: results.separation_after,
    }
    found: SplitSeparation | None = None
    if row.features in tables:
        table = tables[row.features]
        if table is not None and (row.features == RAW_PIXELS or table.layer == record.backbone.features[-1].path):
            found = getattr(table, splits[row.split])
    elif results.layer_curve is not None and results.layer_curve.split == row.split:
        layers = {layer.path: layer.separation for layer in results.layer_curve.layers}
        found = layers.get(row.features)
    if found is None:
        return None
    return _scored(found, _part(record, row), pooled=row.features not in tables)


def _part(record: RunRecord, row: PublishedRow) -> str | None:
    """Describe the part of the data that a run used; return ``None`` if the 2023 report used the same part."""
    dataset, from_scratch = record.dataset, row.features == AFTER and record.backbone.name in _SCRATCH
    parts = (dataset.per_class, dataset.limit, dataset.fraction, dataset.eval_limit, dataset.eval_fraction)
    held_out = row.split == "train" and dataset.val_fraction is not None and not from_scratch
    return dataset.subset if held_out or any(part is not None for part in parts) else None


def _row(features: str, split: str, name: str, table: dict[str, list[float]], about: bool = True) -> PublishedRow:
    values = dict(zip((each.key for each in SCORES), table[name], strict=True))
    remarks = [_ABOUT_ROW[name]] if about and name in _ABOUT_ROW else []
    fitting = 1 - 2 * values["soft"] + values["high"]
    if abs(values["anti"] - fitting) > _ROUNDING:
        remarks.append(f"anti SI {values['anti']:.4f} does not fit the other scores, which give {fitting:.4f}")
    return PublishedRow(features, split, values, tuple(remarks))


def _table_of(backbone: str) -> tuple[str, str]:
    if backbone in _SCRATCH:
        return "trained_from_scratch", _SCRATCH[backbone]
    return "imagenet_pretrained_not_fine_tuned", backbone


@cache
def _report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_table("si2023_results.json"))
    return found
