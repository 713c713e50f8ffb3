"""The conformance test: it passes for what is declared truly, and tells each way of being wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo import (
    Backbone,
    DeclarationError,
    DualHead,
    FactoryArchitecture,
    FeatureLayer,
    Head,
    Preprocessing,
    RandomWeights,
    Recipe,
    TimmWeights,
)
from zoo.testing import check_backbone


class Small(nn.Module):
    """Two blocks, dropout and a classifier, all that a declaration can be wrong about."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.block2 = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(12, 5)

    def body(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.pool(self.block2(self.block1(images))).flatten(1)
        return vectors

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.drop(self.body(images)))
        return logits


class Counting(Small):
    """Counts its batches by hand, in whatever mode."""

    seen: Tensor

    def __init__(self, *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1), persistent=persistent)

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(images)


def counting_out_of_sight() -> Counting:
    return Counting(persistent=False)


class Forgetful(Small):
    """Scales by something drawn when it is made and not kept with the weights."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(()) + 1, persistent=False)

    def body(self, images: Tensor) -> Tensor:
        return super().body(images * self.scale)


class Restless(Small):
    """Drops parts of the image by its own flag, before anything frozen."""

    def body(self, images: Tensor) -> Tensor:
        return super().body(nn.functional.dropout(images, 0.2, self.training))


class Idle(Small):
    """Holds a block it never uses, and one whose output it cuts off from the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(12, 12)
        self.detached = nn.Conv2d(3, 3, 1)
        self.auxiliary = nn.Linear(12, 5)

    def body(self, images: Tensor) -> Tensor:
        return super().body(images + self.detached(images).detach())


class Twofold(Small):
    """Two classifiers; in training it returns both logits, else their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_dist = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        vectors = self.body(images)
        both = self.fc(vectors), self.fc_dist(-vectors)
        return both if self.training else (both[0] + both[1]) / 2


class PerPixel(Small):
    """Classifies every place of its map."""

    def forward(self, images: Tensor) -> Tensor:
        places: Tensor = self.fc(self.block2(self.block1(images)).permute(0, 2, 3, 1))
        return places


class InTuple(Small):
    """A layer and the network itself put out more than a tensor."""

    class Pair(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    def __init__(self) -> None:
        super().__init__()
        self.pair = self.Pair()

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(self.pair(images)[0])}


class Wide(Small):
    """Its classifier sees more than its pool gives."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(24, 5)

    def body(self, images: Tensor) -> Tensor:
        return super().body(images).repeat(1, 2)


def not_a_network() -> str:
    return "no module"


FEATURES = (FeatureLayer("block1", 8), FeatureLayer("block2", 12), FeatureLayer("pool", 12, pool="flatten"))
SMALL = Backbone(
    name="small",
    weights=RandomWeights(),
    architecture=FactoryArchitecture(f"{__name__}:Small"),
    preprocessing=Preprocessing((15, 15)),
    unfreeze=("block2",),
    head=Head("fc"),
    features=FEATURES,
    license=None,
    paper=None,
    pretrained_on=None,
    imagenet_top1=None,
)
TIMM = {
    "test_resnet": replace(
        SMALL,
        weights=TimmWeights("test_resnet.r160_in1k"),
        architecture=None,
        preprocessing=None,
        unfreeze=("layer4",),
        features=(FeatureLayer("layer3", 192), FeatureLayer("global_pool", 96, pool="flatten")),
    ),
    "test_vit": replace(
        SMALL,
        weights=TimmWeights("test_vit.r160_in1k"),
        architecture=None,
        preprocessing=None,
        unfreeze=("blocks.5", "norm"),
        head=Head("head"),
        features=(FeatureLayer("blocks.0", 64), FeatureLayer("norm", 64, pool="cls")),
    ),
    "test_efficientnet": replace(
        SMALL,
        weights=TimmWeights("test_efficientnet.r160_in1k"),
        architecture=None,
        preprocessing=None,
        unfreeze=("blocks.[34]", "conv_head", "bn2"),
        head=Head("classifier"),
        features=(FeatureLayer("blocks.0", 16), FeatureLayer("global_pool", 256, pool="flatten")),
    ),
}


