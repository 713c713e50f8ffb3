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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zoo_harness.frozen.partition.side_effects import CannotPartitionError, storage, tensors_in
from zoo_harness.frozen.partition.trace import Effects, Trace

BATCHES = (2, 3)  # images in the two recordings of each mode: differences depend on the batch size


@dataclass(frozen=True)
class BatchSize:
    """Stand for an integer that is ``times`` the number of images."""

    times: int


@dataclass(frozen=True)
class SameDevice:
    """Stand for the device of the kept tensors."""


@dataclass
class Step:
    """Hold one numbered step: the numbers of its inputs, and its result for each of the two batches."""

    node: fx.Node
    inputs: frozenset[int]
    writers: frozenset[int]
    values: tuple[Any, Any]
    trained: bool
    has_weights: bool
    depends_on_images: bool = False

    @property
    def effects(self) -> Effects:
        """Return its side effects."""
        effects: Effects = self.node.meta["effects"]
        return effects

    @property
    def dependencies(self) -> frozenset[int]:
        """Return the steps whose result it reads, and those that wrote to the memory it reads."""
        return self.inputs | self.writers


@dataclass
class Mode:
    """Hold the first recording of one mode, and the numbers of its steps in order."""

    trace: Trace
    numbers: dict[fx.Node, int]


@dataclass
class Cut:
    """Hold the numbers of the steps whose results are kept, of those that compute them, and of the suffix.

    ``same_as`` maps a kept result to an earlier one that is the same memory.
    """

    kept: list[int]
    prefix: set[int]
    suffix: set[int]
    steps: dict[int, Step]
    same_as: dict[int, int]


def number_steps(recordings: Sequence[tuple[Trace, Trace]]) -> tuple[list[Mode], dict[int, Step]]:
    """Give the same number to the same step of all recordings: two for each mode, which must have the same steps."""
    modes, steps, known = [], dict[int, Step](), dict[object, int]()
    for traces in recordings:
        small, large = (_numbered(trace, known) for trace in traces)
        if [number for _node, number, _key in small] != [number for _node, number, _key in large]:
            raise CannotPartitionError("its forward method depends on the number of images")
        for (node, number, (inputs, writers)), (other, _number, _key) in zip(small, large, strict=True):
            if number not in steps:
                values = (node.meta["value"], other.meta["value"])
                steps[number] = Step(node, inputs, writers, values, *_weights(traces[0], node))
        modes.append(Mode(traces[0], {node: number for node, number, _key in small}))
    return modes, steps


def _numbered(
    trace: Trace, known: dict[object, int]
) -> list[tuple[fx.Node, int, tuple[frozenset[int], frozenset[int]]]]:
    """Return each step of a recording, its number, and the numbers of its inputs and of earlier writers."""
    numbers: dict[fx.Node, int] = {}
    writers: dict[int, list[int]] = {}
    numbered = []
    for node in trace.nodes:
        effects: Effects = node.meta["effects"]
        inputs = frozenset(numbers[given] for given in node.all_input_nodes)
        wrote = frozenset(writer for memory in effects.reads for writer in writers.get(memory, ()))
        given = fx.map_arg((node.args, node.kwargs), lambda read: f"<step {numbers[read]}>")
        key = (node.op, _target(node), repr(given), tuple(sorted(wrote)), effects.operations)
        numbers[node] = known.setdefault(key, len(known))
        for memory in effects.writes:
            writers.setdefault(memory, []).append(numbers[node])
        numbered.append((node, numbers[node], (inputs, wrote)))
    return numbered


def choose_cut(modes: Sequence[Mode], steps: dict[int, Step]) -> Cut:
    """Cut both modes at one place. Raises :class:`CannotPartitionError` if that saves nothing."""
    _mark_image_dependence(steps)
    suffix = _required_in_suffix(modes, steps)
    if not suffix:
        raise CannotPartitionError("nothing that trains runs")
    frontier = _pull_back(modes, steps, suffix)
    kept = sorted(number for number in frontier if substitute(*steps[number].values) is None)
    writers = {writer for number in suffix for writer in steps[number].writers}
    prefix = _with_dependencies({*kept, *(writers - suffix)}, steps)
    if not any(steps[number].has_weights for number in prefix):
        raise CannotPartitionError("no frozen part runs before the part that trains")
    if not kept:
        raise CannotPartitionError("the part that trains does not depend on the images")
    same_as = _aliases(kept, steps)
    return Cut([number for number in kept if number not in same_as], prefix, suffix, steps, same_as)


def substitute(small: Any, large: Any) -> Any:
    """Return the suffix's replacement for a value, given those for batches of 2 and 3; ``None`` if it must be kept.

    >>> substitute(torch.Size([2, 196, 384]), torch.Size([3, 196, 384]))
    (BatchSize(times=1), 196, 384)
    >>> substitute(128, 192), substitute(7, 7), substitute(torch.zeros(2), torch.zeros(3))
    (BatchSize(times=64), 7, None)
    """
    match small:
        case torch.device():
            return SameDevice()
        case tuple() | list() if isinstance(large, (tuple, list)) and len(small) == len(large):
            parts = tuple(map(substitute, small, large))
            return None if None in parts else parts
        case bool() | str() | float():
            return small if small == large else None
        case int():
            times = large - small
            return small if not times else BatchSize(times) if small == BATCHES[0] * times else None
    return None


