"""Chooses where a recorded network is cut, for :mod:`zoo_harness.split`: what is computed once, what every time.

Steps of several recordings are the same if they run the same operation on the same inputs; such a step has one
number. Five rules decide which steps belong to the tail:

- what reads a parameter that trains, draws random numbers or changes its own buffers;
- what is done in one mode alone (training or inference), so dropout in every form;
- what comes after any of these, whether it reads their result or memory they wrote to; and what overwrites memory
  that a step of the tail reads before it;
- then, from the frontier towards the images, steps without weights, where storing what they read takes no more memory
  than storing what they give, and steps that do not depend on the images at all;
- and whatever gives something that cannot be kept image by image.

What the tail then reads from outside is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from zoo_harness.frozen.partition.side_effects import CannotSplitError, storage, tensors_in
from zoo_harness.frozen.partition.trace import Effects, Trace

BATCHES = (2, 3)  # of the two recordings in each mode: what differs depends on the number of images


@dataclass(frozen=True)
class BatchSize:
    """An integer that is so many times the number of images."""

    times: int


@dataclass(frozen=True)
class SameDevice:
    """The device of what is kept."""


@dataclass
class Step:
    """One numbered step: what it reads, as numbers, and what it gives for each of the two batches."""

    node: fx.Node
    inputs: frozenset[int]
    writers: frozenset[int]
    values: tuple[Any, Any]
    trained: bool
    weighty: bool
    of_images: bool = False

    @property
    def effects(self) -> Effects:
        """What it does beyond its result."""
        effects: Effects = self.node.meta["effects"]
        return effects

    @property
    def needs(self) -> frozenset[int]:
        """The steps whose result it reads, and those that wrote to the memory of what it reads."""
        return self.inputs | self.writers


@dataclass
class Mode:
    """The recordings of one mode: the first of them, and the numbers of its steps, in order."""

    trace: Trace
    numbers: dict[fx.Node, int]


@dataclass
class Cut:
    """Numbers of the steps whose results are kept, of those that compute them, and of the tail."""

    kept: list[int]
    prefix: set[int]
    tail: set[int]
    steps: dict[int, Step]
    same_as: dict[int, int]

    def substitute(self, number: int) -> Any:
        """What the tail uses for a value of the prefix that is no tensor; see :func:`substitute`."""
        return substitute(*self.steps[number].values)


class Numbering:
    """Gives the same number to the same step of several recordings."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        self._numbers: dict[object, int] = {}

    def add(self, traces: tuple[Trace, Trace]) -> Mode:
        """Number the two recordings of one mode, which must do the same."""
        small, large = (self._number(trace) for trace in traces)
        if [number for _node, number, _key in small] != [number for _node, number, _key in large]:
            raise CannotSplitError("what it does depends on the number of images")
        for (node, number, (inputs, writers)), (other, _number, _key) in zip(small, large, strict=True):
            if number not in self.steps:
                trained, weighty = _weights(traces[0], node)
                values = (node.meta["value"], other.meta["value"])
                self.steps[number] = Step(node, inputs, writers, values, trained, weighty)
        return Mode(traces[0], {node: number for node, number, _key in small})

    def _number(self, trace: Trace) -> list[tuple[fx.Node, int, tuple[frozenset[int], frozenset[int]]]]:
        numbers: dict[fx.Node, int] = {}
        writers: dict[int, list[int]] = {}
        numbered = []
        for node in trace.nodes:
            effects: Effects = node.meta["effects"]
            inputs = frozenset(numbers[given] for given in node.all_input_nodes)
            wrote = frozenset(writer for place in effects.reads for writer in writers.get(place, ()))
            given = fx.map_arg((node.args, node.kwargs), lambda read: f"<step {numbers[read]}>")
            key = (node.op, _target(node), repr(given), tuple(sorted(wrote)), effects.operations)
            numbers[node] = self._numbers.setdefault(key, len(self._numbers))
            for place in effects.writes:
                writers.setdefault(place, []).append(numbers[node])
            numbered.append((node, numbers[node], (inputs, wrote)))
        return numbered