def small(make: Callable[[], nn.Module] = Small, **changes: Any) -> Backbone:
    return replace(SMALL, architecture=FactoryArchitecture(f"{__name__}:{make.__name__}"), **changes)


def refused(backbone: Backbone) -> str:
    with pytest.raises(DeclarationError) as caught:
        check_backbone(backbone)
    return str(caught.value)


@pytest.mark.parametrize("name", TIMM)
def test_a_network_of_timm_passes_with_both_kinds_of_head(name: str) -> None:
    (head,) = TIMM[name].head.parts
    check_backbone(replace(TIMM[name], recipes={"mlp": Recipe("us", head=replace(head, hidden=16))}))


@pytest.mark.parametrize(
    "backbone",
    [
        small(),
        small(unfreeze=()),
        small(unfreeze=("block*",)),
        small(unfreeze=("block2.1",)),
        small(head=Head("fc", hidden=4)),
        small(Twofold, head=DualHead(Head("fc"), Head("fc_dist"))),
        small(Twofold, head=DualHead(Head("fc", hidden=4), Head("fc_dist"))),
        small(InTuple),
    ],
)
def test_a_network_of_ones_own_passes(backbone: Backbone) -> None:
    check_backbone(backbone, classes=3, seed=7)


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    check_backbone(small())
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (small(unfreeze=("blok2",)), "no module of the network matches 'blok2'; did you mean 'block2'"),
        (small(unfreeze=("block2", "layer*")), "no module of the network matches 'layer*'; it has block1, block1.0,"),
        (small(unfreeze=("block2.*.conv",)), "no module of the network matches 'block2.*.conv'"),
        (small(unfreeze=("block2", "pool")), "unfreeze pattern 'pool' matches no parameters, only AdaptiveAvgPool2d"),
        (small(head=Head("fcs")), "the network has no module 'fcs'; did you mean 'fc'?"),
        (small(head=Head("classifier")), "the network has no module 'classifier'; it has block1,"),
        (small(head=Head("fc.weight")), "the network has no module 'fc.weight'"),
        (
            small(head=Head("block2")),
            "head 'block2' is of type Sequential; expected the torch.nn.Linear that gives the logits",
        ),
        (small(Idle, head=Head("auxiliary")), "head 'auxiliary' exists but never runs"),
        (
            small(Twofold, head=DualHead(Head("fc"), Head("fc_dits"))),
            "the network has no module 'fc_dits'; did you mean 'fc_dist'",
        ),
        (
            small(features=(FeatureLayer("block3", 8), *FEATURES)),
            "the network has no module 'block3'; did you mean 'block",
        ),
        (small(Idle, features=(FeatureLayer("unused", 12), *FEATURES)), "feature layer 'unused' exists but never runs"),
        (
            small(features=(FeatureLayer("block1", 9), *FEATURES[1:])),
            "feature layer 'block1' has the declared width 9 with pool 'average', but its vectors have width 8",
        ),
        (
            small(features=(FeatureLayer("block1", 8, pool="flatten"), *FEATURES[1:])),
            "feature layer 'block1' has the declared width 8 with pool 'flatten', but its vectors have width 392",
        ),
        (
            small(features=(FeatureLayer("block1", 8, pool="cls"), *FEATURES[1:])),
            "shape of feature layer 'block1' does not fit pool 'cls': (2, 8, 7, 7)",
        ),
        (
            small(features=(FeatureLayer("block1", 8, pool="average_channels_last"), *FEATURES[1:])),
            "feature layer 'block1' has the declared width 8 with pool 'average_channels_last', but its vectors have "
            "width 7",
        ),
        (
            small(InTuple, features=(FeatureLayer("pair", 3), *FEATURES)),
            "output of layer 'pair' is a tuple; expected one tensor",
        ),
        (
            small(features=(FEATURES[1], FEATURES[0], FEATURES[2])),
            "feature layers are not in depth order: ['block2', 'block1', 'pool']; expected ['block1'",
        ),
        (
            small(features=FEATURES[:1]),
            "the last feature layer, 'block1', is not the input of the classifier 'fc': shape (2, 8) instead of",
        ),
        (
            small(features=(FEATURES[0], FeatureLayer("block2.0", 12))),
            "the last feature layer, 'block2.0', is not the input of the classifier 'fc'",
        ),
        (
            small(Wide),
            "the last feature layer, 'pool', is not the input of the classifier 'fc': shape (2, 12) instead of (2, 24)",
        ),
        (small(PerPixel), "head 'fc' returns logits of shape (2, 3, 3, 10); expected (2, 10)"),
        (small(Idle, unfreeze=("unused",)), "trained tensor 'unused.weight' receives no gradient (2 such tensor(s))"),
        (small(Idle, unfreeze=("block2", "detached")), "trained tensor 'detached.weight' receives no gradient"),
        (small(Counting), "frozen tensor 'seen' changed in a training step (1 such tensor(s))"),
        (small(counting_out_of_sight), "frozen tensor 'seen' changed in a training step"),
        (small(Restless), "frozen module 'block1.0' has another output in training mode"),
        (small(Forgetful), "a saved checkpoint returns other logits after loading"),
    ],
)
def test_a_wrong_declaration_is_told(backbone: Backbone, message: str) -> None:
    assert refused(backbone).startswith(f"backbone 'small', recipe 'default': {message}")


