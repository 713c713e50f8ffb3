"""One run of a network's own ``forward`` that tells its frozen part from its tail, for :mod:`zoo_harness.split_replay`.

Everything that depends on no tensor that trains is a call of the frozen part: a module without parameters that train,
or an operation of torch. Its results go through the code of the network as stand-ins. Whatever else meets a stand-in
belongs to the tail, gets the tensor itself, and is done for real, with its gradients and its random numbers.

- :class:`Recording` computes the frozen part, and notes what it does and which of its results the tail reads;
- :class:`Computing` computes it for what is to be kept, and stops when it has that;
- :class:`Answering` computes nothing of it: results come from what is kept.

Once the code of the network looks at a value of the tail it may do anything, so from there on all is done for real.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily
from torch.utils import _pytree as pytree

from zoo_harness.frozen.partition.replay_calls import (
    IMAGES,
    Arguments,
    Call,
    Calls,
    Frozen,
    Input,
    Memory,
    Result,
    TensorKind,
    Value,
    describe_result,
    holds_frozen,
    replace,
)
from zoo_harness.frozen.partition.side_effects import CannotSplitError, random_states, tensors_in
from zoo_harness.frozen.partition.trace import Listener
from zoo_harness.models.tuned_network import TunedNetwork

_CALLED_FIRST = "_compiled_call_impl"

# What Python code may go by: values, or a length that depends on them.
_LOOKS = {"__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__", "item", "tolist", "numpy"} | {
    "equal", "allclose", "is_nonzero", "nonzero", "unique", "argwhere", "masked_select",
}  # fmt: skip

_REFUSED = {"requires_grad_", "__set__", "register_hook", "retain_grad", "set_", "data_ptr", "untyped_storage"}


class UnforeseenError(CannotSplitError):
    """The network does what it did not while it was recorded; a trial finds it out, or else a run ends."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}, which it did not while it was looked at")


@dataclass(frozen=True)
class Asked:
    """What the code of the network asks for: ``run`` does it, with arguments and keyword arguments.

    ``held`` are the parameters and buffers of a module, and ``None`` for an operation.
    """

    what: Hashable
    name: str
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    given: Arguments
    run: Callable[..., Any]
    held: Collection[Tensor] | None = None

    @property
    def weighty(self) -> bool:
        """Whether weights have to do with it."""
        return bool(self.held) or self.given.reads_weights

    def done(self, change: Callable[[Frozen], Any]) -> Any:
        """Its result, with something else for the stand-ins among its arguments."""
        args, kwargs = (replace(part, change) for part in self.arguments)
        return self.run(*args, **kwargs)


@dataclass
class Plan:
    """What is known of a network: its calls, which of them the tail does for real, and tensors that never change.

    ``queries`` are operations that ask a tensor for its shape and the like, and those that are known not to.
    """

    tuned: TunedNetwork
    calls: Calls = field(default_factory=Calls)
    in_tail: set[int] = field(default_factory=set)
    queries: dict[Any, bool] = field(default_factory=dict)
    constants: dict[int, str] = field(init=False)
    kinds: dict[nn.Module, str] = field(init=False)
    held: dict[nn.Module, tuple[Tensor, ...]] = field(init=False)
    paths: dict[nn.Module, str] = field(init=False)

    def __post_init__(self) -> None:
        network = self.tuned.network
        self.paths = {module: path for path, module in network.named_modules()}
        self.kinds = {module: _kind(module) for module in self.paths}
        self.held = {module: (*module.parameters(), *module.buffers()) for module in self.paths}
        tensors = (*network.named_parameters(), *network.named_buffers())
        self._alive = [tensor for _name, tensor in tensors]  # so that no other tensor gets the id of one of them
        self.constants = {id(tensor): name for name, tensor in tensors if not tensor.requires_grad}


def _kind(module: nn.Module) -> str:
    trained = {parameter.requires_grad for parameter in module.parameters()}
    return "mixed" if len(trained) == 2 else "trained" if trained == {True} else "frozen"


def _value_of(stand_in: Frozen) -> Tensor:
    assert stand_in.value is not None  # noqa: S101 - of a pass that computes the frozen part
    return stand_in.value


