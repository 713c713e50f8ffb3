"""Fill a cache with the outputs that it lacks, after checking a sample of those that an earlier run has left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from zoo_harness.frozen.cache.activation_cache import ActivationCache

SAMPLED_IMAGES = 8  # whose cached outputs are compared with those computed now
ROUNDING, ROUNDING_OF_HALVES = 1e-3, 5e-2  # relative to the largest value; batches of other sizes round otherwise


def fill_cache(
    cache: ActivationCache,
    compute_missing: Callable[[], None],
    outputs_of: Callable[[Sequence[int]], Sequence[Tensor]],
    warn: Callable[[], None],
) -> int:
    """Compute the missing outputs, or all of them if the cached ones are outdated; return their number.

    ``compute_missing`` writes the missing outputs and finishes the pass. ``outputs_of`` computes those of a few images
    anew: the key of a cache does not cover all code. ``warn`` is called if they differ from the cached ones beyond
    rounding.
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
