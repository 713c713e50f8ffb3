"""Verify on real images that the prefix and the suffix of a partitioned network compute the same as the whole network.

First, the verification compares the logits in inference mode. Then the verification compares the logits, gradients and
buffers of one training step with a fixed seed. All these tensors of prefix and suffix must equal the tensors of the
whole network bit for bit. Some GPU kernels do not always give the same result. If two runs of the whole network differ
for this reason, the verification accepts differences of about the same size. The cached tensors of an image must not
depend on the other images in its batch. The check of this independence has a tolerance, because rounding depends on the
batch size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo_harness.frozen.partition.partition import Partition, unpartitioned
from zoo_harness.frozen.partition.side_effects import CannotPartitionError, one_line, preserve_state, write_buffers

OWN_DEVIATIONS = 10  # allowed difference, as a multiple of the difference between two runs of the whole network
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative to the largest value; else 5 %
SEED = 20_260_801


def verify_partition(partition: Partition, images: Tensor) -> Partition:
    """Return the partition if its parts compute the same as the whole network; otherwise return the network undivided.

    ``images``, ``(B, 3, H, W)``: 2 to 8 real images are enough. The verification takes about as long as four training
    steps. The verification does not change the network, the gradients, the buffers or the random states. Call this
    function under the autocast of the run.

    >>> from zoo_harness.frozen.partition.partition import partition_network
    >>> from zoo_harness.models.tuned_network import TunedNetwork
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 12).requires_grad_(False), nn.Linear(12, 5))
    >>> tuned = TunedNetwork(network, ("2",), ("2",), {"": True, "0": False, "1": False, "2": True})
    >>> images = torch.rand(4, 3, 2, 2)
    >>> verify_partition(partition_network(tuned, images), images).reason is None
    True
    """
    if partition.reason is not None:
        return partition
    try:
        with preserve_state(partition.tuned.network):
            _compare(partition, images)
    except CannotPartitionError as error:
        return unpartitioned(partition.tuned, images, f"a trial of the two parts failed: {error}")
    return partition


def _compare(partition: Partition, images: Tensor) -> None:
    tuned = partition.tuned
    buffers = {name: buffer.clone() for name, buffer in tuned.network.named_buffers()}

    def outcome(logits: Callable[[], tuple[Tensor, ...]]) -> dict[str, Tensor]:
        write_buffers(tuned.network, buffers)
        return _outcome(partition, logits)

    tuned.eval()
    try:
        kept = partition.prefix(images.clone())  # the network may modify its input in place
        _check_rows(partition, images, kept)
        # The cache returns contiguous tensors, even if the prefix returns tensors with another memory layout.
        stored = tuple(values.clone(memory_format=torch.contiguous_format) for values in kept)
        copies = [values.clone() for values in stored]
        found = outcome(lambda: partition.suffix(stored))
    except CannotPartitionError:
        raise
    except Exception as error:  # a network's own code may raise any exception
        raise CannotPartitionError(one_line(error)) from error
    if not all(map(torch.equal, stored, copies)):
        raise CannotPartitionError("the part that trains writes to the kept tensors")
    expected = outcome(lambda: tuned.logits(images.clone()))
    differing = _differing(expected, found)
    if differing:
        again = outcome(lambda: tuned.logits(images.clone()))
        _check_deviations(differing, expected, found, again)


def _outcome(partition: Partition, logits: Callable[[], tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Compute logits in inference mode, and run one training step; return named logits, gradients and buffers."""
    tuned = partition.tuned
    tuned.eval()
    with torch.no_grad():
        named = {f"logits {index} in inference": part.clone() for index, part in enumerate(logits())}
    torch.clear_autocast_cache()  # cached weights, cast under no_grad, would get no gradients
    tuned.train()
    tuned.network.zero_grad(set_to_none=True)
    torch.manual_seed(SEED)
    parts = logits()
    labels = torch.arange(len(parts[0]), device=parts[0].device) % parts[0].shape[1]
    torch.stack([nn.functional.cross_entropy(part.float(), labels) for part in parts]).sum().backward()
    named |= {f"logits {index} in training": part.detach().clone() for index, part in enumerate(parts)}
    for name, parameter in tuned.network.named_parameters():
        if parameter.grad is not None:
            named[f"the gradient of {name}"] = parameter.grad
    return named | {f"the buffer {name}": buffer.clone() for name, buffer in tuned.network.named_buffers()}


def _check_rows(partition: Partition, images: Tensor, kept: tuple[Tensor, ...]) -> None:
    """Raise :class:`CannotPartitionError` if the cached tensors of an image depend on the other images in its batch."""
    half = (len(images) + 1) // 2
    for part, rows, fewer in zip(partition.kept, kept, partition.prefix(images[:half].clone()), strict=True):
        expected = (len(images), *part.shape)
        if rows.shape != expected or str(rows.dtype) != f"torch.{part.dtype}":
            raise CannotPartitionError(f"the output of {part.name!r} is {tuple(rows.shape)}; expected {expected}")
        if rows.is_floating_point():
            scale = float(rows.abs().amax()) or 1.0
            largest = float((rows[:half].float() - fewer.float()).abs().amax())
            if not largest <= ROUNDING.get(rows.dtype, 0.05) * scale:
                raise CannotPartitionError(f"the output of {part.name!r} depends on the other images of the batch")


def _differing(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    names = dict.fromkeys((*expected, *found))
    return [name for name in names if not (name in expected and name in found and expected[name].equal(found[name]))]


def _check_deviations(
    differing: list[str], expected: dict[str, Tensor], found: dict[str, Tensor], again: dict[str, Tensor]
) -> None:
    for name in differing:
        if name not in expected or name not in found:
            where = "the whole network" if name in expected else "the parts"
            raise CannotPartitionError(f"{name} exists in {where} alone")
        largest = _deviation(expected[name], found[name])
        if not largest <= OWN_DEVIATIONS * _deviation(expected[name], again[name]):
            raise CannotPartitionError(f"{name} of the parts and of the whole network differ, by up to {largest:.2g}")


def _deviation(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().amax()) if one.numel() else 0.0
