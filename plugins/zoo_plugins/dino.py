"""DINOv2 and DINOv3 ViT-S (Oquab et al. 2023, Siméoni et al. 2025) are self-supervised and have no classifier.

A checkpoint that was made from DINOv3's weights remains under the DINOv3 licence.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl

WIDTH, BLOCKS = 384, 12
DINOV3_PREFIX = 5  # the class token and four registers precede the patch tokens


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare DINOv2 ViT-S/14 and DINOv3 ViT-S/16."""
    yield Backbone(
        name="dinov2_s",
        title="DINOv2 ViT-S/14",
        weights=TimmWeights("vit_small_patch14_dinov2.lvd142m"),
        unfreeze=("blocks.11", "norm"),
        head=Head("head", in_features=WIDTH),
        features=(
            *(FeatureLayer(f"blocks.{block}", WIDTH, pool="cls") for block in range(BLOCKS)),
            FeatureLayer("fc_norm", WIDTH, pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2304.07193",
        pretrained_on="LVD-142M",
        imagenet_top1=None,  # DINOv2's weights contain no ImageNet-1k classifier
        has_classifier=False,
    )
    yield Backbone(
        name="dinov3_s",
        title="DINOv3 ViT-S/16",
        weights=TimmWeights("vit_small_patch16_dinov3.lvd1689m"),
        unfreeze=("blocks.11", "norm"),
        head=Head("head", in_features=WIDTH),
        features=(
            *(FeatureLayer(f"blocks.{block}", WIDTH, skip=DINOV3_PREFIX) for block in range(BLOCKS)),
            FeatureLayer("fc_norm", WIDTH, pool="flatten"),
        ),
        license="dinov3-license",
        paper="https://arxiv.org/abs/2508.10104",
        pretrained_on="LVD-1689M",
        imagenet_top1=None,
        has_classifier=False,
    )
