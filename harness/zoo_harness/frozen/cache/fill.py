"""Compute the outputs that are missing in a cache, and check that outputs of earlier runs are still correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from zoo_harness.frozen.cache.activation_cache import ActivationCache

SAMPLED_IMAGES = 8  # number of images whose cached outputs are compared with newly computed outputs
# Largest accepted difference relative to the largest value, in float32 and in 16 bits. Rounding errors differ because
# they depend on the batch size.
ROUNDING, ROUNDING_OF_HALVES = 1e-3, 5e-2


def fill_cache(
    cache: ActivationCache,
    compute_missing: Callable[[], None],
    outputs_of: Callable[[Sequence[int]], Sequence[Tensor]],
    warn: Callable[[], None],
) -> int:
    """Compute the missing outputs of a cache, or all outputs if cached outputs are outdated; return their number.

    ``compute_missing`` writes the missing outputs and finishes the pass. ``outputs_of`` computes the outputs of a few
    images again, because the key of the cache does not cover all source code. If the new outputs and the cached outputs
    differ by more than rounding errors, ``fill_cache`` calls ``warn`` and computes all outputs.
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
