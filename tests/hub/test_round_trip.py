"""The proof that a tree loads everywhere: it holds for what is ours, and fails for what was tampered with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from zoo import Backbone, DualHead, Head, Preprocessing, WeightsError
from zoo.architecture import TimmArchitecture
from zoo_harness.hub import round_trip
from zoo_harness.hub.publication import publishable, write_tree
from zoo_harness.hub.round_trip import verify_tree
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION
from zoo_harness.util.digests import sha256_of

from ..saved_runs import edit_record, save_run


def published(backbone: Backbone, folder: Path, **settings: Any) -> tuple[Path, Path]:
    """A run and its tree."""
    run, tree = folder / "run", folder / "tree"
    run.mkdir()
    save_run(backbone, run, **settings)
    write_tree(publishable(run), tree)
    return tree, run


def results(tree: Path, run: Path) -> dict[str, str]:
    return {check.loader.split()[0]: check.result for check in verify_tree(tree, run)}


def fault(tree: Path, run: Path, loader: str) -> str:
    """Return the fault that must be found with a loader."""
    with pytest.raises(WeightsError, match="; zoo published nothing") as raised:
        verify_tree(tree, run)
    assert raised.value.code == "round-trip"
    assert str(raised.value.facts["loader"]).startswith(loader)
    return str(raised.value.facts["fault"])


@pytest.fixture
def distilled(tiny_resnet: Backbone) -> Backbone:
    architecture = TimmArchitecture("deit_tiny_distilled_patch16_224.fb_in1k")
    head = DualHead(cls=Head("head"), dist=Head("head_dist"))
    return replace(tiny_resnet, name="distilled", architecture=architecture, head=head, unfreeze=("norm",))


@pytest.mark.parametrize(
    ("network", "size"), [("test_vit", (64, 64)), ("test_resnet", (32, 32)), ("test_maxvit", (64, 96))]
)
def test_every_loader_takes_the_input_size_of_the_run(
    tiny_resnet: Backbone, network: str, size: tuple[int, int], tmp_path: Path
) -> None:
    head = {"test_vit": "head", "test_resnet": "fc", "test_maxvit": "head.fc"}[network]
    sized = replace(
        tiny_resnet, name=network, architecture=TimmArchitecture(network), head=Head(head), unfreeze=(head,),
        preprocessing=Preprocessing(size),
    )  # fmt: skip
    tree, run = published(sized, tmp_path)
    found = results(tree, run)
    assert [*found] == ["zoo.load", "timm", "transformers"]
    assert all(result.startswith("same logits") for result in found.values())
    configuration = json.loads((tree / CONFIGURATION).read_text())
    assert configuration["pretrained_cfg"]["input_size"] == [3, *size]


def test_every_loader_gives_the_same_logits(tiny_resnet: Backbone, tmp_path: Path) -> None:
    assert results(*published(tiny_resnet, tmp_path)) == dict.fromkeys(
        ("zoo.load", "timm", "transformers"), "same logits, bit for bit"
    )


def test_two_heads_give_the_same_logits_whatever_predicts(distilled: Backbone, tmp_path: Path) -> None:
    tree, run = published(distilled, tmp_path, predict="cls")
    for predict in ("cls", "mean"):
        for folder in (tree, run):
            edit_record(folder, lambda record, predict=predict: record["settings"].update(predict=predict))
        found = results(tree, run)
        assert all(result.startswith("same logits") for result in found.values())
        assert len(found) == 3


def test_a_head_that_others_do_not_know_must_be_refused_by_them(tiny_resnet: Backbone, tmp_path: Path) -> None:
    tree, run = published(replace(tiny_resnet, head=Head("fc", hidden=16)), tmp_path)

    refused = "refuses it by name, as it must"
    assert results(tree, run) == {"zoo.load": "same logits, bit for bit", "timm": refused, "transformers": refused}


@pytest.fixture
def loaders_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the loaders to find out what a configuration says, which is compared with the record before."""
    monkeypatch.setattr("zoo_harness.checkpoints.load.check_configuration", lambda *_: None)


@pytest.mark.usefixtures("loaders_alone")
def test_a_configuration_that_lets_timm_make_a_random_head_is_refused(tiny_resnet: Backbone, tmp_path: Path) -> None:
    tree, run = published(replace(tiny_resnet, head=Head("fc", hidden=16)), tmp_path)
    (tree / CONFIGURATION).write_text('{"architecture": "no_such_network", "num_classes": 3}')

    assert "no_such_network" in fault(tree, run, "timm")


def edit_configuration(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def tamper(tree: Path) -> None:
        content = json.loads((tree / CONFIGURATION).read_text())
        edit(content)
        (tree / CONFIGURATION).write_text(json.dumps(content))

    return tamper


def another_checkpoint(tree: Path) -> None:
    tensors = load_file(tree / CHECKPOINT)
    tensors["fc.bias"] += 1
    save_file(tensors, tree / CHECKPOINT, metadata={"format": "pt"})
    edit_record(tree, lambda record: record.update(checkpoint_sha256=sha256_of(tree / CHECKPOINT)))


@pytest.mark.usefixtures("loaders_alone")
@pytest.mark.parametrize(
    ("tamper", "loader", "told"),
    [
        (another_checkpoint, "zoo.load", "logits that differ from the run's network by up to 1"),
        (lambda tree: edit_record(tree, lambda it: it["dataset"].update(classes=[*"abc"])), "zoo.load", "classes"),
        (edit_configuration(lambda it: it.update(architecture="test_vit")), "timm", "cannot load the tree"),
        (edit_configuration(lambda it: it.update(label_names=["a", "b", "c"])), "transformers", "other class names"),
        (
            edit_configuration(lambda it: it["pretrained_cfg"].update(mean=[0.1, 0.2, 0.3])),
            "transformers",
            "preprocesses images differently",
        ),
        (edit_configuration(lambda it: it.pop("pretrained_cfg")), "t", ""),
    ],
)  # fmt: skip
def test_a_tree_that_loads_otherwise_than_the_run_is_refused(
    tiny_resnet: Backbone, tmp_path: Path, tamper: Callable[[Path], None], loader: str, told: str
) -> None:
    tree, run = published(tiny_resnet, tmp_path)
    tamper(tree)

    assert told in fault(tree, run, loader)


def test_without_transformers_the_check_is_skipped_and_reported(
    tiny_resnet: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_trip, "find_spec", lambda _name: None)

    assert results(*published(tiny_resnet, tmp_path))["transformers"] == "not installed, so not tried"


def test_loading_prints_nothing(tiny_resnet: Backbone, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verify_tree(*published(tiny_resnet, tmp_path))
    sys.stderr.flush()

    assert capfd.readouterr() == ("", "")


def test_a_run_from_before_there_were_words_for_transformers_is_published(
    tiny_resnet: Backbone, tmp_path: Path
) -> None:
    tree, run = published(replace(tiny_resnet, head=Head("fc", hidden=16)), tmp_path)
    edit_configuration(lambda it: it.pop("model_type"))(tree)

    assert results(tree, run)["transformers"] == "refuses it, as a network that it does not know"
