"""Find duplicate images within and between the splits of a run, by comparing a digest of each decoded image.

Two images are duplicates if they have the same size and the same pixel values before resizing. A grey image counts as
the RGB image whose three channels all equal the grey image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import ImageSplit
from zoo.text import one_line
from zoo_harness.records.run import DuplicatesRecord


class DigestedImages(Protocol):
    """Define what duplicate detection must know about a split of N images."""

    @property
    def digests(self) -> NDArray[np.uint64]:
        """The 64-bit digest of each image, (N,)."""

    @property
    def labels(self) -> Any:
        """The label of each image, (N,): an array, or a tensor on the CPU."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """The position of each image in the split before the subset was chosen, (N,)."""


@dataclass(frozen=True)
class Origin:
    """Record from which split of the dataset some images were taken.

    ``places``, (N,), has the position of each image in the dataset's split; ``None`` means all images in order.
    """

    name: str
    split: ImageSplit
    places: NDArray[np.int64] | None = None


class ImageNames:
    """Name images for the user: files by their path below the common folder, other images by their position.

    >>> ImageNames({"train": Origin("train", ImageSplit(np.zeros((3, 8, 8), np.uint8), [0, 1, 1]))}).name("train", 2)
    'train image 2'
    """

    def __init__(self, origins: Mapping[str, Origin]) -> None:
        self._origins = origins

    def name(self, split: str, index: int) -> str:
        """Return the name of image ``index`` of a split, without line breaks."""
        origin = self._origins[split]
        place = index if origin.places is None else int(origin.places[index])
        paths = getattr(origin.split.images, "paths", None)
        if not paths:
            return f"{origin.name} image {place}"
        path = os.fsencode(os.path.relpath(paths[place], self._folder))
        return one_line(path.decode("utf-8", "backslashreplace"))

    @cached_property
    def _folder(self) -> str:
        paths = [getattr(origin.split.images, "paths", None) or () for origin in self._origins.values()]
        folders: set[str] = {os.path.dirname(path) for path in chain(*paths)}  # noqa: PTH120 - os.path is faster
        return os.path.commonpath([os.path.abspath(folder) for folder in folders])  # noqa: PTH100


@dataclass(frozen=True)
class Duplicates:
    """Hold the duplicates that were found.

    ``records``: the counts and examples for the run record. ``shared`` maps each split's name to a mask (N,), which is
    true for images that also occur in an earlier split.
    """

    records: tuple[DuplicatesRecord, ...]
    shared: dict[str, NDArray[np.bool_]]


def find_duplicates(
    decoded: Mapping[str, DigestedImages], origins: Mapping[str, Origin], classes: Sequence[str]
) -> Duplicates:
    """Find the images of each split that also occur in an earlier split, or more than once in the same split.

    ``origins`` must contain every split name of ``decoded``; further split names are allowed.
    """
    names = ImageNames(origins)
    splits = [_Images(split, data, names, classes) for split, data in decoded.items()]
    shared = {each.split: np.zeros(len(each.digests), np.bool_) for each in splits}
    records = []
    for earlier, later in combinations(splits, 2):
        found, record = _compare(later, earlier)
        shared[later.split] |= found
        records.append(record)
    records += [_compare(each, each)[1] for each in splits]
    return Duplicates(tuple(filter(None, records)), shared)


class _Images:
    """Hold the digests (N,) and labels (N,) of a split, and name its images."""

    def __init__(self, split: str, data: DigestedImages, names: ImageNames, classes: Sequence[str]) -> None:
        self.split = split
        self.digests, self.labels = data.digests, np.asarray(data.labels)
        self._indices, self._names, self._classes = data.indices, names, classes

    def name(self, index: int) -> str:
        return self._names.name(self.split, int(self._indices[index]))

    def labelled(self, index: int) -> str:
        return f"{self.name(index)} ({self._classes[self.labels[index]]})"


def _compare(images: _Images, others: _Images) -> tuple[NDArray[np.bool_], DuplicatesRecord | None]:
    """Return a mask of the images that have a duplicate among ``others``, and the record of these duplicates.

    If ``images`` and ``others`` are the same split, an image does not count as a duplicate of itself.
    """
    order = np.argsort(others.digests, kind="stable")
    known, starts, counts = np.unique(others.digests[order], return_index=True, return_counts=True)
    group = np.searchsorted(known, images.digests).clip(max=len(known) - 1)
    found = (known[group] == images.digests) & (counts[group] > (images is others))
    if not found.any():
        return found, None
    lowest, highest = (end.reduceat(others.labels[order], starts) for end in (np.minimum, np.maximum))
    other_label = found & ((lowest[group] != images.labels) | (highest[group] != images.labels))

    def equal_to(index: int) -> NDArray[np.int64]:
        equal = order[starts[group[index]] :][: counts[group[index]]]
        return equal[equal != index] if images is others else equal

    first, unlike = int(found.argmax()), int(other_label.argmax())
    example_other_label = None
    if other_label.any():
        other = next(other for other in equal_to(unlike) if others.labels[other] != images.labels[unlike])
        example_other_label = images.labelled(unlike), others.labelled(other)
    return found, DuplicatesRecord(
        split=images.split,
        other=others.split,
        images=int(found.sum()),
        of=len(found),
        other_label=int(other_label.sum()),
        example=(images.name(first), others.name(equal_to(first)[0])),
        example_other_label=example_other_label,
    )
