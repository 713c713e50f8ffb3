"""Records what a network does to a batch, coarsely: for :mod:`zoo_harness.split`, which cuts it in two.

The record is a torch.fx graph whose tracer enters only modules that hold both frozen and trained parameters, or a
head; every other module is one step. Each step is also carried out as it is recorded, on tensors of the meta device
(which have shapes and no values) wherever the network allows, so that code which asks for a shape gets an answer, and
so that what a step does beyond its result is known: which tensors it overwrites, whether it draws random numbers,
and which operations it comes to in this mode.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class CannotSplitError(Exception):
    """The network has no cut that is sure to be right; the text says why. It never reaches a user as an error."""


class WholeNetwork(nn.Module):
    """Calls the network with the images alone: a traced ``forward`` would take its optional arguments for inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Whatever the network gives."""
        return self.network(images)


@dataclass
class Entered:
    """A module the tracer went into: the step whose result it gave, and the last step before it returned."""

    module: nn.Module
    result: fx.Node
    last: fx.Node


@dataclass
class Trace:
    """The steps of one run, in order; ``node.meta`` holds what :class:`Effects` says of each, and its ``value``."""

    root: WholeNetwork
    nodes: list[fx.Node]
    entered: list[Entered]

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a ``call_module`` step runs."""
        return self.root.get_submodule(str(node.target))


@dataclass
class Effects:
    """What a step did beyond its result; tensors that share memory are one storage."""

    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    operations: tuple[str, ...] = ()
    draws: bool = False
    changes_buffers: bool = False


def trace_network(network: nn.Module, images: Tensor, heads: set[nn.Module], undivided: set[nn.Module]) -> Trace:
    """Record one run in the modes the modules are in.

    A module whose code cannot be recorded joins ``undivided`` and becomes one step. Raises
    :class:`CannotSplitError` where that is the network itself.
    """
    while True:
        tracer = _Tracer(images, heads, undivided)
        root = WholeNetwork(network)
        try:
            with torch.no_grad():
                graph = tracer.trace(root)
        except Exception as error:  # whatever the code of a network may raise
            culprit = tracer.culprit
            if culprit is None or culprit is network or culprit in undivided:
                raise CannotSplitError(f"its forward method cannot be recorded: {_first_line(error)}") from error
            undivided.add(culprit)
        else:
            return Trace(root, [node for node in graph.nodes if node.op != "output"], tracer.entered)


@contextlib.contextmanager
def on_meta(network: nn.Module) -> Iterator[None]:
    """Give the network tensors without values while the body runs, so that running it costs and changes nothing."""
    stand_ins: dict[Tensor, Tensor] = {}

    def stand_in(tensor: Tensor) -> Tensor:
        if tensor not in stand_ins:
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            learns = isinstance(tensor, nn.Parameter)
            stand_ins[tensor] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if learns else empty
        return stand_ins[tensor]

    with contextlib.ExitStack() as originals:
        for module in network.modules():
            for tensors in (module._parameters, module._buffers):
                originals.callback(_put_back, tensors, dict(tensors))
                tensors.update({name: stand_in(tensor) for name, tensor in tensors.items() if tensor is not None})
        yield


@contextlib.contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Put flags, buffers, gradients and random states back when the body ends."""
    flags = {module: module.training for module in network.modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    state = random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(state)
        for module, training in flags.items():
            module.training = training
        put_buffers(network, buffers)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def put_buffers(network: nn.Module, saved: dict[str, Tensor]) -> None:
    """Write saved values into the buffers of the same names."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name in saved and buffer.device.type != "meta":
                buffer.copy_(saved[name])


def tensors_in(value: object) -> list[Tensor]:
    """The tensors of a nested value."""
    return [part for part in pytree.tree_leaves(value) if isinstance(part, Tensor)]


