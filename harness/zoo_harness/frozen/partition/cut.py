"""Choose which recorded steps of a network run once per image (the prefix), and which run in every epoch (the suffix).

Steps of several recordings get the same number if they run the same operation on the same inputs. These steps belong to
the suffix:

- a step that reads a trained parameter, draws random numbers, or changes its module's buffers;
- a step that runs only in training mode, or only in inference mode, such as every form of dropout;
- a step that reads the result of a suffix step, reads memory that a suffix step wrote to, or overwrites memory that a
  suffix step has read;
- a step whose result the suffix reads, if the result does not depend on the images;
- a step without weights whose result the suffix reads, if its inputs take no more memory in the cache than its result;
- a step whose result the suffix reads, if the result cannot be cached image by image.

The results that suffix steps read from prefix steps are cached.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate

from zoo_harness.frozen.cache.rows import memory_order
from zoo_harness.frozen.partition.side_effects import CannotPartitionError
from zoo_harness.frozen.partition.trace import Arguments, Result, Step, Trace

BATCHES = (2, 3)  # batch sizes of the two recordings of each mode; they reveal which values depend on the batch size
BATCH_DEPENDENT = "its forward method depends on the number of images"


@dataclass(frozen=True)
class BatchSize:
    """Represent an integer that depends on the batch size: ``times * batch_size + plus``."""

    times: int
    plus: int


@dataclass(frozen=True)
class SameDevice:
    """Represent the device of the images in the recorded arguments of a step."""


@dataclass
class Cut:
    """The division of a network's steps into prefix and suffix.

    ``kept``: the numbers of the steps whose results are cached. ``prefix``: the numbers of the steps that compute the
    cached results. ``suffix``: the numbers of the steps that run in every epoch. ``steps``: all steps by number.
    """

    kept: list[int]
    prefix: set[int]
    suffix: set[int]
    steps: dict[int, Step]


def number_steps(recordings: Sequence[tuple[Trace, Trace]]) -> dict[int, Step]:
    """Number the steps of all recordings, and return one step for each number.

    ``recordings``: for training mode and for inference mode, a recording with the smaller batch and a recording with
    the larger batch. A step that occurs in training mode and in inference mode gets a single number. The number of a
    step is larger than the numbers of its inputs. Raises :class:`CannotPartitionError` if the two recordings of a mode
    do not have the same steps.
    """
    steps, known = dict[int, Step](), dict[object, int]()
    for small, large in recordings:
        if [step.operation for step in small.steps] != [step.operation for step in large.steps]:
            raise CannotPartitionError(BATCH_DEPENDENT)
        writers: dict[int, set[int]] = defaultdict(set)
        for step, other in zip(small.steps, large.steps, strict=True):
            step.arguments, step.inputs = _numbered(step.arguments, other.arguments, small.steps)
            step.writers = frozenset(writer for memory in step.reads for writer in writers[memory])
            step.number = known.setdefault((step.operation, repr(step.arguments), step.writers), len(known))
            step.value_of_more = other.value
            step.depends_on_images = not step.number or any(steps[n].depends_on_images for n in step.dependencies)
            steps.setdefault(step.number, step)
            for memory in step.writes:
                writers[memory].add(step.number)
    return steps


def _numbered(small: Arguments, large: Arguments, steps: list[Step]) -> tuple[Arguments, frozenset[int]]:
    """Combine the arguments of a step for two batch sizes into arguments for any batch size.

    The second value returned is the set of numbers of the steps whose results are among the arguments.
    """
    leaves: list[Any] = []
    map_aggregate(large, leaves.append)
    others, inputs = iter(leaves), set[int]()

    def numbered(leaf: Any) -> Any:
        common = for_any_batch(leaf, next(others, None))
        if isinstance(common, Result):
            inputs.add(steps[common.step].number)
            return Result(steps[common.step].number)
        return common

    arguments: Arguments = map_aggregate(small, numbered)
    if list(others):
        raise CannotPartitionError(BATCH_DEPENDENT)
    return arguments, frozenset(inputs)


def for_any_batch(small: Any, large: Any) -> Any:
    """Return the form of an argument that holds for any batch size, given its values for batches of 2 and 3 images.

    >>> for_any_batch(196, 196), for_any_batch(127, 191)
    (196, BatchSize(times=64, plus=-1))
    """
    if isinstance(small, torch.device):
        return SameDevice()
    if small == large:
        return small
    if type(small) is type(large) is int:
        times = large - small
        return BatchSize(times, small - BATCHES[0] * times)
    raise CannotPartitionError(BATCH_DEPENDENT)


def choose_cut(modes: Sequence[Trace], steps: dict[int, Step]) -> Cut:
    """Divide the recorded steps of training mode and inference mode into one prefix and one suffix.

    Raises :class:`CannotPartitionError` if a division saves no computation.
    """
    suffix = _required_in_suffix(modes, steps)
    if not suffix:
        raise CannotPartitionError("nothing that trains runs")
    kept = sorted(_pull_back(modes, steps, suffix))
    writers = {writer for number in suffix for writer in steps[number].writers}
    prefix = _with_dependencies({*kept, *(writers - suffix)}, steps)
    if not any(steps[number].has_weights for number in prefix):
        raise CannotPartitionError("no frozen part runs before the part that trains")
    if not kept:
        raise CannotPartitionError("the part that trains does not depend on the images")
    return Cut(kept, prefix, suffix, steps)


def _required_in_suffix(modes: Sequence[Trace], steps: dict[int, Step]) -> set[int]:
    training, inference = ({step.number for step in mode.steps} for mode in modes)
    suffix = {number for number, step in steps.items() if step.trains} | (training ^ inference)
    while True:
        before = len(suffix)
        for mode in modes:
            _close(mode, suffix)
        if len(suffix) == before:
            return suffix


def _close(mode: Trace, suffix: set[int]) -> None:
    """Add to the suffix all steps that depend on suffix steps, or that overwrite memory read by suffix steps."""
    read_by_suffix: set[int] = set()
    for step in mode.steps:
        if step.dependencies & suffix or step.writes & read_by_suffix:
            suffix.add(step.number)
        if step.number in suffix:
            read_by_suffix |= step.reads


def _pull_back(modes: Sequence[Trace], steps: dict[int, Step], suffix: set[int]) -> set[int]:
    """Move steps to the suffix if the cache does not grow, and return the numbers of the results to cache."""
    overwritten = _overwritten_later(modes, suffix)
    required = set(suffix)
    while True:
        frontier = _frontier(steps, suffix)
        latest_first = sorted(frontier, reverse=True)
        moved = next((n for n in latest_first if _should_move(n, steps, frontier | suffix, overwritten)), None)
        # If a moved step's result is overwritten by other steps, these steps have to move into the suffix too.
        written = {n for number in suffix for n in steps[number].writers - suffix if steps[n].inputs & suffix}
        if moved is None and not written:
            break
        suffix |= written if moved is None else {moved}
    while given_back := next((n for n in sorted(suffix - required) if _saves_nothing(n, steps, suffix)), None):
        suffix.remove(given_back)
    return _frontier(steps, suffix)


def _frontier(steps: dict[int, Step], suffix: set[int]) -> set[int]:
    return {given for number in suffix for given in steps[number].inputs} - suffix


def _saves_nothing(number: int, steps: dict[int, Step], suffix: set[int]) -> bool:
    """Whether a step can return to the prefix: caching its result must take no more memory than caching its inputs.

    A step cannot return if another suffix step reads the inputs of the step.
    """
    step = steps[number]
    elsewhere = {given for other in suffix - {number} for given in steps[other].inputs}
    read = {given for given in step.inputs if steps[given].depends_on_images}
    unread = step.depends_on_images and read.isdisjoint(suffix | elsewhere)
    return unread and _cost(step) <= sum(_cost(steps[n]) for n in read)


def _should_move(number: int, steps: dict[int, Step], present: set[int], overwritten: set[int]) -> bool:
    """Whether a step whose result the suffix reads should move into the suffix.

    ``present``: the numbers of the steps whose results are available to the suffix anyway.
    """
    step = steps[number]
    if step.kind == "placeholder":
        return False
    cost = _cost(step)
    if cost == math.inf or not step.depends_on_images:
        return True
    if step.has_weights or step.writes or number in overwritten:
        return False
    return sum(_cost(steps[given]) for given in step.inputs - present) <= cost


def _overwritten_later(modes: Sequence[Trace], suffix: set[int]) -> set[int]:
    """Find the steps that read memory which a later prefix step overwrites.

    If these steps moved into the suffix, they would read the overwritten values.
    """
    found: set[int] = set()
    for mode in modes:
        written: set[int] = set()
        for step in reversed(mode.steps):
            if step.reads & written:
                found.add(step.number)
            if step.number not in suffix:
                written |= step.writes
    return found


def _cost(step: Step) -> float:
    """Return the number of bytes that the result of a step takes per image.

    The number is 0 if the result does not depend on the images, and infinite if the result cannot be divided by image.
    """
    small, large = step.value, step.value_of_more
    if not step.depends_on_images:
        return 0
    if not isinstance(small, Tensor) or (small.shape[:1], large.shape[:1]) != ((BATCHES[0],), (BATCHES[1],)):
        return math.inf
    if small.shape[1:] != large.shape[1:] or not (step.has_weights or memory_order(small)):
        return math.inf
    return small[0].numel() * small.element_size()


def _with_dependencies(wanted: Iterable[int], steps: dict[int, Step]) -> set[int]:
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += steps[number].dependencies
    return found
