"""The record that declares a family of backbones; zoo derives the record of each backbone from its network."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from zoo.fields import STRICT, FactoryPath, Name, Text


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BackboneFamily:
    """A family of backbones that zoo accepts as ``prefix:NAME`` wherever it accepts the name of a backbone.

    ``names`` is a function ``module:function`` that returns the names of all members, without the prefix. ``derive`` is
    a function ``module:function`` that takes a member's name and returns the :class:`~zoo.Backbone` called
    ``prefix:NAME``. If the record cannot be derived, ``derive`` raises :class:`~zoo.DeclarationError` with the reason.
    Both functions may import torch, because zoo calls them only when the user gives a name of the family.

    >>> BackboneFamily(prefix="timm", title="timm", names="plugin:names", derive="plugin:derive").prefix
    'timm'
    """

    prefix: Name
    title: Text
    names: FactoryPath
    derive: FactoryPath
