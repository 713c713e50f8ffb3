"""The cards of backbones: kept current, the same everywhere, and true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zoo import load_registry
from zoo_harness.cli.main import run
from zoo_harness.reports.backbone_card import render_backbone_card

FOLDER = Path(__file__).resolve().parents[2] / "cards"
REGISTRY = load_registry()
BUILT_IN = sorted(name for name in REGISTRY.backbones if REGISTRY.owner("backbone", name).built_in)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_card_in_the_repository_is_current(name: str) -> None:
    written = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert written == render_backbone_card(REGISTRY.backbone(name)), "run make docs"


def test_there_is_no_card_of_a_backbone_that_is_gone() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == BUILT_IN


def test_a_card_has_the_published_counts_beside_ours() -> None:
    card = render_backbone_card(REGISTRY.backbone("densenet201"))
    assert "| paper | 94.76 % (validation) | 6,982,400 | 6,982,400 without the classifier, 7,476,746 with it |" in card
    assert "| report | 91.44 % (validation) | 235,210 | 235,210 |" in card


def test_a_count_that_differs_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = REGISTRY.backbone("densenet201")
    recipe = replace(backbone.recipes["paper"], unfreeze=("features.norm5",))
    card = render_backbone_card(replace(backbone, recipes={**backbone.recipes, "paper": recipe}))
    assert "| paper | 94.76 % (validation) | 6,982,400 | 498,186 |" in card


def test_a_card_has_the_published_separation() -> None:
    card = render_backbone_card(REGISTRY.backbone("resnet18_cifar"))
    assert "| test | 0.5990 | 0.4853 | 0.5898 | 0.3056 | 0.7026 |" in card
    assert "| [1] | cifar100 | scratch | 76.28 % (test) | 11,220,132 | 11,220,132 |" in card
    layers = render_backbone_card(REGISTRY.backbone("efficientnet_v2_s"))
    assert "| features.7 | 0.6789 | 0.4371 |" in layers


def test_recipes_with_layers_of_their_own_have_a_table_of_their_own() -> None:
    card = render_backbone_card(REGISTRY.backbone("vgg19"))
    assert card.count("| head.global_pool |") == 2
    assert "Recipe `paper`:" in card


def test_what_a_plugin_says_stays_text(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = replace(REGISTRY.backbone("resnet18"), title="<script>|*x*", license="[a](http://b)")
    card = render_backbone_card(hostile)
    assert "<script>" not in card
    assert r"\[a\](http://b)" in card


def test_card_command_prints_a_backbones_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["card", "resnet18"]) == 0
    assert capsys.readouterr().out == (FOLDER / "resnet18.md").read_text(encoding="utf-8")


def test_card_command_names_near_misses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["card", "resnet-18"]) == 2
    assert "unknown backbone 'resnet-18'; did you mean 'resnet18'" in capsys.readouterr().err


def test_card_command_tells_of_folders_that_are_no_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for subject in (f"{tmp_path}/nowhere", "folder", "folder/run.json"):
        assert run(["card", subject]) == 2
        assert "is not a run directory: run.json: No such file" in capsys.readouterr().err


def test_underscores_of_names_stay_as_they_are() -> None:
    card = render_backbone_card(REGISTRY.backbone("coat_lite_small"))
    assert card.splitlines()[2] == "`coat_lite_small` is a built-in backbone of blockzoo."
    assert "\\_" not in card
