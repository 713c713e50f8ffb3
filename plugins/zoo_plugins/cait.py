"""CaiT-S24 (Touvron et al. 2021) has 24 self-attention blocks and two blocks in which only the class token attends."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, Training, hookimpl

WIDTH = 384


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare CaiT-S24."""
    yield Backbone(
        name="cait_s24",
        title="CaiT-S24",
        weights=TimmWeights("cait_s24_224.fb_dist_in1k"),
        unfreeze=("blocks_token_only.1", "norm"),
        head=Head("head"),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=Head("head", hidden=256),
                resize="squash",
                reported_parameters=1_877_130,
            ),
            "report": Recipe(
                # The report trains a self-attention block, and counts the parameters with the original head.
                "University of Tehran 2024",
                unfreeze=("blocks.23",),
                training=Training(epochs=10),
                resize="squash",
                reported_parameters=1_775_376,
            ),
        },
        features=(
            FeatureLayer("patch_embed", WIDTH),
            *(FeatureLayer(f"blocks.{block}", WIDTH) for block in range(24)),
            *(FeatureLayer(f"blocks_token_only.{block}", WIDTH, pool="cls") for block in range(2)),
            FeatureLayer("norm", WIDTH, pool="cls"),
        ),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2103.17239",
        pretrained_on="ImageNet-1k",
        imagenet_top1=83.484,
    )
