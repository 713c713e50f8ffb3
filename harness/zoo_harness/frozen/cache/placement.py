"""Choose where cached outputs of the frozen part are kept: in device memory, in host memory, in files, or nowhere.

The option ``--cache auto`` chooses the first of these locations that has enough space. This module does not import
torch, so that an invalid option is reported immediately.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from zoo.errors import UsageError, check_choice
from zoo_harness.frozen.cache.entries import cache_folder, cache_limit
from zoo_harness.util.byte_sizes import bytes_in_words, parse_bytes

Place = Literal["device", "host", "disk", "off"]
Cache = Literal["auto", "device", "host", "disk", "off"]
CACHES: tuple[Cache, ...] = get_args(Cache)

# The share of the free memory that --cache auto may use. Training needs the rest.
_SHARES = {"device": 0.6, "host": 0.5}
NAMES: dict[Place, str] = {"device": "device memory", "host": "host memory", "disk": "files"}
_MORE_MEMORY = "--cache auto, a larger --cache-budget, or fewer images"
ADVICE: dict[Place, str] = {
    "device": _MORE_MEMORY,
    "host": _MORE_MEMORY,
    "disk": "zoo cache clear, another folder in ZOO_CACHE_DIR, a larger ZOO_CACHE_LIMIT, or --cache off",
}


@dataclass(frozen=True)
class CachePolicy:
    """The user's choice of where cached outputs are kept, and how many bytes the outputs may take.

    ``budget``: the largest number of bytes in device and host memory together; if ``None``, the cache may use a fixed
    share of the free memory. ``folder``: the folder for files. ``limit``: the largest number of bytes that the files of
    all runs may take. ``processes``: the number of processes that share the host memory.

    >>> CachePolicy.of("host", "8GiB").budget
    8589934592
    """

    cache: Cache = "auto"
    budget: int | None = None
    folder: Path = field(default_factory=cache_folder)
    limit: int = field(default_factory=cache_limit)
    processes: int = 1

    @classmethod
    def of(cls, cache: str, budget: str | None) -> CachePolicy:
        """Return the policy for the given values of the options ``--cache`` and ``--cache-budget``.

        Raises :class:`~zoo.errors.UsageError` for invalid values.
        """
        chosen = cast("Cache", check_choice("--cache", cache, CACHES))
        allowed = None if budget is None else parse_bytes("--cache-budget", budget)
        if allowed is not None and chosen in ("disk", "off"):
            message = f"--cache-budget {budget} limits memory, but --cache {chosen} uses no memory; omit --cache-budget"
            raise UsageError(message, code="option-unused", option="--cache-budget", given=budget)
        return cls(chosen, allowed)

    def places(self, device: str) -> tuple[Place, ...]:
        """Return the locations to try, in order of preference, if a device of the given type computes the outputs.

        >>> CachePolicy("auto").places("cpu")
        ('host', 'disk')
        """
        every: tuple[Place, ...] = ("device", "host", "disk") if device == "cuda" else ("host", "disk")
        if self.cache == "auto":
            return every
        if self.cache == "off":
            return ()
        return (self.cache if self.cache in every else "host",)  # the device memory of a CPU is the host memory

    def less(self, used: int) -> CachePolicy:
        """Return the policy for a run's next cache, after earlier caches have used the given number of bytes."""
        return self if self.budget is None else replace(self, budget=max(0, self.budget - used))

    def for_each_of(self, processes: int) -> CachePolicy:
        """Return the policy for each of several processes on one machine, with an equal share of the budget.

        >>> CachePolicy("host", 2**30).for_each_of(4).budget
        268435456
        """
        budget = None if self.budget is None else self.budget // processes
        return replace(self, budget=budget, processes=processes)

    def memory_shortage_reason(self, place: Place, needed: int, free: int) -> str | None:
        """Return why a location has too little memory for the outputs; return ``None`` if the memory is enough.

        ``needed``: the number of bytes that the outputs take. ``free``: the number of free bytes in the memory of the
        location.
        """
        if self.budget is not None and needed > self.budget:
            return f"--cache-budget leaves {bytes_in_words(self.budget)}"
        share = _SHARES[place] if self.cache == "auto" and self.budget is None else 1.0
        share /= self.processes if place == "host" else 1
        if needed > free * share:
            part = "" if share == 1 else f", of which the cache may use {share:.0%}"
            return f"{bytes_in_words(free)} free{part}"
        return None
