"""Find the installed plugins, look up backbones and datasets by name, and explain the failures of plugins.

A plugin is an entry point of the group ``zoo``. A plugin fails if it cannot be imported, misspells a hook, declares an
invalid record or uses a name that is already taken. zoo reports a failed plugin with its entry point and distribution,
and the other plugins keep working. Set ``ZOO_RAISE_PLUGIN_ERRORS=1`` to raise the first failure as an exception.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.metadata
import os
import pkgutil
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pluggy
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from zoo import hookspecs
from zoo.backbone import Backbone
from zoo.dataset import Dataset
from zoo.errors import PluginError, UnknownNameError, UsageError, ZooError, near_misses
from zoo.family import BackboneFamily
from zoo.plugin_guard import guarded_import
from zoo.text import one_line

GROUP = "zoo"
BUILT_IN = "blockzoo"
HOOKS = ("zoo_backbones", "zoo_datasets", "zoo_backbone_families")

Kind = Literal["backbone", "dataset", "backbone family"]
Record = TypeVar("Record", Backbone, Dataset, BackboneFamily)

_WRITTEN_NONE = ("license", "paper", "pretrained_on", "imagenet_top1", "citation", "classes")


@dataclass
class Plugin:
    """An installed plugin: its entry point, its distribution, the names that it declares, and its errors.

    >>> Plugin("cait", "zoo_plugins.cait", "blockzoo", "0.1.0").built_in
    True
    """

    entry_point: str
    value: str
    distribution: str
    version: str
    backbones: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    families: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def built_in(self) -> bool:
        """Whether the plugin is part of blockzoo; other plugins cannot take the names of a built-in plugin."""
        return self.distribution == BUILT_IN

    @property
    def origin(self) -> str:
        """The entry point and the distribution of the plugin, for error messages."""
        return f"entry point {self.entry_point!r} of distribution {self.distribution!r}"

    def names(self, kind: Kind) -> list[str]:
        """Return the names of the given kind that the plugin declares."""
        return {"backbone": self.backbones, "dataset": self.datasets, "backbone family": self.families}[kind]


class Registry:
    """The backbones and datasets that the installed plugins declare.

    >>> names = list(load_registry().backbones)
    >>> "efficientnet_lite0" in names
    True
    """

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint]) -> None:
        self.plugins: list[Plugin] = []
        self.backbones: dict[str, Backbone] = {}
        self.datasets: dict[str, Dataset] = {}
        self.families: dict[str, BackboneFamily] = {}
        self._derived: dict[str, Backbone] = {}
        self._owners: dict[tuple[Kind, str], Plugin] = {}
        self._contested: dict[tuple[Kind, str], list[Plugin]] = {}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        found = [(_describe(entry_point), entry_point) for entry_point in entry_points]
        for plugin, entry_point in sorted(found, key=_rank):
            self._load(plugin, entry_point)
        self._withdraw_contested()

    @property
    def problems(self) -> list[str]:
        """The errors of all plugins, each on one line that names the plugin's entry point and distribution."""
        return [f"{plugin.origin}: {error}" for plugin in self.plugins for error in plugin.errors]

    def backbone(self, name: str) -> Backbone:
        """Return the backbone with this name; for ``prefix:NAME``, derive the record from the family's network.

        Raises :class:`~zoo.errors.UnknownNameError`, which suggests similarly spelled names. Raises
        :class:`~zoo.errors.PluginError` if two plugins declare the name, and
        :class:`~zoo.errors.DeclarationError` if the record cannot be derived.
        """
        prefix, colon, _member = name.partition(":")
        if colon and prefix in self.families:
            return self._derive(self.families[prefix], name)
        self._refuse_contested("backbone", name)
        if name not in self.backbones:
            raise UnknownNameError("backbone", name, self.backbones, _broken_plugins(self.plugins))
        return self.backbones[name]

    def backbone_names(self, pattern: str) -> list[str]:
        """Return the backbone names that match a name or glob, such as ``timm:vit_*_dinov2*`` or ``efficientnet_*``.

        If no backbone matches the glob, raises :class:`~zoo.errors.UnknownNameError`, which suggests similar names.

        >>> load_registry().backbone_names("efficientnet_lite[01]")
        ['efficientnet_lite0', 'efficientnet_lite1']
        """
        prefix, colon, below = pattern.partition(":")
        if not set("*?[") & set(pattern):
            return [pattern]
        family = self.families.get(prefix) if colon else None
        known = self._ask(family, "names") if family else sorted(self.backbones)
        found = fnmatch.filter(known, below if family else pattern)
        if not found:
            raise UnknownNameError("backbone", pattern, [f"{prefix}:{name}" if family else name for name in known])
        return [f"{prefix}:{name}" if family else name for name in found]

    def knows(self, name: str) -> bool:
        """Return whether a backbone of this name is declared, or whether a family may derive its record."""
        return name in self.backbones or (":" in name and name.partition(":")[0] in self.families)

    def declares(self, backbone: Backbone) -> Plugin | None:
        """Return the plugin that declares exactly this record, or the plugin of the family that derived the record."""
        if self.backbones.get(backbone.name) == backbone:
            return self.owner("backbone", backbone.name)
        if self._derived.get(backbone.name) == backbone:
            return self.owner("backbone family", backbone.name.partition(":")[0])
        return None

    def dataset(self, text: str) -> tuple[Dataset, str | None]:
        """Return the record and the argument of the dataset that a user types as ``name`` or ``name:argument``.

        >>> load_registry().dataset("imagefolder:/photos")[1]
        '/photos'
        """
        name, colon, argument = text.partition(":")
        self._refuse_contested("dataset", name)
        if name not in self.datasets:
            calls = [dataset.call for dataset in self.datasets.values()]
            advice = _broken_plugins(self.plugins)
            if os.path.isdir(os.path.expanduser(text)):  # noqa: PTH111, PTH112 - they never raise
                advice = f"the folder {text!r} exists; for a folder of images use imagefolder:{text}"
            raise UnknownNameError("dataset", name, calls, advice)
        dataset = self.datasets[name]
        if dataset.argument and not argument:
            raise UsageError(
                f"argument of dataset {name!r} is missing; write {dataset.call}", code="argument-missing", name=name
            )
        if colon and not dataset.argument:
            raise UsageError(
                f"dataset {name!r} takes no argument: {argument!r}; write {name}", code="argument-unused", name=name
            )
        return dataset, argument or None

    def _derive(self, family: BackboneFamily, name: str) -> Backbone:
        if name not in self._derived:
            member = name.partition(":")[2]
            known = self._ask(family, "names")
            # A name may omit the part after its last dot, such as timm's tag.
            if member not in known and not any(name.startswith(f"{member}.") for name in known):
                raise UnknownNameError("backbone", name, [f"{family.prefix}:{each}" for each in known])
            derived = self._ask(family, "derive", member)
            if not isinstance(derived, Backbone) or derived.name != name:
                raise PluginError(
                    f"{family.derive} returned {derived!r:.80}; expected a zoo.Backbone called {name!r}",
                    code="plugin-family",
                    name=name,
                )
            self._derived[name] = derived
        return self._derived[name]

    def _ask(self, family: BackboneFamily, what: Literal["names", "derive"], *arguments: str) -> Any:
        """Call the function ``names`` or ``derive`` of a family; an error names the plugin that declares the family."""
        try:
            return pkgutil.resolve_name(getattr(family, what))(*arguments)
        except ZooError:
            raise
        except (Exception, SystemExit) as error:
            origin = self.owner("backbone family", family.prefix).origin
            message = f"{origin}: {what} of the family {family.prefix!r}: {explain(error)}"
            raise PluginError(message, code="plugin-family", name=family.prefix) from error

    def owner(self, kind: Kind, name: str) -> Plugin:
        """Return the plugin that declares the backbone, dataset or backbone family with this name."""
        return self._owners[kind, name]

    def _load(self, plugin: Plugin, entry_point: importlib.metadata.EntryPoint) -> None:
        self.plugins.append(plugin)
        with guarded_import(plugin.origin) as guard:
            try:
                implementation = self._register(plugin, entry_point)
                backbones = self._call(implementation, "zoo_backbones", Backbone)
                datasets = self._call(implementation, "zoo_datasets", Dataset)
                families = self._call(implementation, "zoo_backbone_families", BackboneFamily)
            except BaseException as error:
                if guard.interrupted:
                    raise
                self._fail(plugin, error)
                return
        for backbone in backbones:
            self._add("backbone", backbone, plugin)
        for dataset in datasets:
            self._add("dataset", dataset, plugin)
        for family in families:
            self._add("backbone family", family, plugin)

    def _register(self, plugin: Plugin, entry_point: importlib.metadata.EntryPoint) -> object:
        implementation: object = entry_point.load()
        earlier = self._manager.get_name(implementation)
        if earlier is not None:
            raise PluginError(f"{entry_point.value} is already loaded by {earlier}", code="plugin-loaded-twice")
        self._manager.register(implementation, name=plugin.origin)
        try:
            self._check_hooks()
            self._refuse_unmarked(implementation)
        except Exception:
            self._manager.unregister(implementation)
            raise
        return implementation

    def _check_hooks(self) -> None:
        """Raise an error for a misspelt hook; pluggy itself ignores unknown hooks until ``check_pending`` is called."""
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            misspelt = re.search(r"unknown hook '(\w+)'", str(error))
            if misspelt is None:
                raise
            near = near_misses(misspelt[1], HOOKS, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"expected {' or '.join(HOOKS)}"
            raise PluginError(f"unknown hook {misspelt[1]!r}; {meant}", code="hook-unknown") from error

    def _refuse_unmarked(self, implementation: object) -> None:
        for hook in HOOKS:
            if hasattr(implementation, hook) and not self._marked(implementation, hook):
                raise PluginError(f"{hook} is not marked with @zoo.hookimpl", code="hook-unmarked")
        if not any(self._marked(implementation, hook) for hook in HOOKS):
            raise PluginError(f"implements neither {' nor '.join(HOOKS)} with @zoo.hookimpl", code="hook-missing")

    def _marked(self, implementation: object, hook: str) -> list[Callable[[], Any]]:
        """Return a plugin's functions that implement a hook; a plugin usually has at most one such function."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return [found.function for found in caller.get_hookimpls() if found.plugin is implementation]

    def _call(self, implementation: object, hook: str, record: type[Record]) -> list[Record]:
        declared: list[Record] = []
        for function in self._marked(implementation, hook):
            given = function()
            if not isinstance(given, Iterable):
                expected = f"zoo.{record.__name__} records, in a list or yielded one by one"
                raise PluginError(f"{hook} returned {given!r:.80}; expected {expected}", code="hook-return")
            for item in given:
                if not isinstance(item, record):
                    raise PluginError(
                        f"{hook} returned {item!r:.80}; expected a zoo.{record.__name__}", code="hook-return"
                    )
                declared.append(item)
        return declared

    def _add(self, kind: Kind, record: Backbone | Dataset | BackboneFamily, plugin: Plugin) -> None:
        name = record.prefix if isinstance(record, BackboneFamily) else record.name
        key = (kind, name)
        owner = self._owners.setdefault(key, plugin)
        if name in plugin.names(kind) or plugin in self._contested.get(key, []):
            error = PluginError(f"{kind} {name!r} is declared twice; the first is used", code="name-declared-twice")
            self._fail(plugin, error)
        elif owner is plugin:
            self._named(kind)[name] = record
            plugin.names(kind).append(name)
        elif owner.built_in:
            error = PluginError(f"{kind} {name!r} is already declared by {owner.origin}", code="name-taken")
            self._fail(plugin, error)
        else:
            self._contested.setdefault(key, [owner]).append(plugin)

    def _withdraw_contested(self) -> None:
        """Remove each name that several plugins declare, and report the conflict to all of these plugins."""
        for (kind, name), rivals in self._contested.items():
            del self._named(kind)[name], self._owners[kind, name]
            rivals[0].names(kind).remove(name)
            for plugin in rivals:
                others = " and ".join(rival.origin for rival in rivals if rival is not plugin)
                self._fail(plugin, PluginError(f"{kind} {name!r} is also declared by {others}", code="name-contested"))

    def _refuse_contested(self, kind: Kind, name: str) -> None:
        rivals = self._contested.get((kind, name))
        if rivals:
            claimed = " and ".join(rival.origin for rival in rivals)
            raise PluginError(
                f"{kind} {name!r} is declared by {claimed}; uninstall one of these plugins, or have the record renamed",
                code="name-contested",
                name=name,
            )

    def _named(self, kind: Kind) -> dict[str, Any]:
        records: dict[Kind, dict[str, Any]] = {
            "backbone": self.backbones,
            "dataset": self.datasets,
            "backbone family": self.families,
        }
        return records[kind]

    def _fail(self, plugin: Plugin, error: BaseException) -> None:
        message = explain(error)
        if os.environ.get("ZOO_RAISE_PLUGIN_ERRORS", "") not in ("", "0"):
            if not isinstance(error, Exception):  # SystemExit, for example, would end the program silently
                raise PluginError(f"{plugin.origin}: {message}", code="plugin-exit") from error
            error.add_note(f"raised by {plugin.origin}")
            raise error
        plugin.errors.append(message)


@functools.cache
def load_registry() -> Registry:
    """Return the registry of all installed plugins; the plugins are loaded once per process.

    >>> load_registry() is load_registry()
    True
    """
    return Registry(importlib.metadata.entry_points(group=GROUP))


def explain(error: BaseException) -> str:
    """Describe an error of a plugin on one printable line; for a rejected record, name each wrong field.

    >>> explain(ImportError("No module named 'spam'"))
    "ImportError: No module named 'spam'"
    """
    try:
        return one_line(_explained(error))
    except Exception as another:  # the method __str__ of the error failed
        return f"{type(error).__name__}: (its text cannot be read: {type(another).__name__})"


def _explained(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return f"bad {error.title} record: {'; '.join(map(_explain_fault, error.errors(include_url=False)))}"
    if isinstance(error, PluginError | pluggy.PluginValidationError):
        return str(error)
    first_line = (str(error).strip().splitlines() or ["(no message)"])[0]
    return f"{type(error).__name__}: {first_line}"


def _explain_fault(fault: ErrorDetails) -> str:
    first, *rest = fault["loc"] or ("",)
    where = ".".join([f"argument {first + 1}" if isinstance(first, int) else first, *map(str, rest)])
    if fault["type"] == "missing":
        return f"{where}: missing" + ("; write None if it is not known" if where in _WRITTEN_NONE else "")
    message = fault["msg"].removeprefix("Value error, ")
    # A fault without a field concerns the whole record, which is too long to show.
    return f"{where}: {message} (given {fault['input']!r:.80})" if where else message


def _describe(entry_point: importlib.metadata.EntryPoint) -> Plugin:
    # After an interrupted uninstall, a distribution has no metadata, and therefore no name and no version.
    facts = entry_point.dist.metadata if entry_point.dist is not None else None
    name, version = (facts[key] if facts and key in facts else "unknown" for key in ("Name", "Version"))
    return Plugin(entry_point.name, entry_point.value, name, version)


def _rank(found: tuple[Plugin, importlib.metadata.EntryPoint]) -> tuple[bool, str, str]:
    # Built-in plugins are loaded first, so that no other plugin can take their names.
    plugin, _entry_point = found
    return (not plugin.built_in, plugin.distribution, plugin.entry_point)


def _broken_plugins(plugins: Iterable[Plugin]) -> str:
    broken = sum(1 for plugin in plugins if plugin.errors)
    return f"{broken} plugin(s) have errors; run 'zoo plugins' to see them" if broken else ""
