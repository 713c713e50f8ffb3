"""The pages of the documentation site: each has its place, and every link in them leads somewhere.

``make site`` runs Sphinx over them, with warnings as errors; this module needs no Sphinx.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import zoo

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """The script, which is in no package."""
    spec = importlib.util.spec_from_file_location("blockzoo_site", ROOT / "scripts" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(site: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the site, as Sphinx gets it."""
    folder = tmp_path_factory.mktemp("site") / "source"
    site.collect_pages(ROOT, folder)
    return Path(folder)


def test_every_page_of_the_repository_has_a_place_and_every_link_a_target(site: ModuleType, source: Path) -> None:
    places = [site.page_of(path) for path in site.repository_pages(ROOT)]
    assert len(set(places)) == len(places)
    assert [place for place in places if not (source / place).is_file()] == []


def test_each_backbone_has_a_page(source: Path) -> None:
    registry = zoo.load_registry()
    names = {name for name in registry.backbones if registry.owner("backbone", name).built_in}
    assert names == {path.stem for path in (source / "backbones").glob("*.md")} - {"index"}


def test_each_public_name_is_in_the_reference_once(source: Path) -> None:
    lines = [line for path in (source / "reference").glob("*.md") for line in path.read_text().splitlines()]
    named = [line.rpartition(":: zoo.")[2] for line in lines if line.startswith(".. auto")]
    assert sorted(named) == sorted(set(zoo.__all__) - {"__version__"})


def test_the_notebook_is_shown_with_its_code(source: Path) -> None:
    text = (source / "tutorials" / "first_run.md").read_text()
    assert text.startswith("# A first run\n")
    assert "```python\nscans = load_digits()\n" in text
    download = "../extra/files/examples/first_run.ipynb"
    assert f"[Download this notebook]({download})" in text
    assert (source / "tutorials" / download).resolve().is_file()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with a page for the tests to link from."""
    for name in ("README.md", "docs/training.md", "cards/vgg16.md", "docs/site/backbones/index.md", "curve.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# Title\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[t](docs/training.md#gpus)", "[t](howto/training.md#gpus)"),
        ("[c](cards) [v](cards/vgg16.md)", "[c](backbones/index.md) [v](backbones/vgg16.md)"),
        ("![x](curve.png)", "![x](extra/files/curve.png)"),
        ('<img src="curve.png">', '<img src="files/curve.png">'),
        ('<a href="docs/training.md">', '<a href="howto/training.html">'),
        ("[w](https://example.org/a.md) [s](#here)", "[w](https://example.org/a.md) [s](#here)"),
        ("`[t](nowhere.md)`\n\n```text\n[t](nowhere.md)\n```", "`[t](nowhere.md)`\n\n```text\n[t](nowhere.md)\n```"),
    ],
)
def test_links_lead_to_the_places_of_pages_and_files(
    site: ModuleType, checkout: Path, tmp_path: Path, text: str, expected: str
) -> None:
    (checkout / "README.md").write_text(text)
    site.collect_pages(checkout, tmp_path / "source")
    assert (tmp_path / "source" / "overview.md").read_text() == expected


def test_a_link_to_nothing_is_an_error(site: ModuleType, checkout: Path, tmp_path: Path) -> None:
    (checkout / "README.md").write_text("[t](docs/nowhere.md)")
    with pytest.raises(site.SiteError, match=r"README\.md: link to docs/nowhere\.md"):
        site.collect_pages(checkout, tmp_path / "source")


def test_broken_links_and_files_of_other_hosts_are_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<script src="https://cdn.example/x.js"></script><img src="//cdn.example/y.png"><a href="b.html#there">ok</a>'
        '<a href="b.html#gone"></a><a href="c.html"></a><a href="https://example.org">ok</a><a href="#top">ok</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there">x</p>')
    (tmp_path / "s.css").write_text("@import 'https://fonts.example/f.css'; p { background: url(data:image/png,x) }")
    assert site.html_problems(tmp_path) == [
        "a.html: loads https://cdn.example/x.js",
        "a.html: loads //cdn.example/y.png",
        "a.html: no anchor for the link b.html#gone",
        "a.html: no file for the link c.html",
        "s.css: loads https://fonts.example/f.css",
    ]
