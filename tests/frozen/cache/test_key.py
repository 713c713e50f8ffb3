"""The key of cached outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo import Preprocessing
from zoo_harness.frozen.cache.key import CachedTensor, CacheKey

IMAGES = 1300
KEPT = CachedTensor(name="block", shape=(16,), dtype="float32")


def key_of(*kept: CachedTensor, images: int = IMAGES, **changes: Any) -> CacheKey:
    given = {
        "network": "test_resnet",
        "weights": "a" * 64,
        "kept": kept or (KEPT,),
        "preprocessing": Preprocessing((32, 32)),
        "images": images,
        "fingerprint": "b" * 64,
        "precision": "fp32",
        "device": "cpu",
    }
    return CacheKey(**{**given, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"network": "test_vit"},
        {"weights": "c" * 64},
        {"kept": (KEPT.model_copy(update={"name": "other"}),)},
        {"kept": (KEPT.model_copy(update={"shape": (4, 4)}),)},
        {"kept": (KEPT.model_copy(update={"dtype": "bfloat16"}),)},
        {"kept": (KEPT.model_copy(update={"stored": "bfloat16"}),)},
        {"kept": (KEPT, KEPT)},
        {"preprocessing": Preprocessing((32, 32), interpolation="nearest")},
        {"preprocessing": Preprocessing((32, 33))},
        {"images": IMAGES - 1},
        {"fingerprint": "c" * 64},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"software": {"torch": "0"}},
    ],
)
def test_whatever_determines_the_outputs_changes_the_key(change: dict[str, Any]) -> None:
    assert key_of(**change).digest != key_of().digest
    assert key_of().digest == CacheKey.model_validate_json(key_of().model_dump_json()).digest


def test_the_format_of_the_files_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of().digest
    monkeypatch.setattr("zoo_harness.frozen.cache.key.FORMAT", "blockzoo features 3")
    assert key_of().digest != before


def test_the_key_names_the_software_that_computes() -> None:
    assert key_of().software["torch"] == torch.__version__.partition("+")[0]
    assert set(key_of().software) == {"blockzoo", "torch", "torchvision", "timm"}
