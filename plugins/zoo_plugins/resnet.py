"""ResNet-18 (He et al. 2015) with torchvision's weights, and ResNet-50 with the weights of Wightman et al. (2021)."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare ResNet-18 and ResNet-50."""
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
        imagenet_top1=69.752,
    )
    yield Backbone(
        name="resnet50_a1",
        title="ResNet-50 A1",
        weights=TimmWeights("resnet50.a1_in1k"),
        unfreeze=("layer4.2",),
        head=Head("fc"),
        features=(
            FeatureLayer("maxpool", 64),
            FeatureLayer("layer1", 256),
            FeatureLayer("layer2", 512),
            FeatureLayer("layer3", 1024),
            FeatureLayer("layer4", 2048),
            FeatureLayer("global_pool", 2048, pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2110.00476",
        pretrained_on="ImageNet-1k",
        imagenet_top1=81.240,  # timm tests these weights at 288 pixels
    )
