"""DeiT-B distilled (Touvron et al. 2020) has a class token and a distillation token, each with its own classifier."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, DualHead, FeatureLayer, Head, Recipe, TimmWeights, Training, hookimpl

WIDTH = 768


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare DeiT-B distilled."""
    yield Backbone(
        name="deit_base_distilled",
        title="DeiT-B distilled",
        weights=TimmWeights("deit_base_distilled_patch16_224.fb_in1k"),
        unfreeze=("blocks.11", "norm"),
        head=DualHead(cls=Head("head"), dist=Head("head_dist")),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=DualHead(cls=Head("head", hidden=256), dist=Head("head_dist", hidden=256)),
                resize="squash",
                reported_parameters=7_488_276,
            ),
            "report": Recipe(
                "University of Tehran 2024",
                unfreeze=("blocks.11",),
                training=Training(epochs=10),
                resize="squash",
                reported_parameters=7_103_252,
            ),
        },
        features=(
            FeatureLayer("patch_embed", WIDTH),
            *(FeatureLayer(f"blocks.{block}", WIDTH, pool="cls") for block in range(12)),
            FeatureLayer("norm", WIDTH, pool="cls"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2012.12877",
        pretrained_on="ImageNet-1k",
        imagenet_top1=83.388,
    )
