"""Checkpoints: what is saved loads in timm, transformers and zoo.load with the same logits, or is refused by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import zoo
from zoo import Backbone, DualHead, Head, Preprocessing, UsageError, WeightsError
from zoo.architecture import TimmArchitecture
from zoo_harness.checkpoints.save import digest, save_checkpoint
from zoo_harness.models.build import build_network
from zoo_harness.models.modules import capture
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import read_run
from zoo_harness.reports.run_card import render_card
from zoo_harness.util.digests import sha256_of

from ..saved_runs import CLASSES, edit_record, save_run

LOADING = Path(__file__).parents[2] / "docs" / "loading.md"
TWO_HEADS = DualHead(cls=Head("head"), dist=Head("head_dist"))


@pytest.fixture(scope="module")
def saved(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path]]:
    """Networks and their saved runs: one head, and the two heads of DeiT-Ti, whose mean predicts."""
    architecture = TimmArchitecture("deit_tiny_distilled_patch16_224.fb_in1k")
    distilled = replace(tiny_resnet, name="distilled", architecture=architecture, head=TWO_HEADS, unfreeze=("norm",))
    found = {}
    for backbone in (tiny_resnet, distilled):
        folder = tmp_path_factory.mktemp(backbone.name)
        found[backbone.name] = save_run(backbone, folder, predict="mean"), folder
    return found


@pytest.fixture
def with_mlp(tiny_resnet: Backbone) -> Backbone:
    return replace(tiny_resnet, head=Head("fc", hidden=16))


def images_for(folder: Path, batch: int = 2) -> Tensor:
    height, width = zoo.load(folder).record.settings.preprocessing.input_size
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        result: Tensor = network.eval()(images)
    return result


# Loads everywhere


@pytest.mark.parametrize("kind", ["tiny_resnet", "distilled"])
def test_timm_transformers_and_zoo_give_the_same_logits(saved: dict[str, tuple[nn.Module, Path]], kind: str) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    network, folder = saved[kind]
    images = images_for(folder)
    expected = logits(network, images)
    assert expected.shape == (2, 3)
    assert torch.equal(logits(timm.create_model(f"local-dir:{folder}", pretrained=True), images), expected)
    theirs = AutoModelForImageClassification.from_pretrained(folder)
    assert torch.equal(logits(theirs, images).logits, expected)
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    ours = zoo.load(folder)
    torch.testing.assert_close(logits(ours, images), expected, rtol=0, atol=1e-6)
    processed = AutoImageProcessor.from_pretrained(folder)(PIL.Image.fromarray(skimage.data.cat()))["pixel_values"]
    own = ours.preprocess(torch.from_numpy(skimage.data.cat())[None])
    assert float((processed - own).abs().max()) < 1.01 / 255 / min(ours.record.settings.preprocessing.std)


def test_two_heads_predict_by_the_runs_own_rule(saved: dict[str, tuple[nn.Module, Path]], tmp_path: Path) -> None:
    network, folder = saved["distilled"]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    edit_record(tmp_path, lambda record: record["settings"].update(predict="cls"))
    images = images_for(tmp_path)
    with capture(network, ["head"]) as outputs:
        mean = logits(network, images)
    assert torch.equal(logits(zoo.load(tmp_path), images), outputs["head"])
    assert not torch.equal(outputs["head"], mean)


def test_configuration_says_how_images_are_prepared(tiny_resnet: Backbone, tmp_path: Path) -> None:
    own = Preprocessing(input_size=(96, 96), mean=(0.1, 0.2, 0.3), crop_fraction=0.9, crop_mode="squash")
    save_run(replace(tiny_resnet, preprocessing=own), tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    found = timm.data.resolve_data_config({}, model=loaded)
    assert found["input_size"] == (3, 96, 96)
    assert (tuple(found["mean"]), found["crop_pct"], found["crop_mode"]) == ((0.1, 0.2, 0.3), 0.9, "squash")
    configuration = json.loads((tmp_path / "config.json").read_text())
    assert configuration["zoo"] == {"backbone": "tiny_resnet", "recipe": "default"}
    assert configuration["label_names"] == list(CLASSES)


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run_blocks(page: str) -> list[dict[str, Any]]:
    """Run each block of Python in a page; give what it left."""
    found = []
    for block in python_blocks(page):
        names: dict[str, Any] = {}
        exec(block, names)  # noqa: S102 - our own pages, and whether they run is the question
        found.append(names)
    return found


def of_folder(card: str, folder: str) -> str:
    return card.replace('"PATH"', f'"{folder}"').replace(":PATH", f":{folder}")


@pytest.fixture
def in_folder_with_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("shoe.jpg", "image.jpg"):
        PIL.Image.fromarray(skimage.data.cat()).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "fashion"
    run.mkdir(parents=True)
    return run


def test_what_the_docs_say_loads_it_does(tiny_resnet: Backbone, in_folder_with_image: Path) -> None:
    save_run(tiny_resnet, in_folder_with_image)
    by_zoo, _by_timm, by_transformers = run_blocks(LOADING.read_text())
    with PIL.Image.open("image.jpg") as image:
        expected = zoo.load(in_folder_with_image).predict(image)
    assert by_zoo["model"].training is False
    assert by_transformers["label"] == expected[0]


@pytest.mark.parametrize("kind", ["tiny_resnet", "distilled"])
def test_what_the_card_says_loads_it_does(
    saved: dict[str, tuple[nn.Module, Path]], in_folder_with_image: Path, kind: str
) -> None:
    shutil.copytree(saved[kind][1], in_folder_with_image, dirs_exist_ok=True)
    card = render_card(read_run(in_folder_with_image))
    with PIL.Image.open("image.jpg") as image:
        expected = zoo.load(in_folder_with_image).predict(image)
    found = run_blocks(of_folder(card, "runs/fashion"))
    assert [names["label"] for names in found] == expected * 3


def test_the_card_of_a_head_that_others_do_not_know_says_zoo_load_alone(
    with_mlp: Backbone, in_folder_with_image: Path
) -> None:
    save_run(with_mlp, in_folder_with_image)
    (found,) = run_blocks(of_folder(render_card(read_run(in_folder_with_image)), "runs/fashion"))
    with PIL.Image.open("image.jpg") as image:
        assert [found["label"]] == zoo.load(in_folder_with_image).predict(image)


# Refused by name


def test_head_that_others_do_not_know_is_refused_by_them(with_mlp: Backbone, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification

    network = save_run(with_mlp, tmp_path)
    images = images_for(tmp_path)
    assert torch.equal(logits(zoo.load(tmp_path), images), logits(network, images))
    for pretrained in (True, False):
        with pytest.raises(RuntimeError, match=r"Unknown model \(not timm's, load it with zoo\.load \(test_resnet"):
            timm.create_model(f"local-dir:{tmp_path}", pretrained=pretrained)
    with pytest.raises(ValueError, match=r"not of transformers, load it with zoo\.load \(test_resnet"):
        AutoModelForImageClassification.from_pretrained(tmp_path)


def test_network_that_lost_a_module_is_refused_by_others(tiny_resnet: Backbone, tmp_path: Path) -> None:
    """Linear as its head is: timm would look for the module that the head bypasses."""
    head = Head("head", bypass=("blocks.5",), in_features=64)
    bypassing = replace(
        tiny_resnet, architecture=TimmArchitecture("test_vit.r160_in1k"), unfreeze=("blocks.4",), head=head
    )
    network = save_run(bypassing, tmp_path)
    images = images_for(tmp_path)
    assert torch.equal(logits(zoo.load(tmp_path), images), logits(network, images))
    with pytest.raises(RuntimeError, match=r"load it with zoo\.load"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


@pytest.mark.parametrize("position", [20, -1])
def test_one_changed_byte_is_refused(tiny_resnet: Backbone, tmp_path: Path, position: int) -> None:
    save_run(tiny_resnet, tmp_path)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    content[position] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(WeightsError) as raised:
        zoo.load(tmp_path)
    assert (raised.value.code, raised.value.facts["path"]) == ("checkpoint-changed", str(tmp_path / CHECKPOINT))


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda t: t.pop("bn1.bias"), "'bn1.bias' is missing"),
        (
            lambda t: t.update(extra=torch.ones(1)),
            "'extra' is not in the network",
        ),
        (
            lambda t: t.update({"fc.bias": torch.ones(4)}),
            "'fc.bias' is float32 (4), but float32 (3) in the network",
        ),
        (
            lambda t: t.update({"fc.bias": t["fc.bias"].half()}),
            "'fc.bias' is float16 (3), but float32 (3) in the network",
        ),
    ],
)
def test_tensors_of_another_network_are_refused(
    tiny_resnet: Backbone, tmp_path: Path, edit: Callable[[dict[str, Tensor]], object], fault: str
) -> None:
    save_run(tiny_resnet, tmp_path)
    tensors = load_file(tmp_path / CHECKPOINT)
    edit(tensors)
    save_file(tensors, tmp_path / CHECKPOINT)
    edit_record(tmp_path, lambda record: record.update(checkpoint_sha256=sha256_of(tmp_path / CHECKPOINT)))
    with pytest.raises(WeightsError) as caught:
        zoo.load(tmp_path)
    assert (caught.value.code, caught.value.facts["faults"]) == ("other-tensors", [fault])


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_run_without_a_checkpoint_is_refused_with_the_command_that_finishes_it(
    tiny_resnet: Backbone, tmp_path: Path, status: str
) -> None:
    save_run(tiny_resnet, tmp_path)
    edit_record(tmp_path, lambda record: record.update(checkpoint_sha256=None, status=status))
    (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(UsageError, match="0 of 20 epochs") as caught:
        zoo.load(tmp_path)
    assert caught.value.code == "run-not-finished"
    assert (caught.value.facts["status"], caught.value.facts["resume"]) == (status, f"zoo eval --resume {tmp_path}")


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError) as raised:
            zoo.load(folder)
        assert raised.value.code == "not-a-run"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('{"architecture": "resnet18"}', r"timm's resnet18: timm\.create_model\('local-dir:/"),
        ('{"architectures": ["ViT"], "model_type": "vit"}', "transformers' vit: AutoModel"),
        ("[" * 9999, "try timm or transformers"),
    ],
)
def test_foreign_folder_is_described(tmp_path: Path, config: str, told: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / CHECKPOINT)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match=rf"\(it has config\.json, model\.safetensors\); .*{told}"):
        zoo.load(tmp_path)


def test_folder_with_a_pickle_alone(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(UsageError, match=r"in the pickle file pytorch_model\.bin, which zoo never loads"):
        zoo.load(tmp_path)


@pytest.mark.parametrize("name", ["tiny_resnet", "efficientnet_lite0"])
def test_record_cannot_have_any_function_called(tiny_resnet: Backbone, tmp_path: Path, name: str) -> None:
    save_run(tiny_resnet, tmp_path)
    edit_record(
        tmp_path,
        lambda record: record["backbone"].update(name=name, network="antigravity:fly", network_kind="factory"),
    )
    with pytest.raises(UsageError) as raised:
        zoo.load(tmp_path)
    assert (raised.value.code, raised.value.facts["given"]) == ("network-not-declared", "antigravity:fly")


# The file


class Tied(nn.Module):
    """One tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3, bias=False)
        self.other = nn.Linear(3, 3, bias=False)
        self.other.weight = self.one.weight


