"""The record in which a plugin declares a family of backbones, whose records are derived from their names."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from zoo.fields import STRICT, FactoryPath, Name, Text


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BackboneFamily:
    """Backbones that are taken as ``prefix:NAME`` wherever a backbone's name is taken.

    ``names`` is a function ``module:function`` that returns the names of all members, without the prefix. ``derive`` is
    one that takes such a name and returns the :class:`~zoo.Backbone` called ``prefix:NAME``; it raises
    :class:`~zoo.DeclarationError` with the reason if it cannot. Both may import torch: they are called when a name of
    the family is given, not before.

    >>> BackboneFamily(prefix="timm", title="timm", names="plugin:names", derive="plugin:derive").prefix
    'timm'
    """

    prefix: Name
    title: Text
    names: FactoryPath
    derive: FactoryPath
