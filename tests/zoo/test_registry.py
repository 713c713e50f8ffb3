"""Discovery through real entry points: a broken plugin is reported in full and does not affect the others."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zoo import PluginError, Registry, UnknownNameError, UsageError, ZooError, plugin_guard
from zoo.registry import Plugin

Install = Callable[..., Path]
BUILT_IN_BACKBONES = {"cait_s24", "deit_base_distilled", "efficientnet_lite0", "resnet18", "resnet152v2"}
RECORD = {
    "name": "'tiny'",
    "weights": "zoo.TimmWeights('test_resnet.r160_in1k')",
    "unfreeze": "('layer4',)",
    "head": "zoo.Head('fc')",
    "features": "(zoo.FeatureLayer('global_pool', 96, pool='flatten'),)",
    "license": "None",
    "paper": "None",
    "pretrained_on": "None",
    "imagenet_top1": "None",
}


def backbone(**changes: str | None) -> str:
    """Source of a backbone record; ``None`` leaves a field out."""
    fields = {name: value for name, value in {**RECORD, **changes}.items() if value is not None}
    return f"zoo.Backbone({', '.join(f'{name}={value}' for name, value in fields.items())})"


def dataset(name: str) -> str:
    return f"zoo.Dataset(name={name!r}, title='T', loader='a:b', classes=None, license=None, citation=None)"


def plugin(*records: str, hook: str = "zoo_backbones", before: str = "") -> str:
    """Source of a plugin module that yields these records."""
    yields = "".join(f"    yield {record}\n" for record in records)
    return f"import zoo\n{before}\n@zoo.hookimpl\ndef {hook}():\n{yields}"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution of one module onto the path, as pip would lay it out."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(distribution: str, source: str, *, entry_points: str | None = None, folder: Path = tmp_path) -> Path:
        module = distribution.replace("-", "_")
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(source)
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[zoo]\n{entry_points or f'{module} = {module}'}\n")
        return info

    yield make
    for name in set(sys.modules) - before:
        if name.startswith(("bad_", "good_", "rival_")):
            del sys.modules[name]


def discover() -> Registry:
    return Registry(importlib.metadata.entry_points(group="zoo"))


def problem_of(registry: Registry, entry_point: str) -> str:
    """Return the one problem of the one plugin, which must not affect the others."""
    assert registry.backbones.keys() >= BUILT_IN_BACKBONES
    (found,) = (plugin for plugin in registry.plugins if plugin.entry_point == entry_point)
    (error,) = found.errors
    (problem,) = (line for line in registry.problems if error in line)
    assert problem == f"entry point '{entry_point}' of distribution '{found.distribution}': {error}"
    return error


def test_a_third_party_plugin_is_found_beside_the_built_in_ones(install: Install) -> None:
    install("good-plugin", plugin(backbone()) + plugin(dataset("tiny"), hook="zoo_datasets"))
    registry = discover()
    assert registry.problems == []
    assert registry.backbones.keys() >= {*BUILT_IN_BACKBONES, "tiny"}
    assert registry.owner("backbone", "tiny") == Plugin(
        "good_plugin", "good_plugin", "good-plugin", "1.0", backbones=["tiny"], datasets=["tiny"]
    )


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("from zoo import NoSuchName", "ImportError: cannot import name 'NoSuchName' from 'zoo'"),
        ("def broken(:\n    pass", "SyntaxError: invalid syntax (bad_plugin.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: (no message)"),
        ("raise GeneratorExit('x')", "GeneratorExit: x"),
        ("class Mine(BaseException): pass\nraise Mine", "Mine: (no message)"),
        ("import os\nos._exit(0)", "os._exit(0) would end the process"),
        ("import os\nos.abort()", "os.abort() would end the process"),
        ("raise OSError('\\x1b[31mred\\u202e')", "OSError: [31mred"),
        ("class Mine(Exception):\n    def __str__(self): return 1 / 0\nraise Mine", "Mine: (its text cannot be read"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
        ("raise ValueError", "ValueError: (no message)"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_reported_on_one_line(install: Install, source: str, error: str) -> None:
    install("bad-plugin", source)
    assert problem_of(discover(), "bad_plugin").startswith(error)


@pytest.mark.parametrize(
    "entry_points", ["bad = bad_plugin:nowhere", "bad = no_such_module:plugin", "bad = what is this?", "bad ="]
)
def test_an_entry_point_that_names_nothing_is_reported(install: Install, entry_points: str) -> None:
    install("bad-plugin", plugin(backbone()), entry_points=entry_points)
    assert problem_of(discover(), "bad")


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        (backbone(lisence="'mit'"), ["lisence", "'mit'"]),
        (backbone(unfreeze="'layer4'"), ["unfreeze", "tuple", "'layer4'"]),
        (backbone(unfreeze="['layer4']"), ["unfreeze", "tuple"]),
        (backbone(license=None), ["license"]),
        (backbone(paper=None, imagenet_top1=None), ["paper", "imagenet_top1"]),
        (backbone(head="'fc'"), ["head", "'fc'"]),
        (backbone(name="'Tiny Net'"), ["name", "'Tiny Net'"]),
        (backbone(weights="'test_resnet'"), ["weights", "'test_resnet'"]),
        (backbone(weights="zoo.TimmWeights('test_resnet')"), ["bad TimmWeights", "argument 1", "'test_resnet'"]),
        (backbone(features="()"), ["features", "the layer that feeds the classifier"]),
        (backbone(weights="zoo.RandomWeights()"), ["'random'", "architecture"]),
    ],
)
def test_a_bad_record_is_explained_field_by_field(install: Install, record: str, parts: list[str]) -> None:
    install("bad-plugin", plugin(record))
    error = problem_of(discover(), "bad_plugin")
    assert error.startswith("bad ")
    assert " record: " in error
    assert "\n" not in error
    for part in parts:
        assert part in error


def test_a_missing_field_is_reported_without_the_whole_call(install: Install) -> None:
    install("bad-plugin", plugin(backbone(license=None)))
    assert (
        problem_of(discover(), "bad_plugin") == "bad Backbone record: license: missing; write None if it is not known"
    )


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (plugin(backbone(), hook="zoo_backbone"), "unknown hook 'zoo_backbone'; did you mean 'zoo_backbones'?"),
        (plugin(backbone(), hook="zoo_x_y_z"), "unknown hook 'zoo_x_y_z'; expected zoo_backbones or zoo_datasets"),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_backbones(registry):\n    return []",
            "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
        ),
        (
            "import zoo",
            "implements neither zoo_backbones nor zoo_datasets nor zoo_backbone_families with @zoo.hookimpl",
        ),
        ("def zoo_backbones():\n    return []", "zoo_backbones is not marked with @zoo.hookimpl"),
        (plugin(backbone()) + "def zoo_datasets():\n    return []", "zoo_datasets is not marked with @zoo.hookimpl"),
        (plugin(dataset("mine")), "zoo_backbones returned Dataset(name='mine'"),
        (plugin("'resnet18'"), "zoo_backbones returned 'resnet18'; expected a zoo.Backbone"),
        (plugin(backbone(), hook="zoo_datasets"), "zoo_datasets returned Backbone(name='tiny'"),
        (
            "import zoo\n@zoo.hookimpl\ndef zoo_backbones():\n    pass",
            "zoo_backbones returned None; expected zoo.Backbone records, in a list or yielded one by one",
        ),
        (
            f"import zoo\n@zoo.hookimpl\ndef zoo_datasets():\n    return {dataset('mine')}",
            "zoo_datasets returned Dataset(name='mine'",
        ),
        (plugin(backbone(), "1 / 0"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_hook_that_breaks_the_contract_is_reported(install: Install, source: str, error: str) -> None:
    install("bad-plugin", source)
    install("good-plugin", plugin(backbone(name="'good'")))
    registry = discover()
    assert error in problem_of(registry, "bad_plugin")
    assert "tiny" not in registry.backbones
    assert "mine" not in registry.datasets
    assert "good" in registry.backbones


def test_a_hook_may_have_another_name_of_its_own(install: Install) -> None:
    source = f"import zoo\n@zoo.hookimpl(specname='zoo_backbones')\ndef mine():\n    return [{backbone()}]"
    install("good-plugin", source)
    registry = discover()
    assert registry.problems == []
    assert "tiny" in registry.backbones


def test_a_plugin_may_be_an_object_instead_of_a_module(install: Install) -> None:
    source = f"""\
        import zoo
        class Plugin:
            @zoo.hookimpl
            def zoo_backbones(self):
                return [{backbone()}]
        plugin = Plugin()
    """
    install("good-plugin", textwrap.dedent(source), entry_points="good = good_plugin:plugin")
    registry = discover()
    assert registry.problems == []
    assert "tiny" in registry.backbones


def test_a_built_in_keeps_its_name(install: Install) -> None:
    install("aaa-first-of-all", plugin(backbone(name="'resnet18'"), backbone()))
    registry = discover()
    assert problem_of(registry, "aaa_first_of_all") == (
        "backbone 'resnet18' is already declared by entry point 'resnet' of distribution 'blockzoo'"
    )
    assert registry.owner("backbone", "resnet18").distribution == "blockzoo"
    assert registry.backbone("resnet18").title == "ResNet-18"
    assert registry.backbone("tiny")


@pytest.mark.parametrize("kind", ["backbone", "dataset"])
def test_a_name_two_plugins_claim_is_refused_with_both(install: Install, kind: str) -> None:
    def source(own: str) -> str:
        if kind == "dataset":
            return plugin(dataset("tiny"), dataset(own), hook="zoo_datasets")
        return plugin(backbone(), backbone(name=repr(own)))

    for owner in ("one", "two", "three"):
        install(f"rival-{owner}", source(owner))
    registry = discover()
    resolve = getattr(registry, kind)
    with pytest.raises(PluginError) as caught:
        resolve("tiny")
    assert (caught.value.code, caught.value.facts["name"]) == ("name-contested", "tiny")
    for owner in ("one", "two", "three"):
        assert f"'rival-{owner}'" in str(caught.value)
        assert resolve(owner)
    # Neither is listed as the owner of a name that cannot be used, and it is reported to each.
    for found in registry.plugins:
        if not found.built_in:
            assert [*found.backbones, *found.datasets] == [found.entry_point.removeprefix("rival_")]
            assert f"{kind} 'tiny' is also declared by" in " ".join(found.errors)
            others = {"one", "two", "three"} - {found.entry_point.removeprefix("rival_")}
            assert all(f"'rival-{other}'" in " ".join(found.errors) for other in others)


def test_a_plugin_that_declares_a_name_twice_is_reported_and_the_first_counts(install: Install) -> None:
    install("bad-plugin", plugin(backbone(title="'first'"), backbone(title="'second'")))
    registry = discover()
    assert problem_of(registry, "bad_plugin") == "backbone 'tiny' is declared twice; the first is used"
    assert registry.backbone("tiny").title == "first"


def test_one_module_under_two_entry_points_is_reported(install: Install) -> None:
    install("bad-plugin", plugin(backbone()), entry_points="bad_a = bad_plugin\nbad_b = bad_plugin")
    registry = discover()
    assert (
        problem_of(registry, "bad_b")
        == "bad_plugin is already loaded by entry point 'bad_a' of distribution 'bad-plugin'"
    )
    assert registry.backbone("tiny")


def test_a_distribution_found_twice_on_the_path_counts_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("good-plugin", plugin(backbone(title="'first'")))
    install("good-plugin", plugin(backbone(title="'second'")), folder=tmp_path / "build")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "build")])
    found = [distribution.name for distribution in importlib.metadata.distributions()]
    assert found.count("good-plugin") == 2
    registry = discover()
    assert registry.problems == []
    assert registry.backbone("tiny").title == "first"
    assert [plugin.entry_point for plugin in registry.plugins].count("good_plugin") == 1


def test_the_remains_of_a_broken_uninstall_affect_no_other_plugin(install: Install) -> None:
    for name in ("bad-one", "bad-two"):
        (install(name, "import no_such_module_anywhere", entry_points="bad = nowhere") / "METADATA").unlink()
    install("good-plugin", plugin(backbone()))
    registry = discover()
    assert registry.backbones.keys() >= {*BUILT_IN_BACKBONES, "tiny"}
    assert len(registry.problems) == 2


def test_unknown_names_come_with_near_misses_and_a_word_on_broken_plugins(install: Install) -> None:
    registry = discover()
    with pytest.raises(UnknownNameError) as caught:
        registry.backbone("resnet_18")
    assert "did you mean 'resnet18'" in str(caught.value)
    assert "plugin(s)" not in str(caught.value)
    install("bad-plugin", "1 / 0")
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'tiny'.*; 1 plugin\(s\) have errors; run 'zoo plu"):
        discover().backbone("tiny")


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("digits", "digits", None),
        ("imagefolder:/my photos/a:b", "imagefolder", "/my photos/a:b"),
        ("hf:owner/name", "hf", "owner/name"),
    ],
)
def test_data_sets_are_named_with_and_without_argument(text: str, name: str, argument: str | None) -> None:
    found, given = discover().dataset(text)
    assert (found.name, given) == (name, argument)


@pytest.mark.parametrize(
    ("text", "code", "advice"),
    [
        ("imagefolder", "argument-missing", "write imagefolder:PATH"),
        ("imagefolder:", "argument-missing", "write imagefolder:PATH"),
        ("hf", "argument-missing", "write hf:OWNER/NAME"),
        ("digits:foo", "argument-unused", "write digits"),
        ("digits:", "argument-unused", "write digits"),
        ("digit", "unknown-name", "did you mean 'digits'?"),
        ("fashion-mnist", "unknown-name", "did you mean 'fashion_mnist'?"),
        ("image_folder", "unknown-name", "did you mean 'imagefolder:PATH'?"),
        ("imagefoldr:/a/very/long/path/to/photos/of/flowers", "unknown-name", "did you mean 'imagefolder:PATH'?"),
        ("~/photos", "unknown-name", "imagefolder:PATH"),
        ("", "unknown-name", "unknown dataset ''"),
    ],
)
def test_a_wrong_data_set_is_refused_with_the_way_to_write_it(text: str, code: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        discover().dataset(text)
    assert caught.value.code == code
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("import no_such_module_anywhere", ModuleNotFoundError, "no_such_module_anywhere"),
        ("raise SystemExit(0)", PluginError, "SystemExit: 0"),
        ("raise KeyboardInterrupt", PluginError, "KeyboardInterrupt"),
        (plugin(backbone(lisence="'mit'")), ValueError, "lisence"),
        (plugin(backbone(name="'resnet18'")), PluginError, "'resnet18' is already declared by"),
    ],
)
def test_the_first_error_is_raised_where_the_plugins_author_asks_for_it(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str, kind: type[Exception], message: str
) -> None:
    install("bad-plugin", source)
    monkeypatch.setenv("ZOO_RAISE_PLUGIN_ERRORS", "1")
    with pytest.raises(kind) as caught:
        discover()
    assert message in str(caught.value)
    assert "'bad-plugin'" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    monkeypatch.setenv("ZOO_RAISE_PLUGIN_ERRORS", "0")
    assert discover().problems


def test_the_command_line_works_beside_broken_plugins(install: Install, tmp_path: Path) -> None:
    install("bad-plugin", "raise SystemExit(3)")
    install("bad-record", plugin(backbone(license=None)))
    install("good-plugin", plugin(backbone()))
    listing = run_zoo("list", "--json", path=tmp_path)
    assert {row["name"] for row in json.loads(listing.stdout)} >= {*BUILT_IN_BACKBONES, "tiny"}
    assert "bad-plugin" in listing.stderr
    plugins = {row["entry_point"]: row for row in json.loads(run_zoo("plugins", "--json", path=tmp_path).stdout)}
    assert plugins["bad_plugin"]["errors"] == ["SystemExit: 3"]
    assert "license" in plugins["bad_record"]["errors"][0]
    assert plugins["good_plugin"]["backbones"] == ["tiny"]
    assert plugins["good_plugin"]["errors"] == []


PRINTING = """
import logging, os, subprocess, sys
print("printed \x1b[31m")
sys.stdout.buffer.write(b"bytes")
logging.basicConfig(stream=sys.stdout, level="INFO")
os.write(1, b"by descriptor\\n")
subprocess.run(["echo", "by a child"])
"""


def test_what_a_plugin_prints_goes_to_stderr_with_its_name(install: Install, tmp_path: Path) -> None:
    install("good-plugin", plugin(backbone(), before=PRINTING))
    listing = run_zoo("list", "--json", path=tmp_path)
    assert "tiny" in {row["name"] for row in json.loads(listing.stdout)}
    origin = "entry point 'good_plugin' of distribution 'good-plugin' prints:"
    assert {line.removeprefix(origin).strip() for line in listing.stderr.splitlines()} == {
        "printed [31m",
        "bytes",
        "by descriptor",
        "by a child",
    }


def test_a_plugin_that_holds_up_the_process_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install("bad-plugin", "import time\ntime.sleep(1)")
    monkeypatch.setattr(plugin_guard, "SECONDS_BEFORE_NOTICE", 0.3)
    discover()
    error = capsys.readouterr().err
    assert "waiting for entry point 'bad_plugin' of distribution 'bad-plugin'" in error


def test_ctrl_c_during_an_import_ends_the_command(install: Install) -> None:
    install("bad-plugin", "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        discover()
    assert signal.getsignal(signal.SIGINT) is before


def run_zoo(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "XDG_CACHE_HOME": str(path / "cache")}
    command = [sys.executable, "-c", "from zoo_harness.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_an_unknown_name_is_no_key_error() -> None:
    assert issubclass(UnknownNameError, ZooError)
    assert not issubclass(UnknownNameError, KeyError)


FAMILY = """
import zoo

