"""Makes modules of the two parts of a cut, for :mod:`zoo_harness.split`; they share the network's own modules."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from zoo_harness.frozen.partition.cut import BatchSize, Cut, Mode, SameDevice
from zoo_harness.frozen.partition.side_effects import CannotSplitError, storage
from zoo_harness.frozen.partition.trace import Effects, Trace
from zoo_harness.models.tuned_network import TunedNetwork


def prefix_module(mode: Mode, cut: Cut) -> nn.Module:
    """Images in, a tuple of what is kept out."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    by_number: dict[int, fx.Node] = {}
    for node, number in mode.numbers.items():
        if number in cut.prefix or node.op == "placeholder":
            copies[node] = by_number[number] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(by_number[number] for number in cut.kept))
    return _module(mode.trace, graph)


def overwritten(modes: tuple[Mode, Mode], cut: Cut) -> set[int]:
    """What is kept and is written to by the tail in either mode."""
    found: set[int] = set()
    for mode in modes:
        written: set[int] = set()
        for node, number in mode.numbers.items():
            if number in cut.tail:
                effects: Effects = node.meta["effects"]
                written |= effects.writes
        found |= {
            number
            for node, number in mode.numbers.items()
            if number in cut.kept and storage(node.meta["value"]) in written
        }
    return found


def kept_names(mode: Mode, cut: Cut) -> list[str]:
    """Where each kept tensor comes from: the path of a module, or an operation's name."""
    nodes = {number: node for node, number in mode.numbers.items()}
    return [_name(nodes[number]) for number in cut.kept]


class TailBuilder:
    """Makes the tail of one mode: kept tensors in, the logits of every head that is a step of it out.

    ``reached`` are the modules whose hooks it calls with what the whole network gives; ``hidden_heads`` the paths of
    heads inside a module that is one step.
    """

    def __init__(self, tuned: TunedNetwork, mode: Mode, cut: Cut, written: set[int]) -> None:
        self._mode = mode
        self._cut = cut
        self._graph = fx.Graph()
        self._inputs = {number: self._graph.placeholder(f"kept_{place}") for place, number in enumerate(cut.kept)}
        self._first = self._inputs[cut.kept[0]]
        for number in written:
            self._inputs[number] = self._graph.call_method("clone", (self._inputs[number],))
        self._copies: dict[fx.Node, fx.Node] = {}
        self._heads = {tuned.network.get_submodule(path): path for path in tuned.head_paths}
        self._logits: dict[str, fx.Node] = {}
        self._stand_ins: dict[str, nn.Module] = {}
        self._last_call: dict[nn.Module, bool] = {}
        self.module = self._build()
        self.hidden_heads = tuple(path for path in tuned.head_paths if path not in self._logits)
        self.reached = frozenset(module for module, in_tail in self._last_call.items() if in_tail)

    def _build(self) -> nn.Module:
        for node, number in self._mode.numbers.items():
            if number in self._cut.tail:
                self._copies[node] = self._graph.node_copy(node, self._given)
            if node.op == "call_module":
                self._note_call(node)
            for entered in self._mode.trace.entered:
                if entered.last is node:
                    self._call_hooks(entered.module, entered.result)
        self._graph.output(tuple(self._logits[path] for path in self._heads.values() if path in self._logits))
        return _module(self._mode.trace, self._graph, self._stand_ins)

    def _note_call(self, node: fx.Node) -> None:
        called = self._mode.trace.module(node)
        self._last_call |= dict.fromkeys(called.modules(), node in self._copies)
        if called in self._heads and node in self._copies:
            # A copy: an activation that works in place may follow.
            self._logits[self._heads[called]] = self._graph.call_method("clone", (self._copies[node],))

    def _call_hooks(self, module: nn.Module, result: fx.Node) -> None:
        """The tracer went into this module, so nothing calls it; a stand-in that shares its hooks is called instead."""
        reached = result in self._copies or self._cut.same_as.get(n := self._mode.numbers[result], n) in self._inputs
        self._last_call[module] = reached
        if reached:
            stand_in = nn.Identity()
            stand_in._forward_hooks = module._forward_hooks
            name = f"hooks_{len(self._stand_ins)}"
            self._stand_ins[name] = stand_in
            self._graph.call_module(name, (self._given(result),))

    def _given(self, node: fx.Node) -> Any:
        """What stands for a step's result in the tail."""
        if node in self._copies:
            return self._copies[node]
        number = self._mode.numbers[node]
        number = self._cut.same_as.get(number, number)
        if number in self._inputs:
            return self._inputs[number]
        value = self._cut.substitute(number)
        if value is None:
            raise CannotSplitError(f"what {_name(node)!r} gives cannot be kept image by image")
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


def _module(trace: Trace, graph: fx.Graph, stand_ins: dict[str, nn.Module] | None = None) -> fx.GraphModule:
    for name, stand_in in (stand_ins or {}).items():
        trace.root.add_module(name, stand_in)
    for node in graph.nodes:
        node.meta.clear()  # copied from the recording, whose values it would keep alive
    return fx.GraphModule(trace.root, graph)


def _name(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "images"
    return str(node.target).removeprefix("network.") if node.op == "call_module" else node.name
