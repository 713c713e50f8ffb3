"""Divide a network into a frozen prefix, which runs once for each image, and a suffix, which trains.

Training never changes the part of a network before the first trained parameter. Therefore the outputs of this part,
called the prefix, can be cached. Training only runs the rest of the network, called the suffix. Prefix and suffix
together compute, bit for bit, the same logits, gradients and buffers as the whole network. Dropout and stochastic depth
stay in the suffix, and draw the same random numbers as in the whole network.

1. :mod:`zoo_harness.frozen.partition.trace` records the network as a list of steps. The network is recorded in training
   mode and in inference mode, because a ``forward`` may read ``self.training``. The network is recorded with batches of
   two and of three images, to find values that depend on the batch size.
2. :mod:`zoo_harness.frozen.partition.cut` chooses the steps of the suffix, which are the same steps in both modes.
3. :mod:`zoo_harness.frozen.partition.build` builds a module for the prefix, and a module for the suffix in each mode.
   The prefix and the suffix call the submodules of the original network, so that the optimizer, checkpoints, hooks and
   :meth:`TunedNetwork.train` also affect the suffix.
4. :func:`zoo_harness.frozen.partition.verify.verify_partition` compares prefix and suffix with the whole network on
   real images before a run uses the partition.

If a network cannot be partitioned, the prefix returns the images, the suffix is the whole network, and ``reason``
states why the network cannot be partitioned. A network that cannot be partitioned raises no error.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo_harness.frozen.cache.key import TensorSpec
from zoo_harness.frozen.cache.rows import restore, spec_of
from zoo_harness.frozen.partition.build import SuffixBuilder, kept_names, overwritten, prefix_module
from zoo_harness.frozen.partition.cut import BATCHES, choose_cut, number_steps
from zoo_harness.frozen.partition.side_effects import CannotPartitionError, one_line, preserve_state
from zoo_harness.frozen.partition.trace import Trace, on_meta, trace_network
from zoo_harness.models.modules import capture
from zoo_harness.models.tuned_network import TunedNetwork

ALL_TRAINS = "all of it trains"


class Suffix(nn.Module):
    """Compute the logits of every head from the cached outputs of the prefix.

    The suffix contains the submodules of the original network, and runs in training mode if the network is in training
    mode. The suffix can be compiled and distributed: ``torch.compile(partition.suffix_module)``,
    ``DistributedDataParallel(partition.suffix_module)``.
    """

    def __init__(self, network: nn.Module, training: nn.Module, inference: nn.Module) -> None:
        super().__init__()
        self.while_training = training
        self.in_inference = inference
        self._mode_of = [network]  # the list prevents that torch registers the network as a submodule

    def forward(self, *kept: Tensor) -> tuple[Tensor, ...]:
        """Return the logits ``(B, classes)`` of every head."""
        part = self.while_training if self._mode_of[0].training else self.in_inference
        logits: tuple[Tensor, ...] = part(*kept)
        return logits

    def train(self, mode: bool = True) -> Suffix:  # noqa: ARG002
        """Do nothing, because :class:`TunedNetwork` sets the mode of each module.

        Frozen modules of the suffix stay in inference mode.
        """
        return self


@dataclass(frozen=True, eq=False)
class Partition:
    """A network divided into prefix and suffix, or an undivided network with the ``reason`` why it is not divided.

    ``kept``: descriptions of the prefix outputs that are cached for each image. ``prefix_module`` and
    ``suffix_module``: the two parts; ``None`` if the network is not divided. ``hidden_heads``: the paths of heads
    inside a module that the suffix runs as a single step. ``reached``: the modules whose hooks the suffix calls.
    """

    tuned: TunedNetwork
    kept: tuple[TensorSpec, ...]
    reason: str | None = None
    prefix_module: nn.Module | None = None
    suffix_module: nn.Module | None = None
    hidden_heads: tuple[str, ...] = ()
    reached: frozenset[nn.Module] = frozenset()

    @property
    def bytes_per_image(self) -> int:
        """Return the number of bytes that are cached for one image."""
        return sum(part.bytes for part in self.kept)

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs to cache: one tensor ``(B, *shape)`` for each description in ``kept``.

        The prefix runs under the caller's autocast.
        """
        if self.prefix_module is None:
            return (images,)
        with torch.inference_mode(mode=False), torch.no_grad():  # training cannot use tensors from inference mode
            results: tuple[Tensor, ...] = self.prefix_module(images)
        return results

    def suffix(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the logits of every head, in the order of :meth:`TunedNetwork.logits`.

        ``kept``: a result of :meth:`prefix`, in any dtype and memory layout. The suffix does not modify these tensors.
        """
        if self.suffix_module is None:
            return self.tuned.logits(*kept)
        restored = self.restored(kept)
        if not self.hidden_heads:
            logits: tuple[Tensor, ...] = self.suffix_module(*restored)
            return logits
        with capture(self.tuned.network, self.hidden_heads) as outputs:
            logits = self.suffix_module(*restored)
        returned = dict(zip([path for path in self.tuned.head_paths if path not in outputs], logits, strict=True))
        return tuple((outputs | returned)[path] for path in self.tuned.head_paths)

    def restored(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Convert cached tensors to the dtype and memory layout in which :meth:`prefix` returned them."""
        return tuple(map(restore, self.kept, kept))

    def reaches(self, path: str) -> bool:
        """Whether the hooks of a module receive the same values from :meth:`suffix` as from the whole network.

        If the method returns false, a caller that needs the hooks has to run the whole network. Training never changes
        the outputs of modules in the prefix.
        """
        return self.suffix_module is None or self.tuned.network.get_submodule(path) in self.reached


def partition_network(tuned: TunedNetwork, example: Tensor) -> Partition:
    """Divide a prepared network into prefix and suffix for batches like ``example``, ``(B, 3, H, W)``.

    The network is not changed. Call this function under the autocast of the run. Afterwards, verify the result on real
    images with :func:`zoo_harness.frozen.partition.verify.verify_partition`. A network on the meta device can also be
    partitioned.

    >>> from zoo import Head, TimmArchitecture
    >>> from zoo.backbone import FeatureLayer, Training, Tuning
    >>> from zoo_harness.models.build import build_network
    >>> from zoo_harness.models.surgery import prepare
    >>> tuning = Tuning("default", ("blocks.5", "fc_norm"), Head("head"), Training(), (FeatureLayer("fc_norm", 64),))
    >>> images = torch.rand(2, 3, 160, 160)
    >>> tuned = prepare(build_network("vit", TimmArchitecture("test_vit.r160_in1k")), tuning, 10, images)
    >>> partition = partition_network(tuned, images)
    >>> [(part.name, part.shape) for part in partition.kept]
    [('blocks.4', (101, 64))]
    >>> tuned.eval()
    >>> torch.equal(partition.suffix(partition.prefix(images))[0], tuned.logits(images)[0])
    True
    """
    try:
        with preserve_state(tuned.network):
            return _partition(tuned, example)
    except CannotPartitionError as error:
        return unpartitioned(tuned, example, str(error))
    except Exception as error:  # a network's own code may raise any exception
        return unpartitioned(tuned, example, f"partitioning it failed: {one_line(error)}")


def unpartitioned(tuned: TunedNetwork, example: Tensor, reason: str) -> Partition:
    """Return a partition whose prefix returns the images and whose suffix is the whole network."""
    return Partition(tuned, (spec_of("images", example),), reason)


def _partition(tuned: TunedNetwork, example: Tensor) -> Partition:
    if all(parameter.requires_grad for parameter in tuned.network.parameters()):
        raise CannotPartitionError(ALL_TRAINS)
    recordings = _recordings(tuned, example)
    modes = [small for small, _large in recordings]
    cut = choose_cut(modes, number_steps(recordings))
    written = overwritten(modes, cut)
    training, inference = (SuffixBuilder(tuned, mode, cut, written) for mode in modes)
    prefix = prefix_module(tuned.network, cut)
    tuned.eval()
    with torch.no_grad():
        kept = tuple(map(spec_of, kept_names(cut), prefix(example.clone())))
    return Partition(
        tuned=tuned,
        kept=kept,
        prefix_module=prefix,
        suffix_module=Suffix(tuned.network, training.suffix, inference.suffix),
        hidden_heads=inference.hidden_heads,
        reached=inference.reached,
    )


def _recordings(tuned: TunedNetwork, example: Tensor) -> list[tuple[Trace, Trace]]:
    """Record the network in both modes for batches of two and three images, on the meta device if this is possible."""
    if example.device.type != "meta":
        # If the network's code reads the values of tensors, recording on the meta device fails. Then the network is
        # recorded on its own device.
        with contextlib.suppress(Exception), on_meta(tuned.network):
            return _recordings(tuned, example.to("meta"))
    heads = {tuned.network.get_submodule(path) for path in tuned.head_paths}
    batches = [example[torch.arange(count, device=example.device) % len(example)] for count in BATCHES]
    opaque: set[nn.Module] = set()
    while True:
        known, recordings = len(opaque), list[tuple[Trace, Trace]]()
        for set_mode in (tuned.train, tuned.eval):
            set_mode()
            small, large = (trace_network(tuned.network, images, heads, opaque) for images in batches)
            recordings.append((small, large))
        if len(opaque) == known:  # all recordings treated the same modules as single steps
            return recordings
