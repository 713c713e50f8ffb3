"""Run the frozen part of a network over the images once and cache its outputs, so that epochs run only the rest.

The network is partitioned before its first trainable module (:mod:`zoo_harness.frozen.partition`), and the partition is
verified on real images. The outputs of the frozen part are cached (:mod:`zoo_harness.frozen.cache`). If partitioning or
caching is impossible, every epoch runs the whole network, and the run's record gives the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from zoo_harness.compute.out_of_memory import in_batches_that_fit
from zoo_harness.compute.precision import autocast
from zoo_harness.data.augmentation import Draws
from zoo_harness.data.batches import ImageSource, KeptSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.fill import fill_cache
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle, StoredName, TensorSpec
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.partition.partition import ALL_TRAINS, Partition, partition_network
from zoo_harness.frozen.partition.verify import verify_partition
from zoo_harness.models.fingerprints import digest_of_tensors
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import has_batch_statistics
from zoo_harness.records.option_checks import CacheDtype
from zoo_harness.records.run import FrozenPartRecord, SplitRecord
from zoo_harness.runs.plan import RunPlan
from zoo_harness.training.state import mutable_tensors
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress

VERIFIED_IMAGES = 4
BATCH_SIZE = 32  # this batch size fits every device; on a GPU, larger batches are tried
LARGEST_BATCH = 1024
Say = Callable[[str], None]
_NO_ROOM = "the outputs of its frozen part cannot be kept"


def whole_network(planned: RunPlan) -> TrainableModel:
    """Return the trainable model of a run that runs every image through the whole network, without a cache."""
    compute, data = planned.request.compute, planned.data
    augment = planned.request.training.augment
    train = ImageSource(data.train, compute.device, augment, compute.seed, processes=compute.processes)
    evaluation = ImageSource(data.evaluation, compute.device, processes=compute.processes)
    return TrainableModel.whole(planned.tuned, train, evaluation, len(data.record.classes))


@contextmanager
def open_trainable_model(
    planned: RunPlan, policy: CachePolicy, progress: Progress, say: Say, warn: Say | None = None
) -> Iterator[tuple[TrainableModel, FrozenPartRecord]]:
    """Context manager that yields the model to train, and the record of how its frozen part is run.

    On entry, the outputs of the frozen part are computed, unless an earlier run cached these outputs. ``say`` is called
    with one line that says where the outputs are cached, or why every epoch runs the whole network. ``warn`` (by
    default ``say``) is called for each fault of a cache. ``warn`` is also called if training steps should be compiled
    but cannot be.
    """
    processes, warn = planned.request.compute.processes, warn or say
    with ExitStack() as stack:
        found = _suffix(planned, policy.for_each_of(processes.local_count), progress, say, warn, stack)
        if processes.any(isinstance(found, str)) and not isinstance(found, str):
            found = f"in another process {_NO_ROOM}"
        if isinstance(found, str):
            say(f"every epoch runs the whole network: {found}")
            yield _compiled_if_wanted(whole_network(planned), None, planned, say, warn), FrozenPartRecord(reason=found)
        else:
            trainable, partition, made, caches = found
            made = made.model_copy(update={"computed": processes.sum(made.computed or 0)})
            say(_in_words(made, processes.sum(sum(cache.key.bytes for cache in caches)), caches))
            yield _compiled_if_wanted(trainable, partition, planned, say, warn), made


def _suffix(
    planned: RunPlan, policy: CachePolicy, progress: Progress, say: Say, warn: Say, stack: ExitStack
) -> tuple[TrainableModel, Partition, FrozenPartRecord, list[ActivationCache]] | str:
    """Return the model that trains on cached outputs, or the reason why the frozen part's outputs cannot be cached.

    Closing ``stack`` closes the caches that this function opens. In a run of several processes, each process fills the
    cache of its own images. This function must not wait for another process, because that process may have failed.
    """
    if obstacle := _obstacle(planned, policy):
        return obstacle
    partition = _partition(planned, progress)
    if partition.reason is not None:
        return partition.reason
    data, compute, digest = planned.data, planned.request.compute, _digest_of_frozen(planned)
    views = planned.request.training.views or 0
    splits = [
        _FrozenSplit(planned, partition, data.train, data.record.train, views, progress, say),
        _FrozenSplit(planned, partition, data.evaluation, data.record.evaluation, 0, progress, say),
    ]
    caches: list[ActivationCache] = []
    for split in splits:
        left = policy.less(sum(cache.memory_bytes for cache in caches))
        title = EntryTitle(backbone=planned.request.backbone.name, dataset=data.record.title, split=split.record.split)
        cache = ActivationCache(split.key(digest), title, left, compute.device, say, progress, warn)
        caches.append(stack.enter_context(cache))
        if cache.place == "off":
            return _NO_ROOM
    started, computed = time.perf_counter(), 0
    for split, cache in zip(splits, caches, strict=True):
        computed += split.fill(cache)
        if cache.place == "off":  # the cache was disabled because the disk is full
            return _NO_ROOM
    kept = caches[0].key.kept
    made = FrozenPartRecord(
        reason=None,
        kept=tuple(map(_in_short, kept)),
        bytes_per_image=sum(part.bytes for part in kept),
        place=caches[0].place,
        computed=computed,
        seconds=time.perf_counter() - started,
    )
    train = KeptSource(caches[0], data.train.labels, compute.device, views, compute.processes)
    evaluation = KeptSource(caches[1], data.evaluation.labels, compute.device, 0, compute.processes)
    classes = len(data.record.classes)
    trainable = TrainableModel(planned.tuned, train, evaluation, classes, partition.suffix, partition.reaches)
    return trainable, partition, made, caches


def _obstacle(planned: RunPlan, policy: CachePolicy) -> str | None:
    if planned.record.parameters.trained == planned.record.parameters.total:
        return ALL_TRAINS
    if moving := planned.tuned.moving:
        return f"--frozen-batchnorm train: the statistics of {len(moving)} frozen BatchNorm layers move"
    if policy.cache == "off":
        return "--cache off"
    if planned.request.training.augment and not planned.request.training.views:
        return "augmentation changes the images in every epoch"
    if len(planned.data.train) < 2:
        return "there is one image"
    return None


def _partition(planned: RunPlan, progress: Progress) -> Partition:
    compute, data = planned.request.compute, planned.data.train
    progress.stage("looking where training starts", 0)
    images, _labels = data.batch(np.arange(min(VERIFIED_IMAGES, len(data))), compute.device)
    with autocast(compute.precision, compute.device):
        return verify_partition(partition_network(planned.tuned, images), images)


def _digest_of_frozen(planned: RunPlan) -> str:
    trained, network = mutable_tensors(planned.tuned), planned.tuned.network
    named = (*network.named_parameters(), *network.named_buffers())
    return digest_of_tensors((name, tensor.detach()) for name, tensor in named if name not in trained)


@dataclass(frozen=True)
class _FrozenSplit:
    """The frozen part's inputs from one split: this process's images, and ``views`` augmented copies of each image."""

    planned: RunPlan
    partition: Partition
    images: ImageData
    record: SplitRecord
    views: int
    progress: Progress
    say: Say

    @property
    def share(self) -> range:
        """The range of image indices that this process handles."""
        return self.planned.request.compute.processes.share(len(self.images))

    @cached_property
    def draws(self) -> list[Draws]:
        """The random augmentation parameters of each view; view N uses the parameters of epoch N of an uncached run."""
        augment, seed = self.planned.request.training.augment, self.planned.request.compute.seed
        return [Draws.of(augment, len(self.images), seed, number) for number in range(1, self.views + 1)]

    def __len__(self) -> int:
        return len(self.share) * (1 + self.views)

    def key(self, digest: str) -> CacheKey:
        """Return the cache key: everything that the outputs of the frozen part depend on."""
        compute, whole = self.planned.request.compute, self.planned.record.backbone
        fingerprint = self.record.fingerprint
        if self.views:
            augment = "+".join(self.planned.request.training.augment)
            fingerprint += f", {augment}, seed {compute.seed}, {self.views} views"
        if len(self.share) < len(self.images):
            fingerprint += f", images {self.share.start} to {self.share.stop}"
        return CacheKey(
            network=f"{whole.network_kind}:{whole.network}",
            weights=digest,
            kept=tuple(_stored(part, compute.cache_dtype) for part in self.partition.kept),
            preprocessing=self.planned.record.settings.preprocessing,
            images=len(self),
            fingerprint=fingerprint,
            precision=compute.precision,
            device=compute.device.type,
            code=whole.source_sha256 or "",
        )

    def fill(self, cache: ActivationCache) -> int:
        """Compute the outputs that the cache lacks, or all if the cache is outdated; return how many were computed."""
        device = self.planned.request.compute.device

        def outputs_of(rows: Sequence[int]) -> tuple[Tensor, ...]:
            return self._run(torch.cat([self._inputs(row, row + 1, device) for row in rows]))

        def warn() -> None:
            self.say(
                f"cached outputs of the {self.record.split} split differ from what the network computes now; zoo "
                "computes them again"
            )

        return fill_cache(cache, lambda: self._compute_missing(cache), outputs_of, warn)

    def _compute_missing(self, cache: ActivationCache) -> None:
        self.progress.stage(f"frozen part: {self.record.split} split", cache.missing_images)
        size = self._batch_size() if cache.missing_images else BATCH_SIZE

        def write_rows(start: int, stop: int) -> None:
            cache.write(start, self._outputs(start, stop))
            self.progress.advance(stop - start)

        for start, stop in cache.missing(size):
            size = in_batches_that_fit(write_rows, start, stop, size)
        if cache.place != "off":
            cache.finish()

    def _outputs(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """Compute the outputs of the frozen part for the rows from ``start`` up to ``stop``."""
        return self._run(self._inputs(start, min(stop, len(self)), self.planned.request.compute.device))

    def _run(self, inputs: Tensor) -> tuple[Tensor, ...]:
        compute = self.planned.request.compute
        self.planned.tuned.eval()
        with autocast(compute.precision, compute.device):
            return self.partition.prefix(inputs)

    def _inputs(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Return the network's input for the rows from ``start`` up to ``stop``."""
        parts = []
        while start < stop:
            view, first = divmod(start, len(self.share))
            last = min(first + stop - start, len(self.share))
            images = self.share[first:last]
            planes, _labels = self.images.planes(np.arange(images.start, images.stop), device)
            if view:
                planes = self.draws[view - 1].apply(planes, slice(images.start, images.stop))
            parts.append(self.images.transform.normalise(planes))
            start += last - first
        return torch.cat(parts)

    def _batch_size(self) -> int:
        """Return the batch size: on a GPU, double it while memory remains free; on other devices, use a fixed size."""
        device, size = self.planned.request.compute.device, BATCH_SIZE
        while device.type == "cuda" and size < min(LARGEST_BATCH, len(self)):
            try:
                torch.cuda.reset_peak_memory_stats(device)
                self._outputs(0, 2 * size)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            size *= 2
            free, total = torch.cuda.mem_get_info(device)
            if torch.cuda.max_memory_allocated(device) * 2 > 0.8 * total or free < 0.2 * total:
                break
        return size


