"""Run the frozen part of a network over the images once, so that every epoch trains the suffix alone.

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

from zoo_harness.compute.out_of_memory import in_batches_that_fit
from zoo_harness.compute.precision import autocast
from zoo_harness.data.augmentation import Draws
from zoo_harness.data.batches import ImageSource, KeptSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle, StoredName, TensorSpec
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.partition.partition import Partition, partition_network
from zoo_harness.frozen.partition.verify import verify_partition
from zoo_harness.models.fingerprints import digest_of_tensors
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import has_batch_statistics
from zoo_harness.records.run import FrozenPartRecord, SplitRecord
from zoo_harness.runs.plan import RunPlan
from zoo_harness.training.state import mutable_tensors
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress

VERIFIED_IMAGES = 4
BATCH_SIZE = 32  # fits every device; larger ones are tried on a GPU
LARGEST_BATCH = 1024
ROUNDING, ROUNDING_OF_HALVES = 1e-3, 5e-2  # relative to the largest value; batches of other sizes round otherwise
_STORED: dict[str, StoredName | None] = {"exact": None, "fp16": "float16", "bf16": "bfloat16"}
Say = Callable[[str], None]
_NO_ROOM = "the outputs of its frozen part cannot be kept"


def whole_network(planned: RunPlan) -> TrainableModel:
    """Return the model that runs every image through the whole network."""
    request, data = planned.request, planned.data
    compute = request.compute
    device, processes = compute.device, compute.processes
    train = ImageSource(data.train, device, request.training.augment, compute.seed, processes=processes)
    evaluation = ImageSource(data.evaluation, device, processes=processes)
    return TrainableModel.whole(planned.tuned, train, evaluation, len(data.record.classes))


@contextmanager
def open_trainable_model(
    planned: RunPlan, policy: CachePolicy, progress: Progress, say: Say
) -> Iterator[tuple[TrainableModel, FrozenPartRecord]]:
    """Context manager that yields the model to train, and the record of how its frozen part runs.

    Outputs of the frozen part are computed here, unless an earlier run has left them. ``say`` gets a line that says
    why the whole network trains or where outputs are kept.
    """
    processes = planned.request.compute.processes
    with ExitStack() as stack:
        found = _suffix(planned, policy.for_each_of(processes.local_count), progress, say, stack)
        if processes.any(isinstance(found, str)) and not isinstance(found, str):
            found = f"in another process {_NO_ROOM}"
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
    """Return the trainable suffix with its stores open on ``stack``, or the reason why there is none.

    Each of several processes works on its share alone, and must not wait for the others: these may have failed.
    """
    obstacle = _obstacle(planned, policy)
    if obstacle is not None:
        return obstacle
    partition = _partition(planned, progress)
    if partition.reason is not None:
        return partition.reason
    frozen, digest = _FrozenPart(planned, partition, progress, say), _digest_of_frozen(planned)
    splits, stores = (_Views.of_training(planned), _Views.of_evaluation(planned)), list[ActivationCache]()
    for views in splits:
        key = frozen.key(views, digest)
        title = EntryTitle(
            backbone=planned.request.backbone.name, dataset=planned.data.record.title, split=views.record.split
        )
        left = policy.less(sum(store.memory_bytes for store in stores))
        device = planned.request.compute.device
        cache = ActivationCache(key, title, left, device, say, progress)
        stores.append(stack.enter_context(cache))
        if stores[-1].place == "off":
            return _NO_ROOM
    started, computed = time.perf_counter(), 0
    for store, views in zip(stores, splits, strict=True):
        computed += frozen.fill(store, views)
        if store.place == "off":  # the disk filled up
            return _NO_ROOM
    made = FrozenPartRecord(
        reason=None,
        kept=tuple(map(_in_short, stores[0].key.kept)),
        bytes_per_image=sum(part.bytes for part in stores[0].key.kept),
        place=stores[0].place,
        computed=computed,
        seconds=time.perf_counter() - started,
    )
    return _trainable(planned, partition, stores), partition, made, stores


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
class _Views:
    """A process's share of the images of a split, followed by the augmented views of all of them."""

    images: ImageData
    record: SplitRecord
    share: range
    draws: tuple[Draws, ...] = ()
    changes: str = ""

    @classmethod
    def of_training(cls, planned: RunPlan) -> _Views:
        """The training images, with as many augmented views as the settings say."""
        data, training, compute = planned.data, planned.request.training, planned.request.compute
        numbers = range(1, (training.views or 0) + 1)
        draws = tuple(Draws.of(training.augment, len(data.train), compute.seed, number) for number in numbers)
        changes = f", {'+'.join(training.augment)}, seed {compute.seed}, {training.views} views" if draws else ""
        return cls(data.train, data.record.train, compute.processes.share(len(data.train)), draws, changes)

    @classmethod
    def of_evaluation(cls, planned: RunPlan) -> _Views:
        """The images of the evaluation split."""
        data, processes = planned.data, planned.request.compute.processes
        return cls(data.evaluation, data.record.evaluation, processes.share(len(data.evaluation)))

    def __len__(self) -> int:
        return len(self.share) * (1 + len(self.draws))

    @property
    def fingerprint(self) -> str:
        """A text that identifies these images and views."""
        part = "" if len(self.share) == len(self.images) else f", images {self.share.start} to {self.share.stop}"
        return self.record.fingerprint + self.changes + part

    def batch(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Return the network's input for these rows."""
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


@dataclass(frozen=True)
class _FrozenPart:
    """The prefix of a partitioned network, which fills caches with its outputs."""

    planned: RunPlan
    partition: Partition
    progress: Progress
    say: Say

    def outputs(self, views: _Views, start: int, stop: int) -> tuple[Tensor, ...]:
        """Compute the outputs for these rows."""
        compute = self.planned.request.compute
        self.planned.tuned.eval()
        batch = views.batch(start, min(stop, len(views)), compute.device)
        with autocast(compute.precision, compute.device):
            return self.partition.prefix(batch)

    def key(self, views: _Views, digest: str) -> CacheKey:
        """Return the key of the outputs: everything that they depend on."""
        compute, whole = self.planned.request.compute, self.planned.record.backbone
        return CacheKey(
            network=f"{whole.network_kind}:{whole.network}",
            weights=digest,
            kept=tuple(map(self._kept, self.partition.kept)),
            preprocessing=self.planned.record.settings.preprocessing,
            images=len(views),
            fingerprint=views.fingerprint,
            precision=compute.precision,
            device=compute.device.type,
            code=whole.source_sha256 or "",
        )

    def _kept(self, part: TensorSpec) -> TensorSpec:
        """Return how a tensor is kept; one that is computed in 16 bits already is kept as it is."""
        stored = _STORED[self.planned.request.compute.cache_dtype]
        return part.model_copy(update={"stored": stored}) if part.dtype in ("float32", "float64") else part

    def fill(self, store: ActivationCache, views: _Views) -> int:
        """Compute the missing outputs, or all of them if the kept ones are outdated; return their number."""
        missing = store.missing_images
        self._compute_missing(store, views)
        if missing == len(store) or store.place == "off" or self._agrees(store, views):
            return missing
        self.say(f"outputs kept of the {views.record.split} split are not what the network gives now: computed again")
        store.forget()
        self._compute_missing(store, views)
        return len(store)

    def _agrees(self, store: ActivationCache, views: _Views) -> bool:
        """Whether the first kept outputs equal those computed now, to rounding; the key does not cover all code."""
        compute = self.planned.request.compute
        exact = compute.precision == "fp32" and compute.cache_dtype == "exact"
        return store.largest_difference(0, self.outputs(views, 0, 2)) <= (ROUNDING if exact else ROUNDING_OF_HALVES)

    def _compute_missing(self, store: ActivationCache, views: _Views) -> None:
        self.progress.stage(f"frozen part: {views.record.split} split", store.missing_images)
        size = self._batch_size(views) if store.missing_images else BATCH_SIZE

        def write_rows(start: int, stop: int) -> None:
            store.write(start, self.outputs(views, start, stop))
            self.progress.advance(stop - start)

        for start, stop in store.missing(size):
            size = in_batches_that_fit(write_rows, start, stop, size)
        if store.place != "off":
            store.finish()

    def _batch_size(self, views: _Views) -> int:
        """Return the largest batch that fits the device with room to spare, found by doubling; fixed without a GPU."""
        device, size = self.planned.request.compute.device, BATCH_SIZE
        while device.type == "cuda" and size < min(LARGEST_BATCH, len(views)):
            try:
                torch.cuda.reset_peak_memory_stats(device)
                self.outputs(views, 0, 2 * size)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                break
            size *= 2
            free, total = torch.cuda.mem_get_info(device)
            if torch.cuda.max_memory_allocated(device) * 2 > 0.8 * total or free < 0.2 * total:
                break
        return size


def _trainable(planned: RunPlan, partition: Partition, stores: list[ActivationCache]) -> TrainableModel:
    data, compute = planned.data, planned.request.compute
    device, processes = compute.device, compute.processes
    train = KeptSource(stores[0], data.train.labels, device, planned.request.training.views or 0, processes)
    evaluation = KeptSource(stores[1], data.evaluation.labels, device, processes=processes)
    return TrainableModel(
        planned.tuned, train, evaluation, len(data.record.classes), partition.suffix, partition.reaches
    )


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


def _in_short(kept: TensorSpec) -> str:
    stored = f" as {kept.stored}" if kept.stored else ""
    return f"{kept.name} {'x'.join(map(str, kept.shape)) or 'scalar'}{stored}"


def _in_words(made: FrozenPartRecord, kept: int, stores: list[ActivationCache]) -> str:
    """Say how many bytes of outputs are kept, and where."""
    size = bytes_in_words(kept)
    if not made.computed:
        return f"frozen part: {size} of outputs are there from an earlier run"
    place = {"device": "on the device", "host": "in memory"}.get(stores[0].place)
    files = "in files for later runs (zoo cache list)" if all(store.in_files for store in stores) else None
    where = " and ".join(part for part in (place, files) if part)
    return f"frozen part: ran once for {made.computed:,} images in {made.seconds or 0:.1f} s; {size} are kept {where}"
