"""Where outputs of a frozen part are kept: on the device, in host memory, in a file, or nowhere.

``auto`` takes the first that has room, in that order. Nothing here imports torch, so that an option that cannot be
meant is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args

from zoo.errors import UsageError, ZooError, check_choice
from zoo_harness.frozen.cache.folder import cache_folder, cache_limit
from zoo_harness.util.byte_sizes import bytes_in_words, parse_bytes

Place = Literal["device", "host", "disk", "off"]
Cache = Literal["auto", "device", "host", "disk", "off"]
CACHES: tuple[Cache, ...] = get_args(Cache)

# What auto takes of the free memory: training needs some too.
_SHARES = {"device": 0.6, "host": 0.5}
_NAMES = {"device": "device memory", "host": "host memory", "disk": "disk"}


@dataclass(frozen=True)
class CachePolicy:
    """What the user allows: where to keep outputs, and how many bytes of memory they may take at most.

    ``budget`` is for device and host memory together, ``None`` for a share of what is free. ``folder`` holds the files
    that later runs use, which take no more than ``limit`` bytes in all. ``processes`` share the host's memory.

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
        """The policy of the options ``--cache`` and ``--cache-budget``.

        Raises :class:`~zoo.errors.UsageError` for what cannot be meant.
        """
        chosen = cast("Cache", check_choice("--cache", cache, CACHES))
        allowed = None if budget is None else parse_bytes("--cache-budget", budget)
        if allowed is not None and chosen in ("disk", "off"):
            raise UsageError(f"--cache-budget is for memory, and --cache {chosen} keeps nothing there; leave one out")
        return cls(chosen, allowed)

    def less(self, used: int) -> CachePolicy:
        """The policy for the next store of a run, when one takes so many bytes of the budget already."""
        return self if self.budget is None else replace(self, budget=max(0, self.budget - used))

    def for_each_of(self, processes: int) -> CachePolicy:
        """The policy of each of several processes on one machine, which divide the budget.

        >>> CachePolicy("host", 2**30).for_each_of(4).budget
        268435456
        """
        budget = None if self.budget is None else self.budget // processes
        return replace(self, budget=budget, processes=processes)

    def lack_of_memory(self, place: Literal["device", "host"], needed: int, free: int) -> str | None:
        """Why so many bytes may not be kept there, or ``None`` where they may."""
        if self.budget is not None and needed > self.budget:
            return f"{bytes_in_words(self.budget)} of it left by --cache-budget"
        share = _SHARES[place] if self.cache == "auto" and self.budget is None else 1.0
        share /= self.processes if place == "host" else 1
        if needed > free * share:
            part = "" if share == 1 else f", of which {share:.0%} may be used"
            return f"{bytes_in_words(free)} of it free{part}"
        return None


def choose_place(
    policy: CachePolicy, needed: int, lacks: Mapping[Literal["device", "host", "disk"], Callable[[], str | None]]
) -> tuple[Place, str]:
    """Where outputs of so many bytes are kept, and where that is nowhere, why.

    ``lacks`` asks each place that there is, in order of preference, why it cannot take them. Raises
    :class:`~zoo.errors.ZooError` where the user named a place that cannot.

    >>> choose_place(CachePolicy("auto"), 2048, {"host": lambda: "1 KiB of it free", "disk": lambda: None})[0]
    'disk'
    """
    if policy.cache == "off":
        return "off", ""
    if policy.cache != "auto":
        place = policy.cache if policy.cache in lacks else "host"  # of a CPU, device memory is host memory
        reason = lacks[place]()
        if reason is not None:
            raise ZooError(no_room(place, needed, reason))
        return place, ""
    reasons = []
    for place, lack in lacks.items():
        reason = lack()
        if reason is None:
            return place, ""
        reasons.append(f"{_NAMES[place]}: {reason}")
    return "off", "; ".join(reasons)


def no_room(place: Place, needed: int, reason: str) -> str:
    """What is told when a place that the user named has no room, and what to do.

    >>> no_room("disk", 2**31, "1.0 GiB free").partition(":")[0]
    'outputs of the frozen part need 2.0 GiB of disk'
    """
    advice = {
        "device": "pass --cache auto, a larger --cache-budget, or fewer images",
        "host": "pass --cache auto, a larger --cache-budget, or fewer images",
        "disk": "free some with zoo cache clear, set ZOO_CACHE_DIR to a folder on a larger disk or ZOO_CACHE_LIMIT to "
        "a larger size, or pass --cache off",
    }[place]
    return f"outputs of the frozen part need {bytes_in_words(needed)} of {_NAMES[place]}: {reason}; {advice}"
