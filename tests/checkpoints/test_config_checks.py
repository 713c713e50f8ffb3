"""The configuration for other loaders must say what the record says: ours all do, and a stranger's must."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import Backbone, DualHead, Head, Preprocessing, TorchvisionArchitecture, WeightsError, ZooError
from zoo.architecture import TimmArchitecture

from ..hub_server import Hub
from ..saved_runs import published_files, save_run

TWO_HEADS = DualHead(cls=Head("head"), dist=Head("head_dist"))
DEIT = TimmArchitecture("deit_tiny_distilled_patch16_224.fb_in1k")


@pytest.fixture
def tree(tiny_resnet: Backbone, tmp_path: Path) -> Path:
    return published(tiny_resnet, tmp_path)


def published(backbone: Backbone, folder: Path) -> Path:
    save_run(backbone, folder)
    (folder / "run.json").rename(folder / "zoo.json")
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": Head("fc", hidden=16)},
        {"architecture": DEIT, "head": TWO_HEADS, "unfreeze": ("norm",)},
        {"architecture": TimmArchitecture("test_vit"), "head": Head("head"), "unfreeze": ("norm",)},
        {"architecture": TimmArchitecture("test_efficientnet"), "head": Head("classifier"), "unfreeze": ("bn2",)},
        {"preprocessing": Preprocessing(input_size=(96, 64), mean=(0.1, 0.2, 0.3), crop_mode="squash")},
        {
            "architecture": TorchvisionArchitecture("shufflenet_v2_x0_5"),
            "head": Head("fc"),
            "preprocessing": Preprocessing((64, 64)),
        },
    ],
    ids=["linear", "mlp", "two_heads", "vit", "efficientnet", "squashed", "torchvision"],
)
def test_configurations_of_zoo_pass(tiny_resnet: Backbone, tmp_path: Path, changes: dict[str, Any]) -> None:
    zoo.load(published(replace(tiny_resnet, **changes), tmp_path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda it: it["label_names"].reverse(),
            r"label_names is \['a \"quoted\", Größe', 'dog', 'cat'\], but the record",
        ),
        (lambda it: it.update(architecture="test_vit"), "architecture is 'test_vit', but the record requires 'test_r"),
        (lambda it: it.update(num_classes=4), "num_classes is 4, but the record requires 3"),
        (lambda it: it.update(auto_map={"AutoConfig": "evil.Config"}), "unexpected key 'auto_map'"),
        (lambda it: it.update(model_type="vit"), "unexpected key 'model_type'"),
        (lambda it: it["model_args"].update(features_only=True), "model_args is"),
        (
            lambda it: it["pretrained_cfg"].update(custom_load=True),
            r"pretrained_cfg\.custom_load is True, but",
        ),
        (lambda it: it["pretrained_cfg"].update(file="/etc/passwd"), r"pretrained_cfg\.file is '/etc/passwd'.* none"),
        (lambda it: it["pretrained_cfg"].update(hf_hub_id="eve/net"), r"pretrained_cfg\.hf_hub_id is 'eve/net'"),
        (lambda it: it["pretrained_cfg"].update(url="https://eve/x.pth"), r"pretrained_cfg\.url"),
        (lambda it: it["pretrained_cfg"].update(mean=[0, 0, 0]), r"pretrained_cfg\.mean is \[0, 0, 0\], but the"),
        (lambda it: it["pretrained_cfg"].update(input_size=[3, 9, 9]), r"pretrained_cfg\.input_size"),
        (lambda it: it.pop("pretrained_cfg"), "pretrained_cfg is missing"),
        (lambda it: it.pop("label_names"), "label_names is missing"),
        (dict.clear, "and 2 more"),
    ],
)
def test_a_contradiction_of_the_record_is_refused(
    tree: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    edit(tree, change)

    with pytest.raises(WeightsError, match=told) as raised:
        zoo.load(tree)
    assert (raised.value.code, raised.value.facts["path"]) == ("configuration-contradicts", str(tree / "config.json"))
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[1]", "\udcff"])
def test_a_file_that_is_no_configuration_is_refused(tree: Path, content: str) -> None:
    (tree / "config.json").write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(WeightsError) as raised:
        zoo.load(tree)
    assert raised.value.code == "configuration-unreadable"


def test_remarks_of_another_release_of_timm_do_no_harm(tree: Path) -> None:
    edit(tree, lambda it: (it["pretrained_cfg"].update(remark="new"), it.update(num_features=7, model_args={})))

    zoo.load(tree)
    (tree / "config.json").unlink()
    zoo.load(tree)


def test_a_refusal_cannot_be_made_a_network(tiny_resnet: Backbone, tmp_path: Path) -> None:
    tree = published(replace(tiny_resnet, head=Head("fc", hidden=16)), tmp_path)
    edit(tree, lambda it: it.update(architecture="test_resnet", pretrained_cfg={}))

    with pytest.raises(
        WeightsError, match=r"unexpected key 'pretrained_cfg'.*architecture is 'test_resnet', but the rec"
    ):
        zoo.load(tree)


def test_a_refusal_as_the_first_runs_wrote_it_passes(tiny_resnet: Backbone, tmp_path: Path) -> None:
    tree = published(replace(tiny_resnet, head=Head("fc", hidden=16)), tmp_path)
    edit(tree, lambda it: it.pop("model_type"))

    zoo.load(tree)


def test_nothing_is_put_where_it_was_asked_for(
    hub: Hub, tree: Path, tmp_path: Path, error_of: Callable[..., ZooError]
) -> None:
    edit(tree, lambda it: it["label_names"].reverse())
    (tree / "zoo.json").rename(tree / "run.json")
    hub.create("ada/pets", published_files(tree))

    assert error_of("pull", "ada/pets", "--to", str(tmp_path / "to")).code == "configuration-contradicts"
    assert not (tmp_path / "to").exists()
