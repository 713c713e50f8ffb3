"""Other input sizes: networks take them as they are, or resampled as timm does it, or are refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from zoo import (
    Backbone,
    FileWeights,
    Head,
    Preprocessing,
    RandomWeights,
    TimmArchitecture,
    TorchvisionArchitecture,
    UsageError,
    WeightsError,
    WeightSource,
)
from zoo.backbone import Tuning
from zoo_harness.models.build import build_network
from zoo_harness.models.input_size import LoadedNetwork, _resampled_positions, load_network

NOWHERE = FileWeights("/nowhere/model.safetensors")  # a size is refused before the file is read


def named(record: Backbone, network: str, head: str = "head") -> Backbone:
    return replace(record, name=network, architecture=TimmArchitecture(network), head=Head(head), unfreeze=(head,))


def loaded(backbone: Backbone, source: WeightSource, size: tuple[int, int] | None, **changes: object) -> LoadedNetwork:
    tuning: Tuning = replace(backbone.tuning("default"), **changes)
    torch.manual_seed(0)
    return load_network(build_network(backbone.name, backbone.network), backbone, source, tuning, size)


def saved(network: nn.Module, folder: Path) -> FileWeights:
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return FileWeights(str(path))


def test_a_convolutional_network_takes_it_as_it_is(tiny_resnet: Backbone) -> None:
    own = build_network(tiny_resnet.name, tiny_resnet.network)
    found = load_network(own, tiny_resnet, RandomWeights(), tiny_resnet.tuning("default"), (32, 32))
    assert found.network is own
    assert (found.preprocessing.input_size, found.default_input_size) == ((32, 32), (160, 160))
    usual = load_network(own, tiny_resnet, RandomWeights(), tiny_resnet.tuning("default"), (160, 160))
    assert (usual.network, usual.default_input_size, usual.preprocessing.crop_fraction) == (own, None, 0.95)


def test_below_the_size_of_the_weights_nothing_is_cropped(tiny_resnet: Backbone) -> None:
    fractions = {
        size: loaded(tiny_resnet, RandomWeights(), size).preprocessing.crop_fraction
        for size in ((32, 32), (159, 96), (64, 160), (320, 320))
    }
    assert fractions == {(32, 32): 1.0, (159, 96): 1.0, (64, 160): 0.95, (320, 320): 0.95}
    recipe = loaded(tiny_resnet, RandomWeights(), None, input_size=(64, 64)).preprocessing
    assert (recipe.input_size, recipe.crop_fraction) == ((64, 64), 0.95)
    assert loaded(tiny_resnet, RandomWeights(), (32, 32), input_size=(64, 64)).default_input_size == (64, 64)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # of torch, when timm itself resamples
@pytest.mark.parametrize(
    ("network", "size"), [("deit_tiny_distilled_patch16_224", (64, 32)), ("test_maxvit", (64, 64))]
)
def test_a_fixed_network_is_resampled_as_timm_resamples_it(
    tiny_resnet: Backbone, network: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """Two class tokens beside the positions; biases of windows."""
    backbone = named(tiny_resnet, network, "head.fc" if "maxvit" in network else "head")
    theirs = timm.create_model(network).eval()
    source = saved(theirs, tmp_path)
    theirs.set_input_size(size)
    ours = loaded(backbone, source, size).network
    found, expected = ours.state_dict(), theirs.state_dict()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))
    assert ours.pretrained_cfg["state_dict"] is None


def test_weights_of_a_run_with_that_size_are_loaded_as_they_are(tiny_resnet: Backbone, tmp_path: Path) -> None:
    backbone = named(tiny_resnet, "test_maxvit", "head.fc")
    before = loaded(backbone, RandomWeights(), (64, 64)).network.state_dict()
    source = saved(loaded(backbone, RandomWeights(), (64, 64)).network, tmp_path)
    found = loaded(backbone, source, (64, 64)).network.state_dict()
    assert [name for name, value in found.items() if not torch.equal(value, before[name])] == []
    with pytest.raises(WeightsError) as refused:
        loaded(backbone, source, None)
    assert refused.value.code == "weights-mismatch"
    with pytest.raises(WeightsError):
        loaded(backbone, source, (96, 96))


def test_positions_of_a_grid_without_class_token_are_resampled() -> None:
    """As those of CaiT, which timm builds for a size but does not resample."""
    network = timm.create_model("test_vit", pretrained_cfg_overlay={"input_size": (3, 160, 160)})
    given = torch.rand(1, 100, 8)
    [(name, found)] = _resampled_positions(["pos_embed"], {"pos_embed": given}, network, (64, 96))
    grid = functional.interpolate(
        given.reshape(1, 10, 10, 8).permute(0, 3, 1, 2), size=(4, 6), mode="bicubic", antialias=True
    )
    assert name == "pos_embed"
    assert torch.allclose(found, grid.permute(0, 2, 3, 1).reshape(1, 24, 8), atol=1e-6)
    others = {"pos_embed": torch.rand(1, 101, 8), "bias": torch.rand(1, 100, 8)}
    assert [*_resampled_positions([*others], others, network, (64, 64))] == []


@pytest.mark.parametrize(
    ("network", "head", "size", "sizes", "words"),
    [
        ("test_vit", "head", (40, 40), (32, 64), "the sides are not multiples of the patch size, 16 x 16 pixels"),
        ("squeezenet1_1", "classifier.1", (8, 8), (28, 32), "Output size is too small"),
        ("gmlp_ti16_224", "head", (64, 64), (), "timm cannot resample 'blocks.0.mlp_channels.gate.proj.weight'"),
    ],
)
def test_other_sizes_are_refused_by_name(
    tiny_resnet: Backbone, network: str, head: str, size: tuple[int, int], sizes: tuple[int, ...], words: str
) -> None:
    backbone = named(tiny_resnet, network, head)
    if network == "squeezenet1_1":  # whose map vanishes
        torchvision = {"architecture": TorchvisionArchitecture(network), "preprocessing": Preprocessing((224, 224))}
        backbone = replace(backbone, **torchvision)
    with pytest.raises(UsageError, match=words) as refused:
        loaded(backbone, NOWHERE, size)
    assert refused.value.code == "input-size-refused"
    facts = refused.value.facts
    assert (facts["name"], facts["given"], facts["option"]) == (network, size, "input_size")
    assert facts["sizes"][: len(sizes)] == sizes  # type: ignore[index]
