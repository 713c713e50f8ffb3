"""Build torch modules for the prefix and the suffix of a network; both contain the original submodules."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from zoo_harness.frozen.partition.cut import BatchSize, Cut, SameDevice
from zoo_harness.frozen.partition.side_effects import CannotPartitionError, storage
from zoo_harness.frozen.partition.trace import EnteredModule, Result, Step, Trace
from zoo_harness.models.tuned_network import TunedNetwork


def overwritten(modes: Sequence[Trace], cut: Cut) -> set[int]:
    """Return the numbers of the steps whose cached results the suffix overwrites in training or in inference mode."""
    found: set[int] = set()
    for mode in modes:
        written = {memory for step in mode.steps if step.number in cut.suffix for memory in step.writes}
        found |= {step.number for step in mode.steps if step.number in cut.kept and storage(step.value) in written}
    return found


def kept_names(cut: Cut) -> list[str]:
    """Return, for each cached tensor, the path of the module or the name of the operation that computes the tensor."""
    return [_name(cut.steps[number]) for number in cut.kept]


class _Builder:
    """Build a torch module from recorded steps of a network."""

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        self.cut, self.graph = cut, fx.Graph()
        self.results: dict[int, fx.Node] = {}
        self.objects: dict[str, Any] = {}  # the modules and tensors that the graph refers to
        self._network = network

    def add(self, number: int) -> None:
        """Append the step with the given number to the module."""
        step = self.cut.steps[number]
        if step.kind in ("call_module", "get_attr"):
            self.objects[step.target] = operator.attrgetter(step.target)(self._network)
        args, kwargs = map_aggregate(step.arguments, self._argument)
        self.results[number] = self.graph.create_node(step.kind, step.target, args, kwargs)

    def result(self, number: int) -> fx.Node:
        """Return the graph node that holds the result of the step with the given number."""
        if number not in self.results:
            raise CannotPartitionError(f"the output of {_name(self.cut.steps[number])!r} cannot be kept image by image")
        return self.results[number]

    def module(self, outputs: Sequence[fx.Node]) -> fx.GraphModule:
        """Finish the graph with the given outputs, and return the graph as a module."""
        self.graph.output(tuple(outputs))
        return fx.GraphModule(self.objects, self.graph)

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, Result):
            return self.result(leaf.step)
        first = next(iter(self.results.values()))  # the images or a cached tensor, whose first dimension is the batch
        if isinstance(leaf, SameDevice):
            return self.graph.call_function(getattr, (first, "device"))
        if isinstance(leaf, BatchSize):
            size = self.graph.call_method("size", (first, 0))
            times = size if leaf.times == 1 else self.graph.call_function(operator.mul, (size, leaf.times))
            return self.graph.call_function(operator.add, (times, leaf.plus)) if leaf.plus else times
        return leaf


def prefix_module(network: nn.Module, cut: Cut) -> nn.Module:
    """Build the prefix: a module that takes images and returns a tuple of the tensors to cache."""
    builder = _Builder(network, cut)
    for number in sorted({0, *cut.prefix}):  # step 0 is the input of images
        builder.add(number)
    return builder.module([builder.results[number] for number in cut.kept])


class SuffixBuilder(_Builder):
    """Build the suffix for training or for inference: a module that takes the cached tensors and returns logits.

    The module returns the logits of every head that was recorded as a separate step. ``hidden_heads``: the paths of the
    other heads, which are inside a module that was recorded as a single step. ``reached``: the modules whose hooks the
    suffix calls with the same values as the whole network. ``written``: the numbers of the cached tensors that the
    suffix overwrites.
    """

    def __init__(self, tuned: TunedNetwork, mode: Trace, cut: Cut, written: set[int]) -> None:
        super().__init__(tuned.network, cut)
        for index, number in enumerate(cut.kept):
            self.results[number] = self.graph.placeholder(f"kept_{index}")
        for number in written:
            self.results[number] = self.graph.call_method("clone", (self.results[number],))
        self._mode = mode
        self._logits: dict[str, fx.Node] = {}
        self._last_call: dict[nn.Module, bool] = {}  # whether the suffix contains the last call of each module
        for index, step in enumerate(mode.steps):
            if step.number in cut.suffix:
                self.add(step.number)
            if step.kind == "call_module":
                self._note_call(step, is_head=step.target in tuned.head_paths)
            for entered in mode.entered:
                if entered.last == index:
                    self._call_hooks(entered)
        self.suffix = self.module([self._logits[path] for path in tuned.head_paths if path in self._logits])
        self.hidden_heads = tuple(path for path in tuned.head_paths if path not in self._logits)
        self.reached = frozenset(module for module, in_suffix in self._last_call.items() if in_suffix)

    def _note_call(self, step: Step, *, is_head: bool) -> None:
        in_suffix = step.number in self.cut.suffix
        self._last_call |= dict.fromkeys(self._network.get_submodule(step.target).modules(), in_suffix)
        if is_head and in_suffix:
            # Clone the logits, because a later activation may modify them in place.
            self._logits[step.target] = self.graph.call_method("clone", (self.results[step.number],))

    def _call_hooks(self, entered: EnteredModule) -> None:
        """Call the hooks of a module that was recorded as several steps, because the suffix never calls this module.

        Instead, the suffix calls an identity module that has the same hooks.
        """
        number = self._mode.steps[entered.result].number
        self._last_call[entered.module] = number in self.results
        if number in self.results:
            carrier = nn.Identity()
            carrier._forward_hooks = entered.module._forward_hooks
            name = f"hooks_{len(self.objects)}"
            self.objects[name] = carrier
            self.graph.call_module(name, (self.results[number],))


def _name(step: Step) -> str:
    """Return the path of the module or the name of the operation that a step calls."""
    target = step.target
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))
