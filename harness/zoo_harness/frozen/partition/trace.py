"""Record one run of a network as a list of steps.

A step is the call of a torch function, or the call of a module as a whole. The recorder looks inside a module only if
the module contains both frozen and trained parameters, or if the module contains a head. If possible, the network runs
on torch's meta device, whose tensors have shapes but no values. For each step, the recorder also stores side effects:
the overwritten tensors, whether the step draws random numbers, and the executed operations.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import base_types, map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from zoo_harness.frozen.partition.side_effects import (
    CannotPartitionError,
    one_line,
    preserve_attributes,
    preserve_random_states,
    python_random_states,
    random_states,
    restore_dict,
    storage,
    tensors_in,
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Result:
    """Represent the result of an earlier step in the recorded arguments of a later step."""

    step: int


@dataclass
class Step:
    """A recorded operation of a network, its result and its side effects.

    ``kind``, ``target`` and ``arguments`` describe the operation as in :meth:`torch.fx.Graph.create_node`. ``reads``
    and ``writes``: identifiers of the memory that the step reads or overwrites; tensors that share memory have the same
    identifier. ``trains``: whether the step reads a trained parameter, draws random numbers or changes its module's
    buffers.

    :func:`zoo_harness.frozen.partition.cut.number_steps` sets the remaining fields. ``inputs``: the numbers of the
    steps whose results this step reads. ``writers``: the numbers of the steps that wrote to memory that this step
    reads. ``value_of_more``: the result of this step for the larger batch.
    """

    kind: str
    target: Any
    arguments: Arguments = ((), {})
    value: Any = None
    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)
    operations: tuple[str, ...] = ()
    has_weights: bool = False
    trains: bool = False
    number: int = 0
    inputs: frozenset[int] = frozenset()
    writers: frozenset[int] = frozenset()
    value_of_more: Any = None
    depends_on_images: bool = False

    @property
    def operation(self) -> tuple[str, Any, tuple[str, ...]]:
        """The kind, target and operations of the step, by which steps of two recordings are compared."""
        return self.kind, self.target, self.operations

    @property
    def dependencies(self) -> frozenset[int]:
        """The numbers of all steps on which this step depends: ``inputs`` and ``writers``."""
        return self.inputs | self.writers


@dataclass
class EnteredModule:
    """A module that was recorded as several steps.

    ``result``: index of the step whose result the module returned. ``last``: the index of the last step recorded before
    the module returned.
    """

    module: nn.Module
    result: int
    last: int


@dataclass
class Trace:
    """The recorded steps of one run of a network in order, and the modules that were recorded as several steps."""

    steps: list[Step]
    entered: list[EnteredModule]


def trace_network(network: nn.Module, images: Tensor, heads: set[nn.Module], opaque: set[nn.Module]) -> Trace:
    """Record one run of a network, with each module in its current training or inference mode.

    If the code of a module cannot be recorded, the module is added to ``opaque`` and becomes a single step. Raises
    :class:`CannotPartitionError` if the code of the network itself cannot be recorded.
    """
    while True:
        recorder = _Recorder(network, images, heads, opaque)
        try:
            with torch.no_grad(), preserve_attributes(network) as changed_numbers:
                with _calls_go_to(recorder), recorder:
                    network(images)
                if counters := changed_numbers():  # code that counts its calls may behave differently in the next call
                    raise CannotPartitionError(f"its forward method changes its own attribute {counters[0]!r}")
        except Exception as error:  # a network's own code may raise any exception
            if recorder.culprit is None or recorder.culprit in (network, *opaque):
                if isinstance(error, CannotPartitionError):
                    raise
                raise CannotPartitionError(f"its forward method cannot be recorded: {one_line(error)}") from error
            opaque.add(recorder.culprit)
        else:
            return Trace(recorder.steps, recorder.entered)


@contextlib.contextmanager
def on_meta(network: nn.Module) -> Iterator[None]:
    """Replace a network's tensors by meta tensors in the ``with`` block, so that a run of the network computes nothing.

    Meta tensors have shapes but no values.
    """
    # torch.func.functional_call is not used, because it wrongly restores a module that has two names.
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
def _calls_go_to(recorder: _Recorder) -> Iterator[None]:
    """Inside the ``with`` block, redirect all calls of modules to the recorder."""
    module_class: Any = nn.Module
    call = module_class.__call__
    module_class.__call__ = lambda module, *args, **kwargs: recorder.call_module(module, call, args, kwargs)
    try:
        yield
    finally:
        module_class.__call__ = call


_READ_VALUES = ("tolist", "numpy", "__array__")  # methods that read values without executing a torch operation
_NO_MODULE = nn.Module()


class _Recorder(TorchFunctionMode):
    """Record the calls of torch functions and modules as steps.

    ``culprit``: after an exception, the innermost module whose code was being recorded.
    """

    def __init__(self, network: nn.Module, images: Tensor, heads: set[nn.Module], opaque: set[nn.Module]) -> None:
        super().__init__()
        self.steps = [Step("placeholder", "images", value=images)]
        self.entered: list[EnteredModule] = []
        self.culprit: nn.Module | None = None
        named = {module: path for path, module in network.named_modules()}
        self._one_step = {
            module: path for module, path in named.items() if module in opaque or _is_whole(module, heads)
        }
        self._owned = _tensors_of_modules(network)
        self._memory = set(map(storage, self._owned))
        self._known = {images: 0}  # the index of the step that computed each tensor
        self._running = False  # whether a step is running; calls inside a step are not recorded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._running:
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "__get__":  # the call reads an attribute, such as x.shape
            return self._record("call_function", getattr, getattr, (args[0], func.__self__.__name__), {})
        is_method = func is getattr(Tensor, name, None)
        kind, target = ("call_method", name) if is_method else ("call_function", func)
        return self._record(kind, target, func, args, kwargs or {})

    def call_module(self, module: nn.Module, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record the call of a module as a single step, or record the steps inside the module."""
        if self._running:
            return call(module, *args, **kwargs)
        if module in self._one_step:
            return self._record("call_module", self._one_step[module], module, args, kwargs, module)
        before = python_random_states()
        try:
            result = call(module, *args, **kwargs)
            if python_random_states() != before:
                raise CannotPartitionError("its forward method draws random numbers, which a recording would repeat")
        except Exception:
            self.culprit = self.culprit or module
            raise
        if isinstance(result, Tensor) and result in self._known:
            self.entered.append(EnteredModule(module, self._known[result], len(self.steps) - 1))
        return result

    def _record(
        self, kind: str, target: Any, run: Callable[..., Any], args: Any, kwargs: Any, module: nn.Module = _NO_MODULE
    ) -> Any:
        """Run a step, append the step and its side effects to ``steps``, and return the result."""
        self._running = True
        try:
            arguments = map_aggregate((args, kwargs), self._reference)
            given, parameters, buffers = tensors_in((args, kwargs)), [*module.parameters()], [*module.buffers()]
            versions = [(tensor, tensor._version) for tensor in (*given, *buffers)]
            with preserve_random_states():
                before = random_states()
                with _OperationRecorder() as recorder:
                    value = run(*args, **kwargs)
                draws = recorder.draws or random_states() != before
            reads = set(map(storage, given))
            writes = {storage(tensor) for tensor, version in versions if tensor._version != version}
            if writes or draws or tensors_in(value):
                weights = any(tensor in self._owned for tensor in (*given, *parameters, *buffers))
                trains = draws or not writes.isdisjoint(self._memory) or any(each.requires_grad for each in parameters)
                operations = tuple(recorder.operations)
                self._append(Step(kind, target, arguments, value, reads, writes, operations, weights, trains))
            elif recorder.operations or target in _READ_VALUES:
                raise CannotPartitionError("its forward method branches on the values of a tensor")
            return value
        finally:
            self._running = False

    def _append(self, step: Step) -> None:
        """Append a step. If the step returns a tuple, list or dictionary, append a step for each tensor inside it."""
        self.steps.append(step)
        index, value = len(self.steps) - 1, step.value
        parts: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, Tensor):
            if value not in self._known or storage(value) in step.writes:
                self._known[value] = index  # otherwise, the step returned the unchanged result of an earlier step
        elif isinstance(value, dict):
            parts = value.items()
        elif isinstance(value, (tuple, list)):
            parts = enumerate(value)
        for key, part in parts:
            if tensors := tensors_in(part):
                reads = set(map(storage, tensors))
                self._append(Step("call_function", operator.getitem, ((Result(index), key), {}), part, reads))

    def _reference(self, given: Any) -> Any:
        """Return an argument in its recorded form, in which a :class:`Result` replaces each tensor."""
        if not isinstance(given, Tensor):
            if not isinstance(given, (*base_types, type(None), type(...))):
                raise CannotPartitionError(f"its forward method passes on an object of type {type(given).__name__}")
            return given
        if given not in self._known:
            if given not in self._owned:
                raise CannotPartitionError("its forward method uses a tensor that no recorded step computes")
            self._append(Step("get_attr", self._owned[given], value=given, trains=given.requires_grad))
        return Result(self._known[given])


def _is_whole(module: nn.Module, heads: set[nn.Module]) -> bool:
    """Whether the parameters of a module are either all trained or all frozen, and no head is inside the module."""
    mixed = {parameter.requires_grad for parameter in module.parameters()} == {True, False}
    return not mixed and heads.isdisjoint(part for part in module.modules() if part is not module)


def _tensors_of_modules(network: nn.Module) -> dict[Tensor, str]:
    """Return the path of each parameter, each buffer and each other tensor that is an attribute of a module."""
    paths: dict[Tensor, str] = {}
    for path, module in network.named_modules():
        for name, value in {**vars(module), **module._parameters, **module._buffers}.items():
            if isinstance(value, Tensor):
                paths.setdefault(value, f"{path}.{name}".removeprefix("."))
    return paths


class _OperationRecorder(TorchDispatchMode):
    """Record the torch operations that a step executes, and whether one of them draws random numbers."""

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
    """Whether an operation draws random numbers if it is called with the given arguments.

    Many operations draw random numbers only in training mode, or only with a dropout probability above 0.
    """
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    given = {argument.name: argument.default_value for argument in func._schema.arguments} | given
    if given.get("train", given.get("training", True)) is False:
        return False
    return bool(given.get("dropout_p", given.get("dropout", True)))