def choose_cut(modes: tuple[Mode, Mode], steps: dict[int, Step]) -> Cut:
    """Cut both modes at one place. Raises :class:`CannotSplitError` where nothing is won."""
    _mark_what_depends_on_images(steps)
    tail = _required(modes, steps)
    if not tail:
        raise CannotSplitError("nothing that trains runs")
    frontier = _pull_back(modes, steps, tail)
    kept = sorted(number for number in frontier if substitute(*steps[number].values) is None)
    writers = {writer for number in tail for writer in steps[number].writers}
    prefix = _with_what_they_need({*kept, *(writers - tail)}, steps)
    if not any(steps[number].weighty for number in prefix):
        raise CannotSplitError("nothing that is frozen runs before what trains")
    if not kept:
        raise CannotSplitError("what trains does not depend on the images")
    same_as = _aliases(kept, steps)
    return Cut([number for number in kept if number not in same_as], prefix, tail, steps, same_as)


def substitute(small: Any, large: Any) -> Any:
    """What stands for a value in the tail, given the values for batches of 2 and 3; ``None`` if it must be kept.

    >>> substitute(torch.Size([2, 196, 384]), torch.Size([3, 196, 384]))
    (BatchSize(times=1), 196, 384)
    >>> substitute(128, 192), substitute(7, 7), substitute(torch.zeros(2), torch.zeros(3))
    (BatchSize(times=64), 7, None)
    """
    if isinstance(small, torch.device):
        return SameDevice()
    if isinstance(small, (tuple, list)) and isinstance(large, (tuple, list)) and len(small) == len(large):
        parts = tuple(map(substitute, small, large))
        return None if None in parts else parts
    if isinstance(small, (bool, str, float)):
        return small if small == large else None
    if not isinstance(small, int):
        return None
    times = large - small
    return small if not times else BatchSize(times) if small == BATCHES[0] * times else None


def memory_order(values: Tensor) -> tuple[int, ...] | None:
    """Dimensions from the outermost in memory to the innermost; ``None`` for a part of a larger piece of memory.

    >>> images = torch.zeros(2, 3, 5, 5).to(memory_format=torch.channels_last)
    >>> memory_order(images), memory_order(images[:, 1:])
    ((0, 2, 3, 1), None)
    """
    strides = values.stride()
    order = sorted(range(values.dim()), key=lambda dimension: (-strides[dimension], dimension))
    return tuple(order) if values.permute(order).is_contiguous() else None


def _weights(trace: Trace, node: fx.Node) -> tuple[bool, bool]:
    """Whether a step reads a parameter that trains itself, and whether it reads any weights."""
    if node.op == "get_attr":
        value = node.meta["value"]
        return isinstance(value, Tensor) and value.requires_grad, False
    if node.op != "call_module":
        return False, any(given.op == "get_attr" for given in node.all_input_nodes)
    module = trace.module(node)
    trained = any(parameter.requires_grad for parameter in module.parameters())
    return trained, any(True for _tensor in (*module.parameters(), *module.buffers()))


def _mark_what_depends_on_images(steps: dict[int, Step]) -> None:
    for number in sorted(steps):  # a step's number is larger than those of its inputs
        step = steps[number]
        from_images = step.node.op == "placeholder" or any(steps[given].of_images for given in step.needs)
        step.of_images = from_images and bool(tensors_in(step.values[0]))


def _required(modes: tuple[Mode, Mode], steps: dict[int, Step]) -> set[int]:
    both = set(modes[0].numbers.values()) & set(modes[1].numbers.values())
    tail = {
        number
        for number, step in steps.items()
        if number not in both or step.trained or step.effects.draws or step.effects.changes_buffers
    }
    while True:
        before = len(tail)
        for mode in modes:
            _close(mode, steps, tail)
        if len(tail) == before:
            return tail


