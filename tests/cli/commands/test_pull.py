"""``zoo pull`` and ``zoo.load`` of a repository: the real client against a Hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, save

import zoo
from zoo import Backbone, HubError, UnreachableError, UsageError
from zoo_harness.cli.main import run
from zoo_harness.util.digests import sha256_of

from ...hub_server import WRITER, Hub
from ...saved_runs import edit_record, published_files, save_run

ZOO = str(Path(sys.executable).with_name("zoo"))


@pytest.fixture
def files(tiny_resnet: Backbone, tmp_path: Path) -> dict[str, bytes]:
    """What ``zoo publish`` sends of a run."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_run(tiny_resnet, folder)
    return published_files(folder)


def test_a_folder_is_what_was_published_byte_for_byte(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.create("ada/pets", {**files, "evil.py": b"1/0", "pytorch_model.bin": b"\x80"}).branches["main"]
    to = tmp_path / "to" / "pets"

    assert run(["pull", "ada/pets", "--to", str(to)]) == 0
    captured = capsys.readouterr()
    assert {path.name: path.read_bytes() for path in to.iterdir()} == files
    assert not any(path.is_symlink() for path in to.iterdir())
    assert f"ada/pets, commit {commit}" in captured.out
    assert f"SHA-256 {sha256_of(to / 'model.safetensors')}" in captured.out
    assert f"zoo predict {to} IMAGE..." in captured.out
    assert "digest, names, types and shapes of all tensors are those of its record" in captured.err
    assert zoo.load(to).classes == zoo.load("ada/pets").classes
    assert hub.leaks() == []


def test_json_has_where_it_is_and_what_it_is(
    hub: Hub, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.create("ada/pets", files).branches["main"]
    hub.repositories["ada/pets"].tags["v1"] = commit

    assert run(["pull", "ada/pets@v1", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    assert (told["repository"], told["revision"], told["commit"]) == ("ada/pets", "v1", commit)
    assert Path(told["folder"]).name == commit
    assert told["sha256"] == sha256_of(Path(told["checkpoint"]))
    assert (told["backbone"], told["accuracy"]) == ("tiny_resnet", None)
    assert run(["pull", "ada/pets", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (told["folder"] + "\n", "")


def test_a_name_loads_and_gives_what_the_run_gives(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    first = hub.create("ada/pets", files).branches["main"]
    hub.commit("ada/pets", {"zoo.json": b"{}"})
    images = torch.randint(256, (2, 50, 40, 3), dtype=torch.uint8)

    model = zoo.load(f"ada/pets@{first}")
    run_itself = zoo.load(tmp_path / "run")
    assert torch.equal(model(model.preprocess(images)), run_itself(run_itself.preprocess(images)))
    with pytest.raises(UsageError, match=r"zoo\.json is not a run record of this version"):
        zoo.load("ada/pets")


def test_a_folder_of_that_name_comes_first(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / "run", tmp_path / "ada" / "pets")

    zoo.load("ada/pets")
    assert hub.requests == []


def test_offline_it_comes_from_the_cache(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create("ada/pets", files)
    zoo.load("ada/pets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)

    zoo.load("ada/pets")
    assert run(["pull", "ada/pets", "--to", str(tmp_path / "to"), "--quiet"]) == 0
    assert (tmp_path / "to" / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nowhere", "no such folder 'nowhere'; a repository of the Hub is written OWNER/NAME"),
        ("./nowhere/at", "no such folder './nowhere/at'"),
        ("/nowhere/at", "no such folder '/nowhere/at'"),
        ("../ada", "no such folder '../ada'"),
        ("a/b/c", "'a/b/c' is no folder here, and no repository: 'a/b/c' is not a repository of the Hub: it has 3"),
        ("ada/pe ts", "it has ' '"),
        ("https://hub/ada/pets", "is an address"),
        ("ada/pets@", "is not a revision"),
        (__file__, "is a file; give the folder it is in"),
    ],
)
def test_what_names_neither_a_folder_nor_a_repository(hub: Hub, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        zoo.load(text)
    assert told in str(caught.value)
    assert hub.requests == []


def test_a_device_that_is_not_here_is_told_before_anything_is_fetched(hub: Hub) -> None:
    with pytest.raises(UsageError, match="--device 'tpu' is not one of auto, cpu, cuda"):
        zoo.load("ada/pets", device="tpu")
    assert hub.requests == []


def edited(folder: Path, edit: Callable[[Path], object]) -> dict[str, bytes]:
    edit(folder)
    return published_files(folder)


def not_finite(folder: Path) -> None:
    tensors = load((folder / "model.safetensors").read_bytes())
    tensors["fc.bias"][0] = float("nan")
    (folder / "model.safetensors").write_bytes(save(tensors))
    edit_record(folder, lambda record: record.update(checkpoint_sha256=sha256_of(folder / "model.safetensors")))


def one_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (one_byte, "SHA-256 is"),
        (not_finite, "tensor 'fc.bias' holds values that are not finite"),
        (
            lambda folder: edit_record(folder, lambda r: r["backbone"].update(network="hf-hub:evil/net")),
            "the record names a network 'hf-hub:evil/net' of kind timm, which is no such name",
        ),
        (
            lambda folder: edit_record(folder, lambda r: r["dataset"]["classes"].__setitem__(0, "\x1b[2Jcat")),
            "holds line breaks or control characters",
        ),
        (lambda folder: edit_record(folder, lambda r: r.update(plots=["../x.png"])), "plots.0"),
    ],
)
def test_a_hostile_repository_leaves_no_folder(
    hub: Hub,
    files: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    edit: Callable[[Path], object],
    told: str,
) -> None:
    hub.create("ada/pets", edited(tmp_path / "run", edit))

    assert run(["pull", "ada/pets", "--to", str(tmp_path / "to" / "pets")]) in (1, 2)
    captured = capsys.readouterr()
    assert told in captured.err
    assert (captured.out, "\x1b" in captured.err) == ("", False)
    assert not (tmp_path / "to").exists()


def test_a_title_cannot_steer_the_terminal(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;evil\x07\n\u202eaccuracy  100 %"
    hub.create(
        "ada/pets", edited(tmp_path / "run", lambda f: edit_record(f, lambda r: r["dataset"].update(title=hostile)))
    )

    assert run(["pull", "ada/pets"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_a_folder_with_something_in_it_is_left_alone(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    assert run(["pull", "ada/pets", "--to", str(tmp_path)]) == 2
    assert "is not empty; give a folder that does not exist yet" in capsys.readouterr().err
    assert hub.requests == []


def test_a_disk_that_fills_up_leaves_no_folder(
    hub: Hub,
    files: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.create("ada/pets", files)

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, os.strerror(28), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert run(["pull", "ada/pets", "--to", str(tmp_path / "to" / "pets")]) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert list((tmp_path / "to").iterdir()) == []


def test_a_connection_cut_for_good_leaves_no_folder(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.create("ada/pets", files)
    hub.fail("GET", "/content/*", "half", times=99)

    assert run(["pull", "ada/pets", "--to", str(tmp_path / "to")]) == 1
    assert "ada/pets" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_a_process_of_its_own_pulls(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.create("ada/pets", files, private=True)
    to = tmp_path / "pets"
    done = subprocess.run(
        [ZOO, "pull", "ada/pets", "--to", str(to)], env=hub.environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in to.iterdir()} == files
    assert WRITER not in done.stdout + done.stderr


def test_a_repository_of_somebody_elses(hub: Hub) -> None:
    hub.create("ada/other", {"pytorch_model.bin": b"\x80"})
    with pytest.raises(HubError, match=r"in pytorch_model\.bin alone, a pickle"):
        zoo.load("ada/other")


def test_a_misspelt_folder_and_a_missing_repository_look_alike(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        HubError, match="there is no folder 'runs/fashoin' here; cannot fetch runs/fashoin: there is no"
    ):
        zoo.load("runs/fashoin")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UnreachableError, match="there is no folder 'runs/fashoin' here; runs/fashoin not found; looked"
    ):
        zoo.load("runs/fashoin")
