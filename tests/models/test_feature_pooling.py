"""Features: how a layer's output becomes one vector an image, and what is said when the record is wrong about it."""

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
    ("given", "pool", "dimensions"),
    [
        (output(2, 5), "average", "3 or 4"),
        (TOKENS, "average_channels_last", "4"),
        (MAP, "cls", "3"),
        (output(2, 5), "dist", "3"),
    ],
)
def test_output_of_another_form_is_named(given: Tensor, pool: Pool, dimensions: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        pool_features(given, FeatureLayer("blocks.3", 5, pool))
    assert str(caught.value) == (
        f"feature layer 'blocks.3': pool {pool!r} needs {dimensions} dimensions, it puts out {tuple(given.shape)}"
    )


@pytest.mark.parametrize(("given", "pool", "width"), [(MAP, "average", 5), (MAP, "flatten", 60), (TOKENS, "cls", 5)])
def test_another_width_is_named(given: Tensor, pool: Pool, width: int) -> None:
    with pytest.raises(DeclarationError) as caught:
        pool_features(given, FeatureLayer("blocks.3", 6, pool))
    assert str(caught.value) == f"feature layer 'blocks.3' is declared 6 wide with pool {pool!r}, but gives {width}"


def test_channels_last_map_read_as_channels_first_does_not_pass_unnoticed() -> None:
    with pytest.raises(DeclarationError, match="declared 5 wide"):
        pool_features(CHANNELS_LAST, FeatureLayer("layers.0", 5, "average"))