def _close(mode: Mode, steps: dict[int, Step], tail: set[int]) -> None:
    """Add to the tail what comes after it, and what overwrites what it has read."""
    read_by_tail: set[int] = set()
    for node, number in mode.numbers.items():
        effects: Effects = node.meta["effects"]
        if steps[number].needs & tail or effects.writes & read_by_tail:
            tail.add(number)
        if number in tail:
            read_by_tail |= effects.reads


def _pull_back(modes: tuple[Mode, Mode], steps: dict[int, Step], tail: set[int]) -> set[int]:
    """Move steps into the tail where that costs no memory; return what the tail then reads."""
    overwritten = _overwritten_later(modes, tail)
    required = set(tail)
    while True:
        frontier = _frontier(steps, tail)
        moved = next((n for n in sorted(frontier, reverse=True) if _moves(n, steps, frontier, tail, overwritten)), None)
        # What writes to memory that a moved step gives moves with it.
        written = {n for number in tail for n in steps[number].writers - tail if steps[n].inputs & tail}
        if moved is None and not written:
            break
        tail |= written if moved is None else {moved}
    while given_back := next((n for n in sorted(tail - required) if _won_nothing(n, steps, tail)), None):
        tail.remove(given_back)
    return _frontier(steps, tail)


def _frontier(steps: dict[int, Step], tail: set[int]) -> set[int]:
    return {given for number in tail for given in steps[number].inputs} - tail


def _won_nothing(number: int, steps: dict[int, Step], tail: set[int]) -> bool:
    """Whether what a moved step gives could as well be kept: nothing else in the tail reads what it reads."""
    step = steps[number]
    elsewhere = {given for other in tail - {number} for given in steps[other].inputs}
    read = {given for given in step.inputs if steps[given].of_images}
    return step.of_images and read.isdisjoint(tail | elsewhere) and _cost(step) <= sum(_cost(steps[n]) for n in read)


def _moves(number: int, steps: dict[int, Step], frontier: set[int], tail: set[int], overwritten: set[int]) -> bool:
    step = steps[number]
    if step.node.op == "placeholder":
        return False
    if substitute(*step.values) is not None:
        return False
    cost = _cost(step)
    if cost == math.inf or not step.of_images:
        return True
    if step.weighty or step.effects.writes or number in overwritten:
        return False
    return sum(_cost(steps[given]) for given in step.inputs - tail - frontier) <= cost


def _overwritten_later(modes: tuple[Mode, Mode], tail: set[int]) -> set[int]:
    """Steps that read memory which the prefix writes to later: done again in the tail they would read that."""
    found: set[int] = set()
    for mode in modes:
        written: set[int] = set()
        for node in reversed(mode.trace.nodes):
            effects: Effects = node.meta["effects"]
            if effects.reads & written:
                found.add(mode.numbers[node])
            if mode.numbers[node] not in tail:
                written |= effects.writes
    return found


def _cost(step: Step) -> float:
    """Bytes an image takes where this is kept; infinite for what is not one row for each image."""
    if substitute(*step.values) is not None:
        return 0
    small, large = step.values
    if not step.of_images:
        return 0
    if not isinstance(small, Tensor) or (small.shape[:1], large.shape[:1]) != ((BATCHES[0],), (BATCHES[1],)):
        return math.inf
    if small.shape[1:] != large.shape[1:] or not (step.weighty or memory_order(small)):
        return math.inf
    return small[0].numel() * small.element_size()


def _with_what_they_need(wanted: Iterable[int], steps: dict[int, Step]) -> set[int]:
    found: set[int] = set()
    waiting = list(wanted)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += steps[number].needs
    return found


def _aliases(kept: list[int], steps: dict[int, Step]) -> dict[int, int]:
    """Of kept results that are one piece of memory, each but the first, with the first."""
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
