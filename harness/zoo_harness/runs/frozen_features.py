"""Runs the frozen part of a network over the images once, so that every epoch trains the suffix alone.

The network is partitioned where training starts (:mod:`zoo_harness.frozen.partition`), the partition is verified on
real images, and the outputs of the frozen part are cached (:mod:`zoo_harness.frozen.cache`). If any of that is not
possible, the whole network trains, and the record says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.out_of_memory import in_batches_that_fit
from zoo_harness.compute.precision import autocast
from zoo_harness.data.augmentation import Draws
from zoo_harness.data.batches import ImageSource, KeptSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.key import CachedTensor, CacheKey, EntryTitle, StoredName
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.cache.rows import cached_tensor
from zoo_harness.frozen.partition.partition import Partition, partition_network
from zoo_harness.frozen.partition.verify import verify_partition
from zoo_harness.models.fingerprints import digest_of_tensors
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork, has_batch_statistics
from zoo_harness.records.run import FrozenPartRecord, SplitRecord
from zoo_harness.runs.plan import RunPlan
from zoo_harness.training.state import mutable_tensors
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress

TRIED_ON = 4  # images
BATCH_SIZE = 32  # what every device takes; larger ones are tried on a GPU
LARGEST_BATCH = 1024
ROUNDING, ROUNDING_OF_HALVES = 1e-3, 5e-2  # relative to the largest value; batches of other sizes round otherwise
_STORED: dict[str, StoredName | None] = {"exact": None, "fp16": "float16", "bf16": "bfloat16"}
Say = Callable[[str], None]


def whole_network(planned: RunPlan) -> TrainableModel:
    """The trainable that pushes every image through the whole network."""
    request, data = planned.request, planned.data
    compute, training = request.compute, request.training
    device, processes = compute.device, compute.processes
    train = ImageSource(data.train, device, training.augment, compute.seed, processes=processes)
    evaluation = ImageSource(data.evaluation, device, processes=processes)
    return TrainableModel.whole(planned.tuned, train, evaluation, len(data.record.classes))


@contextmanager
def open_trainable_model(
    planned: RunPlan, policy: CachePolicy, progress: Progress, say: Say
) -> Iterator[tuple[TrainableModel, FrozenPartRecord]]:
    """The trainable to train with while the body runs, and how it works.

    What the frozen part puts out is computed here, unless an earlier run has left it. ``say`` gets one line where the
    whole network trains, and for whatever else a user should know.
    """
    processes = planned.request.compute.processes
    with ExitStack() as stack:
        found = _suffix(planned, policy.for_each_of(processes.local_count), progress, say, stack)
        if processes.any(isinstance(found, str)) and not isinstance(found, str):
            found = "in another process what its frozen part puts out cannot be kept"
        if isinstance(found, str):
            say(f"every epoch runs the whole network: {found}")
            yield _compiled_if_wanted(whole_network(planned), None, planned, say), FrozenPartRecord(reason=found)
        else:
            trainable, partition, made, stores = found
            made = made.model_copy(update={"computed": processes.sum(made.computed or 0)})
            say(_in_words(made, processes.sum(sum(store.key.bytes for store in stores)), stores))
            yield _compiled_if_wanted(trainable, partition, planned, say), made


def _suffix(
    planned: RunPlan, policy: CachePolicy, progress: Progress, say: Say, stack: ExitStack
) -> tuple[TrainableModel, Partition, FrozenPartRecord, list[ActivationCache]] | str:
    """The trainable of the suffix with its stores open on ``stack``, or why there is none.

    Of several processes each does its share by itself, and must not wait for others: these may have failed.
    """
    data, tuned, processes = planned.data, planned.tuned, planned.request.compute.processes
    obstacle = _obstacle(planned, policy)
    if obstacle is not None:
        return obstacle
    partition = _cut(planned, progress)
    if partition.reason is not None:
        return partition.reason
    evaluated = _Views(data.evaluation, data.record.evaluation, processes.share(len(data.evaluation)))
    splits = _Views.of_training(planned), evaluated
    stores: list[ActivationCache] = []
    frozen = _digest_of_frozen(tuned)
    for views in splits:
        key = _key(planned, partition, frozen, views)
        title = EntryTitle(backbone=planned.request.backbone.name, dataset=data.record.title, split=views.record.split)
        left = policy.less(sum(store.memory_bytes for store in stores))
        store = stack.enter_context(ActivationCache(key, title, left, planned.request.compute.device, say, progress))
        stores.append(store)
        if store.place == "off":
            return "what its frozen part puts out cannot be kept"
    missing = sum(store.missing_images for store in stores)
    started = time.perf_counter()
    for store, views in zip(stores, splits, strict=True):
        lacking = store.missing_images
        _fill(store, partition, views, planned, progress)
        if lacking < len(store) and store.place != "off" and not _as_now(store, partition, views, planned):
            say(f"outputs kept of the {views.record.split} split are not what the network gives now: computed again")
            missing += len(store) - lacking
            store.forget()
            _fill(store, partition, views, planned, progress)
        if str(store.place) == "off":  # the disk filled up
            return "what its frozen part puts out cannot be kept"
    made = FrozenPartRecord(
        reason=None,
        kept=tuple(map(_in_short, stores[0].key.kept)),
        bytes_per_image=sum(part.row_bytes for part in stores[0].key.kept),
        place=stores[0].place,
        computed=missing,
        seconds=time.perf_counter() - started,
    )
    return _trainable(planned, partition, stores), partition, made, stores


def _in_short(kept: CachedTensor) -> str:
    stored = f" as {kept.stored}" if kept.stored else ""
    return f"{kept.name} {'x'.join(map(str, kept.shape)) or 'scalar'}{stored}"


def _compiled_if_wanted(
    trainable: TrainableModel, partition: Partition | None, planned: RunPlan, say: Say
) -> TrainableModel:
    compute = planned.request.compute
    if not compute.compiled or not planned.request.training.epochs:
        return trainable
    if compute.processes.is_distributed and has_batch_statistics(planned.tuned):
        say("steps are not compiled: BatchNorm takes its statistics over all processes")
        return trainable
    from zoo_harness.training.compile import compiled  # most runs need no compiler

    return compiled(trainable, partition, compute, say)


def _in_words(made: FrozenPartRecord, kept: int, stores: list[ActivationCache]) -> str:
    """What became of the frozen part, for the terminal; so many bytes are kept of it."""
    size = bytes_in_words(kept)
    if not made.computed:
        return f"frozen part: {size} of outputs are there from an earlier run"
    place = {"device": "on the device", "host": "in memory"}.get(stores[0].place)
    files = "in files for later runs (zoo cache list)" if all(store.in_files for store in stores) else None
    where = " and ".join(part for part in (place, files) if part)
    return f"frozen part: ran once for {made.computed:,} images in {made.seconds or 0:.1f} s; {size} are kept {where}"


@dataclass(frozen=True)
class _Views:
    """A process's share of the images of a split as they are, and behind them the changed views of all of them."""

    images: ImageData
    record: SplitRecord
    share: range
    draws: tuple[Draws, ...] = ()
    changes: str = ""

    @classmethod
    def of_training(cls, planned: RunPlan) -> _Views:
        """The training images, with as many changed views as the settings say."""
        data, training, compute = planned.data, planned.request.training, planned.request.compute
        numbers = range(1, (training.views or 0) + 1)
        draws = tuple(Draws.of(training.augment, len(data.train), compute.seed, number) for number in numbers)
        changes = f", {'+'.join(training.augment)}, seed {compute.seed}, {training.views} views" if draws else ""
        return cls(data.train, data.record.train, compute.processes.share(len(data.train)), draws, changes)

    def __len__(self) -> int:
        return len(self.share) * (1 + len(self.draws))

    @property
    def fingerprint(self) -> str:
        """What tells these images and changes from others."""
        part = "" if len(self.share) == len(self.images) else f", images {self.share.start} to {self.share.stop}"
        return self.record.fingerprint + self.changes + part

    def batch(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Network input for these places."""
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


def _obstacle(planned: RunPlan, policy: CachePolicy) -> str | None:
    if planned.record.parameters.trained == planned.record.parameters.total:
        return "all of it trains"
    if policy.cache == "off":
        return "--cache off"
    if planned.request.training.augment and not planned.request.training.views:
        return "augmentation changes the images in every epoch"
    if len(planned.data.train) < 2:
        return "there is one image"
    return None


def _cut(planned: RunPlan, progress: Progress) -> Partition:
    compute, data = planned.request.compute, planned.data.train
    progress.stage("looking where training starts", 0)
    images, _labels = data.batch(np.arange(min(TRIED_ON, len(data))), compute.device)
    with autocast(compute.precision, compute.device):
        return verify_partition(partition_network(planned.tuned, images), images)


def _digest_of_frozen(tuned: TunedNetwork) -> str:
    trained = mutable_tensors(tuned)
    named = (*tuned.network.named_parameters(), *tuned.network.named_buffers())
    return digest_of_tensors((name, tensor.detach()) for name, tensor in named if name not in trained)


def _key(planned: RunPlan, partition: Partition, frozen: str, views: _Views) -> CacheKey:
    compute = planned.request.compute
    planned.tuned.eval()
    example = views.batch(0, min(2, len(views)), compute.device)
    with autocast(compute.precision, compute.device):
        kept = partition.prefix(example)
    whole = planned.record.backbone
    return CacheKey(
        network=f"{whole.network_kind}:{whole.network}",
        weights=frozen,
        kept=tuple(_kept(part.name, tensor, compute) for part, tensor in zip(partition.kept, kept, strict=True)),
        preprocessing=planned.record.settings.preprocessing,
        images=len(views),
        fingerprint=views.fingerprint,
        precision=compute.precision,
        device=compute.device.type,
        code=whole.source_sha256 or "",
    )


def _as_now(store: ActivationCache, partition: Partition, views: _Views, planned: RunPlan) -> bool:
    """Whether what an earlier run kept of the first images is what the network gives, to rounding.

    The key has all that should bear on it; code reaches further than any key.
    """
    compute = planned.request.compute
    planned.tuned.eval()
    batch = views.batch(0, min(2, len(views)), compute.device)
    with autocast(compute.precision, compute.device):
        now = partition.prefix(batch)
    exact = compute.precision == "fp32" and compute.cache_dtype == "exact"
    return store.largest_difference(0, now) <= (ROUNDING if exact else ROUNDING_OF_HALVES)


def _kept(name: str, tensor: Tensor, compute: ComputeContext) -> CachedTensor:
    """How a tensor is kept; what is computed in 16 bits already stays as it is."""
    wide = tensor.dtype in (torch.float32, torch.float64)
    return cached_tensor(name, tensor, _STORED[compute.cache_dtype] if wide else None)


def _fill(store: ActivationCache, partition: Partition, views: _Views, planned: RunPlan, progress: Progress) -> None:
    """Run the frozen part over the images whose outputs are missing."""
    compute = planned.request.compute
    planned.tuned.eval()
    progress.stage(f"frozen part: {views.record.split} split", store.missing_images)
    size = _batch_size(partition, views, planned) if store.missing_images else BATCH_SIZE

    def write_rows(start: int, stop: int) -> None:
        batch = views.batch(start, stop, compute.device)
        with autocast(compute.precision, compute.device):
            store.write(start, partition.prefix(batch))
        progress.advance(stop - start)

    for start, stop in store.missing(size):
        size = in_batches_that_fit(write_rows, start, stop, size)
    if store.place != "off":
        store.finish()


def _batch_size(partition: Partition, views: _Views, planned: RunPlan) -> int:
    """The largest batch that fits the device with room to spare, found by doubling; fixed without a GPU."""
    compute = planned.request.compute
    size = BATCH_SIZE
    while compute.device.type == "cuda" and size < min(LARGEST_BATCH, len(views)):
        try:
            torch.cuda.reset_peak_memory_stats(compute.device)
            batch = views.batch(0, min(2 * size, len(views)), compute.device)
            with autocast(compute.precision, compute.device):
                partition.prefix(batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        size *= 2
        free, total = torch.cuda.mem_get_info(compute.device)
        if torch.cuda.max_memory_allocated(compute.device) * 2 > 0.8 * total or free < 0.2 * total:
            break
    return size


def _trainable(planned: RunPlan, partition: Partition, stores: list[ActivationCache]) -> TrainableModel:
    data, compute = planned.data, planned.request.compute
    device, processes = compute.device, compute.processes
    views = planned.request.training.views or 0
    train = KeptSource(stores[0], data.train.labels, device, views, processes)
    evaluation = KeptSource(stores[1], data.evaluation.labels, device, processes=processes)
    return TrainableModel(
        planned.tuned, train, evaluation, len(data.record.classes), partition.suffix, partition.reaches
    )
