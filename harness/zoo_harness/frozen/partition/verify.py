"""Tries a split on real images before anybody relies on it: it must do what the whole network does.

Compared are the logits in inference, and of one seeded training step the logits, the gradients and the buffers.
They must be equal bit for bit. Only where the whole network does not repeat itself either, as some kernels of a GPU
do not, may the split differ, and by about as much as the network differs from itself. What is kept must not depend on
which images stand in one batch; there rounding differs, so that is compared with a tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo_harness.frozen.partition.partition import Split, whole_network
from zoo_harness.frozen.partition.side_effects import CannotSplitError, one_line, put_buffers, unchanged

OWN_DEVIATIONS = 10  # times what the network differs from itself in two runs
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative to the largest value; other types 5 %
SEED = 20_260_801


def verified(split: Split, images: Tensor) -> Split:
    """The split if it does what the whole network does with these images, else the whole network and why.

    ``images``, ``(B, 3, H, W)``: 2 to 8 real ones are enough. The probe takes about the time of four training steps;
    the network, its gradients, its buffers and the random states are left as they were. Call it under the run's
    autocast.

    >>> from zoo_harness.split import split_network
    >>> from zoo_harness.surgery import TunedNetwork
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 12).requires_grad_(False), nn.Linear(12, 5))
    >>> tuned = TunedNetwork(network, ("2",), ("2",), {"": True, "0": False, "1": False, "2": True})
    >>> images = torch.rand(4, 3, 2, 2)
    >>> verified(split_network(tuned, images), images).reason is None
    True
    """
    if split.reason is not None:
        return split
    try:
        with unchanged(split.tuned.network):
            _compare(split, images)
    except CannotSplitError as error:
        return whole_network(split.tuned, images, f"a trial of the two parts failed: {error}")
    return split


def _compare(split: Split, images: Tensor) -> None:
    buffers = {name: buffer.clone() for name, buffer in split.tuned.network.named_buffers()}

    def outcome(logits: Callable[[], tuple[Tensor, ...]]) -> dict[str, Tensor]:
        put_buffers(split.tuned.network, buffers)
        return _outcome(split, logits)

    split.tuned.eval()
    try:
        kept = split.prefix(images.clone())  # a network may work on them in place
        _check_rows(split, images, kept)
        # Stored values come back one batch at a time, contiguous whatever the layout was.
        stored = tuple(values.clone(memory_format=torch.contiguous_format) for values in kept)
        copies = [values.clone() for values in stored]
        found = outcome(lambda: split.tail(stored))
    except CannotSplitError:
        raise
    except Exception as error:  # whatever the code of a network may raise
        raise CannotSplitError(one_line(error)) from error
    if not all(map(torch.equal, stored, copies)):
        raise CannotSplitError("the tail writes to what is kept")
    expected = outcome(lambda: split.tuned.logits(images.clone()))
    differing = _differing(expected, found)
    if differing:
        again = outcome(lambda: split.tuned.logits(images.clone()))
        _check_deviations(differing, expected, found, again)


def _outcome(split: Split, logits: Callable[[], tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Everything that is compared, by name."""
    tuned = split.tuned
    tuned.eval()
    with torch.no_grad():
        named = {f"logits {place} in inference": part.clone() for place, part in enumerate(logits())}
    torch.clear_autocast_cache()  # what was cast where no gradients are taken has none
    tuned.train()
    tuned.network.zero_grad(set_to_none=True)
    torch.manual_seed(SEED)
    parts = logits()
    torch.stack([_loss(part) for part in parts]).sum().backward()
    named |= {f"logits {place} in training": part.detach().clone() for place, part in enumerate(parts)}
    for name, parameter in tuned.network.named_parameters():
        if parameter.grad is not None:
            named[f"the gradient of {name}"] = parameter.grad
    named |= {f"the buffer {name}": buffer.clone() for name, buffer in tuned.network.named_buffers()}
    return named


def _loss(logits: Tensor) -> Tensor:
    labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
    return nn.functional.cross_entropy(logits.float(), labels)


def _check_rows(split: Split, images: Tensor, kept: tuple[Tensor, ...]) -> None:
    """Raise where what is kept of an image depends on the others in its batch."""
    half = (len(images) + 1) // 2
    for part, rows, fewer in zip(split.kept, kept, split.prefix(images[:half].clone()), strict=True):
        if rows.shape != (len(images), *part.shape) or rows.dtype != part.dtype:
            raise CannotSplitError(f"{part.name!r} gives {tuple(rows.shape)}, expected {(len(images), *part.shape)}")
        if rows.is_floating_point():
            scale = float(rows.abs().amax()) or 1.0
            largest = float((rows[:half].float() - fewer.float()).abs().amax())
            if not largest <= ROUNDING.get(rows.dtype, 0.05) * scale:
                raise CannotSplitError(f"what {part.name!r} gives for an image depends on the others in the batch")


def _differing(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    names = [*expected, *(name for name in found if name not in expected)]
    return [
        name
        for name in names
        if name not in expected or name not in found or not torch.equal(expected[name], found[name])
    ]


def _check_deviations(
    differing: list[str], expected: dict[str, Tensor], found: dict[str, Tensor], again: dict[str, Tensor]
) -> None:
    for name in differing:
        if name not in expected or name not in found:
            raise CannotSplitError(f"{name} exists in {'the whole network' if name in expected else 'the parts'} alone")
        own = _deviation(expected[name], again[name])
        if not _deviation(expected[name], found[name]) <= OWN_DEVIATIONS * own:
            largest = _deviation(expected[name], found[name])
            raise CannotSplitError(f"{name} of the parts and of the whole network differ, by up to {largest:.2g}")


def _deviation(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().amax()) if one.numel() else 0.0