def memory_order(values: Tensor) -> tuple[int, ...] | None:
    """Sort dimensions from the outermost in memory to the innermost; ``None`` for a part of a larger piece of memory.

    >>> images = torch.zeros(2, 3, 5, 5).to(memory_format=torch.channels_last)
    >>> memory_order(images), memory_order(images[:, 1:])
    ((0, 2, 3, 1), None)
    """
    strides = values.stride()
    order = sorted(range(values.dim()), key=lambda dimension: (-strides[dimension], dimension))
    return tuple(order) if values.permute(order).is_contiguous() else None


def _weights(trace: Trace, node: fx.Node) -> tuple[bool, bool]:
    """Tell whether a step reads a trained parameter itself, and whether it reads any weights."""
    if node.op == "get_attr":
        value = node.meta["value"]
        return isinstance(value, Tensor) and value.requires_grad, False
    if node.op != "call_module":
        return False, any(given.op == "get_attr" for given in node.all_input_nodes)
    module = trace.module(node)
    trained = any(parameter.requires_grad for parameter in module.parameters())
    return trained, any(True for _tensor in (*module.parameters(), *module.buffers()))


def _mark_image_dependence(steps: dict[int, Step]) -> None:
    for number in sorted(steps):  # a step's number is larger than those of its inputs
        step = steps[number]
        earlier = any(steps[given].depends_on_images for given in step.dependencies)
        step.depends_on_images = (earlier or step.node.op == "placeholder") and bool(tensors_in(step.values[0]))


def _required_in_suffix(modes: Sequence[Mode], steps: dict[int, Step]) -> set[int]:
    both = set(modes[0].numbers.values()) & set(modes[1].numbers.values())
    suffix = {
        number
        for number, step in steps.items()
        if number not in both or step.trained or step.effects.draws or step.effects.changes_buffers
    }
    while True:
        before = len(suffix)
        for mode in modes:
            _close(mode, steps, suffix)
        if len(suffix) == before:
            return suffix


def _close(mode: Mode, steps: dict[int, Step], suffix: set[int]) -> None:
    """Add to the suffix the steps that follow it, and those that overwrite memory it has read."""
    read_by_suffix: set[int] = set()
    for node, number in mode.numbers.items():
        if steps[number].dependencies & suffix or node.meta["effects"].writes & read_by_suffix:
            suffix.add(number)
        if number in suffix:
            read_by_suffix |= node.meta["effects"].reads


def _pull_back(modes: Sequence[Mode], steps: dict[int, Step], suffix: set[int]) -> set[int]:
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


def _frontier(steps: dict[int, Step], suffix: set[int]) -> set[int]:
    return {given for number in suffix for given in steps[number].inputs} - suffix


def _saves_nothing(number: int, steps: dict[int, Step], suffix: set[int]) -> bool:
    """Tell whether the result of a moved step could be kept as well: nothing else in the suffix reads its inputs."""
    step = steps[number]
    elsewhere = {given for other in suffix - {number} for given in steps[other].inputs}
    read = {given for given in step.inputs if steps[given].depends_on_images}
    unread = step.depends_on_images and read.isdisjoint(suffix | elsewhere)
    return unread and _cost(step) <= sum(_cost(steps[n]) for n in read)


def _should_move(number: int, steps: dict[int, Step], present: set[int], overwritten: set[int]) -> bool:
    """Tell whether the suffix should run a step of the frontier; the results ``present`` are there anyway."""
    step = steps[number]
    if step.node.op == "placeholder" or substitute(*step.values) is not None:
        return False
    cost = _cost(step)
    if cost == math.inf or not step.depends_on_images:
        return True
    if step.has_weights or step.effects.writes or number in overwritten:
        return False
    return sum(_cost(steps[given]) for given in step.inputs - present) <= cost


def _overwritten_later(modes: Sequence[Mode], suffix: set[int]) -> set[int]:
    """Find steps that read memory which the prefix writes to later: in the suffix they would read the later values."""
    found: set[int] = set()
    for mode in modes:
        written: set[int] = set()
        for node in reversed(mode.trace.nodes):
            if node.meta["effects"].reads & written:
                found.add(mode.numbers[node])
            if mode.numbers[node] not in suffix:
                written |= node.meta["effects"].writes
    return found


def _cost(step: Step) -> float:
    """Return the bytes that its result takes for an image; infinite if it has not one row for each image."""
    small, large = step.values
    if not step.depends_on_images or substitute(small, large) is not None:
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


def _aliases(kept: list[int], steps: dict[int, Step]) -> dict[int, int]:
    """Map kept results that are one piece of memory to the first of them."""
    first: dict[object, int] = {}
    same_as = {}
    for number in kept:
        value = steps[number].values[0]
        memory = (storage(value), value.storage_offset(), value.shape, value.stride())
        if first.setdefault(memory, number) != number:
            same_as[number] = first[memory]
    return same_as


def _target(node: fx.Node) -> object:
    return node.target if isinstance(node.target, str) else (getattr(node.target, "__name__", ""), id(node.target))
