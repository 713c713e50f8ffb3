"""Run images through a network once, and cache two outputs: the original classifier's input and its logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbone import FeatureLayer
from zoo.errors import DeclarationError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.fill import fill_cache
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle, TensorSpec
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.cache.rows import spec_of
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture
from zoo_harness.ranking.moments import Array
from zoo_harness.util.progress import Progress

BATCH_SIZE = 32


class Images(Protocol):
    """The images to run through a network; they are decoded when :meth:`batch` requests them."""

    def __len__(self) -> int:
        """The number of images."""

    def batch(self, start: int, stop: int) -> Tensor:
        """Return the network input for the images from ``start`` up to ``stop``, on the compute device."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Hold features (N, D) of images, and logits (N, S) if the network has its original classifier, all float32.

    ``computed`` is the number of images that ran through the network; the outputs of all other images came from a
    cache.
    """

    features: Array
    logits: Array | None
    computed: int = 0

    def __add__(self, other: Readout) -> Readout:
        """Append the rows of ``other``, a readout of the same backbone, to the rows of this readout."""
        logits = None
        if self.logits is not None and other.logits is not None:
            logits = np.concatenate([self.logits, other.logits])
        return Readout(np.concatenate([self.features, other.features]), logits, self.computed + other.computed)


@dataclass(frozen=True, eq=False)
class FeatureReader:
    """Runs images through a network with its original head; ``head`` is the classifier's path, or ``None``."""

    network: nn.Module
    layer: FeatureLayer
    head: str | None
    compute: ComputeContext

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features (B, D) of a batch and, if the network has a classifier, logits (B, S), float32 on the CPU.

        Raises :class:`~zoo.errors.DeclarationError` if the features contain NaN or infinite values.
        """
        paths = [self.layer.path] if self.head is None else [self.layer.path, self.head]
        self.network.eval()
        with (
            capture(self.network, paths) as outputs,
            torch.inference_mode(),
            autocast(self.compute.precision, self.compute.device),
        ):
            self.network(images)
            features = pool_features(outputs[self.layer.path], self.layer).float().cpu()
            logits = () if self.head is None else (outputs[self.head].flatten(1).float().cpu(),)
        if not bool(features.isfinite().all()):
            message = f"the outputs of layer {self.layer.path!r} contain NaN or infinite values on these images"
            raise DeclarationError(message, code="features-not-finite", layer=self.layer.path)
        return features, *logits

    def specs(self, images: Images) -> tuple[TensorSpec, ...]:
        """Return the shapes and types of the outputs, found by running the first image."""
        named = zip(("features", "logits"), self.outputs(images.batch(0, 1)), strict=False)
        return tuple(spec_of(name, output) for name, output in named)


def read_out(
    reader: FeatureReader,
    images: Images,
    key: CacheKey,
    title: EntryTitle,
    policy: CachePolicy,
    progress: Progress,
    say: Callable[[str], None],
) -> Readout:
    """Return features and logits of images; only images without cached outputs run through the network."""
    with ActivationCache(key, title, policy, reader.compute.device, say, progress) as cache:

        def compute_missing() -> None:
            for start, stop in cache.missing(BATCH_SIZE):
                cache.write(start, reader.outputs(images.batch(start, stop)))
                progress.advance(stop - start)
            if cache.place != "off":
                cache.finish()

        def outputs_of(rows: Sequence[int]) -> tuple[Tensor, ...]:
            return reader.outputs(torch.cat([images.batch(row, row + 1) for row in rows]))

        def warn() -> None:
            say(f"cached features of {title.backbone} differ from what the network computes now; zoo recomputes them")

        if _is_off(cache):
            return _read_uncached(reader, images, progress)
        computed = fill_cache(cache, compute_missing, outputs_of, warn)
        if _is_off(cache):  # the cache was disabled because the disk is full
            return _read_uncached(reader, images, progress)
        return _readout([part.cpu() for part in cache.read(np.arange(len(images)))], computed)


def _is_off(cache: ActivationCache) -> bool:
    return cache.place == "off"


def _read_uncached(reader: FeatureReader, images: Images, progress: Progress) -> Readout:
    batches = []
    for start in range(0, len(images), BATCH_SIZE):
        stop = min(start + BATCH_SIZE, len(images))
        batches.append(reader.outputs(images.batch(start, stop)))
        progress.advance(stop - start)
    return _readout([torch.cat(parts) for parts in zip(*batches, strict=True)], len(images))


def _readout(parts: Sequence[Tensor], computed: int) -> Readout:
    features, *logits = (part.numpy() for part in parts)
    return Readout(features, logits[0] if logits else None, computed)
