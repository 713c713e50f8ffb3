"""torchvision's VGG-16, ResNet-18 and EfficientNet-B0, adapted to 32 x 32 images.

All three networks have 100 classes, as in the 2023 report.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import resnet18 as imagenet_resnet18
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.vgg import cfgs, make_layers

CLASSES = 100
HIDDEN = 4096

# Columns: expansion, kernel size, stride for 32 x 32 images, input channels, output channels, number of layers.
EFFICIENTNET_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 1, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


class SmallVGG(nn.Module):
    """VGG-16 with BatchNorm for 32 x 32 images: after five max pools, the classifier receives 512 values."""

    def __init__(self) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"], batch_norm=True)
        self.classifier = nn.Sequential(
            nn.Linear(512, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(HIDDEN, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, 100)`` for images ``(B, 3, 32, 32)``."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def vgg16_bn() -> nn.Module:
    """Build VGG-16 with BatchNorm and 34,015,396 parameters.

    >>> sum(parameter.numel() for parameter in vgg16_bn().parameters())
    34015396
    """
    return SmallVGG()


def resnet18() -> nn.Module:
    """Build ResNet-18 with a 3 x 3 stem of stride 1, without the first max pool (11,220,132 parameters).

    >>> sum(parameter.numel() for parameter in resnet18().parameters())
    11220132
    """
    network: nn.Module = imagenet_resnet18(weights=None, num_classes=CLASSES)
    stem = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNet does
    network.conv1 = stem
    network.maxpool = nn.Identity()
    return network


def efficientnet_b0() -> nn.Module:
    """Build EfficientNet-B0 with strides for small images, dropout 0.2 and no stochastic depth (4,135,648 parameters).

    >>> sum(parameter.numel() for parameter in efficientnet_b0().parameters())
    4135648
    """
    stages = [MBConvConfig(*stage) for stage in EFFICIENTNET_STAGES]
    network: nn.Module = EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.0, num_classes=CLASSES)
    stem = network.get_submodule("features.0.0")
    stem.stride = (1, 1)  # type: ignore[assignment]
    return network
