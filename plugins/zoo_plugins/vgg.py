"""VGG-16 and VGG-19 (Simonyan and Zisserman 2014) with torchvision's ImageNet weights, as timm publishes them."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, Recipe, TimmWeights, hookimpl

BLOCK_WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
HEAD_WIDTH = 4096


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare VGG-16 and VGG-19."""
    yield _vgg("vgg16", "VGG-16", imagenet_top1=71.600, recipes={})
    # The paper removes the two 4096-wide layers of Keras' VGG-19, so the classifier receives the pooled feature map.
    pooled = FeatureLayer("head.global_pool", BLOCK_WIDTHS[-1], pool="flatten")
    paper = Recipe(
        "Malpure et al. 2021, Table 1",
        head=Head("head.fc", hidden=256, bypass=("pre_logits",), in_features=BLOCK_WIDTHS[-1]),
        features=(*_convolutional_layers("vgg19"), pooled),
        resize="squash",
        reported_parameters=9_573_130,
    )
    yield _vgg("vgg19", "VGG-19", imagenet_top1=72.400, recipes={"paper": paper})


def _vgg(name: str, title: str, imagenet_top1: float, recipes: dict[str, Recipe]) -> Backbone:
    return Backbone(
        name=name,
        title=title,
        weights=TimmWeights(f"{name}.tv_in1k"),
        unfreeze=tuple(f"features.{index}" for index in _convolutions(name)[-CONVOLUTIONS[name][-1] :]),
        head=Head("head.fc"),
        recipes=recipes,
        features=(
            *_convolutional_layers(name),
            FeatureLayer("pre_logits.act1", HEAD_WIDTH),
            FeatureLayer("head.global_pool", HEAD_WIDTH, pool="flatten"),
        ),
        license="bsd-3-clause",
        paper="https://arxiv.org/abs/1409.1556",
        pretrained_on="ImageNet-1k",
        imagenet_top1=imagenet_top1,
    )


def _convolutional_layers(name: str) -> tuple[FeatureLayer, ...]:
    """Return feature layers for every convolution with its in-place ReLU, and for the last max pool."""
    widths = [width for width, count in zip(BLOCK_WIDTHS, CONVOLUTIONS[name], strict=True) for _ in range(count)]
    indices = _convolutions(name)
    layers = (FeatureLayer(f"features.{index + 1}", width) for index, width in zip(indices, widths, strict=True))
    return (*layers, FeatureLayer(f"features.{indices[-1] + 2}", BLOCK_WIDTHS[-1]))


def _convolutions(name: str) -> list[int]:
    """Return the indices of the convolutions in ``features``, which also holds ReLUs and max pools."""
    indices: list[int] = []
    first = 0
    for count in CONVOLUTIONS[name]:
        indices += range(first, first + 2 * count, 2)
        first += 2 * count + 1
    return indices
