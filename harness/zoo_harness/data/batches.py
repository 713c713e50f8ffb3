"""Where the batches of a run come from: images that go through the whole network, or what its frozen part gave.

A source serves one split. Training asks for batches by index, in the order of an epoch; evaluation asks for all of
them, first to last. Of several processes each gets its own part of a batch. Where that is none, it gets one image
without a label, so that the network runs in step with the others.
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
from zoo_harness.data.decoding import ImageData

Batch = tuple[tuple[Tensor, ...], Tensor]


class Source(Protocol):
    """Batches of one split, on the device."""

    @property
    def labels(self) -> Tensor:
        """The label of each image, (N,) int64, on the CPU."""

    def __len__(self) -> int:
        """How many images there are."""

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """What goes into the network, and labels (B,), of these images, as training epoch ``number`` sees them."""

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """The same for this process's share of all images, first to last, as they are evaluated."""


@dataclass(frozen=True)
class ImageSource:
    """Images for the whole network, resized, changed at random where asked and normalised on the device."""

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
        """Batches of normalised images (B, 3, h, w)."""
        shares = [self.processes.share(len(indices)) for indices in plan]
        if not self.augment:
            yield from self._batches(indices[own.start : own.stop] for indices, own in zip(plan, shares, strict=True))
            return
        draws = Draws.of(self.augment, sum(map(len, plan)), self.seed, number)
        place = 0
        for indices, share in zip(plan, shares, strict=True):
            own = slice(share.start, share.stop) if share else slice(0, 1)
            planes, labels = self.data.planes(indices[own], self.device)
            planes = draws.apply(planes, slice(place + own.start, place + own.stop))
            place += len(indices)
            yield (self.data.transform.normalise(planes),), labels[: len(share)]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Batches of normalised images (B, 3, h, w)."""
        return self._batches(in_turn(self.processes.share(len(self)), batch_size))

    def _batches(self, plan: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
        for indices in plan:
            images, labels = self.data.batch(indices if len(indices) else _FIRST, self.device)
            yield (images,), labels[: len(indices)]


class Rows(Protocol):
    """What a feature store offers to who reads it."""

    def batches(self, indices: Iterable[NDArray[np.int64]]) -> Iterator[tuple[Tensor, ...]]:
        """The kept tensors of these images, batch by batch, fresh copies on the device."""


@dataclass(frozen=True)
class KeptSource:
    """What the frozen part gave for each image, read from a store.

    ``views`` changed views of all images lie behind the images as they are; epochs take the views in turn. ``labels``
    are those of all images; the store has the rows of this process's share of them alone.
    """

    rows: Rows
    labels: Tensor
    device: torch.device
    views: int = 0
    processes: Processes = ALONE

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, number: int, plan: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Batches of kept tensors (B, ...)."""
        view = 1 + (number - 1) % self.views if self.views else 0
        return self._batches(plan, view)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Batches of kept tensors (B, ...)."""
        return self._batches(in_turn(self._share, batch_size), 0)

    @property
    def _share(self) -> range:
        return self.processes.share(len(self))

    def _batches(self, plan: Iterable[NDArray[np.int64]], view: int) -> Iterator[Batch]:
        share = self._share
        first = view * len(share) - share.start
        own = [indices[(indices >= share.start) & (indices < share.stop)] for indices in plan]
        kept = self.rows.batches(first + indices if len(indices) else _FIRST for indices in own)
        for indices, tensors in zip(own, kept, strict=True):
            yield tensors, self.labels[torch.from_numpy(indices)].to(self.device, non_blocking=True)


_FIRST = np.zeros(1, np.int64)


def in_turn(images: range, batch_size: int) -> list[NDArray[np.int64]]:
    """Indices of these images in batches, first to last.

    >>> [len(batch) for batch in in_turn(range(70), 32)]
    [32, 32, 6]
    """
    starts = range(images.start, images.stop, batch_size)
    return [np.arange(start, min(start + batch_size, images.stop)) for start in starts]