def names():
    return ["small.v1", "large.v1", "wrong", "broken"]

def derive(name):
    if name == "broken":
        raise OSError("no such network")
    named = "other" if name == "wrong" else f"mylib:{name}"
    return zoo.Backbone(
        name=named, weights=zoo.TimmWeights("test_vit.r160_in1k"), unfreeze=("blocks.5",), head=zoo.Head("head"),
        features=(zoo.FeatureLayer("fc_norm", 64, pool="flatten"),), license=None, paper=None, pretrained_on=None,
        imagenet_top1=None, derived_from=None if name == "wrong" else "mylib 1.0",
    )

@zoo.hookimpl
def zoo_backbone_families():
    yield zoo.BackboneFamily(prefix="mylib", title="mylib", names="my_family:names", derive="my_family:derive")
"""


def test_a_family_of_a_plugin_is_taken_by_prefix(install: Install) -> None:
    install("my-family", FAMILY)
    registry = Registry(importlib.metadata.entry_points(group="zoo"))
    assert registry.backbone_names("mylib:*.v1") == ["mylib:small.v1", "mylib:large.v1"]
    record = registry.backbone("mylib:small")
    assert record is registry.backbone("mylib:small")
    plugin = registry.declares(record)
    assert plugin is not None
    assert plugin.distribution == "my-family"
    assert "mylib:small" not in registry.backbones
    with pytest.raises(UnknownNameError) as caught:
        registry.backbone("mylib:smoll.v1")
    assert caught.value.facts["near"][0] == "mylib:small.v1"


@pytest.mark.parametrize("name", ["mylib:broken", "mylib:wrong"])
def test_a_family_that_fails_is_named_by_its_plugin(install: Install, name: str) -> None:
    install("my-family", FAMILY)
    with pytest.raises(PluginError) as caught:
        Registry(importlib.metadata.entry_points(group="zoo")).backbone(name)
    assert caught.value.code == "plugin-family"
