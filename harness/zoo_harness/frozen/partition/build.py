"""Makes modules of prefix and suffix from the steps of a cut; they share the modules of the network itself."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from zoo_harness.frozen.partition.cut import BatchSize, Cut, Mode, SameDevice, substitute
from zoo_harness.frozen.partition.side_effects import CannotPartitionError, storage
from zoo_harness.frozen.partition.trace import Trace
from zoo_harness.models.tuned_network import TunedNetwork


def prefix_module(mode: Mode, cut: Cut) -> nn.Module:
    """Make the prefix of a mode: images in, a tuple of the kept tensors out."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    by_number: dict[int, fx.Node] = {}
    for node, number in mode.numbers.items():
        if number in cut.prefix or node.op == "placeholder":
            copies[node] = by_number[number] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(by_number[number] for number in cut.kept))
    return _module(mode.trace, graph)


def overwritten(modes: Sequence[Mode], cut: Cut) -> set[int]:
    """Return the numbers of kept results that the suffix of either mode writes to."""
    found: set[int] = set()
    for mode in modes:
        numbered = mode.numbers.items()
        written = {
            memory for node, number in numbered if number in cut.suffix for memory in node.meta["effects"].writes
        }
        found |= {number for node, number in numbered if number in cut.kept and storage(node.meta["value"]) in written}
    return found


def kept_names(mode: Mode, cut: Cut) -> list[str]:
    """Name the source of each kept tensor: the path of a module, or the name of an operation."""
    nodes = {number: node for node, number in mode.numbers.items()}
    return [_name(nodes[number]) for number in cut.kept]


class SuffixBuilder:
    """Make the suffix of one mode: kept tensors in, the logits of every head that is one of its steps out.

    ``reached`` holds the modules whose hooks it calls with the values of the whole network, ``hidden_heads`` the paths
    of heads inside a module that is one step.
    """

    def __init__(self, tuned: TunedNetwork, mode: Mode, cut: Cut, written: set[int]) -> None:
        self._mode, self._cut, self._graph = mode, cut, fx.Graph()
        self._inputs = {number: self._graph.placeholder(f"kept_{index}") for index, number in enumerate(cut.kept)}
        self._first = self._inputs[cut.kept[0]]
        for number in written:
            self._inputs[number] = self._graph.call_method("clone", (self._inputs[number],))
        self._copies: dict[fx.Node, fx.Node] = {}
        self._heads = {tuned.network.get_submodule(path): path for path in tuned.head_paths}
        self._logits: dict[str, fx.Node] = {}
        self._carriers: dict[str, nn.Module] = {}
        self._last_call: dict[nn.Module, bool] = {}
        self.module = self._build()
        self.hidden_heads = tuple(path for path in tuned.head_paths if path not in self._logits)
        self.reached = frozenset(module for module, in_suffix in self._last_call.items() if in_suffix)

    def _build(self) -> nn.Module:
        for node, number in self._mode.numbers.items():
            if number in self._cut.suffix:
                self._copies[node] = self._graph.node_copy(node, self._node_of)
            if node.op == "call_module":
                self._note_call(node)
            for entered in self._mode.trace.entered:
                if entered.last is node:
                    self._call_hooks(entered.module, entered.result)
        self._graph.output(tuple(self._logits[path] for path in self._heads.values() if path in self._logits))
        return _module(self._mode.trace, self._graph, self._carriers)

    def _note_call(self, node: fx.Node) -> None:
        called = self._mode.trace.module(node)
        self._last_call |= dict.fromkeys(called.modules(), node in self._copies)
        if called in self._heads and node in self._copies:
            # A copy: an activation that works in place may follow.
            self._logits[self._heads[called]] = self._graph.call_method("clone", (self._copies[node],))

    def _call_hooks(self, module: nn.Module, result: fx.Node) -> None:
        """Call a module that shares the hooks of one which the tracer went into, because nothing calls that one."""
        reached = result in self._copies or self._cut.same_as.get(n := self._mode.numbers[result], n) in self._inputs
        self._last_call[module] = reached
        if reached:
            carrier = nn.Identity()
            carrier._forward_hooks = module._forward_hooks
            name = f"hooks_{len(self._carriers)}"
            self._carriers[name] = carrier
            self._graph.call_module(name, (self._node_of(result),))

    def _node_of(self, node: fx.Node) -> Any:
        """Return the suffix's own node for the result of a step."""
        if node in self._copies:
            return self._copies[node]
        number = self._mode.numbers[node]
        number = self._cut.same_as.get(number, number)
        if number in self._inputs:
            return self._inputs[number]
        value = substitute(*self._cut.steps[number].values)
        if value is None:
            raise CannotPartitionError(f"the output of {_name(node)!r} cannot be kept image by image")
        return self._literal(value)

    def _literal(self, value: Any) -> Any:
        match value:
            case tuple():
                return tuple(map(self._literal, value))
            case SameDevice():
                return self._graph.call_function(getattr, (self._first, "device"))
            case BatchSize(times):
                size = self._graph.call_method("size", (self._first, 0))
                return size if times == 1 else self._graph.call_function(operator.mul, (size, times))
        return value


def _module(trace: Trace, graph: fx.Graph, carriers: dict[str, nn.Module] | None = None) -> fx.GraphModule:
    for name, carrier in (carriers or {}).items():
        trace.root.add_module(name, carrier)
    for node in graph.nodes:
        node.meta.clear()  # copies of the recording would keep its values alive
    return fx.GraphModule(trace.root, graph)


def _name(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "images"
    return str(node.target).removeprefix("network.") if node.op == "call_module" else node.name
