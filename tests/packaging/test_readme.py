"""The package, the scores and the options that README and docs show work as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import zoo
from zoo.testing import check_backbone
from zoo_harness.cli.app import command

ROOT = Path(__file__).parents[2]
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
SEPARATION = (ROOT / "docs" / "separation.md").read_text()


def block(page: str, language: str, beginning: str) -> str:
    """The fenced block of a language that begins with this line."""
    blocks = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return next(found for found in blocks if found.startswith(beginning))


def test_the_backbone_of_the_plugin_page_is_found_and_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads(block(PLUGINS, "toml", "# pyproject.toml"))
    (tmp_path / "my_backbones.py").write_text(block(PLUGINS, "python", "# my_backbones.py"))
    information = tmp_path / "my_backbones-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-backbones\nVersion: 0.1.0\n")
    lines = [f"{name} = {value}" for name, value in project["project"]["entry-points"]["zoo"].items()]
    (information / "entry_points.txt").write_text("[zoo]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    zoo.load_registry.cache_clear()
    try:
        check_backbone(zoo.load_registry().backbone("tiny_resnet"))
        command()(args=["show", "tiny_resnet", "--json"], prog_name="zoo", standalone_mode=False)
    finally:
        zoo.load_registry.cache_clear()
        sys.modules.pop("my_backbones", None)
    shown = json.loads(capsys.readouterr().out)
    assert shown["plugin"] == "entry point 'my_backbones' of distribution 'my-backbones'"


def test_the_package_of_the_plugin_page_builds_with_what_it_says_it_needs(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(block(PLUGINS, "toml", "# pyproject.toml"))
    (tmp_path / "my_backbones.py").write_text(block(PLUGINS, "python", "# my_backbones.py"))
    wheel = ("wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *wheel],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = (tmp_path / "dist").glob("my_backbones-0.1.0-*.whl")
    with zipfile.ZipFile(path) as archive:
        entry_points = archive.read("my_backbones-0.1.0.dist-info/entry_points.txt").decode()
        assert "my_backbones.py" in archive.namelist()
    assert entry_points.split() == ["[zoo]", "my_backbones", "=", "my_backbones"]
    assert "pip install hatchling" in PLUGINS


def test_the_scores_of_the_page_are_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block(SEPARATION, "python", "from sklearn.datasets import load_digits"), {})  # noqa: S102
    assert capsys.readouterr().out == block(SEPARATION, "text", "SI ")


def test_every_option_the_pages_name_exists() -> None:
    help_pages = (ROOT / "docs" / "commands.md").read_text()
    others = {"--no-build-isolation", "--standalone", "--nproc-per-node", "--no-python", "--logdir"}  # other programs
    others |= {"--head", "--port", "--block"}  # of ray start
    others |= {
        "--nodes",
        "--ntasks",
        "--ntasks-per-node",
        "--gres",
        "--cpus-per-task",
        "--time",
        "--requeue",
        "--signal",
    }
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {option for page in pages for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())}
    assert len(named - others) > 20
    assert {option for option in named - others if option not in help_pages} == set()
