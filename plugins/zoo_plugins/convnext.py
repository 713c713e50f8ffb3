"""ConvNeXt-T (Liu et al. 2022) with timm's weights, pretrained on 12,000 classes of ImageNet-22k."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl

STAGE_WIDTHS = (96, 192, 384, 768)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare ConvNeXt-T."""
    yield Backbone(
        name="convnext_tiny",
        title="ConvNeXt-T",
        weights=TimmWeights("convnext_tiny.in12k_ft_in1k"),
        unfreeze=("stages.3.blocks.2", "head.norm"),
        head=Head("head.fc"),
        features=(
            FeatureLayer("stem", STAGE_WIDTHS[0]),
            *(FeatureLayer(f"stages.{stage}", width) for stage, width in enumerate(STAGE_WIDTHS)),
            FeatureLayer("head.flatten", STAGE_WIDTHS[-1], pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2201.03545",
        pretrained_on="ImageNet-12k, then ImageNet-1k",
        imagenet_top1=84.448,  # timm tests these weights at 288 pixels
    )
