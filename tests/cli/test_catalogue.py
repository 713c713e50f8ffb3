"""What is remembered of the plugins between commands, and when it is forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECORD = """
from zoo import Dataset, hookimpl

@hookimpl
def zoo_datasets():
    yield Dataset(name={name!r}, title="T", loader="x.y:z", classes=None, license=None, citation=None)
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

    def install(self, module: str, text: str) -> None:
        (self.folder / f"{module}.py").write_text(text)
        information = self.folder / f"{module}-1.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[zoo]\n{module} = {module}\n")

    def datasets(self) -> subprocess.CompletedProcess[str]:
        program = "import sys; from zoo_harness.cli.main import run; sys.exit(run(['datasets']))"
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


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_the_cache_is_ignored(site: Site) -> None:
    site.datasets()
    (path,) = (site.folder.parent / "cache" / "blockzoo").glob("catalogue-*.json")
    path.unlink()
    os.mkfifo(path)
    assert "imagefolder" in site.datasets().stdout
