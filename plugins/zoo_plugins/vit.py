"""ViT-L/32 (Dosovitskiy et al. 2020) was pretrained on ImageNet-21k and published without a classifier."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, hookimpl

WIDTH = 1024


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare ViT-L/32."""
    yield Backbone(
        name="vit_l32",
        title="ViT-L/32",
        weights=TimmWeights("vit_large_patch32_224.orig_in21k"),
        unfreeze=("blocks.23", "norm"),
        head=Head("head", in_features=WIDTH),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=Head("head", hidden=256, in_features=WIDTH),
                resize="squash",
                reported_parameters=12_863_242,
            ),
        },
        features=(
            FeatureLayer("patch_embed", WIDTH),
            *(FeatureLayer(f"blocks.{block}", WIDTH, pool="cls") for block in range(24)),
            FeatureLayer("norm", WIDTH, pool="cls"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2010.11929",
        pretrained_on="ImageNet-21k",
        imagenet_top1=None,  # the ImageNet-21k weights contain no ImageNet-1k classifier
    )
