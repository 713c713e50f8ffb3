"""Form the batches of a training run, from images or from cached outputs of the network's frozen part.

Each source object yields the batches of one data split. Training requests batches by image index, and evaluation
requests all images in order. In a run of several processes, each process gets its own share of every batch. If a
process's share of a batch is empty, the process gets one image without a label, so that all processes run the network
equally often.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.backbone import Augmentation
from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.data.augmentation import Draws
from zoo_harness.data.decoding import ImageData, index_batches

Batch = tuple[tuple[Tensor, ...], Tensor]


class Source(Protocol):
    """Define the interface of batch sources: each batch holds network inputs and labels (B,) on the compute device."""

    @property
    def labels(self) -> Tensor:
        """The label of each image, (N,) int64, on the CPU."""

    def __len__(self) -> int:
        """Return the number of images."""

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield this process's share of each batch of epoch ``number``; ``plan`` has each batch's image indices."""

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield batches of this process's share of all images, in order and without augmentation."""


@dataclass(frozen=True)
class ImageSource:
    """Yield images (B, 3, h, w) that are resized, augmented during training and normalised on the device."""

    data: ImageData
    device: torch.device
    augment: tuple[Augmentation, ...] = ()
    seed: int = 0
    processes: Processes = ALONE

    @property
    def labels(self) -> Tensor:
        """The label of each image, (N,) int64, on the CPU."""
        return self.data.labels

    def __len__(self) -> int:
        return len(self.data)

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield the images of this process's share of each batch, augmented for epoch ``number``."""
        draws = Draws.of(self.augment, sum(map(len, plan)), self.seed, number) if self.augment else None
        first = 0
        for indices in plan:
            share = self.processes.share(len(indices))
            own = slice(share.start, share.stop) if share else slice(0, 1)
            planes, labels = self.data.planes(indices[own], self.device)
            if draws:
                planes = draws.apply(planes, slice(first + own.start, first + own.stop))
            first += len(indices)
            yield (self.data.transform.normalise(planes),), labels[: len(share)]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield batches of this process's share of all images, in order and without augmentation."""
        for indices in index_batches(self.processes.share(len(self)), batch_size):
            images, labels = self.data.batch(indices, self.device)
            yield (images,), labels


class Rows(Protocol):
    """Define the interface of a cache of network activations."""

    def batches(self, indices: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Tensor, ...]]:
        """For each index array, yield one batch: the cached tensors of the indexed images, copied to the device."""


@dataclass(frozen=True)
class KeptSource:
    """Yield the cached outputs of the network's frozen part instead of images.

    The cache holds this process's share of the images, followed by ``views`` augmented copies of that share. Successive
    epochs use the augmented copies in turn. ``labels`` holds the labels of all images, not only of this process's
    share.
    """

    rows: Rows
    labels: Tensor
    device: torch.device
    views: int = 0
    processes: Processes = ALONE

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield cached outputs for this process's share of each batch; epoch ``number`` selects the augmented copy."""
        return self._batches(plan, 1 + (number - 1) % self.views if self.views else 0)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield batches of this process's share of all images, in order and without augmentation."""
        return self._batches(index_batches(self.processes.share(len(self)), batch_size), 0)

    def _batches(self, plan: Iterable[NDArray[np.int64]], view: int) -> Iterator[Batch]:
        share = self.processes.share(len(self))
        first = view * len(share) - share.start
        own = [indices[(indices >= share.start) & (indices < share.stop)] for indices in plan]
        cached = self.rows.batches(first + indices if len(indices) else np.zeros(1, np.int64) for indices in own)
        for indices, tensors in zip(own, cached, strict=True):
            yield tensors, self.labels[torch.from_numpy(indices)].to(self.device, non_blocking=True)
