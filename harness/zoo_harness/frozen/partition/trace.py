"""Records a run of a network as a torch.fx graph of coarse steps.

The tracer enters only modules that hold both frozen and trained parameters, or a head; every other module is one step.
Each step is also run as it is recorded, on the meta device (tensors with shapes and without values) if the network
allows. So code that reads a shape gets one, and the side effects of a step are known: the tensors it overwrites,
whether it draws random numbers, and the operations it executes in this mode.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from zoo_harness.frozen.partition.side_effects import (
    CannotPartitionError,
    one_line,
    preserve_attributes,
    preserve_random_states,
    random_states,
    restore_dict,
    storage,
    tensors_in,
)

# Torch.fx misses calls of these whose size is several integers, one of them a proxy.
FACTORIES = (torch.arange, torch.empty, torch.full, torch.ones, torch.rand, torch.randint, torch.randn, torch.zeros)


class ImagesOnly(nn.Module):
    """Call the network with the images alone: a traced ``forward`` would take its optional arguments for inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return the output of the network."""
        return self.network(images)


@dataclass
class EnteredModule:
    """Hold a module that the tracer went into, the step whose result it returned, and the last step before that."""

    module: nn.Module
    result: fx.Node
    last: fx.Node


@dataclass
class Trace:
    """Hold the steps of one run, in order; ``node.meta`` has the ``effects`` and the ``value`` of each."""

    root: ImagesOnly
    nodes: list[fx.Node]
    entered: list[EnteredModule]

    def module(self, node: fx.Node) -> nn.Module:
        """Return the module that a ``call_module`` step runs."""
        return self.root.get_submodule(str(node.target))


@dataclass(frozen=True)
class Effects:
    """Hold the side effects of a step; tensors that share memory are one storage."""

    reads: set[int]
    writes: set[int]
    operations: tuple[str, ...]
    draws: bool
    changes_buffers: bool


def trace_network(network: nn.Module, images: Tensor, heads: set[nn.Module], opaque: set[nn.Module]) -> Trace:
    """Record one run in the modes the modules are in.

    A module whose code cannot be recorded joins ``opaque`` and becomes one step. Raises
    :class:`CannotPartitionError` if that is the network itself.
    """
    while True:
        tracer = _Tracer(images, heads, opaque)
        root = ImagesOnly(network)
        try:
            with torch.no_grad(), preserve_attributes(network), _guard_compiled_code():
                graph = tracer.trace(root)
        except Exception as error:  # whatever the code of a network may raise
            culprit = tracer.culprit
            if culprit is None or culprit is network or culprit in opaque:
                raise CannotPartitionError(_reason(error)) from error
            opaque.add(culprit)
        else:
            return Trace(root, [node for node in graph.nodes if node.op != "output"], tracer.entered)


@contextlib.contextmanager
def on_meta(network: nn.Module) -> Iterator[None]:
    """Replace the network's tensors by ones without values while the body runs: running it then costs nothing."""
    # Not torch.func.functional_call: it restores a module that has two names wrongly.
    replacements: dict[Tensor, Tensor] = {}

    def replacement(tensor: Tensor) -> Tensor:
        if tensor not in replacements:
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            learns = isinstance(tensor, nn.Parameter)
            replacements[tensor] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if learns else empty
        return replacements[tensor]

    with contextlib.ExitStack() as originals:
        for module in network.modules():
            held: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for tensors in held:
                originals.callback(restore_dict, tensors, dict(tensors))
                for name, tensor in [*tensors.items()]:
                    tensors[name] = None if tensor is None else replacement(tensor)
        yield


