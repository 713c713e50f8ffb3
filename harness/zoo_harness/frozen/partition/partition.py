"""Cuts a prepared network where training starts: the frozen prefix, computed once an image, and the tail that trains.

Nothing before the first parameter that trains ever changes, so what the tail reads from there can be kept and the
tail trained alone. The two together give what the whole network gives, bit for bit: logits, gradients, buffers, and
the same random numbers for dropout and stochastic depth, which stay in the tail.

1. :mod:`zoo_harness.split_trace` records the network as steps: in training and in inference mode, since a ``forward``
   may ask ``self.training``, and for two and three images, since what differs between these depends on their number.
2. :mod:`zoo_harness.split_cut` chooses the steps of the tail, one choice for both modes.
3. Here the prefix and a tail for each mode are made of the steps. They run the modules of the network itself, so
   optimizer, checkpoint, hooks and :meth:`TunedNetwork.train` act on the tail as ever.
4. :func:`zoo_harness.split_probe.verified` compares the two with the whole network on real images before anybody
   relies on them.

A network whose code cannot be recorded is split by :mod:`zoo_harness.split_replay`: its own ``forward`` runs, and calls
of the frozen part are answered from what is kept. The trial decides about that, too.

A network that cannot be cut is no error: its ``Split`` keeps the images, its tail is the whole network, and
``reason`` says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo_harness.frozen.partition.build import TailBuilder, kept_names, overwritten, prefix_module
from zoo_harness.frozen.partition.cut import BATCHES, Mode, Numbering, choose_cut, memory_order
from zoo_harness.frozen.partition.replay import replay_network
from zoo_harness.frozen.partition.side_effects import CannotSplitError, one_line, unchanged
from zoo_harness.frozen.partition.trace import Trace, on_meta, trace_network
from zoo_harness.models.modules import capture
from zoo_harness.models.tuned_network import TunedNetwork

ALL_TRAINS = "all of it trains"


@dataclass(frozen=True)
class KeptTensor:
    """One tensor that is kept for each image: the module or operation it comes from, and its shape for an image.

    ``order`` lists the dimensions of a batch of them from the outermost in memory to the innermost.

    >>> KeptTensor("blocks.10", (198, 768), torch.bfloat16, (0, 1, 2)).bytes
    304128
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    order: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes for one image."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def restore(self, values: Tensor) -> Tensor:
        """A batch of stored values in the dtype and memory layout that the prefix put out: rounding depends on both."""
        turned = values.to(self.dtype).permute(self.order).contiguous()
        return turned.permute([self.order.index(dimension) for dimension in range(len(self.order))])


class Tail(nn.Module):
    """The part that trains: kept tensors in, one logits tensor a head out.

    It holds the modules of the network itself and acts in the mode the network is in. To compile or to distribute:
    ``torch.compile(split.tail_module)``, ``DistributedDataParallel(split.tail_module)``.
    """

    def __init__(self, network: nn.Module, training: nn.Module, inference: nn.Module) -> None:
        super().__init__()
        self.while_training = training
        self.in_inference = inference
        self._mode_of = [network]  # in a list, so that it is no submodule

    def forward(self, *kept: Tensor) -> tuple[Tensor, ...]:
        """Logits ``(B, classes)`` of every head."""
        part = self.while_training if self._mode_of[0].training else self.in_inference
        logits: tuple[Tensor, ...] = part(*kept)
        return logits

    def train(self, mode: bool = True) -> Tail:  # noqa: ARG002
        """Do nothing: which modules train is :class:`TunedNetwork`'s business, frozen ones in the tail do not."""
        return self


