"""What must be true of this folder as a whole: its public names, its text files and its changelog."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import zoo

ROOT = Path(__file__).resolve().parents[2]

# In pieces, so that this file does not name them itself.
REGISTRY_HOSTS = tuple(
    "".join(parts)
    for parts in (
        ("pypi", ".org"),
        ("pypi.python", ".org"),
        ("python", "hosted"),
        ("download.pytorch", ".org/whl"),
        ("npmjs", ".org"),
        ("anaconda", ".org"),
        ("deb.debian", ".org"),
    )
)
MACHINE_PATH = re.compile(r"(?<![\w.~/$}-])/(?:root|home|work|Users|opt/(?:wheels|pypi))/")


def committed_text_files() -> dict[Path, str]:
    """Every text file git has or would take, with its text."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    texts = {}
    for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts[path] = content.decode()
    return texts


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_public_name_resolves_and_says_what_it_is(name: str) -> None:
    value = getattr(zoo, name)

    # A dataclass without a docstring is given its signature for one.
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")


def test_the_public_names_are_sorted_and_dir_shows_them() -> None:
    assert sorted(zoo.__all__) == dir(zoo)


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_text_file_names_a_package_registry(host: str) -> None:
    assert [str(path.relative_to(ROOT)) for path, text in committed_text_files().items() if host in text] == []


def test_no_text_file_names_a_path_of_one_machine() -> None:
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in committed_text_files().items()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]

    assert named == []


@pytest.mark.parametrize("line", ["see /{}/me/x", "'/{}/x'", "path=/{}/me"])
@pytest.mark.parametrize("top", ["root", "home", "work"])
def test_the_search_for_machine_paths_finds_them(line: str, top: str) -> None:
    assert MACHINE_PATH.search(line.format(top))


@pytest.mark.parametrize("line", ["~/work/x", "https://example.org/home/x", "$HOME/work/", "a/root/b", "/usr/share/x"])
def test_the_search_for_machine_paths_finds_nothing_else(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_the_changelog_has_an_entry_for_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert re.search(rf"^## \[{re.escape(zoo.__version__)}\]", changelog, re.MULTILINE)


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())

    assert (citation["version"], citation["license"]) == (zoo.__version__, "Apache-2.0")
    years = {reference["year"] for reference in citation["references"]}
    assert years == {2021, 2023, 2024}  # the paper and the two reports whose recipes are built in


def test_every_direct_dependency_is_pinned_and_nothing_is_pinned_to_a_place() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["dev"] + extras["docs"] + pyproject["build-system"]["requires"]
    names = {re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]

    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    assert names - {"blockzoo"} - {line.partition("==")[0] for line in lines} == set()


def test_the_licence_is_apache_2_whole() -> None:
    licence = (ROOT / "LICENSE").read_text()

    assert licence.lstrip().startswith("Apache License\n                           Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in licence
    assert "APPENDIX: How to apply the Apache License to your work." in licence
