"""Checkpoints of strangers: an error of one line names each fault; none fills the memory or runs code."""

from __future__ import annotations

import json
import os
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo import Backbone, DataError, Head, Preprocessing, UsageError, WeightsError
from zoo.architecture import TorchvisionArchitecture
from zoo.errors import ZooError
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.checkpoints.opened import open_checkpoint
from zoo_harness.cli.main import run
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import LARGEST_RECORD, read_run
from zoo_harness.util.digests import sha256_of

from ..saved_runs import edit_record, save_run


@pytest.fixture
def tree(tiny_resnet: Backbone, tmp_path: Path) -> Path:
    """A published checkpoint: its record is ``zoo.json``."""
    folder = tmp_path / "tree"
    folder.mkdir()
    save_run(tiny_resnet, folder)
    (folder / "run.json").rename(folder / "zoo.json")
    return folder


def refusal(folder: Path, kind: type[ZooError] = WeightsError, code: str | None = None) -> str:
    """Return the message of the error that refuses a folder at once: one line, and little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(kind) as caught:
        zoo.load(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**18, f"{grown} KiB of memory to refuse {caught.value}"
    assert code in (None, caught.value.code)
    assert str(caught.value).isprintable(), "one line"
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def sign(folder: Path) -> None:
    """Make the record agree with the checkpoint, as its author would."""
    edit_record(folder, lambda record: record.update(checkpoint_sha256=sha256_of(folder / CHECKPOINT)))


def rewrite(folder: Path, edit: Callable[[dict[str, Any], bytearray], object]) -> None:
    """Change the head of the checkpoint and the bytes behind it, and sign it."""
    content = (folder / CHECKPOINT).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    head, data = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    edit(head, data)
    told = json.dumps(head).encode()
    (folder / CHECKPOINT).write_bytes(struct.pack("<Q", len(told)) + told + data)
    sign(folder)


@pytest.mark.parametrize(
    ("network", "head", "size", "code"),
    [
        ("test_vit", "head", (160, 160), "other-tensors"),
        ("test_vit_relpos", "head", (8, 8), "network-does-not-run"),  # less than a patch
        ("test_vit_relpos", "head", (4096, 4096), "record-image-size"),  # 34 GB of relative positions
    ],
)
def test_an_input_size_that_cannot_be_built_is_refused(
    tree: Path, network: str, head: str, size: tuple[int, int], code: str
) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["backbone"]["network"] = network
        record["settings"]["preprocessing"]["input_size"] = size
        record["settings"]["head"]["path"] = head

    edit_record(tree, edit)
    refusal(tree, code=code)


def test_the_published_tree_itself_loads(tree: Path) -> None:
    model = zoo.load(tree)
    assert model.record == read_run(tree)
    model.check_that_it_runs()


# The checkpoint


def test_the_checkpoint_is_read_from_the_file_whose_digest_was_verified(tree: Path) -> None:
    """Whoever exchanges the file after the check of its digest changes nothing that is loaded."""
    checkpoint = tree / CHECKPOINT
    expected = zoo.load(tree).network.state_dict()
    with open_checkpoint(tree) as opened:
        checkpoint.rename(tree / "verified")
        checkpoint.write_bytes(b"of a stranger")
        loaded = load_folder(opened).network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    refusal(tree, code="checkpoint-changed")


def test_truncated_file(tree: Path) -> None:
    os.truncate(tree / CHECKPOINT, 5000)
    refusal(tree, code="checkpoint-changed")
    sign(tree)
    refusal(tree, code="not-safetensors")


def test_file_of_nothing(tree: Path) -> None:
    (tree / CHECKPOINT).write_bytes(b"")
    sign(tree)
    assert "'fc'" in refusal(tree)


@pytest.mark.parametrize("size", [2**63, 2**40, 17 * 2**20, 2**20, 3])
def test_head_of_a_false_length(tree: Path, size: int) -> None:
    content = (tree / CHECKPOINT).read_bytes()
    (tree / CHECKPOINT).write_bytes(struct.pack("<Q", size) + content[8:])
    sign(tree)
    told = refusal(tree, code="not-safetensors")
    assert (f"the header has {size:,} bytes" in told) == (size > 2**24)


@pytest.mark.parametrize(
    "edit",
    [
        lambda head: head["fc.weight"].update(shape=[2**30, 2**10]),
        lambda head: head["fc.weight"].update(shape=[2**62, 2**62]),
        lambda head: head["bn1.weight"].update(data_offsets=head["bn1.bias"]["data_offsets"]),
        lambda head: head["fc.weight"].update(dtype="F128"),
        lambda head: head.update(x={}),
    ],
    ids=["huge", "overflowing", "overlapping", "unknown_type", "without_offsets"],
)
def test_header_that_does_not_fit_the_file(tree: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    rewrite(tree, lambda head, _data: edit(head))
    refusal(tree, code="not-safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tree: Path, value: float) -> None:
    tensors = load_file(tree / CHECKPOINT)
    tensors["layer4.0.conv1.weight"].view(-1)[7] = value
    save_file(tensors, tree / CHECKPOINT)
    sign(tree)
    assert "layer4.0.conv1.weight" in refusal(tree, code="not-finite")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            lambda t: t.update({"fc.weight": t["fc.weight"].T.contiguous()}),
            "'fc.weight' is float32 (96, 3), but float32",
        ),
        (lambda t: t.update({"\x1b[31m" * 50: torch.ones(1)}), r"'\x1b[31m"),
        (lambda t: t.update({"fc.weight": t["fc.weight"].to(torch.int8)}), "'fc.weight' is int8 (3, 96), but float32"),
        (lambda t: t.clear() or t.update(a=torch.ones(1)), "is missing"),
    ],
)
def test_tensors_of_another_form(tree: Path, edit: Callable[[dict[str, Tensor]], object], told: str) -> None:
    tensors = load_file(tree / CHECKPOINT)
    edit(tensors)
    save_file(tensors, tree / CHECKPOINT)
    sign(tree)
    assert told in refusal(tree, code="other-tensors")


@pytest.mark.parametrize("name", [CHECKPOINT, "zoo.json"])
@pytest.mark.parametrize("target", ["/dev/zero", "/nonexistent", "."])
def test_links_to_no_regular_file(tree: Path, name: str, target: str) -> None:
    (tree / name).unlink()
    (tree / name).symlink_to(target)
    refusal(tree, ZooError)


def test_pipe_in_place_of_a_record(tree: Path) -> None:
    (tree / "zoo.json").unlink()
    os.mkfifo(tree / "zoo.json")
    refusal(tree, DataError)


# The record: what it may ask for


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("timm", "hf-hub:evil/repository"),
        ("timm", "hf_hub:evil/repository"),
        ("timm", "local-dir:/etc"),
        ("timm", "../test_resnet"),
        ("timm", "timm/test_resnet.r160_in1k"),
        ("timm", "test_*"),
        ("timm", ""),
        ("timm", "test_resnet.r160_in1k\n"),
        ("timm", "Test_resnet(pretrained=True)"),
        ("timm", "test_resnet.r160_in1k.x"),
        ("timm", "no_such_network"),
        ("timm", "test_resnet.no_such_tag"),
        ("torchvision", "../resnet18"),
        ("torchvision", "resnet81"),
        ("torchvision", "fasterrcnn_resnet50_fpn"),
        ("torchvision", "quantized_resnet18"),
        ("factory", "os:getcwd"),
        ("factory", "os.system"),
        ("factory", "zoo_plugins.cifar_networks:resnet18"),
    ],
)
def test_networks_that_are_not_simply_known(tree: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_arguments: object, **_options: object) -> None:
        raise AssertionError("something was built")

    edit_record(tree, lambda record: record["backbone"].update(network=name, network_kind=kind))
    monkeypatch.setattr("timm.create_model", called)
    monkeypatch.setattr("torchvision.models.get_model", called)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", called)
    told = refusal(tree, ZooError)
    assert repr(name)[:-1] in told, told


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda r: r["settings"]["preprocessing"].update(input_size=[10**5, 10**5]), "100,000"),
        (lambda r: r["settings"]["preprocessing"].update(input_size=[10**30, 8]), "1,000,000,000,0"),
        (lambda r: r["settings"]["preprocessing"].update(crop_fraction=0), "crop_fraction"),
        (lambda r: r["settings"]["preprocessing"].update(crop_fraction=1e-6), "1e-06"),
        (lambda r: r["settings"]["preprocessing"].update(std=[0, 1, 1]), "preprocessing.std"),
        (
            lambda r: r["settings"]["head"].update(hidden=10**9),
            "3,000,000,000",
        ),
        (lambda r: r["settings"]["head"].update(hidden=500_000), "'fc.0.weight' is missing"),
        (lambda r: r["settings"]["head"].update(path="layer4"), "layer4"),
        (lambda r: r["settings"]["head"].update(path="layer9"), "layer9"),
        (lambda r: r["settings"]["head"].update(path="../fc"), "head"),
        (lambda r: r["dataset"].update(classes=["cat"]), "1"),
        (lambda r: r["dataset"].update(classes=["cat", "dog", "cat"]), "'cat'"),
        (lambda r: r["dataset"].update(classes=["cat", "dog", "\x1b[2Jcow"]), r"'\x1b[2Jcow'"),
        (lambda r: r["dataset"].update(classes=["cat", "dog\ncow", "pig"]), "cow"),
        (lambda r: r["dataset"].update(classes=["cat", "\u202egod", "pig"]), "god"),
        (lambda r: r["dataset"].update(classes=["cat", " ", "pig"]), "' '"),
        (lambda r: r["dataset"].update(classes=["cat", "c" * 9999, "pig"]), "1,000"),
        (
            lambda r: r["dataset"].update(classes=[f"{i}" for i in range(10**5)]),
            "but float32 (100000, 96) in the network",
        ),
        (lambda r: r.update(plots=["../../etc/passwd.png"]), "plots.0"),
        (lambda r: r["backbone"].update(features=[]), "features"),
        (lambda r: r.update(plots=["loss.svg"]), "plots.0"),
        (
            lambda r: r["weights"].update(filename="../../x.safetensors"),
            "../../x.safetensors",
        ),
        (lambda r: r.update(checkpoint_sha256="../x"), "checkpoint_sha256"),
        (lambda r: r.update(extra="key"), "extra"),
        (lambda r: r["results"].update(accuracy={"value": 7.0, "standard_error": 0, "n": 3}), "results.accuracy.value"),
        (lambda r: r.update(format="blockzoo run 2"), "format"),
    ],
)
def test_impossible_records(tree: Path, edit: Callable[[dict[str, Any]], object], told: str) -> None:
    edit_record(tree, edit)
    assert told in refusal(tree, ZooError)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": 1' + "0" * 100_000 + "}",
        '{"plots": NaN}',
        "",
        "null",
        '"\\ud800"',
        "\ufeff{}",
        '{"format": "blockzoo run 1", "format": "x"}',
        "\udcff\udcfe\0",
    ],
)
def test_json_that_is_no_record(tree: Path, text: str) -> None:
    (tree / "zoo.json").write_bytes(text.encode(errors="surrogateescape"))
    refusal(tree, DataError, "record-invalid")


def test_a_record_without_a_digest_is_named_as_that(tree: Path) -> None:
    edit_record(tree, lambda record: record.update(checkpoint_sha256=None))
    refusal(tree, DataError, "no-digest")


def test_record_of_gigabytes_is_not_read(tree: Path) -> None:
    os.truncate(tree / "zoo.json", 2**33)
    assert f"{LARGEST_RECORD:,}" in refusal(tree, DataError)


def test_network_that_does_not_take_the_recorded_images(tiny_resnet: Backbone, tmp_path: Path) -> None:
    architecture, preprocessing = TorchvisionArchitecture("squeezenet1_1"), Preprocessing((64, 64))
    backbone = replace(tiny_resnet, architecture=architecture, preprocessing=preprocessing, head=Head("classifier.1"))
    save_run(backbone, tmp_path)
    edit_record(tmp_path, lambda record: record["settings"]["preprocessing"].update(input_size=[8, 8]))
    model = zoo.load(tmp_path)
    with pytest.raises(WeightsError, match="8 x 8") as raised:
        model.check_that_it_runs()
    assert raised.value.code == "network-does-not-run"


def test_error_of_a_hostile_folder_cannot_steer_the_terminal(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = tree.rename(tree.with_name("\x1b]0;evil\x07"))
    edit_record(evil, lambda record: record.update({"\x1b[2J": 1}))
    assert run(["card", str(evil)]) == 1
    captured = capsys.readouterr().err
    assert captured.rstrip("\n").isprintable(), repr(captured)


HOSTILE = "\x1b]0;evil\x07 \x9b2J \u202eabc \u2066"


@pytest.mark.parametrize("make", [lambda record: record.update(command=["zoo", HOSTILE]),
                                  lambda record: record["dataset"].update(citation=f"@misc{{x,\n {HOSTILE}}}"),
                                  lambda record: record["weights"].update(kind="hub", source=HOSTILE),
                                  lambda record: record["dataset"].update(title=HOSTILE, hub_id=HOSTILE)])  # fmt: skip
def test_the_card_of_a_stranger_cannot_steer_the_terminal(
    tree: Path, capsys: pytest.CaptureFixture[str], make: Callable[[dict[str, Any]], None]
) -> None:
    edit_record(tree, make)
    assert run(["card", str(tree)]) == 0
    out = capsys.readouterr().out
    assert "evil" in out
    assert not [line for line in out.splitlines() if not line.isprintable()]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [lambda path, secret: path.symlink_to(secret), lambda path, _secret: os.mkfifo(path)])
def test_a_card_is_neither_read_nor_written_through_a_link(
    tiny_resnet: Backbone,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path, Path], object],
) -> None:
    folder, secret = tmp_path / "run", tmp_path / "secret"
    folder.mkdir()
    save_run(tiny_resnet, folder)
    secret.write_text("<!-- zoo:begin -->\n<!-- zoo:end -->\nPRIVATE\n")
    make(folder / "README.md", secret)

    assert run(["card", str(folder), "--write"]) == 1
    assert run(["card", str(folder)]) == 0
    captured = capsys.readouterr()
    assert "PRIVATE" not in captured.out
    assert "warning: your own text in" in captured.err
    assert secret.read_text().endswith("PRIVATE\n")


# Messages


def test_long_names_and_numbers_are_not_repeated(tree: Path) -> None:
    edit_record(tree, lambda record: record["backbone"].update(network="x" * 100_000))
    with pytest.raises(ZooError) as caught:
        zoo.load(tree)
    assert len(str(caught.value)) < 500
    edit_record(tree, lambda record: record["settings"]["preprocessing"].update(input_size=[10**400, 10**400]))
    assert "(534 characters) pixels a side" in refusal(tree)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda _path: None])
def test_a_checkpoint_that_is_no_regular_file(tree: Path, make: Callable[[Path], object]) -> None:
    (tree / CHECKPOINT).unlink()
    make(tree / CHECKPOINT)
    refusal(tree, UsageError, "no-checkpoint")


@pytest.mark.parametrize("k", [1.5, 0, "3", None])
def test_top_takes_a_whole_number(tree: Path, k: Any) -> None:
    with pytest.raises(UsageError) as raised:
        zoo.load(tree).top(torch.zeros(8, 8, dtype=torch.uint8), k)
    assert (raised.value.code, raised.value.facts["given"]) == ("option-range", k)