def storage(tensor: Tensor) -> int:
    """Names the memory of a tensor; views of one tensor give the same."""
    return int(tensor.untyped_storage()._cdata)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # otherwise a buffer that is written to changes while the network is traced

    def __init__(self, images: Tensor, heads: set[nn.Module], undivided: set[nn.Module]) -> None:
        super().__init__()
        self.entered: list[Entered] = []
        self.culprit: nn.Module | None = None  # the innermost module whose code failed
        self._images = images
        self._heads = heads
        self._undivided = undivided
        self._carrying_out = False
        self._last: fx.Node | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if m in self._undivided or isinstance(m, fx.GraphModule):
            return True
        trained = {parameter.requires_grad for parameter in m.parameters()}
        if trained == {True, False}:
            return False
        return self._heads.isdisjoint(part for part in m.modules() if part is not m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self._carrying_out:
            return forward(*args, **kwargs)
        if self.is_leaf_module(m, ""):
            return super().call_module(m, forward, args, kwargs)
        before = _random_states()
        try:
            result = super().call_module(m, forward, args, kwargs)
            if _random_states() != before:
                raise CannotSplitError("it draws random numbers that a recording would keep for ever")
        except Exception:
            self.culprit = self.culprit or m
            raise
        if isinstance(result, fx.Proxy) and self._last is not None:
            self.entered.append(Entered(m, result.node, self._last))
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._carrying_out else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        if kind != "output":
            self._carrying_out = True
            try:
                self._carry_out(node)
            finally:
                self._carrying_out = False
            self._last = node
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        value = obj.node.meta["value"]
        return bool(super().to_bool(obj) if isinstance(value, Tensor) else value)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        value = obj.node.meta["value"]
        if isinstance(value, (tuple, list)):
            return iter([obj[place] for place in range(len(value))])
        return iter(super().iter(obj))

    def _carry_out(self, node: fx.Node) -> None:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda given: given.meta["value"])
        effects = Effects()
        watched = {tensor: tensor._version for tensor in tensors_in((args, kwargs))}
        module = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        held = {buffer: buffer._version for buffer in module.buffers()} if module else {}
        before = random.getstate()
        with torch.random.fork_rng(devices=[]), _Listener() as listener:
            node.meta["value"] = self._result(node, args, kwargs)
        effects.reads = {storage(tensor) for tensor in watched}
        effects.writes = {storage(tensor) for tensor, version in watched.items() if tensor._version != version}
        effects.operations = tuple(listener.operations)
        effects.draws = listener.draws or random.getstate() != before
        random.setstate(before)
        effects.changes_buffers = any(buffer._version != version for buffer, version in held.items())
        node.meta["effects"] = effects

    def _result(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        match node.op:
            case "placeholder":
                return self._images
            case "get_attr":
                value: Any = self.root
                for name in str(node.target).split("."):
                    value = getattr(value, name)
                return value
            case "call_module":
                return self.root.get_submodule(str(node.target))(*args, **kwargs)
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)  # noqa: S101 - all that is left is call_function
        return node.target(*args, **kwargs)


class _Proxy(fx.Proxy):
    """Knows its length where the value has one that is no tensor's."""

    def __len__(self) -> int:
        value = self.node.meta["value"]
        if isinstance(value, Tensor):
            super().__len__()
        return len(value)


class _Listener(TorchDispatchMode):
    """Hears the operations a step comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.draws = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | (kwargs or {})
        flags = {name: value for name, value in given.items() if isinstance(value, (bool, float))}
        self.operations.append(f"{func} {flags}")
        self.draws |= _draws(func, given)
        return func(*args, **(kwargs or {}))


def _draws(func: Any, given: dict[str, Any]) -> bool:
    """Whether an operation draws random numbers: many do so only in training, or for a dropout above zero."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = {argument.name: argument.default_value for argument in func._schema.arguments} | given
    if given.get("train", given.get("training", True)) is False:
        return False
    return bool(given.get("dropout_p", given.get("dropout", True)))


def _random_states() -> tuple[object, ...]:
    return random.getstate(), torch.get_rng_state().numpy().tobytes()


def _put_back(tensors: dict[str, Any], originals: dict[str, Any]) -> None:
    tensors.clear()
    tensors.update(originals)


def _first_line(error: Exception) -> str:
    lines: Iterable[str] = str(error).strip().splitlines() or [type(error).__name__]
    return next(iter(lines))