@contextlib.contextmanager
def _guard_compiled_code() -> Iterator[None]:
    """Refuse calls of compiled code, which takes a proxy for a tensor and crashes."""
    guarded = [(torch.autograd.Function, "apply"), (torch.jit.ScriptFunction, "__call__")]
    guarded.append((torch._C.ScriptMethod, "__call__"))

    def guard(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if any(type(part) is _Proxy for part in pytree.tree_leaves((args, kwargs))):
                raise CannotPartitionError("it calls compiled code, which takes only tensors")
            return original(*args, **kwargs)

        return call

    with contextlib.ExitStack() as originals:
        for kind, name in guarded:
            original = kind.__dict__[name]
            originals.callback(setattr, kind, name, original)
            by_class = isinstance(original, classmethod)
            setattr(kind, name, classmethod(guard(original.__func__)) if by_class else guard(original))
        yield


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # otherwise a buffer that is written to changes while the network is traced

    def __init__(self, images: Tensor, heads: set[nn.Module], opaque: set[nn.Module]) -> None:
        super().__init__(autowrap_functions=FACTORIES)
        self._autowrap_search.append(torch)
        self.entered: list[EnteredModule] = []
        self.culprit: nn.Module | None = None  # the innermost module whose code failed
        self._images = images
        self._heads = heads
        self._undivided = opaque
        self._running_step = False
        self._last: fx.Node | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        if m in self._undivided or isinstance(m, fx.GraphModule):
            return True
        trained = {parameter.requires_grad for parameter in m.parameters()}
        if trained == {True, False}:
            return False
        return self._heads.isdisjoint(part for part in m.modules() if part is not m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self._running_step:
            return forward(*args, **kwargs)
        if self.is_leaf_module(m, ""):
            return super().call_module(m, forward, args, kwargs)
        before = random_states()
        try:
            result = super().call_module(m, forward, args, kwargs)
            if random_states() != before:
                raise CannotPartitionError("it draws random numbers, which a recording would repeat")
        except Exception:
            self.culprit = self.culprit or m
            raise
        if isinstance(result, fx.Proxy) and self._last is not None:
            self.entered.append(EnteredModule(m, result.node, self._last))
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running_step else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, *args, **kwargs)
        if kind != "output":
            self._running_step = True
            try:
                self._run_step(node)
            finally:
                self._running_step = False
            self._last = node
        return node

    def create_arg(self, a: Any) -> Any:
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        value = obj.node.meta["value"]
        return bool(super().to_bool(obj) if isinstance(value, Tensor) else value)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        value = obj.node.meta["value"]
        if isinstance(value, (tuple, list)):
            return iter([operator.getitem(obj, index) for index in range(len(value))])
        return iter(super().iter(obj))

    def _run_step(self, node: fx.Node) -> None:
        args, kwargs = _argument_value((node.args, node.kwargs))
        watched = {tensor: tensor._version for tensor in tensors_in((args, kwargs))}
        module = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        held = {buffer: buffer._version for buffer in module.buffers()} if module else {}
        with preserve_random_states():
            before = random_states()
            with OperationRecorder() as recorder:
                node.meta["value"] = self._result(node, args, kwargs)
            draws = recorder.draws or random_states() != before
        writes = {storage(tensor) for tensor, version in watched.items() if tensor._version != version}
        own = {storage(read.meta["value"]) for read in node.all_input_nodes if _is_tensor_of_a_module(read)}
        node.meta["effects"] = Effects(
            reads={storage(tensor) for tensor in watched},
            writes=writes,
            operations=tuple(recorder.operations),
            draws=draws,
            changes_buffers=bool(own & writes) or any(buffer._version != version for buffer, version in held.items()),
        )

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


def _argument_value(argument: Any) -> Any:
    """Return the value of a step's argument; a module may write to lists, so they are lists again."""
    if isinstance(argument, fx.Node):
        return argument.meta["value"]
    if isinstance(argument, list):
        return [_argument_value(part) for part in argument]
    if isinstance(argument, dict):
        return {key: _argument_value(part) for key, part in argument.items()}
    if type(argument) is tuple:
        return tuple(map(_argument_value, argument))
    return fx.map_arg(argument, lambda given: given.meta["value"])  # slices, named tuples


class _Proxy(fx.Proxy):
    """Stand for a value: pass for a tensor or a number if it is one, and change in place.

    If Python itself needs a length or a number, the number enters the recording; the recording for another number of
    images shows whether it stays the same.
    """

    _is_param = _is_buffer = False  # read by isinstance(..., nn.Parameter) and the like

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Tensor if isinstance(self.node.meta["value"], Tensor) else _Proxy

    def __len__(self) -> int:
        return len(self.node.meta["value"])

    def __index__(self) -> int:
        return operator.index(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def _number(self) -> Any:
        value = self.node.meta["value"]
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError("its forward method reads the value of a tensor")
        return value

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


def _in_place(name: str) -> Any:
    """Record ``x += y`` as it is: torch.fx makes it ``x = x + y``, which tensors that share the memory of x miss."""

    def method(self: _Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "imatmul"):
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class OperationRecorder(TorchDispatchMode):
    """Record the operations that a step executes, and whether any draws random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[str] = []
        self.draws = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | (kwargs or {})
        flags = {name: value for name, value in given.items() if isinstance(value, (bool, float))}
        self.operations.append(f"{func} {flags}")
        self.draws |= _draws_random_numbers(func, given)
        return func(*args, **(kwargs or {}))


def _draws_random_numbers(func: Any, given: dict[str, Any]) -> bool:
    """Tell whether an operation draws random numbers: many do so only in training, or for a dropout above zero."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = {argument.name: argument.default_value for argument in func._schema.arguments} | given
    if given.get("train", given.get("training", True)) is False:
        return False
    return bool(given.get("dropout_p", given.get("dropout", True)))


def _is_tensor_of_a_module(node: fx.Node) -> bool:
    return node.op == "get_attr" and isinstance(node.meta["value"], Tensor)


def _reason(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return "its forward method branches on the values of a tensor"
    cause = str(error) if isinstance(error, CannotPartitionError) else one_line(error)
    return f"its forward method cannot be recorded: {cause}"
