"""The key of cached outputs, and the record that names their folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from zoo import Preprocessing
from zoo_harness.frozen.cache.key import CacheKey

from .caches import IMAGES, KEPT, TITLE, digest_of, key_of


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
        {"preprocessing": Preprocessing((32, 32), mean=(0.485, 0.456, 0.4061))},
        {"preprocessing": Preprocessing((32, 32), std=(0.229, 0.2241, 0.225))},
        {"images": IMAGES - 1},
        {"fingerprint": "c" * 64},
        {"precision": "bf16"},
        {"device": "cuda"},
        {"software": {"torch": "0"}},
    ],
)
def test_whatever_determines_the_outputs_changes_the_digest(change: dict[str, Any]) -> None:
    assert digest_of(key_of(**change)) != digest_of()
    assert digest_of() == digest_of(CacheKey.model_validate_json(key_of().model_dump_json()))


def test_the_split_and_the_format_change_the_digest_and_names_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of()
    assert digest_of(title=TITLE.model_copy(update={"backbone": "other", "dataset": "renamed"})) == before
    assert digest_of(title=TITLE.model_copy(update={"split": "test"})) != before
    monkeypatch.setattr("zoo_harness.frozen.cache.key.FORMAT", "blockzoo features 5")
    assert digest_of() != before


def test_the_key_names_the_software_that_computes() -> None:
    assert key_of().software["torch"] == torch.__version__.partition("+")[0]
    assert set(key_of().software) == {"blockzoo", "torch", "torchvision", "timm"}
