"""Declare every timm network as a backbone ``timm:NAME``, whose record is derived from the network itself."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import BackboneFamily, hookimpl


@hookimpl
def zoo_backbone_families() -> Iterator[BackboneFamily]:
    """Declare the family ``timm``."""
    yield BackboneFamily(
        prefix="timm",
        title="networks of timm",
        names="zoo_plugins.timm_networks:names",
        derive="zoo_plugins.timm_networks:derive",
    )
