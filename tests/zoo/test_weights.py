"""Weight sources of plugins: a distribution brings one, and a source that fails is reported by its plugin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import PluginError, UnreachableError, WeightsError, load_registry
from zoo.testing import check_backbone
from zoo_harness.cli.main import run
from zoo_harness.models.build import build_network
from zoo_harness.models.weights import load_weights
from zoo_harness.records.run import read_run
from zoo_harness.reports.backbone_card import render_backbone_card
from zoo_harness.util.digests import sha256_of

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
PLUGIN = "entry point 'my_weights' of distribution 'my-weights'"
Install = Callable[..., Path]


def documented() -> str:
    """The plugin that the documentation shows."""
    found = re.search(r"```python\n(# my_weights\.py.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lays the documented plugin out as pip would, with a piece of it replaced, and finds the plugins anew."""
    site = tmp_path / "site"
    information = site / "my_weights-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-weights\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[zoo]\nmy_weights = my_weights\n")
    tensors = build_network("a", zoo.TimmArchitecture("test_resnet.r160_in1k")).state_dict()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    arrays["bn1.bias"] = np.linspace(-1, 1, 32, dtype="float32")
    np.savez(site / "net.npz", allow_pickle=False, **arrays)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(site)

    def make(before: str = "", after: str = "") -> Path:
        source = documented()
        assert before in source
        (site / "my_weights.py").write_text(source.replace(before, after, 1) if before else source)
        load_registry.cache_clear()
        return site

    yield make
    sys.modules.pop("my_weights", None)
    load_registry.cache_clear()


