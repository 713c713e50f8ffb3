"""Calls of the frozen part as :mod:`zoo_harness.split_replay` knows them again, and stand-ins for their results.

A call is a module or an operation with all it is given. What it is given may hold numbers that grow with the batch;
two runs, with two and three images, tell those from constants, so that a call is known again for any number of images.
What a call gives is known then too, but for the values: shapes, memory layout, and what shares memory with what.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zoo_harness.frozen.partition.cut import BATCHES, BatchSize, memory_order, substitute
from zoo_harness.frozen.partition.side_effects import CannotSplitError, storage, tensors_in

NOBODY = -1  # for the number of a call: has written to no memory yet
IMAGES = -2  # for the number of a call: the batch of images that the network is given
_LITERALS = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.memory_format, torch.layout)


class Value(NamedTuple):
    """One tensor of a run: the call that gave it, its place in what the call gave, and the call that last wrote to it.

    The same whatever the mode and the number of images.
    """

    call: int
    place: int = 0
    writer: int = NOBODY

    @property
    def producer(self) -> int:
        """The call that made it what it is."""
        return self.call if self.writer == NOBODY else self.writer


class Memory:
    """What tensors that share memory have in common: who wrote to it last, and what the tail has read of it."""

    def __init__(self) -> None:
        self.writer = NOBODY
        self.read: list[tuple[Tensor, int]] = []
        self.tensors: list[weakref.ref[Frozen]] = []

    @property
    def overwritten(self) -> bool:
        """Whether the tail has written to it."""
        return any(tensor._version != version for tensor, version in self.read)


class Frozen(Tensor):
    """Stands for a result of the frozen part: it has its shape and no memory, and whoever wants a value gets an error.

    ``value`` is the tensor itself in runs that compute the frozen part, ``taken`` the one that the tail works with,
    once it does. ``of_images`` says whether it depends on them; one that does not always has its value.
    """

    call: int
    place: int
    memory: Memory
    owner: object
    of_images: bool
    value: Tensor | None
    taken: Tensor | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, kind: TensorKind, memory: Memory) -> Frozen:
        """Make one like a tensor of this kind."""
        stand_in: Frozen = Tensor._make_wrapper_subclass(
            cls, kind.shape, strides=kind.strides, dtype=kind.dtype, device=kind.device
        )
        stand_in.memory, stand_in.value, stand_in.taken = memory, None, None
        memory.tensors.append(weakref.ref(stand_in))
        return stand_in

    def __init__(self, *_arguments: object) -> None:
        """All is done above."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise CannotSplitError(f"{func} reads a tensor of the frozen part past those who could answer it")

    @property
    def identity(self) -> Value:
        """What it is in every run."""
        return Value(self.call, self.place, self.memory.writer)


class TensorKind(NamedTuple):
    """All of a tensor but its values; ``memory`` is the same number for tensors of one call that share theirs."""

    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    dtype: torch.dtype
    device: torch.device
    memory: int

    @property
    def in_one_piece(self) -> bool:
        """Whether it is no part of a larger piece of memory; rounding in the tail may depend on that."""
        shape, strides = at(self.shape, BATCHES[0]), at(self.strides, BATCHES[0])
        return memory_order(torch.empty_strided(shape, strides, device="meta")) is not None

    def at(self, batch: int) -> TensorKind:
        """The kind for so many images."""
        return self._replace(shape=at(self.shape, batch), strides=at(self.strides, batch))


class Input(NamedTuple):
    """The very tensor that the call was given, counted among the stand-ins of its arguments."""

    place: int


class Result(NamedTuple):
    """What a call gives: nested as ``structure`` says, of tensors, of its own inputs, and of plain values."""

    structure: pytree.TreeSpec
    parts: tuple[Any, ...]

    def at(self, batch: int) -> Result:
        """What it is for so many images."""
        return Result(self.structure, tuple(at(part, batch) for part in self.parts))


@dataclass
class Call:
    """One call of the frozen part; ``integers`` and ``results`` are those of the two batches."""

    number: int
    name: str
    of_images: bool
    weighty: bool
    inputs: tuple[Value, ...]
    integers: dict[int, tuple[int, ...]]
    results: dict[int, Result] = field(default_factory=dict)
    operations: dict[bool, tuple[str, ...]] = field(default_factory=dict)
    writes: tuple[int, ...] = ()

    def integers_at(self, batch: int) -> Any:
        """The numbers among its arguments for so many images; ``None`` where unknown."""
        if batch in self.integers or len(self.integers) < len(BATCHES):
            return self.integers.get(batch)
        return at(substitute(*(self.integers[size] for size in BATCHES)), batch)

    def result(self) -> Result | None:
        """What it gives for any number of images; ``None`` where two recordings do not tell."""
        if len(self.results) < len(BATCHES):
            return None
        small, large = (self.results[size] for size in BATCHES)
        if small.structure != large.structure:
            return None
        parts = tuple(map(_template, small.parts, large.parts))
        return None if _UNKNOWN in parts else Result(small.structure, parts)

    def row_bytes(self, place: int) -> float:
        """Bytes that a tensor it gives takes for one image; infinite for what is not one row for each image."""
        result = self.result()
        kind = result.parts[place] if result else None
        if not isinstance(kind, TensorKind) or kind.shape[:1] != (BatchSize(1),):
            return math.inf
        if any(isinstance(length, BatchSize) for length in kind.shape[1:]) or not (self.weighty or kind.in_one_piece):
            return math.inf
        return int(torch.Size(kind.shape[1:]).numel()) * kind.dtype.itemsize


