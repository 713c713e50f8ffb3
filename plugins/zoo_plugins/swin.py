"""Swin-B (Liu et al. 2021) with Microsoft's ImageNet-1k weights; the last axis of its feature maps is the channel."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, hookimpl

BLOCKS = (2, 2, 18, 2)
STAGE_WIDTHS = (128, 256, 512, 1024)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare Swin-B."""
    yield Backbone(
        name="swin_b",
        title="Swin-B",
        # timm's name without a tag selects weights trained on ImageNet-22k; the study used ImageNet-1k weights.
        weights=TimmWeights("swin_base_patch4_window7_224.ms_in1k"),
        unfreeze=("layers.3.blocks.1", "norm"),
        head=Head("head.fc"),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=Head("head.fc", hidden=256),
                resize="squash",
                reported_parameters=12_868_650,
            ),
        },
        features=(
            FeatureLayer("patch_embed", STAGE_WIDTHS[0], pool="average_channels_last"),
            *(
                FeatureLayer(f"layers.{stage}.blocks.{block}", STAGE_WIDTHS[stage], pool="average_channels_last")
                for stage, blocks in enumerate(BLOCKS)
                for block in range(blocks)
            ),
            FeatureLayer("norm", STAGE_WIDTHS[-1], pool="average_channels_last"),
            FeatureLayer("head.global_pool", STAGE_WIDTHS[-1], pool="flatten"),
        ),
        license="mit",
        paper="https://arxiv.org/abs/2103.14030",
        pretrained_on="ImageNet-1k",
        imagenet_top1=83.610,
    )