def test_a_distribution_brings_a_source_of_its_own(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, out = install(), tmp_path / "run"
    assert run(["list"]) == 0
    assert re.search(r"^npz_resnet +here ", capsys.readouterr().out, re.MULTILINE)
    assert run(["show", "npz_resnet", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["weights"], shown["weights_file"]) == ("npz net.npz", str(site / "net.npz"))
    assert shown["plugin"] == PLUGIN
    options = ("--per-class", "2", "--epochs", "1", "--device", "cpu", "--out", str(out), "--quiet")
    assert run(["eval", "npz_resnet", "--dataset", "digits", *options]) == 0
    weights = read_run(out).weights
    assert (weights.kind, weights.source, weights.filename) == ("npz", "my-weights", "net.npz")
    assert (weights.declared, weights.license, weights.revision) == (True, "mit", None)
    assert weights.sha256 == sha256_of(site / "net.npz")
    assert weights.bytes == (site / "net.npz").stat().st_size
    assert "- Weights: `my-weights` (npz), file `net.npz`" in (out / "README.md").read_text()
    assert "npz net.npz" in render_backbone_card(load_registry().backbone("npz_resnet"))


def test_its_tensors_are_loaded_and_its_backbone_passes_the_checks(install: Install) -> None:
    install()
    backbone = load_registry().backbone("npz_resnet")
    network = build_network(backbone.name, backbone.network)
    load_weights(network, backbone, backbone.weights)
    assert np.array_equal(network.state_dict()["bn1.bias"], np.linspace(-1, 1, 32, dtype="float32"))
    check_backbone(backbone)


def test_it_can_be_overridden_on_the_command_line(install: Install, tmp_path: Path) -> None:
    install()
    options = ("--limit", "8", "--epochs", "0", "--device", "cpu", "--out", str(tmp_path / "run"), "--quiet")
    assert run(["eval", "npz_resnet", "--dataset", "digits", "--weights", "random", *options]) == 0
    weights = read_run(tmp_path / "run").weights
    assert (weights.kind, weights.declared, weights.license) == ("random", False, None)


def test_listing_asks_a_source_every_time_and_never_imports_torch(install: Install) -> None:
    site = install()
    program = (
        "import sys; from zoo_harness.cli.main import run; run(['list', '--json']); "
        "sys.stderr.write(str('torch' in sys.modules))"
    )
    for there in (True, False):  # the second time from what is remembered of the plugins
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=True,
        )
        row = next(row for row in json.loads(done.stdout) if row["name"] == "npz_resnet")
        assert (row["weights"], row["on_this_machine"]) == ("npz net.npz", there)
        assert done.stderr == "False"
        (site / "net.npz").unlink(missing_ok=True)


def test_weights_that_are_gone_are_reported_with_the_places_tried(install: Install) -> None:
    (install() / "net.npz").unlink()
    backbone = load_registry().backbone("npz_resnet")
    with pytest.raises(UnreachableError) as caught:
        load_weights(build_network(backbone.name, backbone.network), backbone, backbone.weights)
    assert caught.value.tried == (("net.npz", "not in the package"),)
    assert "install my-weights again, or pass --weights PATH" in str(caught.value)


READ = "return LoadedWeights(tensors, origin"


@pytest.mark.parametrize(
    ("before", "after", "error", "told"),
    [
        ("with numpy.load", "raise OSError('no luck')\n        with numpy.load", PluginError, "OSError: no luck"),
        ("with numpy.load", "raise SystemExit(3)\n        with numpy.load", PluginError, "SystemExit: 3"),
        (READ, "return tensors\n        " + READ, PluginError, "read() returned {'conv1.0.weight': tensor("),
        (READ, "return LoadedWeights(list(tensors), origin", PluginError, "bad LoadedWeights record: "),
        ("torch.from_numpy(arrays[name])", "arrays[name]", PluginError, "a ndarray as 'conv1.0.weight'; expected"),
        ("arrays[name])", "arrays[name]).to('meta')", PluginError, "Error: "),
        ("{name: torch", "{'x' + name: torch", WeightsError, "net.npz does not fit the network: conv1.0.weight: miss"),
        ("arrays[name])", "arrays[name])[None]", WeightsError, "net.npz does not fit the network: conv1.0.weight: the"),
        (READ, "reader.verify(path, sha256='0' * 64)\n        " + READ, WeightsError, "net.npz is wrong: SHA-256"),
        (READ, "reader.from_url('http://a.b/c', path, md5='0')\n        " + READ, PluginError, "needs an https addres"),
        (READ, "reader.from_url('https://a.b/c', path)\n        " + READ, PluginError, "https address and a digest"),
    ],
)
def test_a_source_that_fails_while_it_is_read_is_reported_by_its_plugin(
    install: Install, before: str, after: str, error: type[Exception], told: str
) -> None:
    install(before, after)
    backbone = load_registry().backbone("npz_resnet")
    with pytest.raises(error) as caught:
        load_weights(build_network(backbone.name, backbone.network), backbone, backbone.weights)
    assert str(caught.value).startswith(f"{PLUGIN}: weights of 'npz_resnet', NpzWeights: ")
    assert told in str(caught.value)


def test_a_run_with_a_failing_source_ends_with_one_line(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install("with numpy.load", "raise ValueError('no\\nluck')\n        with numpy.load")
    out = tmp_path / "run"
    assert run(["eval", "npz_resnet", "--dataset", "digits", "--device", "cpu", "--out", str(out), "--quiet"]) == 1
    assert capsys.readouterr().err == f"error: {PLUGIN}: weights of 'npz_resnet', NpzWeights: ValueError: no\n"
    assert not out.exists()


@pytest.mark.parametrize(
    ("answer", "told"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("'net.npz'", "locate() returned 'net.npz'; expected a pathli")],
)
def test_a_source_that_cannot_be_located_costs_the_others_nothing(
    install: Install, capsys: pytest.CaptureFixture[str], answer: str, told: str
) -> None:
    install("return path if path.is_file() else None", f"return {answer}")
    assert run(["list"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^npz_resnet +to fetch ", captured.out, re.MULTILINE)
    assert "\nresnet18 " in captured.out
    assert f"{PLUGIN}: weights of 'npz_resnet', NpzWeights: {told}" in captured.err
    assert run(["show", "npz_resnet"]) == 1
    captured = capsys.readouterr()
    assert told in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('f"npz {self.filename}"', "1 / 0", "ZeroDivisionError: division by zero"),
        ('f"npz {self.filename}"', "None", "weights: NpzWeights.describe() returned None; expected one line of text"),
        ('f"npz {self.filename}"', '"a\\nb"', "weights: NpzWeights.describe() returned 'a\\nb'; expected one line"),
        ("def read(", "def reads(", "TypeError: Can't instantiate abstract class NpzWeights"),
        ('= "npz"', '= "timm"', "TypeError: weight source NpzWeights: kind 'timm' is taken by zoo.TimmWeights"),
        ('= "npz"', '= "N P Z"', "TypeError: weight source NpzWeights: bad kind: 'N P Z'; expected a name such as"),
        ('kind: ClassVar[str] = "npz"', "", "TypeError: weight source NpzWeights: bad kind: None; expected a name"),
        ("(frozen=True)", "", "TypeError: cannot inherit non-frozen dataclass from a frozen one"),
        ("pydantic.dataclasses", "dataclasses", "weights: NpzWeights does not validate; decorate it with pydantic's"),
        ('NpzWeights("net.npz")', "NpzWeights(3)", "bad NpzWeights record: argument 1: Input should be a valid string"),
        ('NpzWeights("net.npz")', 'NpzWeights("a", size=3)', "bad NpzWeights record: size: Unexpected keyword"),
        ('NpzWeights("net.npz")', '"net.npz"', "weights: Input should be an instance of WeightSource (given 'net.npz'"),
    ],
)
def test_a_source_that_is_declared_wrongly_is_a_problem_of_its_plugin(
    install: Install, before: str, after: str, told: str
) -> None:
    install(before, after)
    registry = load_registry()
    (problem,) = registry.problems
    assert problem.startswith(f"{PLUGIN}: ")
    assert told in problem
    assert "npz_resnet" not in registry.backbones
    assert "resnet18" in registry.backbones
