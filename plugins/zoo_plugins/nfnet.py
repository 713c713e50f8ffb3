"""NFNet-F6 (Brock et al. 2021) has no normalisation layers and 438 million parameters; its weights are DeepMind's."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, hookimpl

STAGE_WIDTHS = (256, 512, 1536, 1536)
WIDTH = 3072


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare NFNet-F6."""
    yield Backbone(
        name="nfnet_f6",
        title="NFNet-F6",
        weights=TimmWeights("dm_nfnet_f6.dm_in1k"),
        unfreeze=("stages.3.20", "final_conv"),
        head=Head("head.fc"),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=Head("head.fc", hidden=256),
                resize="squash",
                input_size=(224, 224),
                reported_parameters=12_012_043,
            ),
        },
        features=(
            FeatureLayer("stem", 128),
            *(FeatureLayer(f"stages.{stage}", width) for stage, width in enumerate(STAGE_WIDTHS)),
            FeatureLayer("final_act", WIDTH),
            FeatureLayer("head.global_pool", WIDTH, pool="flatten"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2102.06171",
        pretrained_on="ImageNet-1k",
        imagenet_top1=86.372,
    )
