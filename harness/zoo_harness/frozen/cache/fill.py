"""Compute the outputs that are missing in a cache, and check that outputs of earlier runs are still correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from zoo_harness.frozen.cache.activation_cache import ActivationCache

SAMPLED_IMAGES = 8  # number of images whose cached outputs are compared with newly computed outputs
# The largest accepted difference between cached and new outputs, relative to the largest value: for float32 values, and
# for 16-bit values. Correct outputs differ slightly, because rounding depends on the batch size.
ROUNDING, ROUNDING_OF_HALVES = 1e-3, 5e-2


def fill_cache(
    cache: ActivationCache,
    compute_missing: Callable[[], None],
    outputs_of: Callable[[Sequence[int]], Sequence[Tensor]],
    warn: Callable[[], None],
) -> int:
    """Compute a cache's missing outputs, or all outputs if cached outputs are outdated; return the number computed.

    ``compute_missing``: a function that computes the missing outputs and writes the outputs into the cache.
    ``outputs_of``: a function that computes the outputs of the given images. Some cached outputs are computed again,
    because the key of the cache does not cover all source code. If the new outputs differ from the cached outputs by
    more than rounding errors, ``fill_cache`` calls ``warn`` and computes all outputs.
    """
    missing, sample = cache.missing_images, cache.sample_of_loaded(SAMPLED_IMAGES)
    compute_missing()
    if not sample or cache.place == "off" or _agrees(cache, sample, outputs_of):
        return missing
    warn()
    cache.forget()
    compute_missing()
    return len(cache)


def _agrees(cache: ActivationCache, sample: list[int], outputs_of: Callable[[Sequence[int]], Sequence[Tensor]]) -> bool:
    exact = cache.key.precision == "fp32" and all(part.stored is None for part in cache.key.kept)
    return cache.largest_difference(sample, outputs_of(sample)) <= (ROUNDING if exact else ROUNDING_OF_HALVES)
