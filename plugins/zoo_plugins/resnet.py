"""ResNet-18 (He et al. 2015) with torchvision's ImageNet weights, as timm publishes them."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare the ResNet family."""
    yield Backbone(
        name="resnet18",
        title="ResNet-18",
        weights=TimmWeights("resnet18.tv_in1k"),
        unfreeze=("layer4.1",),
        head=Head("fc"),
        features=(
            FeatureLayer("maxpool", 64),
            FeatureLayer("layer1", 64),
            FeatureLayer("layer2", 128),
            FeatureLayer("layer3", 256),
            FeatureLayer("layer4", 512),
            FeatureLayer("global_pool", 512, pool="flatten"),
        ),
        license="bsd-3-clause",
        paper="https://arxiv.org/abs/1512.03385",
        pretrained_on="ImageNet-1k",
        imagenet_top1=69.760,
    )
