"""Finds plugins, resolves names and explains failures.

Every entry point of the group ``zoo`` is loaded inside its own guard: one that cannot be imported, misspells a hook,
declares a bad record or takes a name already taken is reported with its entry point and distribution, and costs
nobody else anything. Set ``ZOO_RAISE_PLUGIN_ERRORS=1`` to have the first such error raised instead.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pluggy

from zoo import hookspecs
from zoo.backbone import Backbone
from zoo.dataset import Dataset
from zoo.errors import PluginError, UnknownNameError, UsageError

GROUP = "zoo"
BUILT_IN = "blockzoo"


@dataclass
class Plugin:
    """One entry point of the group, and what came of loading it.

    >>> Plugin("cait", "zoo_plugins.cait", "blockzoo", "0.1.0").built_in
    True
    """

    entry_point: str
    value: str
    distribution: str
    version: str
    backbones: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def built_in(self) -> bool:
        """Whether blockzoo itself ships it; a built-in keeps its names."""
        return self.distribution == BUILT_IN

    @property
    def origin(self) -> str:
        """Entry point and distribution, as errors name them."""
        return f"entry point {self.entry_point!r} of distribution {self.distribution!r}"


class Registry:
    """The backbones and data sets that the installed plugins declare.

    >>> names = list(load_registry().backbones)
    >>> "efficientnet_lite0" in names
    True
    """

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint]) -> None:
        self.plugins: list[Plugin] = []
        self.backbones: dict[str, Backbone] = {}
        self.datasets: dict[str, Dataset] = {}
        self._owners: dict[tuple[str, str], Plugin] = {}
        self._contested: dict[tuple[str, str], list[Plugin]] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        for entry_point in _built_in_first(entry_points):
            self._load(entry_point)

    @property
    def problems(self) -> list[str]:
        """One line for everything that went wrong with any plugin."""
        return [f"{plugin.origin}: {error}" for plugin in self.plugins for error in plugin.errors]

    def backbone(self, name: str) -> Backbone:
        """The record of that name.

        Raises :class:`~zoo.errors.UnknownNameError` with near misses, and :class:`~zoo.errors.PluginError` where two
        plugins claim the name.
        """
        self._refuse_contested("backbone", name)
        if name not in self.backbones:
            raise UnknownNameError("backbone", name, self.backbones, _broken_plugins(self.plugins))
        return self.backbones[name]

    def dataset(self, text: str) -> tuple[Dataset, str | None]:
        """The record and the argument that ``name`` or ``name:argument`` means.

        >>> load_registry().dataset("imagefolder:/photos")[1]
        '/photos'
        """
        name, colon, argument = text.partition(":")
        self._refuse_contested("dataset", name)
        if name not in self.datasets:
            calls = [dataset.call for dataset in self.datasets.values()]
            known = calls if colon else [*self.datasets]
            raise UnknownNameError("dataset", text, known, _broken_plugins(self.plugins))
        dataset = self.datasets[name]
        if dataset.argument and not argument:
            raise UsageError(f"dataset {name!r} needs to know which: write {dataset.call}")
        if colon and not dataset.argument:
            raise UsageError(f"dataset {name!r} takes no argument, given {argument!r}: write {name}")
        return dataset, argument or None

    def owner(self, kind: str, name: str) -> Plugin:
        """The plugin that declared the ``"backbone"`` or ``"dataset"`` of that name."""
        return self._owners[kind, name]

    def _load(self, entry_point: importlib.metadata.EntryPoint) -> None:
        plugin = _describe(entry_point)
        self.plugins.append(plugin)
        try:
            implementation = self._register(entry_point, plugin)
            backbones = _call(implementation, "zoo_backbones", Backbone)
            datasets = _call(implementation, "zoo_datasets", Dataset)
        except (Exception, SystemExit) as error:
            self._fail(plugin, explain(error), error)
            return
        for backbone in backbones:
            if self._claim("backbone", backbone.name, plugin):
                self.backbones[backbone.name] = backbone
                plugin.backbones.append(backbone.name)
        for dataset in datasets:
            if self._claim("dataset", dataset.name, plugin):
                self.datasets[dataset.name] = dataset
                plugin.datasets.append(dataset.name)

    def _register(self, entry_point: importlib.metadata.EntryPoint, plugin: Plugin) -> object:
        implementation: object = entry_point.load()
        self._manager.register(implementation, name=f"{plugin.distribution}:{plugin.entry_point}")
        try:
            self._manager.check_pending()  # pluggy accepts a misspelt hook in silence until it is asked
            if not self._manager.get_hookcallers(implementation):
                raise PluginError("implements neither zoo_backbones nor zoo_datasets with @zoo.hookimpl")
        except Exception:
            self._manager.unregister(implementation)
            raise
        return implementation

    def _claim(self, kind: str, name: str, plugin: Plugin) -> bool:
        key = (kind, name)
        rivals = [*self._contested.get(key, []), *([self._owners[key]] if key in self._owners else [])]
        if not rivals:
            self._owners[key] = plugin
            return True
        error = f"{kind} {name!r} is already declared by {', '.join(rival.origin for rival in rivals)}"
        if not rivals[0].built_in:
            self._contested[key] = [*rivals, plugin]
            self._owners.pop(key, None)
            (self.backbones if kind == "backbone" else self.datasets).pop(name, None)
        self._fail(plugin, error, PluginError(f"{plugin.origin}: {error}"))
        return False

    def _refuse_contested(self, kind: str, name: str) -> None:
        rivals = self._contested.get((kind, name))
        if rivals:
            claimed = " and ".join(rival.origin for rival in rivals)
            raise PluginError(f"{kind} {name!r} is declared by {claimed}; uninstall one or have it renamed")

    def _fail(self, plugin: Plugin, message: str, error: BaseException) -> None:
        if os.environ.get("ZOO_RAISE_PLUGIN_ERRORS", "") not in ("", "0"):
            raise error
        plugin.errors.append(message)


@functools.cache
def load_registry() -> Registry:
    """The registry of everything installed, found once per process.

    >>> load_registry() is load_registry()
    True
    """
    return Registry(importlib.metadata.entry_points(group=GROUP))


def explain(error: BaseException) -> str:
    """One line for an error of a plugin; a rejected record is told field by field.

    >>> explain(ImportError("No module named 'spam'"))
    "ImportError: No module named 'spam'"
    """
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        return _explain_record(error)
    if isinstance(error, PluginError):
        return str(error)
    first_line = (str(error).strip().splitlines() or ["(no message)"])[0]
    return f"{type(error).__name__}: {first_line}"


def _explain_record(error: Any) -> str:
    faults = "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']} (given {fault['input']!r:.80})"
        for fault in error.errors(include_url=False)
    )
    return f"bad {error.title} record: {faults}"


def _call(implementation: object, hook: str, record: type[Any]) -> list[Any]:
    function = getattr(implementation, hook, None)
    if function is None:
        return []
    declared = list(function())
    for item in declared:
        if not isinstance(item, record):
            raise PluginError(f"{hook} gave {item!r:.80}, expected a zoo.{record.__name__}")
    return declared


def _describe(entry_point: importlib.metadata.EntryPoint) -> Plugin:
    distribution = entry_point.dist
    name = distribution.name if distribution is not None else "unknown"
    version = distribution.version if distribution is not None else "unknown"
    return Plugin(entry_point.name, entry_point.value, name, version)


def _built_in_first(
    entry_points: Iterable[importlib.metadata.EntryPoint],
) -> Iterator[importlib.metadata.EntryPoint]:
    # A distribution can be on the path twice (a wheel and its build folder): the first finding counts.
    found = {(_describe(point).distribution, point.name): point for point in reversed(list(entry_points))}
    for (_distribution, _name), point in sorted(found.items(), key=lambda item: (item[0][0] != BUILT_IN, item[0])):
        yield point


def _broken_plugins(plugins: Iterable[Plugin]) -> str:
    broken = sum(1 for plugin in plugins if plugin.errors)
    return f"{broken} plugin(s) failed to load, see zoo plugins" if broken else ""