def _stored(part: TensorSpec, cache_dtype: CacheDtype) -> TensorSpec:
    """Return the cache's description of a tensor; a tensor that is computed in 16 bits is stored unchanged."""
    stored: dict[str, StoredName | None] = {"exact": None, "fp16": "float16", "bf16": "bfloat16"}
    return part.model_copy(update={"stored": stored[cache_dtype]}) if part.dtype in ("float32", "float64") else part


def _compiled_if_wanted(
    trainable: TrainableModel, partition: Partition | None, planned: RunPlan, say: Say, warn: Say
) -> TrainableModel:
    compute = planned.request.compute
    if not compute.compiled or not planned.request.training.epochs:
        return trainable
    if compute.processes.is_distributed and has_batch_statistics(planned.tuned):
        warn("training steps are not compiled, because BatchNorm computes its statistics over all processes")
        return trainable
    from zoo_harness.training.compile import compiled  # a late import, because most runs compile nothing

    return compiled(trainable, partition, compute, say, warn)


def _in_short(kept: TensorSpec) -> str:
    stored = f" as {kept.stored}" if kept.stored else ""
    return f"{kept.name} {'x'.join(map(str, kept.shape)) or 'scalar'}{stored}"


def _in_words(made: FrozenPartRecord, kept: int, caches: list[ActivationCache]) -> str:
    """Return the line that says how many bytes of frozen outputs are cached, and where."""
    size = bytes_in_words(kept)
    if not made.computed:
        return f"frozen part: {size} of outputs are read from the cache of an earlier run"
    place = {"device": "in device memory", "host": "in memory"}.get(caches[0].place)
    files = f"{'' if place else 'in '}files" if all(cache.in_files for cache in caches) else None
    where = " and ".join(part for part in (place, files) if part)
    return f"frozen part: ran once for {made.computed:,} images in {made.seconds or 0:.1f} s; {size} cached {where}"
