"""Networks to train from scratch on 32 x 32 images: VGG-16 with BatchNorm, ResNet-18 and EfficientNet-B0.

The University of Tehran's 2023 report ranks these networks by the Separation Index. No weights are published, so the
networks start with random weights and all modules are trained; recipe ``scratch`` is the recipe of the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from zoo import SCRATCH, Backbone, FactoryArchitecture, FeatureLayer, Head, Preprocessing, RandomWeights, hookimpl

# The report prints this mean and standard deviation of the CIFAR-100 training images.
CIFAR100 = Preprocessing(input_size=(32, 32), mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))

VGG_POOLS = ((6, 64), (13, 128), (23, 256), (33, 512), (43, 512))
RESNET_BLOCKS = ((1, 64), (2, 128), (3, 256), (4, 512))
EFFICIENTNET_STAGES = (32, 16, 24, 40, 80, 112, 192, 320, 1280)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare the three networks for CIFAR."""
    yield _trained_from_scratch(
        "vgg16_bn_cifar",
        "VGG-16 with BatchNorm, for CIFAR",
        Head("classifier.6"),
        (
            *(FeatureLayer(f"features.{index}", width) for index, width in VGG_POOLS),
            FeatureLayer("classifier.2", 4096, pool="flatten"),
            FeatureLayer("classifier.5", 4096, pool="flatten"),
        ),
        paper="https://arxiv.org/abs/1409.1556",
        reported_parameters=34_015_396,
    )
    yield _trained_from_scratch(
        "resnet18_cifar",
        "ResNet-18 for CIFAR",
        Head("fc"),
        (
            FeatureLayer("relu", 64),
            *(FeatureLayer(f"layer{stage}.{block}", width) for stage, width in RESNET_BLOCKS for block in range(2)),
            FeatureLayer("avgpool", 512),
        ),
        paper="https://arxiv.org/abs/1512.03385",
        reported_parameters=11_220_132,
    )
    yield _trained_from_scratch(
        "efficientnet_b0_cifar",
        "EfficientNet-B0 for CIFAR",
        Head("classifier.1"),
        (
            *(FeatureLayer(f"features.{stage}", width) for stage, width in enumerate(EFFICIENTNET_STAGES)),
            FeatureLayer("avgpool", 1280),
        ),
        paper="https://arxiv.org/abs/1905.11946",
        reported_parameters=4_135_648,
    )


def _trained_from_scratch(
    name: str, title: str, head: Head, features: tuple[FeatureLayer, ...], paper: str, reported_parameters: int
) -> Backbone:
    return Backbone(
        name=name,
        title=title,
        architecture=FactoryArchitecture(f"zoo_plugins.cifar_networks:{name.removesuffix('_cifar')}"),
        weights=RandomWeights(),
        preprocessing=CIFAR100,
        unfreeze=("*",),
        head=head,
        features=features,
        recipes={"scratch": replace(SCRATCH, reported_parameters=reported_parameters, reported_classes=100)},
        license=None,  # there are no weights to license
        paper=paper,
        pretrained_on=None,
        imagenet_top1=None,
    )
