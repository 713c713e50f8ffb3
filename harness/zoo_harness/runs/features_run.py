"""Compute image features at layers of a backbone or a run for ``zoo.features``, and store them in a file or memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.backbone import FeatureLayer
from zoo.errors import DeclarationError
from zoo_harness.checkpoints.opened import open_checkpoint
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import isolated
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData
from zoo_harness.data.subset import smallest_class
from zoo_harness.evaluation.feature_writer import MemoryWriter, feature_writer, split_codes
from zoo_harness.evaluation.layer_scores import layer_batches, layer_widths
from zoo_harness.models.fingerprints import digest_of_tensors
from zoo_harness.records.features import FeatureArray, FeatureRows, FeaturesRecord, array_names
from zoo_harness.records.run import SplitRecord
from zoo_harness.runs import provenance
from zoo_harness.runs.features_request import FeaturesRequest
from zoo_harness.runs.layer_run import Subject, backbone_subject, run_subjects
from zoo_harness.runs.opening import recorded_data_request
from zoo_harness.runs.plan import compute_context
from zoo_harness.runs.reporter import Reporter, report_reading
from zoo_harness.runs.request import DataRequest
from zoo_harness.separation.feature_files import read_rows
from zoo_harness.separation.feature_metadata import choose_layer, choose_split

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of images, one row per image: first the training split, then the test split.

    ``record`` describes the layers, classes, splits and digests. ``labels`` is (N,) int64. ``split`` is (N,), with
    "train" or "test" for each row. ``indices`` is (N,) int64, the index of each image within its split. ``path`` is the
    file with the features, or ``None`` if the features are in memory.
    """

    record: FeaturesRecord
    labels: NDArray[np.int64] = field(repr=False)
    split: NDArray[np.str_] = field(repr=False)
    indices: NDArray[np.int64] = field(repr=False)
    path: Path | None
    _arrays: Mapping[str, Array] = field(repr=False, default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names; label i belongs to the i-th name."""
        return self.record.class_names

    @property
    def layers(self) -> tuple[str, ...]:
        """The module paths of the layers, in depth order."""
        return tuple(each.layer for each in self.record.layers)

    @property
    def train(self) -> tuple[Array, NDArray[np.int64]]:
        """The features (N, D) float32 and the labels of the training split; use this if one layer was read."""
        return self.select("train")

    @property
    def test(self) -> tuple[Array, NDArray[np.int64]]:
        """The features (N, D) float32 and the labels of the test split; use this if one layer was read."""
        return self.select("test")

    def select(self, split: str | None = None, layer: str | None = None) -> tuple[Array, NDArray[np.int64]]:
        """Return the features (N, D) float32 and the labels (N,) of one layer, for one split or for all rows.

        ``layer`` can be omitted if only one layer was read. If the features are in a file, this method reads the file.
        """
        chosen = choose_layer(self.record, layer)
        if split is not None:
            split = choose_split(self.record, split, split)
        rows = slice(0, self.record.rows) if split is None else self.record.rows_of(split)
        if self.path is None:
            return self._arrays[chosen.layer][rows], self.labels[rows]
        found, _labels = read_rows(self.path, self.path.suffix.lower(), self.record, chosen.array, split)
        return np.asarray(found), self.labels[rows]


def read_features(request: FeaturesRequest, progress: Reporter) -> Features:
    """Run the images of the requested splits through the network once, and store or return the layer outputs."""
    keep_freed_memory()
    with isolated():
        progress.stage("loading weights", 0)
        subject, data_request, compute, value_range = _prepared(request)
        splits = request.options["split"]
        data = data_request.load(
            subject.preprocessing,
            progress,
            "evaluation" if splits == "test" else "train",
            train_only=splits == "train",
            value_range=value_range,
        )
        report_reading(data.record.reading, data.warnings, progress)
        subject = replace(subject, preprocessing=data.preprocessing)
        return _read(subject, data_request, data, compute, request, progress)


def _prepared(request: FeaturesRequest) -> tuple[Subject, DataRequest, ComputeContext, Any]:
    options: dict[str, Any] = {**request.options}
    if request.backbone is not None and request.data is not None:
        subject = backbone_subject(*request.backbone, options["seed"], request.data.normalization, request.input_size)
        return subject, request.data, compute_context(options), None
    assert request.run is not None  # noqa: S101 - a request has either a backbone or a run
    checkpoint, record = request.run
    if options["seed"] is None:
        options["seed"] = record.settings.seed
    [subject] = run_subjects([open_checkpoint(checkpoint.folder)], options["checkpoint"], options["epoch"])
    data = recorded_data_request(checkpoint, record, request.dataset, _data_options(request))
    return subject, data, compute_context(options), record.dataset.read_range


def _data_options(request: FeaturesRequest) -> Any:
    own = ("layer", "split", "pool", "weights", "device", "precision", "out", "checkpoint", "epoch")
    return {key: value for key, value in request.given.items() if key not in own}


def _read(
    subject: Subject,
    data_request: DataRequest,
    data: RunData,
    compute: ComputeContext,
    request: FeaturesRequest,
    progress: Reporter,
) -> Features:
    options = request.options
    parts = _parts(data, options["split"])
    subject.network.to(compute.device).to(memory_format=torch.channels_last)
    widths = layer_widths(subject.network, request.layers, parts[0][1], compute, pooled=options["pool"])
    record = _record(subject, data_request, data, parts, compute, request, widths)
    labels = np.concatenate([images.labels.numpy() for _split, images, _described in parts])
    indices = np.concatenate([images.indices for _split, images, _described in parts])
    out = options["out"]
    memory = MemoryWriter(record if out is None else record.model_copy(update={"layers": ()}))
    with nullcontext(memory) if out is None else feature_writer(out, record, labels, indices) as writer:
        for split, images, _record_of in parts:
            progress.stage(f"{subject.name}: features of the {split} split", len(images))
            batches = layer_batches(
                subject.network, request.layers, widths, images, compute, progress, pooled=options["pool"]
            )
            with closing(batches):
                for batch in batches:
                    _check_finite(batch, request.layers)
                    writer.append([part.numpy() for part in batch])
    names = np.array(["train", "test"])[split_codes(record)]
    return Features(record, labels, names, indices, options["out"], {} if memory is None else memory.arrays)


def _parts(data: RunData, splits: str) -> list[tuple[str, ImageData, SplitRecord]]:
    known = {
        "train": ("train", data.train, data.record.train),
        "test": ("test", data.evaluation, data.record.evaluation),
    }
    return [*known.values()] if splits == "both" else [known[splits]]


def _check_finite(batch: Sequence[torch.Tensor], layers: Sequence[FeatureLayer]) -> None:
    for layer, part in zip(layers, batch, strict=True):
        if not bool(part.isfinite().all()):
            message = f"the outputs of layer {layer.path!r} contain NaN or infinite values on these images"
            raise DeclarationError(message, code="features-not-finite", layer=layer.path)


def _record(
    subject: Subject,
    data_request: DataRequest,
    data: RunData,
    parts: Sequence[tuple[str, ImageData, SplitRecord]],
    compute: ComputeContext,
    request: FeaturesRequest,
    widths: Sequence[int],
) -> FeaturesRecord:
    names = array_names([layer.path for layer in request.layers])
    pooled = request.options["pool"]
    return FeaturesRecord(
        network=subject.name,
        weights=subject.weights,
        tensors_sha256=digest_of_tensors(subject.network.state_dict().items()),
        preprocessing=subject.preprocessing,
        precision=compute.precision,
        device=compute.device.type,
        seed=compute.seed,
        dataset=data.record.name,
        title=data.record.title,
        class_names=data.record.classes,
        layers=tuple(
            FeatureArray(layer=layer.path, array=name, width=width, vector=layer.pool if pooled else "flatten")
            for layer, name, width in zip(request.layers, names, widths, strict=True)
        ),
        splits=tuple(
            FeatureRows(
                split=split,
                source=described.split,
                rows=len(images),
                per_class=described.per_class,
                subset=data_request.subset.in_words((f"{split} split", smallest_class(described))),
                fingerprint=described.fingerprint,
            )
            for split, images, described in parts
        ),
        versions=provenance.versions(),
    )
