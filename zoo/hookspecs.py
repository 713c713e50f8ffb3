"""The plugin contract: three hooks, each called once, when the registry first looks for plugins.

A plugin is a module (or object) under the entry-point group ``zoo``. The built-in backbones and datasets come through
these same hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

if TYPE_CHECKING:
    from zoo.backbone import Backbone
    from zoo.dataset import Dataset
    from zoo.family import BackboneFamily

Function = TypeVar("Function", bound=Callable[..., Any])

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = cast("Callable[[Function], Function]", pluggy.HookimplMarker("zoo"))
"""Marks a plugin's function as an implementation of the hook of the same name."""


@hookspec
def zoo_backbones() -> Iterable[Backbone]:  # type: ignore[empty-body]
    """Return or yield the backbones this plugin declares; called once per process, before any name is resolved."""


@hookspec
def zoo_datasets() -> Iterable[Dataset]:  # type: ignore[empty-body]
    """Return or yield the datasets this plugin declares; called once per process, before any name is resolved."""


@hookspec
def zoo_backbone_families() -> Iterable[BackboneFamily]:  # type: ignore[empty-body]
    """Return or yield families of backbones, each taken as ``prefix:NAME``; called once per process, as the others."""
