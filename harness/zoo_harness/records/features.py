"""The metadata record in a file that ``zoo features`` writes: the network, the layers, and the images of the rows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from zoo.backbone import Preprocessing
from zoo.fields import Digest
from zoo_harness.records.run import Count, Number, Record

KEY = "blockzoo"  # the key of the record in the metadata of the file
FEATURES, LABELS, INDICES, SPLIT = "features", "labels", "indices", "split"


class FeatureArray(Record):
    """The features of one layer in the file: the layer's path, the name of the array, and the number of features.

    ``vector`` is how the layer's output became one vector per image: the declared pooling (``average``, ``cls``, ...)
    or ``flatten`` for the whole output.
    """

    layer: str
    array: str
    width: Number
    vector: str


class FeatureRows(Record):
    """The rows of one split in the file; the splits follow each other, and ``source`` names the split in the dataset.

    ``fingerprint`` is the digest of the split's pixels and labels, as in ``run.json``.
    """

    split: Literal["train", "test"]
    source: str
    rows: Count
    per_class: tuple[Count, ...]
    subset: str
    fingerprint: str


class FeaturesRecord(Record):
    """The complete metadata of a feature file: the network, its weights, the dataset, the layers and the rows.

    ``weights`` is the origin of the weights, as ``zoo layers`` records it. ``tensors_sha256`` is the digest of all
    tensors of the network by name, dtype, shape and value. ``class_names[i]`` is the name of label i.
    """

    format: Literal["blockzoo features 1"] = "blockzoo features 1"
    network: str
    weights: dict[str, Any]
    tensors_sha256: Digest
    preprocessing: Preprocessing
    precision: str
    device: str
    seed: int
    dataset: str
    title: str
    class_names: tuple[str, ...]
    layers: tuple[FeatureArray, ...] = Field(min_length=1)
    splits: tuple[FeatureRows, ...] = Field(min_length=1)
    versions: dict[str, str]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> FeaturesRecord:
        for names in ([each.layer for each in self.layers], [each.split for each in self.splits]):
            if len(set(names)) < len(names):
                raise ValueError(f"duplicate name in {names}")
        return self

    @property
    def rows(self) -> int:
        """The number of rows in the file."""
        return sum(each.rows for each in self.splits)

    def rows_of(self, split: str) -> slice:
        """Return the slice of row indices that belong to a split; raise :class:`KeyError` for an unknown split."""
        start = 0
        for each in self.splits:
            if each.split == split:
                return slice(start, start + each.rows)
            start += each.rows
        raise KeyError(split)


def array_names(layers: list[str]) -> list[str]:
    """Return the array name of each layer: ``features`` if there is one layer, else ``features.`` and the path.

    >>> array_names(["layer3"]), array_names(["layer3", "layer4"])
    (['features'], ['features.layer3', 'features.layer4'])
    """
    return [FEATURES] if len(layers) == 1 else [f"{FEATURES}.{layer}" for layer in layers]
