"""A complete plugin for blockzoo that declares one backbone and one dataset.

Importing this module imports neither torch nor numpy, so that ``zoo list`` stays fast; the loader imports numpy later.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, Dataset, FeatureLayer, Head, TimmWeights, hookimpl

WIDTH = 64
CLASSES = ("circle", "square", "triangle")


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare a ViT with 371,240 parameters for 160-pixel images, which timm trained for its own tests."""
    yield Backbone(
        name="example_tiny",
        title="Tiny test ViT",
        weights=TimmWeights("test_vit.r160_in1k"),
        unfreeze=("blocks.5", "norm"),
        head=Head("head"),
        features=(
            # timm builds this network for variable image sizes, so channels are the last axis of patch_embed's output.
            FeatureLayer("patch_embed", WIDTH, pool="average_channels_last"),
            *(FeatureLayer(f"blocks.{block}", WIDTH, pool="cls") for block in range(6)),
            FeatureLayer("norm", WIDTH, pool="cls"),
        ),
        license="apache-2.0",
        paper=None,  # there is no paper about this network
        pretrained_on="ImageNet-1k",
        imagenet_top1=40.946,  # timm's model card states this accuracy for images of 160 pixels
    )


@hookimpl
def zoo_datasets() -> Iterator[Dataset]:
    """Declare a dataset of 300 drawn shapes; the images are identical on every machine."""
    yield Dataset(
        name="example_shapes",
        title="Drawn circles, squares and triangles",
        loader="zoo_example.shapes:load",
        classes=CLASSES,
        license="apache-2.0",
        citation=None,
        sizes={"train": 240, "test": 60},
    )
