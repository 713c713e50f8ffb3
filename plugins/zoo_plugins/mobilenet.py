"""MobileNetV4 small (Qin et al. 2024) with timm's weights."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl

STAGE_WIDTHS = (32, 64, 96, 128, 960)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare MobileNetV4 small."""
    yield Backbone(
        name="mobilenetv4_s",
        title="MobileNetV4 small",
        weights=TimmWeights("mobilenetv4_conv_small.e2400_r224_in1k"),
        unfreeze=("blocks.4", "conv_head", "norm_head"),
        head=Head("classifier"),
        features=(
            FeatureLayer("bn1", 32),
            *(FeatureLayer(f"blocks.{stage}", width) for stage, width in enumerate(STAGE_WIDTHS)),
            FeatureLayer("flatten", 1280, pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2404.10518",
        pretrained_on="ImageNet-1k",
        imagenet_top1=74.644,  # timm tests these weights at 256 pixels
    )
