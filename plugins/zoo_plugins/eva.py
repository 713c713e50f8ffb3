"""EVA-02 Tiny (Fang et al. 2023) was pretrained by masked image modelling and fine-tuned on ImageNet."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl

WIDTH, BLOCKS = 192, 12


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare EVA-02 ViT-Ti/14."""
    yield Backbone(
        name="eva02_tiny",
        title="EVA-02 ViT-Ti/14",
        weights=TimmWeights("eva02_tiny_patch14_336.mim_in22k_ft_in1k"),
        unfreeze=("blocks.11", "fc_norm"),
        head=Head("head"),
        features=(
            *(FeatureLayer(f"blocks.{block}", WIDTH, skip=1) for block in range(BLOCKS)),
            FeatureLayer("fc_norm", WIDTH, pool="flatten"),
        ),
        license="mit",
        paper="https://arxiv.org/abs/2303.11331",
        pretrained_on="ImageNet-22k, then ImageNet-1k",
        imagenet_top1=80.672,
    )
