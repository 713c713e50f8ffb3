"""What is remembered of the plugins between commands, and when it is forgotten."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zoo import Backbone
from zoo.registry import load_registry
from zoo_harness.cli.catalogue import read_description
from zoo_harness.reports.backbone_summary import describe_backbone

RECORD = """
from zoo import Dataset, hookimpl

@hookimpl
def zoo_datasets():
    yield Dataset(name={name!r}, title="T", loader="x.y:z", classes=None, license=None, citation=None)
"""

BACKBONE = """
from zoo import Backbone, FactoryArchitecture, FeatureLayer, Head, Preprocessing, RandomWeights, hookimpl

@hookimpl
def zoo_backbones():
    yield Backbone(
        name="guest", weights=RandomWeights(), architecture=FactoryArchitecture("guest_network:make"), unfreeze=("0",),
        head=Head("1"), features=(FeatureLayer("0", 5),), license=None, paper=None, pretrained_on=None,
        imagenet_top1=None, preprocessing=Preprocessing((8, 8)),
    )
"""
NETWORK = """
from torch import nn

def make(classes=7):
    return nn.Sequential(nn.Linear(3, {width}), nn.Linear({width}, classes))
"""


class Site:
    """A folder on the path of a fresh process, and what ``zoo datasets`` says there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        self.folder.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def write(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text)

    def install(self, module: str, text: str) -> None:
        self.write(module, text)
        information = self.folder / f"{module}-1.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[zoo]\n{module} = {module}\n")

    def datasets(self) -> subprocess.CompletedProcess[str]:
        program = "import sys; from zoo_harness.cli.main import run; sys.exit(run(['datasets']))"
        return self.python(program)

    def show(self) -> tuple[dict[str, Any], bool]:
        """What ``zoo show guest`` says in JSON, and whether it imported torch or timm."""
        program = (
            "import sys; from zoo_harness.cli.main import run; "
            "status = run(['show', 'guest', '--json']); "
            "print('torch' in sys.modules or 'timm' in sys.modules, file=sys.stderr); sys.exit(status)"
        )
        shown = self.python(program)
        return json.loads(shown.stdout), shown.stderr == "True\n"

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program], env=self.environment, capture_output=True, text=True, check=True
        )

    def remembers(self) -> bool:
        return any((self.folder.parent / "cache" / "blockzoo").glob("catalogue-*.json"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_plugin_that_comes_changes_or_goes_is_noticed(site: Site) -> None:
    assert "first" not in site.datasets().stdout
    assert site.remembers()
    site.install("guest", RECORD.format(name="first"))
    assert "\nfirst " in site.datasets().stdout
    assert "\nfirst " in site.datasets().stdout
    (site.folder / "guest.py").write_text(RECORD.format(name="second"))
    changed = site.datasets().stdout
    assert "\nsecond " in changed
    assert "first" not in changed
    for file in (site.folder / "guest-1.dist-info").iterdir():
        file.unlink()
    (site.folder / "guest-1.dist-info").rmdir()
    assert "second" not in site.datasets().stdout


def test_a_plugin_with_a_problem_is_told_every_time(site: Site) -> None:
    site.install("guest", "raise ImportError('spam is missing')")
    for _time in range(2):
        listed = site.datasets()
        assert "entry point 'guest' of distribution 'guest': ImportError: spam is missing" in listed.stderr
        assert "\ndigits " in listed.stdout
    assert not site.remembers()


def test_a_damaged_memory_is_made_anew(site: Site) -> None:
    site.datasets()
    for file in (site.folder.parent / "cache" / "blockzoo").iterdir():
        file.write_text('{"stamps": 3')
    assert "\ndigits " in site.datasets().stdout


def test_a_cache_that_cannot_be_written_costs_nothing(site: Site) -> None:
    (site.folder.parent / "cache").write_text("a file where the folder would be")
    assert "\ndigits " in site.datasets().stdout


def test_a_description_is_shown_again_without_torch_until_the_network_changes(site: Site) -> None:
    site.install("guest", BACKBONE)
    site.write("guest_network", NETWORK.format(width=5))
    first, imported = site.show()
    assert (imported, first["parameters"]["trained"]) == (True, 20 + 60)
    assert site.show() == (first, False)
    site.write("guest_network", NETWORK.format(width=50))
    changed, imported = site.show()
    assert (imported, changed["parameters"]["trained"]) == (True, 200 + 510)


class Description:
    """A description of ResNet-18, and whether it was counted anew: then its file is another one."""

    def __init__(self, folder: Path) -> None:
        self.backbone, self.folder = load_registry().backbone("resnet18"), folder
        self.known: set[int] = set()

    @property
    def files(self) -> list[Path]:
        return list((self.folder / "blockzoo").glob("show-*.json"))

    def is_counted(self, backbone: Backbone | None = None, recipe: str = "default", classes: int = 10) -> bool:
        described = read_description(backbone or self.backbone, recipe, classes)
        assert described == json.loads(json.dumps(describe_backbone(backbone or self.backbone, recipe, classes)))
        before, self.known = self.known, {path.stat().st_ino for path in self.files}
        return self.known != before


@pytest.fixture
def description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Description:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ZOO_RAISE_PLUGIN_ERRORS", raising=False)
    return Description(tmp_path)


def test_each_number_of_classes_is_counted_once(description: Description) -> None:
    for classes in (10, 3):
        assert [description.is_counted(classes=classes) for _time in range(2)] == [True, False]
    assert not description.is_counted()


def test_another_declaration_is_counted_anew(description: Description) -> None:
    assert description.is_counted()
    other = replace(description.backbone, unfreeze=("layer3", "layer4"))
    assert description.is_counted(other)
    assert not description.is_counted(other)


@pytest.mark.parametrize("name", ["torch", "timm", "torchvision"])
def test_a_description_is_void_with_another_version(description: Description, name: str) -> None:
    assert description.is_counted()
    (path,) = description.files
    content = json.loads(path.read_text())
    assert content["cached"]["about"][-1][name] == importlib.metadata.version(name)
    content["cached"]["about"][-1][name] = "0.1"
    path.write_text(json.dumps(content))
    assert description.is_counted()
    assert not description.is_counted()
