"""The one public door: every name is there, and none costs more than it must."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zoo

HEAVY = {
    "torch", "timm", "torchvision", "datasets", "huggingface_hub", "numpy", "sklearn", "matplotlib", "PIL",
    "safetensors", "transformers", "jinja2",
}  # fmt: skip
SUBMODULES = (
    "architecture", "backbone", "class_names", "dataset", "errors", "fields", "hookspecs", "image_kinds",
    "reachability", "registry", "testing", "weight_paths", "weights",
)  # fmt: skip


def heavy_after(program: str, cache: Path) -> list[str]:
    """Which heavy packages a fresh interpreter holds after a program."""
    code = f"{program}\nimport sys; sys.stderr.write(' '.join(sorted({HEAVY!r} & sys.modules.keys())))"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stderr.split()


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_resolves_to_what_its_home_calls_so(name: str) -> None:
    value = getattr(zoo, name)
    if name != "__version__":
        home = importlib.import_module(zoo._HOME_OF[name])
        assert value is getattr(home, name)


def test_dir_shows_the_public_names() -> None:
    assert len(set(zoo.__all__)) == len(zoo.__all__)
    assert dir(zoo) == sorted(zoo.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'Backbones'"):
        zoo.Backbones  # noqa: B018 - asked for its error


@pytest.mark.parametrize(
    "program",
    [
        "import zoo",
        "import zoo; dir(zoo); zoo.load_registry()",
        "import " + ", ".join(f"zoo.{name}" for name in SUBMODULES),
        "from zoo import Backbone, Dataset, ImageSplit, Registry, ZooError, hookimpl",
    ],
)
def test_the_contract_imports_nothing_heavy(program: str, tmp_path: Path) -> None:
    assert heavy_after(program, tmp_path) == []


@pytest.mark.parametrize("command", ["list", "list --json", "plugins", "datasets", "--help", "--version"])
def test_listing_imports_nothing_heavy_with_or_without_its_cache(command: str, tmp_path: Path) -> None:
    program = f"from zoo_harness.cli.main import run; assert run({command.split()!r}) == 0"
    assert heavy_after(program, tmp_path) == []
    assert heavy_after(program, tmp_path) == []


@pytest.mark.parametrize(
    "first",
    ["zoo.registry", "zoo.hookspecs, zoo.testing", "zoo_harness.cli.app", "zoo_plugins.datasets"],
)
def test_the_registry_is_found_whatever_was_imported_first(first: str, tmp_path: Path) -> None:
    program = (
        f"import {first}\nimport zoo\nregistry = zoo.load_registry()\n"
        "assert registry is zoo.load_registry() and callable(zoo.load_registry)\n"
        "assert registry.backbones and registry.datasets and not registry.problems, registry.problems"
    )
    assert heavy_after(program, tmp_path) == []


def test_every_public_thing_is_documented() -> None:
    for name in zoo.__all__:
        value = getattr(zoo, name)
        if callable(value) and name != "hookimpl":
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), f"{name} has only what dataclass wrote"
