"""What several test modules need: a backbone small enough to train in a test, and a fair share of the machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zoo import Backbone, FeatureLayer, Head, TimmWeights, ZooError
from zoo_harness.compute.allocator import keep_freed_memory

from .hub_server import Hub

collect_ignore = ["runs/process_checks.py"]  # a script that torchrun starts


def pytest_configure() -> None:
    """Beside other processes of pytest one thread each, in what a test starts too; torch reads it when imported."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


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


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., ZooError]:
    """Run a command that must be refused, and return its error; nothing may be on standard output."""
    from zoo_harness.cli.app import command

    def refused(*arguments: str) -> ZooError:
        with pytest.raises(ZooError) as caught:
            command()(args=list(arguments), prog_name="zoo", standalone_mode=False)
        assert capsys.readouterr().out == ""
        return caught.value

    return refused


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on loopback that this process talks to, and others with its ``environment()``.

    The token is that of ``ada``; the Hub's cache is a folder of the test's own.
    """
    import huggingface_hub

    with Hub() as server:
        server.use_here(monkeypatch, tmp_path / "hf")
        yield server
        huggingface_hub.close_session()


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
