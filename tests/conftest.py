"""What several test modules need: a backbone small enough to train in a test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from zoo import Backbone, FeatureLayer, Head, TimmWeights
from zoo_harness.allocator import keep_freed_memory


@pytest.fixture(scope="session")
def tiny_resnet() -> Backbone:
    """timm's own test network, 0.47 million parameters, BatchNorm in every block."""
    return Backbone(
        name="tiny_resnet",
        weights=TimmWeights("test_resnet.r160_in1k"),
        unfreeze=("layer4",),
        head=Head("fc"),
        features=(FeatureLayer("layer3", 192), FeatureLayer("global_pool", 96, pool="flatten")),
        license="apache-2.0",
        paper=None,
        pretrained_on="ImageNet-1k",
        imagenet_top1=None,
    )


@pytest.fixture(scope="session", autouse=True)
def _control_c_is_heard() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C, and so would every process of the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _memory_is_kept() -> None:
    """What the commands do too: large networks run several times faster."""
    keep_freed_memory()


@pytest.fixture(scope="session", autouse=True)
def _outputs_are_kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What frozen parts put out is kept in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
