"""Partitions a prepared network where training starts: a frozen prefix that runs once an image, a suffix that trains.

Nothing before the first trained parameter ever changes, so the outputs that the suffix reads from the prefix can be
cached and the suffix trained alone. Together the two compute the same as the whole network, bit for bit: logits,
gradients, buffers, and the random numbers of dropout and stochastic depth, which stay in the suffix.

1. :mod:`zoo_harness.frozen.partition.trace` records the network as steps: in training and in inference mode, because a
   ``forward`` may read ``self.training``, and for two and three images, to find values that depend on the batch size.
2. :mod:`zoo_harness.frozen.partition.cut` chooses the steps of the suffix, the same ones for both modes.
3. :mod:`zoo_harness.frozen.partition.build` makes modules of the prefix and of one suffix for each mode. They call the
   modules of the network itself, so optimizer, checkpoint, hooks and :meth:`TunedNetwork.train` act on the suffix.
4. :func:`zoo_harness.frozen.partition.verify.verify_partition` compares both parts with the whole network on real
   images before a run relies on them.

A network that cannot be partitioned is no error: its prefix returns the images, its suffix is the whole network, and
``reason`` says why.
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
    """Compute the logits of every head from the kept tensors.

    It holds the modules of the network itself and follows the mode of the network. It can be compiled and distributed:
    ``torch.compile(partition.suffix_module)``, ``DistributedDataParallel(partition.suffix_module)``.
    """

    def __init__(self, network: nn.Module, training: nn.Module, inference: nn.Module) -> None:
        super().__init__()
        self.while_training = training
        self.in_inference = inference
        self._mode_of = [network]  # in a list, so that it is no submodule

    def forward(self, *kept: Tensor) -> tuple[Tensor, ...]:
        """Return logits ``(B, classes)`` of every head."""
        part = self.while_training if self._mode_of[0].training else self.in_inference
        logits: tuple[Tensor, ...] = part(*kept)
        return logits

    def train(self, mode: bool = True) -> Suffix:  # noqa: ARG002
        """Do nothing: :class:`TunedNetwork` sets the modes, and frozen modules of the suffix stay in inference mode."""
        return self


@dataclass(frozen=True, eq=False)
class Partition:
    """Hold a network as prefix and suffix, or as one part with the ``reason`` why it is not partitioned.

    ``kept`` describes the tensors that are kept for each image. ``suffix_module`` is the suffix for
    :func:`torch.compile` and the like; it is ``None`` if the network is not partitioned.
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
        """Return the bytes that are kept for one image."""
        return sum(part.bytes for part in self.kept)

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute one tensor ``(B, *shape)`` for each of ``kept``, under the caller's autocast."""
        if self.prefix_module is None:
            return (images,)
        with torch.inference_mode(mode=False), torch.no_grad():  # tensors of inference mode cannot be trained on
            results: tuple[Tensor, ...] = self.prefix_module(images)
        return results

    def suffix(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute the logits of every head, in the order of :meth:`TunedNetwork.logits`.

        ``kept`` is a result of :meth:`prefix`, in any dtype and memory layout; it is not written to.
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
        """Convert kept tensors to the dtype and memory layout of :meth:`prefix`."""
        return tuple(map(restore, self.kept, kept))

    def reaches(self, path: str) -> bool:
        """Tell whether :meth:`suffix` calls the hooks of this module with the values of the whole network.

        If it does not, run the whole network instead; the outputs of a module of the prefix never change.
        """
        return self.suffix_module is None or self.tuned.network.get_submodule(path) in self.reached


def partition_network(tuned: TunedNetwork, example: Tensor) -> Partition:
    """Partition a prepared network for batches like ``example``, ``(B, 3, H, W)``; the network stays as it was.

    Call it under the autocast of the run, then verify the result on real images with
    :func:`zoo_harness.frozen.partition.verify.verify_partition`. A network on the meta device can be partitioned too.

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
    except Exception as error:  # whatever the code of a network may raise
        return unpartitioned(tuned, example, f"partitioning it failed: {one_line(error)}")


def unpartitioned(tuned: TunedNetwork, example: Tensor, reason: str) -> Partition:
    """Return the network as one part, whose kept tensors are the images."""
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
    """Record both modes for two batches, on the meta device if the network runs there, otherwise on its own."""
    if example.device.type != "meta":
        with contextlib.suppress(Exception), on_meta(tuned.network):  # its code may read values
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
        if len(opaque) == known:  # every recording has the same steps
            return recordings
