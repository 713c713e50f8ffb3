"""Features: a layer's output as one vector per image, and errors if the record declares it wrongly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo import DeclarationError, FeatureLayer
from zoo.backbone import Pool
from zoo_harness.models.feature_pooling import pool_features


def output(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


MAP = output(2, 5, 3, 4)
TOKENS = output(2, 7, 5)
CHANNELS_LAST = output(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("given", "pool", "expected"),
    [
        (MAP, "average", torch.stack([image.reshape(5, 12).mean(1) for image in MAP])),
        (MAP, "flatten", MAP.reshape(2, 60)),
        (output(2, 5), "flatten", output(2, 5)),
        (TOKENS, "average", torch.stack([tokens.mean(0) for tokens in TOKENS])),
        (TOKENS, "cls", torch.stack([tokens[0] for tokens in TOKENS])),
        (TOKENS, "dist", torch.stack([tokens[1] for tokens in TOKENS])),
        (
            CHANNELS_LAST,
            "average_channels_last",
            torch.stack([image.reshape(12, 5).mean(0) for image in CHANNELS_LAST]),
        ),
    ],
)
def test_vectors(given: Tensor, pool: Pool, expected: Tensor) -> None:
    vectors = pool_features(given, FeatureLayer("layer", expected.shape[1], pool))
    torch.testing.assert_close(vectors, expected)


@pytest.mark.parametrize(
    ("given", "pool", "width", "code"),
    [
        (output(2, 5), "average", 5, "layer-shape"),
        (TOKENS, "average_channels_last", 5, "layer-shape"),
        (MAP, "cls", 5, "layer-shape"),
        (output(2, 5), "dist", 5, "layer-shape"),
        (MAP, "average", 6, "layer-width"),
        (MAP, "flatten", 6, "layer-width"),
        (TOKENS, "cls", 6, "layer-width"),
        (CHANNELS_LAST, "average", 5, "layer-width"),  # not taken for a map with the channels first
    ],
)
def test_another_shape_or_width_is_an_error(given: Tensor, pool: Pool, width: int, code: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        pool_features(given, FeatureLayer("blocks.3", width, pool))
    assert (caught.value.code, caught.value.facts["layer"]) == (code, "blocks.3")