class Calls:
    """The calls that are known."""

    def __init__(self) -> None:
        self.all: list[Call] = []
        self._alike: dict[Hashable, list[Call]] = {}

    def find(self, given: Arguments, what: Hashable, batch: int) -> Call | None:
        """The call of this module or operation with these arguments, for so many images."""
        integers = tuple(given.integers)
        alike = self._alike.get((what, given.key), ())
        return next((call for call in alike if call.integers_at(batch) == integers), None)

    def find_or_add(self, given: Arguments, what: Hashable, batch: int, *, name: str, weighty: bool) -> Call | None:
        """The same; it is new if it was not known for the smaller batch.

        A call with the larger batch that has no like with the smaller one raises :class:`CannotSplitError`, or is
        ``None`` where it does not depend on the images.
        """
        call = self.find(given, what, batch)
        if call is not None:
            return call
        integers = tuple(given.integers)
        alike = self._alike.setdefault((what, given.key), [])
        if batch == BATCHES[0]:
            inputs = tuple(part.identity for part in given.frozen if part.of_images)
            call = Call(len(self.all), name, bool(inputs), weighty, inputs, {batch: integers})
            self.all.append(call)
            alike.append(call)
            return call
        for call in alike:
            if batch not in call.integers and substitute(call.integers[BATCHES[0]], integers) is not None:
                call.integers[batch] = integers
                return call
        if any(part.of_images for part in given.frozen):
            raise CannotSplitError(DEPENDS_ON_NUMBER)
        return None


DEPENDS_ON_NUMBER = "what it does depends on the number of images"


class Arguments:
    """What a call is given, taken apart: stand-ins, whole numbers, and a key of all the rest.

    ``fits`` says whether all of it is of the frozen part, so that the call may be answered.
    """

    def __init__(self, constants: dict[int, str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.frozen: list[Frozen] = []
        self.integers: list[int] = []
        self.fits = True
        self.reads_weights = False
        self._constants = constants
        self.key = (self._key(args), self._key(kwargs))

    def _key(self, value: Any) -> Hashable:
        if isinstance(value, Tensor):
            return self._key_of_tensor(value)
        if isinstance(value, (tuple, list)):
            return tuple(map(self._key, value))
        if isinstance(value, dict):
            return tuple((repr(name), self._key(part)) for name, part in value.items())
        if isinstance(value, slice):
            return ("slice", self._key(value.start), self._key(value.stop), self._key(value.step))
        if isinstance(value, int) and not isinstance(value, bool):
            self.integers.append(value)
            return int
        if value is Ellipsis or isinstance(value, _LITERALS):
            return (type(value), value)
        self.fits = False  # nobody knows what it is
        return None

    def _key_of_tensor(self, tensor: Tensor) -> Hashable:
        if isinstance(tensor, Frozen):
            self.frozen.append(tensor)
            self.fits &= not tensor.memory.overwritten
            return tensor.identity
        if id(tensor) in self._constants:
            self.reads_weights = True
            return self._constants[id(tensor)]
        self.fits = False
        return None


def replace(value: Any, change: Callable[[Frozen], Any]) -> Any:
    """Arguments with something else for each stand-in in them."""
    if isinstance(value, Frozen):
        return change(value)
    if isinstance(value, (tuple, list)) and holds_frozen(value):
        parts = [replace(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict) and holds_frozen(value):
        return type(value)({name: replace(part, change) for name, part in value.items()})
    return value


def holds_frozen(value: Any) -> bool:
    """Whether there is a stand-in in a nested value."""
    return any(isinstance(tensor, Frozen) for tensor in tensors_in(value))


def describe_result(result: Any, given: Sequence[Frozen]) -> Result:
    """What a call gave, where these are the stand-ins it was given."""
    leaves, structure = pytree.tree_flatten(result)
    distinct = list(dict.fromkeys(stand_in.memory for stand_in in given))
    memories: dict[int, int] = {}
    for stand_in in given:
        memories.setdefault(storage(_value(stand_in)), distinct.index(stand_in.memory))

    def part(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf if isinstance(leaf, (*_LITERALS, torch.Size)) else _UNKNOWN
        for place, stand_in in enumerate(given):
            if leaf is stand_in.value:
                return Input(place)
        memory = memories.setdefault(storage(leaf), len(distinct) + len(memories))
        return TensorKind(tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device, memory)

    return Result(structure, tuple(map(part, leaves)))


def _value(stand_in: Frozen) -> Tensor:
    assert stand_in.value is not None  # noqa: S101 - of a run that computes the frozen part
    return stand_in.value


def at(template: Any, batch: int) -> Any:
    """What a value comes to for so many images.

    >>> at((BatchSize(64), 7, "valid"), 3)
    (192, 7, 'valid')
    """
    match template:
        case BatchSize(times):
            return times * batch
        case TensorKind():
            return template.at(batch)
        case tuple() if type(template) is tuple:
            return tuple(at(part, batch) for part in template)
    return template


_UNKNOWN = object()


def _template(small: Any, large: Any) -> Any:
    if isinstance(small, TensorKind) and isinstance(large, TensorKind):
        shape, strides = substitute(small.shape, large.shape), substitute(small.strides, large.strides)
        same = small[2:] == large[2:] and shape is not None and strides is not None
        return small._replace(shape=shape, strides=strides) if same else _UNKNOWN
    if type(small) is not type(large) or small is _UNKNOWN:
        return _UNKNOWN
    if isinstance(small, (int, torch.Size)) and not isinstance(small, bool):
        template = substitute(small, large)
        return _UNKNOWN if template is None else template
    return small if small == large else _UNKNOWN