def test_every_recipe_is_checked_and_named() -> None:
    recipes = {"right": Recipe("us", head=Head("fc", hidden=4)), "wrong": Recipe("us", unfreeze=("block7",))}
    assert refused(small(recipes=recipes)).startswith("backbone 'small', recipe 'wrong': no module of the network")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": TimmWeights("test_resnet.r161_in1k")},
            "timm .* has no 'test_resnet.r161_in1k'; did you mean test_r",
        ),
        ({"architecture": FactoryArchitecture("no_such_module:make")}, "'no_such_module:make' cannot be imported"),
        ({"architecture": FactoryArchitecture(f"{__name__}:nothing")}, ":nothing' cannot be imported"),
        ({"architecture": FactoryArchitecture(f"{__name__}:FEATURES")}, ":FEATURES' is not callable"),
        (
            {"architecture": FactoryArchitecture(f"{__name__}:not_a_network")},
            "returned str; expected a torch.nn.Module",
        ),
        ({"architecture": FactoryArchitecture(f"{__name__}:Small")}, "preprocessing of backbone 'small' is unknown"),
    ],
)
def test_a_network_that_cannot_be_made_is_told(changes: dict[str, Any], message: str) -> None:
    blank: dict[str, Any] = {"architecture": None, "preprocessing": None}
    told = refused(replace(SMALL, **{**blank, **changes}))
    assert "backbone 'small'" in told
    assert re.search(message, told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imagenet_top1": 0.76}, "backbone 'small': imagenet_top1=0.76 is wrong; expected percent; try 76"),
        (
            {"recipes": {"paper": Recipe("somebody", reported_parameters=77)}},
            "backbone 'small', recipe 'paper': reported_parameters is 77, but for 10 classes 1,030 train, 900 without",
        ),
        (
            {"head": Head("fc", in_features=99)},
            "backbone 'small', recipe 'default': in_features of head 'fc' is wrong: 99; expected 12",
        ),
        (
            {"head": Head("fc", bypass=("block2",), in_features=8)},
            "backbone 'small', recipe 'default': the recipe trains module 'block2', but the head bypasses it",
        ),
    ],
)
def test_facts_and_widths_that_cannot_be_are_told(changes: dict[str, Any], message: str) -> None:
    assert refused(small(**changes)).startswith(message)


@pytest.mark.parametrize("reported", [1_030, 900])
def test_a_reported_count_is_true_with_or_without_the_head(reported: int) -> None:
    check_backbone(small(recipes={"paper": Recipe("somebody", reported_parameters=reported)}))
