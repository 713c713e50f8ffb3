"""Batches of a run: images for the whole network, or cached outputs of its frozen part.

A source serves one split. Training asks for batches by index, in the order of an epoch; evaluation asks for all
images in order. Each of several processes gets its own part of a batch. If that part is empty, the process gets one
image without a label, so that the network runs in step with the others.
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
    """Batches of one split, on the device: inputs of the network, and labels (B,)."""

    @property
    def labels(self) -> Tensor:
        """The label of each image, (N,) int64, on the CPU."""

    def __len__(self) -> int:
        """Return the number of images."""

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield this process's part of each batch of image indices, for training epoch ``number``."""

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield this process's share of all images in order, without random changes."""


@dataclass(frozen=True)
class ImageSource:
    """Images (B, 3, h, w) for the whole network: resized, augmented in training and normalised on the device."""

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
        """Yield this process's part of each batch."""
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
        """Yield this process's share of all images."""
        for indices in index_batches(self.processes.share(len(self)), batch_size):
            images, labels = self.data.batch(indices, self.device)
            yield (images,), labels


class Rows(Protocol):
    """Reader of a cache of activations."""

    def batches(self, indices: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield the cached tensors of these images, batch by batch, as fresh copies on the device."""


@dataclass(frozen=True)
class KeptSource:
    """Cached outputs of the frozen part for each image.

    The cache holds this process's share of the images, then ``views`` augmented copies of all of them; epochs cycle
    through the copies. ``labels`` are those of all images.
    """

    rows: Rows
    labels: Tensor
    device: torch.device
    views: int = 0
    processes: Processes = ALONE

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield this process's part of each batch."""
        return self._batches(plan, 1 + (number - 1) % self.views if self.views else 0)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yield this process's share of all images."""
        return self._batches(index_batches(self.processes.share(len(self)), batch_size), 0)

    def _batches(self, plan: Iterable[NDArray[np.int64]], view: int) -> Iterator[Batch]:
        share = self.processes.share(len(self))
        first = view * len(share) - share.start
        own = [indices[(indices >= share.start) & (indices < share.stop)] for indices in plan]
        cached = self.rows.batches(first + indices if len(indices) else np.zeros(1, np.int64) for indices in own)
        for indices, tensors in zip(own, cached, strict=True):
            yield tensors, self.labels[torch.from_numpy(indices)].to(self.device, non_blocking=True)