@dataclass(frozen=True, eq=False)
class Split:
    """A network in two parts that together are the whole, or the whole as one part with the ``reason`` why.

    ``kept`` says what is kept for each image; ``tail_module`` is the tail for :func:`torch.compile` and the like, and
    ``None`` where the network is not cut. A ``replayed`` one runs the code of the whole network in either part: it can
    be distributed, and not compiled.
    """

    tuned: TunedNetwork
    kept: tuple[KeptTensor, ...]
    reason: str | None = None
    prefix_module: nn.Module | None = None
    tail_module: nn.Module | None = None
    hidden_heads: tuple[str, ...] = ()
    reached: frozenset[nn.Module] = frozenset()
    replayed: bool = False

    @property
    def bytes_per_image(self) -> int:
        """Bytes that are kept for one image."""
        return sum(part.bytes for part in self.kept)

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """What is kept of a batch, one tensor ``(B, *shape)`` for each of ``kept``; under the caller's autocast."""
        if self.prefix_module is None:
            return (images,)
        with torch.inference_mode(mode=False), torch.no_grad():  # what inference mode gives cannot be trained on
            results: tuple[Tensor, ...] = self.prefix_module(images)
        return results

    def tail(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Logits of every head, the one predicted from first, as :meth:`TunedNetwork.logits` gives them.

        ``kept`` is what :meth:`prefix` gave, in any dtype and memory layout; it is not written to.
        """
        if self.tail_module is None:
            return self.tuned.logits(*kept)
        restored = [part.restore(values) for part, values in zip(self.kept, kept, strict=True)]
        if not self.hidden_heads:
            logits: tuple[Tensor, ...] = self.tail_module(*restored)
            return logits
        with capture(self.tuned.network, self.hidden_heads) as outputs:
            logits = self.tail_module(*restored)
        seen = dict(zip([path for path in self.tuned.head_paths if path not in outputs], logits, strict=True))
        return tuple(outputs.get(path, seen.get(path)) for path in self.tuned.head_paths)  # type: ignore[misc]

    def reaches(self, path: str) -> bool:
        """Whether a hook on the module at this path is called by :meth:`tail`, with what the whole network gives.

        Where it is not, run the whole network for it; what a module of the prefix puts out never changes.
        """
        return self.tail_module is None or self.tuned.network.get_submodule(path) in self.reached


def split_network(tuned: TunedNetwork, example: Tensor) -> Split:
    """Cut a prepared network for batches like ``example``, ``(B, 3, H, W)``; the network is left as it was.

    Call it under the autocast that the run uses, and have :func:`zoo_harness.split_probe.verified` try the result on
    real images. A network on the meta device can be cut and looked at.

    >>> from zoo import Head, TimmArchitecture
    >>> from zoo.backbone import FeatureLayer, Training, Tuning
    >>> from zoo_harness.network import build_network
    >>> from zoo_harness.surgery import prepare
    >>> tuning = Tuning("default", ("blocks.5", "fc_norm"), Head("head"), Training(), (FeatureLayer("fc_norm", 64),))
    >>> images = torch.rand(2, 3, 160, 160)
    >>> tuned = prepare(build_network("vit", TimmArchitecture("test_vit.r160_in1k")), tuning, 10, images)
    >>> split = split_network(tuned, images)
    >>> [(part.name, part.shape) for part in split.kept]
    [('blocks.4', (101, 64))]
    >>> tuned.eval()
    >>> torch.equal(split.tail(split.prefix(images))[0], tuned.logits(images)[0])
    True
    """
    try:
        with unchanged(tuned.network):
            return _cut(tuned, example)
    except CannotSplitError as error:
        return whole_network(tuned, example, str(error))
    except Exception as error:  # whatever the code of a network may raise
        return whole_network(tuned, example, f"cutting it failed: {one_line(error)}")


def whole_network(tuned: TunedNetwork, example: Tensor, reason: str) -> Split:
    """The network in one piece: what is kept are the images."""
    return Split(tuned, (_described("images", example),), reason)


def _cut(tuned: TunedNetwork, example: Tensor) -> Split:
    if all(parameter.requires_grad for parameter in tuned.network.parameters()):
        raise CannotSplitError(ALL_TRAINS)
    try:
        modes, numbering = _recorded(tuned, example)
    except Exception as error:  # whatever the code of a network may raise
        return _replayed(tuned, example, error)
    cut = choose_cut(modes, numbering.steps)
    written = overwritten(modes, cut)
    training, inference = (TailBuilder(tuned, mode, cut, written) for mode in modes)
    prefix = prefix_module(modes[1], cut)
    return Split(
        tuned=tuned,
        kept=_kept(tuned, example, prefix, kept_names(modes[1], cut)),
        prefix_module=prefix,
        tail_module=Tail(tuned.network, training.module, inference.module),
        hidden_heads=inference.hidden_heads,
        reached=inference.reached,
    )


def _replayed(tuned: TunedNetwork, example: Tensor, why_not_recorded: Exception) -> Split:
    try:
        replay = replay_network(tuned, example)
        kept = _kept(tuned, example, replay.prefix, replay.names)
    except Exception as error:  # whatever the code of a network may raise
        raise CannotSplitError(f"{_told(why_not_recorded)}; and run as it is, {_told(error)}") from error
    return Split(tuned, kept, None, replay.prefix, replay.tail, reached=replay.reached, replayed=True)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, CannotSplitError) else one_line(error)


def _kept(tuned: TunedNetwork, example: Tensor, prefix: nn.Module, names: Iterable[str]) -> tuple[KeptTensor, ...]:
    tuned.eval()
    with torch.no_grad():
        return tuple(map(_described, names, prefix(example.clone())))


def _recorded(tuned: TunedNetwork, example: Tensor) -> tuple[tuple[Mode, Mode], Numbering]:
    """Record it on the meta device if the network runs there, else as it is."""
    if example.device.type != "meta":
        with contextlib.suppress(Exception), on_meta(tuned.network):  # its code may read values
            return _recorded(tuned, example.to("meta"))
    undivided: set[nn.Module] = set()
    while True:
        known = len(undivided)
        training = _traces(tuned, tuned.train, example, undivided)
        inference = _traces(tuned, tuned.eval, example, undivided)
        if len(undivided) == known:  # the steps are the same ones in every recording
            break
    numbering = Numbering()
    return (numbering.add(training), numbering.add(inference)), numbering


def _traces(
    tuned: TunedNetwork, set_mode: Callable[[], None], example: Tensor, undivided: set[nn.Module]
) -> tuple[Trace, Trace]:
    set_mode()
    heads = {tuned.network.get_submodule(path) for path in tuned.head_paths}
    rows = [torch.arange(count, device=example.device) % len(example) for count in BATCHES]
    first, second = (trace_network(tuned.network, example[place], heads, undivided) for place in rows)
    return first, second


def _described(name: str, values: Tensor) -> KeptTensor:
    return KeptTensor(name, tuple(values.shape[1:]), values.dtype, memory_order(values) or tuple(range(values.dim())))
