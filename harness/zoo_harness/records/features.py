"""The record in a file of ``zoo features``: whose features it holds, of which images, and what its rows are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from zoo.backbone import Preprocessing
from zoo.fields import Digest
from zoo_harness.records.run import Count, Number, Record

KEY = "blockzoo"  # of the record in the metadata of a file
FEATURES, LABELS, INDICES, SPLIT = "features", "labels", "indices", "split"


class FeatureArray(Record):
    """One layer: its path, the width of its features, and the reduction of its output to one vector an image.

    ``array``: the name of its array or column in the file. ``vector``: as declared (``average``, ``cls``, ...) or
    ``flatten`` for the whole output.
    """

    layer: str
    array: str
    width: Number
    vector: str


class FeatureRows(Record):
    """The rows of one split, which follow those of the split before; ``source`` is its name in the dataset.

    ``fingerprint`` is the digest of its pixels and labels, as in ``run.json``.
    """

    split: Literal["train", "test"]
    source: str
    rows: Count
    per_class: tuple[Count, ...]
    subset: str
    fingerprint: str


class FeaturesRecord(Record):
    """Everything about a file of features but the numbers.

    ``weights``: their origin, as ``zoo layers`` records it. ``tensors_sha256``: the digest of all tensors of the
    network by name, dtype, shape and value. ``class_names``: the name of each label, by label.
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
                raise ValueError(f"a name stands twice among {names}")
        return self

    @property
    def rows(self) -> int:
        """The number of rows of the file."""
        return sum(each.rows for each in self.splits)

    def rows_of(self, split: str) -> slice:
        """Return the rows of a split."""
        start = 0
        for each in self.splits:
            if each.split == split:
                return slice(start, start + each.rows)
            start += each.rows
        raise KeyError(split)


def array_names(layers: list[str]) -> list[str]:
    """Return the name of each layer's array: ``features`` for a single one, else with the layer's path.

    >>> array_names(["layer3"]), array_names(["layer3", "layer4"])
    (['features'], ['features.layer3', 'features.layer4'])
    """
    return [FEATURES] if len(layers) == 1 else [f"{FEATURES}.{layer}" for layer in layers]
