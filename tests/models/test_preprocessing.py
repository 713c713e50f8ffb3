"""Preprocessing: the same pixels as timm's and torchvision's own PIL transforms, to one grey level."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import timm.data
import torch
import torchvision
from sklearn.datasets import load_digits, load_sample_image
from torchvision.models import get_model_weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from zoo import (
    Backbone,
    DataError,
    DeclarationError,
    FactoryArchitecture,
    Preprocessing,
    RandomWeights,
    TimmWeights,
    TorchvisionWeights,
)
from zoo_harness.data.pixel_statistics import PixelCounts
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import normalised_by, resolve_preprocessing
from zoo_harness.records.normalization import OF_WEIGHTS, Normalization

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def small(side: int) -> Pixels:
    return np.array(PIL.Image.fromarray(skimage.data.camera()).resize((side, side)))


PHOTOS: dict[str, Pixels] = {
    "landscape": load_sample_image("china.jpg").copy(),  # 427 x 640
    "portrait": load_sample_image("flower.jpg").transpose(1, 0, 2).copy(),  # 640 x 427
    "cat": skimage.data.cat(),  # 300 x 451
    "strip": skimage.data.coffee()[:49, :98],  # 98 * (32 / 49) is 63.99... in floating point
    "grey": skimage.data.camera(),
    "grey 28": small(28),
    "digit": (load_digits().images[7] * 15).astype(np.uint8),  # 8 x 8
}


def assert_within_one_level(ours: torch.Tensor, theirs: torch.Tensor, preprocessing: Preprocessing) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    levels = (ours - theirs).abs() * torch.tensor(preprocessing.std).view(3, 1, 1) * 255
    assert float(levels.max()) < 1.01


def timms(preprocessing: Preprocessing, photo: Pixels) -> torch.Tensor:
    transform = timm.data.create_transform(
        (3, *preprocessing.input_size),
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_fraction,
        crop_mode=preprocessing.crop_mode,
    )
    image = PIL.Image.fromarray(photo).convert("RGB")
    if preprocessing.crop_mode == "squash":  # width first, which Pillow 13 no longer does by itself
        width = int(preprocessing.input_size[1] / preprocessing.crop_fraction)
        filters = {"bicubic": PIL.Image.Resampling.BICUBIC, "bilinear": PIL.Image.Resampling.BILINEAR}
        image = image.resize((width, image.height), filters[preprocessing.interpolation])
    result: torch.Tensor = transform(image)
    return result


PREPROCESSINGS = [
    Preprocessing(input_size=(224, 224), crop_fraction=0.875),
    Preprocessing(input_size=(224, 224), crop_fraction=0.9, interpolation="bilinear"),
    Preprocessing(input_size=(160, 160), crop_fraction=0.95, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    Preprocessing(input_size=(224, 224), crop_mode="squash"),
    Preprocessing(input_size=(64, 96), crop_mode="squash", crop_fraction=0.9, interpolation="bilinear"),
    Preprocessing(input_size=(32, 32), interpolation="bilinear"),
    Preprocessing(input_size=(64, 32), crop_fraction=0.9),
    Preprocessing(input_size=(64, 96), crop_fraction=0.875, interpolation="bilinear"),
]


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("preprocessing", PREPROCESSINGS, ids=lambda p: f"{p.input_size[0]}-{p.interpolation}")
def test_same_pixels_as_timm(name: str, preprocessing: Preprocessing) -> None:
    ours = BatchTransform(preprocessing)(torch.from_numpy(PHOTOS[name])[None])[0]
    assert_within_one_level(ours, timms(preprocessing, PHOTOS[name]), preprocessing)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preprocessing", PREPROCESSINGS, ids=lambda p: f"{p.input_size[0]}-{p.interpolation}")
def test_cuda_gives_the_same_pixels(preprocessing: Preprocessing) -> None:
    for photo in PHOTOS.values():
        batch = torch.from_numpy(photo)[None]
        transform = BatchTransform(preprocessing)
        assert_within_one_level(transform(batch.cuda()).cpu(), transform(batch), preprocessing)


# Not where a pixel's centre falls on the border of two: PIL and torch round such ties differently.
@pytest.mark.parametrize("name", ["cat", "grey 28", "digit"])
def test_nearest_takes_the_same_pixels(name: str) -> None:
    preprocessing = Preprocessing(input_size=(32, 32), interpolation="nearest")
    ours = BatchTransform(preprocessing)(torch.from_numpy(PHOTOS[name])[None])[0]
    assert torch.allclose(ours, timms(preprocessing, PHOTOS[name]), atol=1e-6)


def test_images_of_a_batch_do_not_mix() -> None:
    transform = BatchTransform(PREPROCESSINGS[0])
    photo = torch.from_numpy(PHOTOS["cat"])
    batch = torch.stack([photo, photo.flip(1), 255 - photo])
    assert torch.equal(transform(batch), torch.cat([transform(image[None]) for image in batch]))


def test_geometry_comes_before_values() -> None:
    transform = BatchTransform(PREPROCESSINGS[0])
    batch = torch.from_numpy(PHOTOS["cat"])[None]
    planes = transform.resize_and_crop(batch)
    assert (planes.dtype, planes.shape) == (torch.uint8, (1, 3, 224, 224))
    assert torch.equal(transform.normalise(planes), transform(batch))


@pytest.mark.parametrize("short", [7, 28, 32, 49, 98, 103, 427])
@pytest.mark.parametrize("crop_fraction", [0.875, 0.9, 1.0])
def test_resized_sizes_are_torchvisions(short: int, crop_fraction: float) -> None:
    from torchvision.transforms.v2.functional import resize

    preprocessing = Preprocessing(input_size=(32, 32), crop_fraction=crop_fraction)
    side = int(32 / crop_fraction)
    for long in range(short, 5 * short, max(1, short // 7)):
        for height, width in ((short, long), (long, short)):
            expected = resize(torch.zeros(1, height, width, dtype=torch.uint8), [side], antialias=True).shape[-2:]
            assert BatchTransform(preprocessing)._resized_size(height, width) == list(expected)


# The preprocessing of the weights


@pytest.mark.parametrize(
    "name", ["test_resnet.r160_in1k", "deit_tiny_distilled_patch16_224.fb_in1k", "tf_efficientnetv2_b0.in1k"]
)
def test_timm_weights_bring_their_own(tiny_resnet: Backbone, name: str) -> None:
    backbone = replace(tiny_resnet, weights=TimmWeights(name))
    network = build_network(name, backbone.network, "meta")
    found = resolve_preprocessing(backbone, network, backbone.tuning("default"))
    config = timm.data.resolve_data_config({}, model=network)
    theirs = timm.data.create_transform(**config)(PIL.Image.fromarray(PHOTOS["cat"]))
    assert_within_one_level(BatchTransform(found)(torch.from_numpy(PHOTOS["cat"])[None])[0], theirs, found)


def test_squash_keeps_everything_but_the_crop(tiny_resnet: Backbone) -> None:
    network = build_network("x", tiny_resnet.network, "meta")
    own = resolve_preprocessing(tiny_resnet, network, tiny_resnet.tuning("default"))
    assert own.crop_mode == "center"
    squashed = resolve_preprocessing(tiny_resnet, network, replace(tiny_resnet.tuning("default"), resize="squash"))
    assert squashed == replace(own, crop_fraction=1.0, crop_mode="squash")


def test_a_recipe_may_ask_for_another_input_size(tiny_resnet: Backbone) -> None:
    network = build_network("x", tiny_resnet.network, "meta")
    own = resolve_preprocessing(tiny_resnet, network, tiny_resnet.tuning("default"))
    larger = replace(tiny_resnet.tuning("default"), input_size=(192, 224))
    assert resolve_preprocessing(tiny_resnet, network, larger) == replace(own, input_size=(192, 224))


def test_crop_that_timm_alone_knows_is_refused(tiny_resnet: Backbone) -> None:
    network = build_network("x", tiny_resnet.network, "meta")
    network.pretrained_cfg["crop_mode"] = "border"
    with pytest.raises(DeclarationError) as caught:
        resolve_preprocessing(tiny_resnet, network, tiny_resnet.tuning("default"))
    assert caught.value.code == "crop-mode"


PRESETS = [
    (name, member.name)
    for name in torchvision.models.list_models(torchvision.models)
    for member in get_model_weights(name)
    if isinstance(member.transforms(), ImageClassification)
]


def of_torchvision(tiny_resnet: Backbone, name: str, tag: str) -> Preprocessing:
    weights = TorchvisionWeights(name, tag, "file.pth")
    return resolve_preprocessing(
        replace(tiny_resnet, weights=weights), torch.nn.Identity(), tiny_resnet.tuning("default")
    )


def test_every_torchvision_preset_is_resolved_to_its_own_sizes(tiny_resnet: Backbone) -> None:
    assert len(PRESETS) > 80
    for name, tag in PRESETS:
        preset = get_model_weights(name)[tag].transforms()
        found = of_torchvision(tiny_resnet, name, tag)
        assert BatchTransform(found)._resized_size(1000, 1000) == preset.resize_size * 2, (name, tag)
        assert found.input_size == (*preset.crop_size * 2,)
        assert InterpolationMode(found.interpolation) == preset.interpolation
        assert (list(found.mean), list(found.std)) == (preset.mean, preset.std)


@pytest.mark.parametrize(
    ("name", "tag"),
    [("squeezenet1_1", "IMAGENET1K_V1"), ("efficientnet_b4", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2")],
)
@pytest.mark.parametrize("photo", ["landscape", "portrait", "digit"])
def test_same_pixels_as_torchvision(tiny_resnet: Backbone, name: str, tag: str, photo: str) -> None:
    found = of_torchvision(tiny_resnet, name, tag)
    theirs = get_model_weights(name)[tag].transforms()(PIL.Image.fromarray(PHOTOS[photo]).convert("RGB"))
    assert_within_one_level(BatchTransform(found)(torch.from_numpy(PHOTOS[photo])[None])[0], theirs, found)


def test_the_record_decides_and_must_have_it_if_the_weights_do_not(tiny_resnet: Backbone) -> None:
    own = Preprocessing(input_size=(8, 8), mean=(0.0, 0.0, 0.0))
    network = build_network("x", tiny_resnet.network, "meta")
    default = tiny_resnet.tuning("default")
    assert resolve_preprocessing(replace(tiny_resnet, preprocessing=own), network, default) is own
    elsewhere = FactoryArchitecture("somewhere:make")
    with pytest.raises(DeclarationError) as caught:
        resolve_preprocessing(replace(tiny_resnet, weights=RandomWeights(), architecture=elsewhere), network, default)
    assert caught.value.code == "preprocessing-missing"


def test_mean_and_standard_deviation_alone_are_replaced() -> None:
    own = Preprocessing((32, 48), interpolation="bilinear", crop_fraction=0.9)
    assert normalised_by(own, OF_WEIGHTS, None) is own
    given = Normalization("given", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert normalised_by(own, given, None) == replace(own, mean=given.mean, std=given.std)
    counts = PixelCounts.of_image(PHOTOS["cat"])
    found = normalised_by(own, Normalization("dataset"), counts)
    assert found == replace(own, mean=counts.mean, std=counts.std)
    normalised = BatchTransform(found).normalise(torch.from_numpy(PHOTOS["cat"]).permute(2, 0, 1)[None])
    assert normalised.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert normalised.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_channel_without_variation_cannot_be_normalised() -> None:
    photo = PHOTOS["cat"].copy()
    photo[..., 1] = 7
    with pytest.raises(DataError) as caught:
        normalised_by(Preprocessing((32, 32)), Normalization("dataset"), PixelCounts.of_image(photo))
    assert (caught.value.code, caught.value.facts) == ("constant-channel", {"channel": "green"})
