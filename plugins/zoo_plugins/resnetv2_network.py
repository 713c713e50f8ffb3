"""ResNet V2 (He et al. 2016) with exactly the layers of Keras applications, so that Keras' weight files can be loaded.

A module's path with ``_`` instead of every dot is the name of the Keras layer: module ``conv5.block1.preact_bn`` is
layer ``conv5_block1_preact_bn``. The networks of timm and torchvision differ in strides, padding and normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

STEM_WIDTH = 64
EXPANSION = 4


def resnet152v2() -> ResNetV2:
    """Build ResNet152V2 for the 1,000 classes of ImageNet: 60.2 million parameters, initialised as in Keras.

    >>> sum(parameter.numel() for parameter in resnet152v2().parameters())
    60236904
    """
    return ResNetV2(blocks=(3, 8, 36, 3))


class ResNetV2(nn.Module):
    """A ResNet V2 that maps images ``(B, 3, H, W)`` with values in [-1, 1] to logits ``(B, classes)``.

    ``blocks`` and ``widths`` are the number of blocks and the width of each stage, from stage ``conv2`` on. The number
    of output channels of a stage is four times its width. The last block of every stage but the last halves height and
    width.

    >>> import torch
    >>> ResNetV2(blocks=(2, 2), widths=(4, 8), classes=5)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 5])
    """

    def __init__(self, blocks: Sequence[int], widths: Sequence[int] = (64, 128, 256, 512), classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = _named(conv=nn.Conv2d(3, STEM_WIDTH, 7, stride=2, padding=3))
        # Keras pads with zeros; torch's max pool pads with minus infinity, which would change the logits by 0.12.
        self.pool1 = _named(pad=nn.ZeroPad2d(1), pool=nn.MaxPool2d(3, stride=2))
        self.stages = [f"conv{number}" for number in range(2, 2 + len(blocks))]
        channels = STEM_WIDTH
        for stage, depth, width in zip(self.stages, blocks, widths, strict=True):
            stride = 1 if stage == self.stages[-1] else 2
            self.add_module(stage, _stage(channels, width, depth, stride))
            channels = EXPANSION * width
        self.post_bn = _batch_norm(channels)
        self.post_relu = nn.ReLU()
        self.avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.predictions = nn.Linear(channels, classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits; in Keras, the layer ``predictions`` also applies a softmax."""
        values = self.pool1(self.conv1(images))
        for stage in self.stages:
            values = self.get_submodule(stage)(values)
        return self.predictions(self.avg_pool(self.post_relu(self.post_bn(values))))  # type: ignore[no-any-return]


class PreactivatedBlock(nn.Module):
    """A bottleneck block with normalisation before the convolutions.

    The block maps ``(B, C, H, W)`` to ``(B, 4 * width, H / stride, W / stride)``. In the first block of a stage, the
    shortcut is a convolution.
    """

    def __init__(self, channels: int, width: int, stride: int, *, convolved_shortcut: bool) -> None:
        super().__init__()
        self.stride = stride
        self.convolved_shortcut = convolved_shortcut
        wide = EXPANSION * width
        self.preact_bn = _batch_norm(channels)
        layers: dict[str, nn.Module] = {
            "1_conv": nn.Conv2d(channels, width, 1, bias=False),
            "1_bn": _batch_norm(width),
            "2_conv": nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            "2_bn": _batch_norm(width),
            "3_conv": nn.Conv2d(width, wide, 1),
        }
        if convolved_shortcut:
            layers["0_conv"] = nn.Conv2d(channels, wide, 1, stride=stride)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, values: Tensor) -> Tensor:
        """Return the sum of residual and shortcut; the next block begins with the activation."""
        layer = self.get_submodule
        active = relu(self.preact_bn(values))
        shortcut = layer("0_conv")(active) if self.convolved_shortcut else values[..., :: self.stride, :: self.stride]
        residual = relu(layer("1_bn")(layer("1_conv")(active)))
        residual = relu(layer("2_bn")(layer("2_conv")(residual)))
        return shortcut + layer("3_conv")(residual)  # type: ignore[no-any-return]


def _stage(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """Build the blocks ``block1`` to ``block<depth>`` of a stage; only the last block has the stride."""
    blocks: dict[str, nn.Module] = {}
    for number in range(1, depth + 1):
        blocks[f"block{number}"] = PreactivatedBlock(
            channels, width, stride if number == depth else 1, convolved_shortcut=number == 1
        )
        channels = EXPANSION * width
    return _named(**blocks)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # With torch's epsilon 1e-5 the logits would change by 8e-5. Keras' momentum 0.99 is torch's momentum 1 - 0.99.
    return nn.BatchNorm2d(channels, eps=1.001e-5, momentum=0.01)


def _named(**modules: nn.Module) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, module in modules.items():
        sequence.add_module(name, module)
    return sequence


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