class Pass(TorchFunctionMode):
    """One run with so many images; see the module."""

    def __init__(self, plan: Plan, batch: int) -> None:
        super().__init__()
        self.plan = plan
        self.batch = batch
        self._looked = False
        self._inside = False

    def run(self, kind: TensorKind, images: Tensor | None) -> tuple[Tensor, ...]:
        """Logits of every head; ``kind`` is that of the images, which may be absent where nobody computes with them."""
        stand_in = self._stand_in(kind, Memory(), IMAGES, 0, of_images=True, value=images)
        self._made([stand_in])
        with self._module_calls(), self:
            logits = self.plan.tuned.logits(stand_in)
        if holds_frozen(logits):
            raise CannotSplitError("a head gives something that does not train")
        return logits

    # What a pass does with a call of the frozen part.

    def _find(self, asked: Asked) -> Call | None:
        return self.plan.calls.find(asked.given, asked.what, self.batch)

    def _do(self, call: Call, asked: Asked) -> Any:
        """Carry out a call of the frozen part, of which every value is there."""
        result = asked.done(_value_of)
        return self._wrapped(call, asked.given, describe_result(result, asked.given.frozen), result)

    def _made(self, stand_ins: list[Frozen]) -> None:
        """Hear of new stand-ins, and of those whose memory has just been written to."""

    def _value(self, stand_in: Frozen) -> Tensor:
        """The tensor that the tail reads."""
        return _value_of(stand_in)

    def _look(self, asked: Asked) -> None:  # noqa: ARG002
        """The code of the network looks at a value of the tail."""
        self._looked = True

    # The machinery.

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", type(func).__name__)
        asked = Asked(func, name, (args, kwargs), self._arguments(args, kwargs), self._undisturbed(func))
        if asked.given.frozen:
            if name in _REFUSED:
                raise CannotSplitError(f"its forward method uses {name} on a tensor of the frozen part")
            found, answer = self._queried(func, args, kwargs)
            if found:
                return answer
        if asked.given.fits and not self._looked:
            return self._frozen(asked)
        if name in _LOOKS:
            self._look(asked)
        return asked.done(self._real)

    def _module(self, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        kind = self.plan.kinds[module]
        if kind == "mixed" or self._inside:
            return original(*args, **kwargs)
        with self._aside():
            path = self.plan.paths[module]
            asked = Asked(path, path, (args, kwargs), self._arguments(args, kwargs), original, self.plan.held[module])
            if kind == "trained" or not asked.given.fits or self._looked:
                return asked.done(self._real)
            return self._frozen(asked)

    def _frozen(self, asked: Asked) -> Any:
        call = self._find(asked)
        if call is None or call.number in self.plan.in_tail:
            return asked.done(self._real)
        if any(asked.given.frozen[place].memory.read for place in call.writes):
            return asked.done(self._real)  # what has read it would not see it change
        return self._do(call, asked)

    def _real(self, stand_in: Frozen) -> Tensor:
        """The tensor itself, which is the tail's from now on."""
        memory = stand_in.memory
        if memory.overwritten and (stand_in.taken is None or len(memory.read) > 1):
            raise CannotSplitError("what trains overwrites memory that tensors of the frozen part share")
        if stand_in.taken is None:
            stand_in.taken = self._value(stand_in)
            memory.read.append((stand_in.taken, stand_in.taken._version))
        return stand_in.taken

    def _queried(self, func: Any, args: Any, kwargs: Any) -> tuple[bool, Any]:
        """Whether an operation asks for a shape or the like, which a stand-in knows too, and the answer."""
        known = self.plan.queries.get(func)
        if known:
            return True, func(*args, **kwargs)
        if known is None:
            try:
                answer = func(*args, **kwargs)
            except Exception:  # it wants more than a stand-in has
                self.plan.queries[func] = False
            else:
                self.plan.queries[func] = not tensors_in(answer)
                return self.plan.queries[func], answer
        return False, None

    def _wrapped(self, call: Call, given: Arguments, result: Result, values: Any) -> Any:
        """A result of the frozen part with stand-ins for the tensors in it; ``values`` has the tensors, if any."""
        leaves = pytree.tree_leaves(values) if values is not None else [None] * len(result.parts)
        memories = dict(enumerate(dict.fromkeys(stand_in.memory for stand_in in given.frozen)))
        written = {given.frozen[place].memory for place in call.writes}
        for memory in written:
            memory.writer = call.number
        made = [stand_in for memory in written for weak in memory.tensors if (stand_in := weak()) is not None]
        parts: list[Any] = []
        for place, (part, leaf) in enumerate(zip(result.parts, leaves, strict=True)):
            match part:
                case Input():
                    parts.append(given.frozen[part.place])
                case TensorKind():
                    memory = memories.setdefault(part.memory, Memory())
                    parts.append(self._stand_in(part, memory, call.number, place, of_images=call.of_images, value=leaf))
                    made.append(parts[-1])
                case _:
                    parts.append(part if leaf is None else leaf)
        self._made(made)
        return pytree.tree_unflatten(parts, result.structure)

    def _stand_in(
        self, kind: TensorKind, memory: Memory, call: int, place: int, *, of_images: bool, value: Tensor | None
    ) -> Frozen:
        stand_in = Frozen(kind, memory)
        stand_in.call, stand_in.place, stand_in.of_images = call, place, of_images
        stand_in.owner, stand_in.value = self, value
        return stand_in

    def _arguments(self, args: Any, kwargs: Any) -> Arguments:
        given = Arguments(self.plan.constants, args, kwargs)
        if any(stand_in.owner is not self for stand_in in given.frozen):
            raise CannotSplitError("its forward method keeps tensors from one call to the next")
        return given

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """A module is to run as if nobody listened: torch has faster kernels then, which round in another way."""
        on_top = _get_current_function_mode() is self
        with self._working(), _pop_mode_temporarily() if on_top else contextlib.nullcontext():
            yield

    def _undisturbed(self, func: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._working():
                return func(*args, **kwargs)

        return run

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        """While a call is carried out, what happens in it is nobody's business."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    @contextlib.contextmanager
    def _module_calls(self) -> Iterator[None]:
        """Hear of every call of a module, which torch tells no mode.

        Each module gets an attribute of torch that comes first when it is called. Another ``__call__`` of their class
        would cost milliseconds: Python then forgets what it knows of a thousand classes.
        """
        before = {module: module.__dict__.get(_CALLED_FIRST) for module in self.plan.kinds}
        for module, compiled in before.items():
            module.__dict__[_CALLED_FIRST] = functools.partial(self._module, compiled or module._call_impl, module)
        try:
            yield
        finally:
            for module, compiled in before.items():
                if compiled is None:
                    del module.__dict__[_CALLED_FIRST]
                else:
                    module.__dict__[_CALLED_FIRST] = compiled


class Recording(Pass):
    """Computes everything; ``seen`` are the calls of the frozen part, ``read`` the results of it that the tail reads.

    ``written`` are those of them whose memory somebody wrote to later, ``reached`` the modules that the tail runs,
    ``changed`` the buffers that have changed.
    """

    def __init__(self, plan: Plan, batch: int, *, training: bool) -> None:
        super().__init__(plan, batch)
        self.training = training
        self.seen: set[int] = set()
        self.read: set[Value] = set()
        self.reached: dict[nn.Module, bool] = {}
        self.changed: dict[str, Tensor] = {}
        self._read_at: dict[Value, tuple[Tensor, int]] = {}
        self._stand_ins: list[weakref.ref[Frozen]] = []
        self._drawn: dict[int, Tensor] = {}
        self._answerable = False

    @property
    def written(self) -> set[Value]:
        """Of what the tail reads, that which is written to later."""
        return {identity for identity, (tensor, version) in self._read_at.items() if tensor._version != version}

    def _find(self, asked: Asked) -> Call | None:
        calls = self.plan.calls
        call = calls.find_or_add(asked.given, asked.what, self.batch, name=asked.name, weighty=asked.weighty)
        if call is not None and call.of_images:
            self.seen.add(call.number)
        return call

    def _do(self, call: Call, asked: Asked) -> Any:
        frozen = asked.given.frozen
        versions = [_value_of(stand_in)._version for stand_in in frozen]
        result, fits = self._watched(call, asked)
        call.writes = tuple(n for n, stand_in in enumerate(frozen) if _value_of(stand_in)._version != versions[n])
        if not fits or any(frozen[place].memory.read for place in call.writes):
            self.plan.in_tail.add(call.number)
            for stand_in, version in zip(frozen, versions, strict=True):
                self._note_read(stand_in, version)
            return result
        if asked.held is None and not tensors_in(result) and not call.writes:
            if call.of_images:
                raise CannotSplitError("its forward method decides by the values of a tensor of the frozen part")
            return result
        call.results[self.batch] = describe_result(result, frozen)
        return self._wrapped(call, asked.given, call.results[self.batch], result)

    def _watched(self, call: Call, asked: Asked) -> tuple[Any, bool]:
        """What a call gives, and whether that is all it does: it draws nothing at random, and changes no buffers."""
        args, kwargs = (replace(part, _value_of) for part in asked.arguments)
        own = [tensor for tensor in tensors_in(asked.arguments) if not isinstance(tensor, Frozen)]
        versions = {tensor: tensor._version for tensor in (*own, *(asked.held or ()))}
        before, states = pytree.tree_leaves((args, kwargs)), random_states()
        self._answerable = True
        try:
            with Listener() as listener:
                result = asked.run(*args, **kwargs)
        finally:
            self._answerable = False
        after = pytree.tree_leaves((args, kwargs))
        if len(before) != len(after) or any(one is not other for one, other in zip(before, after, strict=True)):
            raise CannotSplitError(f"{call.name!r} changes a list that it is given")
        call.operations[self.training] = tuple(listener.operations)
        changed = [tensor for tensor, version in versions.items() if tensor._version != version]
        for tensor in changed:
            self.plan.constants.pop(id(tensor), None)
        return result, not (changed or listener.draws or random_states() != states)

    def _note_read(self, stand_in: Frozen, version: int) -> None:
        """The tail reads it, and may have written to it since that version."""
        if stand_in.taken is None:
            stand_in.taken = _value_of(stand_in)
            stand_in.memory.read.append((stand_in.taken, version))
            if stand_in.of_images:
                self.read.add(stand_in.identity)
                self._read_at[stand_in.identity] = (stand_in.taken, version)

    def _value(self, stand_in: Frozen) -> Tensor:
        value = _value_of(stand_in)
        if stand_in.of_images:
            self.read.add(stand_in.identity)
            self._read_at[stand_in.identity] = (value, value._version)
        return value

    def _made(self, stand_ins: list[Frozen]) -> None:
        self._stand_ins += map(weakref.ref, stand_ins)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if isinstance(result, Tensor) and not isinstance(result, Frozen) and self._random(tensors_in((args, kwargs))):
            self._drawn[id(result)] = result
        return result

    def _random(self, tensors: list[Tensor]) -> bool:
        """Whether there is nothing but constants and random numbers."""
        constants, drawn = self.plan.constants, self._drawn
        return not any(
            tensor.of_images if isinstance(tensor, Frozen) else id(tensor) not in constants and id(tensor) not in drawn
            for tensor in tensors
        )

    def _look(self, asked: Asked) -> None:
        """What is alive where random numbers decide counts as read: another time it may be."""
        if not self._looked and self._random(tensors_in(asked.arguments)):
            alive = [stand_in for weak in self._stand_ins if (stand_in := weak()) is not None]
            for stand_in in alive:
                if stand_in.of_images and stand_in.call != IMAGES and stand_in.taken is None:
                    self.read.add(stand_in.identity)
        super()._look(asked)

    def _module(self, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = super()._module(original, module, *args, **kwargs)
        self.reached[module] = not self._answerable and not holds_frozen(result)
        return result


class EnoughError(BaseException):
    """All that is kept has been computed; no ``except Exception`` of a network stops it."""


class Computing(Pass):
    """Computes the frozen part; ``found`` fills with what is ``wanted`` of it, and then the run ends."""

    def __init__(self, plan: Plan, batch: int, wanted: Collection[Value], copied: Collection[Value]) -> None:
        super().__init__(plan, batch)
        self.found: dict[Value, Tensor] = {}
        self._wanted = wanted
        self._copied = copied

    def _do(self, call: Call, asked: Asked) -> Any:
        result = asked.done(_value_of)
        described, expected = describe_result(result, asked.given.frozen), call.result()
        if call.of_images and (expected is None or expected.at(self.batch) != described):
            raise UnforeseenError(f"{call.name!r} gives results of another kind")
        return self._wrapped(call, asked.given, described, result)

    def _made(self, stand_ins: list[Frozen]) -> None:
        for stand_in in stand_ins:
            if stand_in.of_images and stand_in.identity in self._wanted:
                value = _value_of(stand_in)
                self.found[stand_in.identity] = value.clone() if stand_in.identity in self._copied else value
        if len(self.found) == len(self._wanted):
            raise EnoughError


class Answering(Pass):
    """Computes the tail alone, from what is ``kept``; what it writes to is copied first."""

    def __init__(self, plan: Plan, batch: int, kept: dict[Value, Tensor], copied: Collection[Value]) -> None:
        super().__init__(plan, batch)
        self._kept = kept
        self._copied = copied

    def _do(self, call: Call, asked: Asked) -> Any:
        if not call.of_images:
            return super()._do(call, asked)
        result = call.result()
        if result is None:
            raise UnforeseenError(f"it calls {call.name!r}")
        return self._wrapped(call, asked.given, result.at(self.batch), None)

    def _value(self, stand_in: Frozen) -> Tensor:
        if not stand_in.of_images:
            return super()._value(stand_in)
        identity = stand_in.identity
        if identity not in self._kept:
            calls = self.plan.calls.all
            read = "the images" if identity.call == IMAGES else f"the result of {calls[identity.producer].name!r}"
            raise UnforeseenError(f"its part that trains reads {read}")
        return self._kept[identity].clone() if identity in self._copied else self._kept[identity]
