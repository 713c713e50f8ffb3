"""The three hooks of the plugin contract; the registry calls each hook once, when it loads the plugins.

A plugin is a module (or an object) that is an entry point of the group ``zoo``. The built-in backbones and datasets
use the same hooks.
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
"""Mark a function of a plugin as the implementation of the hook with the same name."""


@hookspec
def zoo_backbones() -> Iterable[Backbone]:  # type: ignore[empty-body]
    """Return or yield the backbones that this plugin declares; zoo calls this hook once per process."""


@hookspec
def zoo_datasets() -> Iterable[Dataset]:  # type: ignore[empty-body]
    """Return or yield the datasets that this plugin declares; zoo calls this hook once per process."""


@hookspec
def zoo_backbone_families() -> Iterable[BackboneFamily]:  # type: ignore[empty-body]
    """Return or yield the backbone families that this plugin declares; zoo accepts their members as ``prefix:NAME``."""