def test_shared_tensors_are_saved_under_every_name(tmp_path: Path) -> None:
    network = Tied()
    assert digest(tmp_path) is None
    save_checkpoint(network, tmp_path)
    assert digest(tmp_path) == sha256_of(tmp_path / CHECKPOINT)
    found = load_file(tmp_path / CHECKPOINT)
    assert found.keys() == {"one.weight", "other.weight"}
    assert torch.equal(found["one.weight"], found["other.weight"])
    assert torch.equal(found["one.weight"], network.one.weight)


def test_memory_format_does_not_reach_the_file(tiny_resnet: Backbone, tmp_path: Path) -> None:
    network = build_network(tiny_resnet.name, tiny_resnet.network)
    save_checkpoint(network, tmp_path)
    plain = digest(tmp_path)
    save_checkpoint(network.to(memory_format=torch.channels_last), tmp_path)
    assert digest(tmp_path) == plain


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    previous = os.umask(umask)
    try:
        save_checkpoint(Tied(), tmp_path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / CHECKPOINT).stat().st_mode) == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


# Prediction


def test_predict_gives_class_names(tiny_resnet: Backbone, tmp_path: Path) -> None:
    network = save_run(tiny_resnet, tmp_path)
    model = zoo.load(tmp_path)
    photos = torch.from_numpy(skimage.data.cat())[None].repeat(3, 1, 1, 1)
    photos[1] = 255 - photos[1]
    best = logits(network, model.preprocess(photos)).argmax(1)
    assert model.predict(photos) == [CLASSES[index] for index in best]
    assert model.predict(photos[..., 0]) == model.predict(photos[..., :1].expand(-1, -1, -1, 3)), "grey images too"
    assert (model.classes, model.training) == (CLASSES, False)


def test_predict_takes_images_as_they_come(tiny_resnet: Backbone, tmp_path: Path) -> None:
    save_run(tiny_resnet, tmp_path)
    model = zoo.load(tmp_path)
    cat = PIL.Image.fromarray(skimage.data.cat())
    images = [cat, cat.crop((0, 0, 90, 40)), cat.convert("L"), cat.quantize(), cat.convert("RGBA")]
    expected = torch.cat([model.preprocess(torch.from_numpy(np.array(i.convert("RGB")))) for i in images])
    assert torch.equal(model.preprocess(images), expected)
    assert model.predict(images) == [CLASSES[index] for index in logits(model, expected).argmax(1)]
    assert model.predict(cat) == model.predict(np.asarray(cat)) == model.predict(images)[:1]
    with pytest.raises(UsageError, match="multiply by 255"):
        model.predict(np.asarray(cat) / 255)
