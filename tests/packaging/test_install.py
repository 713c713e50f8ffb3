"""What a stranger gets: the wheel and the sdist, installed away from this folder, with a plugin beside them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

import zoo

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "plugins" / "example"
OURS = ("zoo", "zoo_harness", "zoo_plugins", "zoo_cards", "zoo_example")
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".npz", ".onnx")


@dataclass(frozen=True)
class Installation:
    """A virtual environment that has blockzoo and the example plugin, and a folder to run commands in."""

    environment: Path
    home: Path

    def run(self, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment and insist that it succeeds."""
        program = self.environment / "bin" / command[0]
        return run(program, *command[1:], cwd=cwd or self.home, home=self.home)

    def zoo_json(self, *arguments: str) -> Any:
        """What ``zoo ... --json`` prints."""
        return json.loads(self.run("zoo", *arguments, "--json").stdout)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it; a copy is built, so that nothing is left here."""
    source, built = tmp_path_factory.mktemp("source") / "blockzoo", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=_left_behind)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source, cwd=source, home=built)
    return built


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(distributions: Path) -> Path:
    (path,) = distributions.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to everything installed here but our own packages: copying or installing torch would take minutes."""
    folder = tmp_path_factory.mktemp("dependencies")
    for site in dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")):
        for item in Path(site).iterdir():
            distribution = item.name.lower().lstrip("_").replace("-", "_")
            ours = item.name in OURS or distribution.startswith(("blockzoo", "zoo_example"))
            if not ours and item.suffix != ".pth" and item.name != "__pycache__":
                (folder / item.name).symlink_to(item)
    return folder


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, dependencies: Path, wheel: Path) -> Iterator[Installation]:
    """A fresh environment with blockzoo from the wheel, and the example plugin from its folder."""
    home = tmp_path_factory.mktemp("installation")
    made = Installation(home / "environment", home)
    run(sys.executable, "-m", "venv", "--without-pip", made.environment, cwd=home, home=home)
    plugin = home / "example"
    shutil.copytree(EXAMPLE, plugin, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (site,) = made.environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    pip_install = ("python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    made.run(*pip_install, wheel)
    made.run("zoo", "list")  # whatever zoo remembers of the plugins, it must notice the next one
    made.run(*pip_install, plugin)
    yield made
    shutil.rmtree(made.environment)


def run(program: str | Path, *arguments: str | Path, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program to the end, in a clean environment, and show what it said if it fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_", "ZOO_", "HF_"))}
    clean |= {"HOME": str(home), "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "PIP_CONFIG_FILE": os.devnull}
    clean |= {"MPLCONFIGDIR": os.devnull}  # matplotlib cannot keep its caches there, and must not tell the user
    done = subprocess.run(
        [str(program), *map(str, arguments)], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{program} {arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def _left_behind(folder: str, names: list[str]) -> set[str]:
    if Path(folder) == ROOT:
        return {name for name in names if name[0] == "." and name != ".gitignore"} | {"runs", "data", "build", "dist"}
    return {"__pycache__"}


def test_the_wheel_holds_the_packages_with_their_types_templates_and_tables(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {f"{package}/py.typed" for package in OURS[:4]} <= names
    files = [path for ending in ("j*", "css") for path in (ROOT / "cards" / "zoo_cards").rglob(f"*.{ending}")]
    packaged = {path.relative_to(ROOT / "cards").as_posix() for path in files}
    assert "zoo_cards/templates/report.css" in packaged
    assert packaged <= names
    assert any(name.endswith(".j2") for name in packaged)
    assert any(name.endswith(".json") for name in packaged)
    assert "zoo_plugins/timm_imagenet.csv" in names


def test_the_wheel_holds_nothing_but_the_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names}
    assert tops == {*OURS[:4], f"blockzoo-{zoo.__version__}.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", *WEIGHT_SUFFIXES))]


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    information = f"blockzoo-{zoo.__version__}.dist-info"
    metadata = HeaderParser().parsestr(archive.read(f"{information}/METADATA").decode())

    assert metadata["Name"] == "blockzoo"
    assert metadata["Version"] == zoo.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    for legal in ("LICENSE", "NOTICE"):
        assert archive.read(f"{information}/licenses/{legal}") == (ROOT / legal).read_bytes()


def test_the_sdist_holds_what_is_needed_to_test_it(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "constraints.txt", "Makefile"} <= names
    assert {"plugins/example/pyproject.toml", "tests/packaging/test_install.py"} <= names
    assert not [name for name in names if name.endswith(WEIGHT_SUFFIXES)]


def test_zoo_comes_from_the_archive_alone(installation: Installation) -> None:
    files = installation.run(
        "python", "-c", "import zoo, zoo_harness, zoo_cards\nfor m in zoo, zoo_harness, zoo_cards: print(m.__file__)"
    )

    (site,) = installation.environment.glob("lib/python*/site-packages")
    assert all(Path(line).is_relative_to(site) for line in files.stdout.splitlines())
    assert installation.run("zoo", "--version").stdout == f"blockzoo {zoo.__version__}\n"


def test_zoo_lists_what_the_plugin_declares(installation: Installation) -> None:
    backbones = {row["name"]: row for row in installation.zoo_json("list")}
    datasets = {row["name"]: row for row in installation.zoo_json("datasets")}
    plugins = {row["entry_point"]: row for row in installation.zoo_json("plugins")}

    assert {"example_tiny", "efficientnet_lite0"} <= set(backbones)
    assert {"example_shapes", "digits"} <= set(datasets)
    assert plugins["example"]["distribution"] == "zoo-example"
    assert plugins["example"]["backbones"] == ["example_tiny"]
    assert plugins["example"]["datasets"] == ["example_shapes"]
    assert not [plugin["errors"] for plugin in plugins.values() if plugin["errors"]]


def test_zoo_fine_tunes_the_plugin_s_backbone_on_its_data_set(installation: Installation) -> None:
    where = installation.home / "run"
    done = installation.run(
        *("zoo", "eval", "example_tiny", "--dataset", "example_shapes", "--weights", "random"),
        *("--epochs", "1", "--per-class", "20", "--device", "cpu", "--out", where),
    )

    assert "example_tiny on " in done.stderr
    assert "matplotlib" not in done.stderr.lower()
    record = json.loads((where / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["backbone"]["distribution"] == "zoo-example"
    assert record["dataset"]["train"]["per_class"] == [20, 20, 20]
    assert len((where / "history.jsonl").read_text().splitlines()) == 1
    assert (where / "README.md").read_text().startswith("---\n")
    assert {"model.safetensors", "config.json"} <= {path.name for path in where.iterdir()}
    assert list(where.rglob("*.png"))


def test_the_plugin_passes_its_own_tests(installation: Installation) -> None:
    said = installation.run("python", "-m", "pytest", "-q", cwd=installation.home / "example").stdout

    assert " passed in " in said
    assert "skipped" not in said
