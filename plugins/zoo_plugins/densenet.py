"""DenseNet-201 (Huang et al. 2016) with torchvision's ImageNet weights, as timm publishes them."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, Training, hookimpl

WIDTH = 1920
STAGES = (
    ("pool0", 64),
    ("denseblock1", 256),
    ("transition1", 128),
    ("denseblock2", 512),
    ("transition2", 256),
    ("denseblock3", 1792),
    ("transition3", 896),
    ("denseblock4", WIDTH),
    ("norm5", WIDTH),
)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare DenseNet-201."""
    yield Backbone(
        name="densenet201",
        title="DenseNet-201",
        weights=TimmWeights("densenet201.tv_in1k"),
        unfreeze=("features.denseblock4", "features.norm5"),
        head=Head("classifier"),
        recipes={
            "paper": Recipe(
                # Table 1 counts the trained parameters without the head.
                "Malpure et al. 2021, Table 1",
                head=Head("classifier", hidden=256),
                resize="squash",
                reported_parameters=6_982_400,
            ),
            "report": Recipe(
                # The network's last dense layer is layer 32, but the report unfroze layer 16.
                "University of Tehran 2024",
                unfreeze=("features.denseblock4.denselayer16",),
                training=Training(epochs=10),
                resize="squash",
                reported_parameters=235_210,
            ),
        },
        features=(
            *(FeatureLayer(f"features.{stage}", width) for stage, width in STAGES),
            FeatureLayer("global_pool", WIDTH, pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/1608.06993",
        pretrained_on="ImageNet-1k",
        imagenet_top1=77.284,
    )
