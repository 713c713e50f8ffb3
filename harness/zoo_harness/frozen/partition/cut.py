"""Chooses where a recorded network is cut: which steps run once an image, and which in every epoch.

Steps of several recordings are the same if they run the same operation on the same inputs; such a step has one
number. Five rules put a step into the suffix:

- it reads a trained parameter, draws random numbers or changes its own buffers;
- it runs in one mode alone (training or inference), as dropout does in every form;
- it follows one of these, because it reads their result or memory they wrote to; or it overwrites memory that a step
  of the suffix has read;
- from the frontier towards the images: it has no weights, and keeping its inputs takes no more memory than keeping its
  output; or it does not depend on the images;
- its output cannot be kept image by image.

The results that the suffix then reads from other steps are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from zoo_harness.frozen.partition.side_effects import CannotPartitionError, storage
from zoo_harness.frozen.partition.trace import Arguments, Result, Step, Trace

BATCHES = (2, 3)  # images in the two recordings of each mode: differences depend on the batch size
BATCH_DEPENDENT = "its forward method depends on the number of images"


@dataclass(frozen=True)
class BatchSize:
    """Stand for an integer: ``times`` the number of images, and ``plus``."""

    times: int
    plus: int


@dataclass(frozen=True)
class SameDevice:
    """Stand for the device of the images."""


@dataclass
class NumberedStep:
    """Hold one step of all recordings, whose arguments refer to numbers, and its result for each of the two batches.

    ``inputs`` are the numbers of the steps whose result it reads, ``writers`` of those that wrote to the memory it
    reads.
    """

    step: Step
    arguments: Arguments
    inputs: frozenset[int]
    writers: frozenset[int]
    values: tuple[Any, Any]
    trained: bool
    has_weights: bool
    depends_on_images: bool

    @property
    def dependencies(self) -> frozenset[int]:
        """Return the numbers of ``inputs`` and ``writers``."""
        return self.inputs | self.writers


@dataclass
class Mode:
    """Hold the first recording of one mode, and the numbers of its steps in order."""

    trace: Trace
    numbers: list[int]

    def __iter__(self) -> Iterator[tuple[int, Step]]:
        """Yield the number and the recording of each step."""
        return zip(self.numbers, self.trace.steps, strict=True)


@dataclass
class Cut:
    """Hold the numbers of the steps whose results are kept, of those that compute them, and of the suffix.

    ``same_as`` maps a kept result to an earlier one that is the same memory.
    """

    kept: list[int]
    prefix: set[int]
    suffix: set[int]
    steps: dict[int, NumberedStep]
    same_as: dict[int, int]


class Numbering:
    """Give the same number to the same step of all recordings, larger than those of its inputs."""

    def __init__(self, network: nn.Module) -> None:
        self.steps: dict[int, NumberedStep] = {}
        self._network = network
        self._known: dict[object, int] = {}

    def mode(self, small: Trace, large: Trace) -> Mode:
        """Number the steps of the two recordings of a mode, which must be the same."""
        numbers: list[int] = []
        writers: dict[int, list[int]] = {}
        if [_operation(step) for step in small.steps] != [_operation(step) for step in large.steps]:
            raise CannotPartitionError(BATCH_DEPENDENT)
        for step, other in zip(small.steps, large.steps, strict=True):
            inputs: set[int] = set()

            def numbered(leaf: Any, inputs: set[int] = inputs) -> Any:
                if isinstance(leaf, Result):
                    inputs.add(numbers[leaf.step])
                    return Result(numbers[leaf.step])
                return leaf

            arguments = map_aggregate(common_arguments(step.arguments, other.arguments), numbered)
            wrote = frozenset(writer for memory in step.reads for writer in writers.get(memory, ()))
            key = (_operation(step), repr(arguments), wrote)
            number = self._known.setdefault(key, len(self._known))
            if number not in self.steps:
                values = (step.value, other.value)
                depends = not numbers or any(self.steps[given].depends_on_images for given in inputs | wrote)
                weights = self._weights(step, inputs)
                self.steps[number] = NumberedStep(step, arguments, frozenset(inputs), wrote, values, *weights, depends)
            numbers.append(number)
            for memory in step.writes:
                writers.setdefault(memory, []).append(number)
        return Mode(small, numbers)

    def _weights(self, step: Step, inputs: set[int]) -> tuple[bool, bool]:
        """Tell whether a step reads a trained parameter itself, and whether it reads any weights."""
        if step.kind == "get_attr":
            return step.value.requires_grad, False
        if step.kind != "call_module":
            return False, any(self.steps[given].step.kind == "get_attr" for given in inputs)
        module = self._network.get_submodule(step.target)
        trained = any(parameter.requires_grad for parameter in module.parameters())
        return trained, any(True for _tensor in (*module.parameters(), *module.buffers()))


def common_arguments(small: Arguments, large: Arguments) -> Arguments:
    """Return the arguments of a step for any batch, given those for batches of 2 and 3.

    >>> common_arguments(((2, 196, 384, 127), {}), ((3, 196, 576, 191), {}))
    ((BatchSize(times=1, plus=0), 196, BatchSize(times=192, plus=0), BatchSize(times=64, plus=-1)), {})
    """
    others: list[Any] = []
    map_aggregate(large, others.append)
    remaining = iter(others)
    common: Arguments = map_aggregate(small, lambda leaf: _common(leaf, next(remaining, None)))
    if list(remaining):
        raise CannotPartitionError(BATCH_DEPENDENT)
    return common


def _common(small: Any, large: Any) -> Any:
    if isinstance(small, torch.device):
        return SameDevice()
    if small == large:
        return small
    if type(small) is type(large) is int:
        times = large - small
        return BatchSize(times, small - BATCHES[0] * times)
    raise CannotPartitionError(BATCH_DEPENDENT)


def _operation(step: Step) -> object:
    return step.kind, step.target, step.operations


def choose_cut(modes: Sequence[Mode], steps: dict[int, NumberedStep]) -> Cut:
    """Cut both modes at one place. Raises :class:`CannotPartitionError` if that saves nothing."""
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
    same_as = _aliases(kept, steps)
    return Cut([number for number in kept if number not in same_as], prefix, suffix, steps, same_as)


def memory_order(values: Tensor) -> tuple[int, ...] | None:
    """Sort dimensions from the outermost in memory to the innermost; ``None`` for a part of a larger piece of memory.

    >>> images = torch.zeros(2, 3, 5, 5).to(memory_format=torch.channels_last)
    >>> memory_order(images), memory_order(images[:, 1:])
    ((0, 2, 3, 1), None)
    """
    strides = values.stride()
    order = sorted(range(values.dim()), key=lambda dimension: (-strides[dimension], dimension))
    return tuple(order) if values.permute(order).is_contiguous() else None


def _required_in_suffix(modes: Sequence[Mode], steps: dict[int, NumberedStep]) -> set[int]:
    both = set(modes[0].numbers) & set(modes[1].numbers)
    suffix = {
        number
        for number, step in steps.items()
        if number not in both or step.trained or step.step.draws or step.step.changes_buffers
    }
    while True:
        before = len(suffix)
        for mode in modes:
            _close(mode, steps, suffix)
        if len(suffix) == before:
            return suffix


def _close(mode: Mode, steps: dict[int, NumberedStep], suffix: set[int]) -> None:
    """Add to the suffix the steps that follow it, and those that overwrite memory it has read."""
    read_by_suffix: set[int] = set()
    for number, step in mode:
        if steps[number].dependencies & suffix or step.writes & read_by_suffix:
            suffix.add(number)
        if number in suffix:
            read_by_suffix |= step.reads


def _pull_back(modes: Sequence[Mode], steps: dict[int, NumberedStep], suffix: set[int]) -> set[int]:
    """Move steps into the suffix if that costs no memory; return the numbers of its inputs."""
    overwritten = _overwritten_later(modes, suffix)
    required = set(suffix)
    while True:
        frontier = _frontier(steps, suffix)
        latest_first = sorted(frontier, reverse=True)
        moved = next((n for n in latest_first if _should_move(n, steps, frontier | suffix, overwritten)), None)
        # Steps that write to the result of a moved step move with it.
        written = {n for number in suffix for n in steps[number].writers - suffix if steps[n].inputs & suffix}
        if moved is None and not written:
            break
        suffix |= written if moved is None else {moved}
    while given_back := next((n for n in sorted(suffix - required) if _saves_nothing(n, steps, suffix)), None):
        suffix.remove(given_back)
    return _frontier(steps, suffix)


def _frontier(steps: dict[int, NumberedStep], suffix: set[int]) -> set[int]:
    return {given for number in suffix for given in steps[number].inputs} - suffix


def _saves_nothing(number: int, steps: dict[int, NumberedStep], suffix: set[int]) -> bool:
    """Tell whether the result of a moved step could be kept as well: nothing else in the suffix reads its inputs."""
    step = steps[number]
    elsewhere = {given for other in suffix - {number} for given in steps[other].inputs}
    read = {given for given in step.inputs if steps[given].depends_on_images}
    unread = step.depends_on_images and read.isdisjoint(suffix | elsewhere)
    return unread and _cost(step) <= sum(_cost(steps[n]) for n in read)


def _should_move(number: int, steps: dict[int, NumberedStep], present: set[int], overwritten: set[int]) -> bool:
    """Tell whether the suffix should run a step of the frontier; the results ``present`` are there anyway."""
    step = steps[number]
    if step.step.kind == "placeholder":
        return False
    cost = _cost(step)
    if cost == math.inf or not step.depends_on_images:
        return True
    if step.has_weights or step.step.writes or number in overwritten:
        return False
    return sum(_cost(steps[given]) for given in step.inputs - present) <= cost


def _overwritten_later(modes: Sequence[Mode], suffix: set[int]) -> set[int]:
    """Find steps that read memory which the prefix writes to later: in the suffix they would read the later values."""
    found: set[int] = set()
    for mode in modes:
        written: set[int] = set()
        for number, step in reversed(list(mode)):
            if step.reads & written:
                found.add(number)
            if number not in suffix:
                written |= step.writes
    return found


def _cost(step: NumberedStep) -> float:
    """Return the bytes that its result takes for an image; infinite if it has not one row for each image."""
    small, large = step.values
    if not step.depends_on_images:
        return 0
    if not isinstance(small, Tensor) or (small.shape[:1], large.shape[:1]) != ((BATCHES[0],), (BATCHES[1],)):
        return math.inf
    if small.shape[1:] != large.shape[1:] or not (step.has_weights or memory_order(small)):
        return math.inf
    return small[0].numel() * small.element_size()


def _with_dependencies(wanted: Iterable[int], steps: dict[int, NumberedStep]) -> set[int]:
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += steps[number].dependencies
    return found


def _aliases(kept: list[int], steps: dict[int, NumberedStep]) -> dict[int, int]:
    """Map kept results that are one piece of memory to the first of them."""
    first: dict[object, int] = {}
    same_as = {}
    for number in kept:
        value = steps[number].values[0]
        memory = (storage(value), value.storage_offset(), value.shape, value.stride())
        if first.setdefault(memory, number) != number:
            same_as[number] = first[memory]
    return same_as
