"""CoaT-Lite Small (Xu et al. 2021) has four stages; the blocks of a stage share their position encodings."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, hookimpl

BLOCKS = (3, 4, 6, 3)
STAGE_WIDTHS = (64, 128, 320, 512)


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare CoaT-Lite Small."""
    yield Backbone(
        name="coat_lite_small",
        title="CoaT-Lite Small",
        weights=TimmWeights("coat_lite_small.in1k"),
        # The last block owns the position encodings cpe4 and crpe4 of the whole fourth stage, so zoo trains both too.
        unfreeze=("serial_blocks4.2", "norm4"),
        head=Head("head"),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=Head("head", hidden=256),
                resize="squash",
                reported_parameters=3_308_298,
            ),
        },
        features=tuple(_layers()),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2104.06399",
        pretrained_on="ImageNet-1k",
        imagenet_top1=82.302,
    )


def _layers() -> Iterator[FeatureLayer]:
    # Every stage has its own class token, but only the last stage's class token reaches the classifier. The first three
    # stages discard their token, so the mean over all tokens represents the output of a stage.
    for stage, (blocks, width) in enumerate(zip(BLOCKS, STAGE_WIDTHS, strict=True), start=1):
        yield FeatureLayer(f"patch_embed{stage}", width)
        for block in range(blocks):
            yield FeatureLayer(f"serial_blocks{stage}.{block}", width, pool="cls" if stage == 4 else "average")
    yield FeatureLayer("norm4", STAGE_WIDTHS[-1], pool="cls")
