"""Mistakes that can be known without torch are reported before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from zoo import Backbone

from ..saved_runs import edit_record, save_run

PROGRAM = r"""
import contextlib, importlib.abc, importlib.machinery, io, json, sys


class TorchIsImported(BaseException):
    code, exit_code = "torch-is-imported", None


class Refuse(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name == "torch" else None

    def create_module(self, spec):
        raise TorchIsImported

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Refuse())
from zoo.errors import ZooError
from zoo_harness.cli.app import command

found, whole = [], command()
for arguments in json.load(sys.stdin):
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            whole(args=arguments, prog_name="zoo", standalone_mode=False)
        found.append(["no-error", 0, ""])
    except (ZooError, TorchIsImported) as error:
        found.append([error.code, error.exit_code, str(error)])
    assert "torch" not in sys.modules, arguments
print(json.dumps(found))
"""

# By the code of the error, and its exit status: the commands that must fail with it.
EVAL = "eval efficientnet_lite0 --dataset "
DIGITS = f"{EVAL}digits "
CASES: Mapping[tuple[str, int], tuple[str, ...]] = {
    ("unknown-name", 2): (
        "eval nope --dataset digits",
        f"{EVAL}nope",
        f"{DIGITS}--recipe nope",
        f"{DIGITS}--layer nope",
        f"{EVAL}table:good.csv --label-column nope",
        "eval ./run --epochs 0 --layer nope",
        "layers nope",
        "rank nope",
        "card nope",
        "show nope",
        "cache clear nope",
        "si good.npz --features nope",
        "si table.csv --labels nope",
    ),
    ("option-unused", 2): (
        f"{DIGITS}--predict mean",
        f"{DIGITS}--label-column x",
        f"{EVAL}imagefolder:good --data-dir good",
        f"{EVAL}hf:./good --data-dir good",
        "eval ./run --epochs 0 --weights random",
        "card efficientnet_lite0 --write",
    ),
    ("option-choice", 2): (
        f"{DIGITS}--device tpu",
        f"{DIGITS}--cache nope",
        f"{DIGITS}--precision fp8",
        "layers efficientnet_lite0 --split nope",
        "rank efficientnet_lite0 --sort nope",
        "predict ./run good/train/a/0.png --device tpu",
        "si good.npz --metric nope",
    ),
    ("option-range", 2): (
        f"{DIGITS}--val-fraction 1.5",
        f"{DIGITS}--seed -1",
        "layers efficientnet_lite0 --order 0",
        "predict ./run good/train/a/0.png --top 0",
        "si good.npz --order 0",
        "cache clear --older-than -1",
    ),
    ("option-value", 2): (f"{DIGITS}--epochs -1", f"{DIGITS}--learning-rate 0", "rank --max-parameters many"),
    ("option-size", 2): (f"{DIGITS}--cache-budget lots",),
    ("option-conflict", 2): (f"{DIGITS}--per-class 3 --limit 5", "cache clear"),
    ("precision-device", 2): (f"{DIGITS}--device cpu --precision bf16",),
    ("cache-dtype-without-cache", 2): (f"{DIGITS}--cache off --cache-dtype fp16",),
    ("val-fraction-empty-class", 2): (
        f"{DIGITS}--val-fraction 0.0001",
        "train resnet18_cifar --dataset imagefolder:no_test --val-fraction 0.01",
    ),
    ("per-class-too-large", 2): (
        f"{DIGITS}--per-class 1000",
        "eval ./run --epochs 0 --dataset digits --per-class 1000",
        "layers efficientnet_lite0 --dataset digits --per-class 1000",
        "rank efficientnet_lite0 --dataset digits --per-class 1000",
    ),
    ("too-few-images", 2): (
        f"{DIGITS}--limit 1",
        "layers efficientnet_lite0 --dataset digits --order 3 --limit 3",
        "rank efficientnet_lite0 --dataset digits --per-class 1",
    ),
    ("missing-backbone", 2): ("eval", "layers"),
    ("missing-dataset", 2): ("eval efficientnet_lite0", "train resnet18_cifar"),
    ("argument-missing", 2): (f"{EVAL}imagefolder", f"{EVAL}hf"),
    ("missing-folder", 2): (
        f"{EVAL}imagefolder:nope",
        f"{EVAL}table:nope.csv",
        f"{EVAL}imagefolder:file",
        f"{EVAL}hf:./nope",
        f"{DIGITS}--data-dir nope",
    ),
    ("repository-name", 2): (f"{EVAL}hf:good", f"{EVAL}hf:a/b/c", f"{EVAL}hf:a/b@"),
    ("split-missing", 2): (f"{EVAL}imagefolder:no_test", "layers efficientnet_lite0 --dataset imagefolder:no_test"),
    ("split-missing", 1): (f"{EVAL}imagefolder:only_test",),
    ("class-count", 1): (
        f"{EVAL}imagefolder:flat",
        f"{EVAL}imagefolder:one_class",
        "rank efficientnet_lite0 --dataset imagefolder:flat",
        "train resnet18_cifar --dataset imagefolder:flat",
    ),
    ("class-empty", 1): (f"{EVAL}imagefolder:empty_class",),
    ("class-not-in-train", 1): (f"{EVAL}imagefolder:untrained",),
    ("table-format", 1): (f"{EVAL}table:file",),
    ("table-missing", 2): (f"{EVAL}table:good",),
    ("dataset-unreadable", 1): (f"{EVAL}hf:./empty", f"{EVAL}hf:nobody/nothing --data-dir empty"),
    ("unreachable", 1): (
        f"{EVAL}hf:nobody/nothing",
        f"{EVAL}cifar10",
        f"{EVAL}cifar10 --data-dir good",
        f"{EVAL}fashion_mnist --data-dir good",
        "eval resnet18 --dataset digits",  # its weights
        "layers efficientnet_v2_s",
    ),
    ("archive-damaged", 1): (f"{EVAL}cifar10 --data-dir file",),
    ("missing-file", 2): (
        f"{DIGITS}--weights nope.safetensors",
        f"{DIGITS}--weights nope.pth",
        "layers efficientnet_lite0 --weights nope",
        "predict ./run nope.png",
    ),
    ("file-kind", 1): (f"{DIGITS}--weights file", f"{DIGITS}--weights junk.h5"),
    ("file-unreadable", 1): (
        f"{DIGITS}--weights junk.safetensors",
        f"{DIGITS}--weights junk.pth",
        "si junk.npz",
        "si file",
    ),
    ("not-a-file", 2): ("si nope.npz",),
    ("missing-labels", 2): ("si image,label.csv", "si features.npy"),
    ("out-is-a-file", 2): (f"{DIGITS}--out file", "layers efficientnet_lite0 --out file"),
    ("out-not-empty", 2): (f"{DIGITS}--out good", "rank --out good"),
    ("out-not-writable", 2): (f"{DIGITS}--out file/run", "layers efficientnet_lite0 --out file/a/b"),
    ("resume-no-options", 2): ("eval --resume nope", "eval --resume good"),
    ("not-a-run", 2): (
        "eval ./good --epochs 0",
        "layers --run good",
        "layers --run nope",
        "predict ./good good/train/a/0.png",
        "publish ./good --to ada/net",
        "publish nope --to ada/net",
        "card ./good",
    ),
    ("record-invalid", 1): (
        "eval ./bad_run --epochs 0",
        "layers --run bad_run",
        "predict ./bad_run good/train/a/0.png",
        "publish bad_run --to ada/net",
        "card bad_run",
    ),
    ("run-not-finished", 2): (
        "eval ./unfinished --epochs 0",
        "layers --run unfinished",
        "predict ./unfinished good/train/a/0.png",
        "publish unfinished --to ada/net",
    ),
    ("checkpoint-changed", 1): (
        "eval ./changed --epochs 0 --dataset digits",
        "layers --run changed",
        "predict ./changed good/train/a/0.png",
    ),
    ("checkpoint-needs-epochs-0", 2): ("eval ./run",),
    ("other-classes", 2): ("eval ./run --epochs 0 --dataset imagefolder:good",),
    ("no-such-folder", 2): ("eval ./nope --epochs 0", "predict nope good/train/a/0.png"),
    ("no-image-file", 2): ("predict ./run empty",),
    ("not-a-repository", 2): ("publish ./run --to nope", "publish ./run --to a/b/c", "pull nope", "pull a/b/c"),
    ("folder-in-use", 2): ("publish ./run --to ./good", "pull ada/net --to good"),
    ("not-a-folder", 2): ("publish ./run --to ./file",),
    ("not-a-revision", 2): ("pull ada/net@..",),
    ("class-count", 2): ("show efficientnet_lite0 --classes 1",),
}


def write_mistakes(folder: Path, backbone: Backbone) -> None:
    """Write what the cases name: good and bad folders of images, tables, weight files and runs."""
    photo = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 255, (8, 8, 3), dtype=np.uint8))

    def photos(*names: str) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            photo.save(path)

    photos(
        *(f"good/{split}/{label}/{number}.png" for split in ("train", "test") for label in "ab" for number in (0, 1))
    )
    photos("no_test/a/0.png", "no_test/b/0.png", "flat/0.png", "one_class/a/0.png", "empty_class/a/0.png")
    photos("only_test/test/a/0.png", "only_test/test/b/0.png")
    photos("untrained/train/a/0.png", "untrained/train/b/0.png", "untrained/test/c/0.png")
    for name in ("empty_class/b", "empty", "bad_run", "run", "unfinished", "changed"):
        (folder / name).mkdir()
    for name in ("file", "junk.safetensors", "junk.pth", "junk.h5", "junk.npz"):
        (folder / name).write_text("hello")
    (folder / "good.csv").write_text("image,label\ngood/train/a/0.png,a\ngood/train/b/0.png,b\n")
    (folder / "table.csv").write_text("x,label\n1,0\n2,1\n")
    (folder / "image,label.csv").write_text("x,y\n1,0\n2,1\n")
    np.savez(folder / "good.npz", features=np.eye(4), labels=np.array([0, 0, 1, 1]))
    np.save(folder / "features.npy", np.eye(4))
    (folder / "bad_run" / "run.json").write_text("{")
    for name in ("run", "unfinished", "changed"):
        save_run(backbone, folder / name)
    edit_record(folder / "unfinished", lambda record: record.update(status="interrupted", checkpoint_sha256=None))
    with (folder / "changed" / "model.safetensors").open("ab") as file:
        file.write(b"x")


def test_mistakes_are_reported_without_torch(tiny_resnet: Backbone, tmp_path: Path) -> None:
    write_mistakes(tmp_path, tiny_resnet)
    expected = [(command, code, status) for (code, status), commands in CASES.items() for command in commands]
    given = [[*command.split()] for command, _code, _status in expected]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "ZOO_DATA_DIR": str(tmp_path)}
    environment |= {"TORCH_HOME": str(tmp_path), "ZOO_CACHE_DIR": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    wrong = [
        f"zoo {command}: {found}; expected {code}, exit status {status}"
        for (command, code, status), found in zip(expected, json.loads(ended.stdout), strict=True)
        if found[:2] != [code, status]
    ]
    assert not wrong, "\n".join(wrong)
