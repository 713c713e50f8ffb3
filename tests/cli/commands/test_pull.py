"""``zoo pull`` and ``zoo.load`` of a repository: the real client against a Hub on loopback."""

from __future__ import annotations

import errno
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
from zoo import Backbone, DataError, HubError, UnreachableError, UsageError, ZooError
from zoo_harness.cli.main import run
from zoo_harness.util.digests import sha256_of

from ...hub_server import Hub
from ...saved_runs import edit_record, published_files, save_run


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
    assert "the tensors match the record in digest, names, types and shapes" in captured.err
    assert zoo.load(to).classes == zoo.load("ada/pets").classes
    assert zoo.pull("ada/pets", tmp_path / "again").commit == commit
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
    with pytest.raises(DataError) as raised:
        zoo.load("ada/pets")
    assert raised.value.code == "record-invalid"


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
    ("text", "code"),
    [
        ("nowhere", "no-such-folder"),
        ("./nowhere/at", "no-such-folder"),
        ("/nowhere/at", "no-such-folder"),
        ("../ada", "no-such-folder"),
        ("~nobody-of-this-name/at", "no-such-folder"),
        ("a/b/c", "not-a-repository"),
        ("ada/pe ts", "not-a-repository"),
        ("https://hub/ada/pets", "not-a-repository"),
        ("ada/pets@", "not-a-revision"),
        (__file__, "not-a-folder"),
    ],
)
def test_a_name_of_neither_a_folder_nor_a_repository_is_refused(hub: Hub, text: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        zoo.load(text)
    assert caught.value.code == code
    assert hub.requests == []


def test_a_device_that_is_not_here_is_refused_before_anything_is_fetched(hub: Hub) -> None:
    with pytest.raises(UsageError):
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
        (one_byte, "SHA-256"),
        (not_finite, "'fc.bias'"),
        (lambda folder: edit_record(folder, lambda r: r["backbone"].update(network="hf-hub:evil/net")), "evil/net"),
        (lambda folder: edit_record(folder, lambda r: r["dataset"]["classes"].__setitem__(0, "\x1b[2Jcat")), "2Jcat"),
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
    assert run(["pull", "ada/pets", "--json"]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert json.loads(out)["dataset"] == hostile


def test_a_folder_that_is_in_use_is_left_alone(hub: Hub, tmp_path: Path, error_of: Callable[..., ZooError]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")

    for to in (tmp_path, *(tmp_path / name for name in ("mine.txt", "dangling", "link"))):
        error = error_of("pull", "ada/pets", "--to", str(to))
        assert (error.code, error.exit_code, error.facts["path"]) == ("folder-in-use", 2, str(to))
    assert hub.requests == []


def test_a_disk_that_fills_up_leaves_no_folder(
    hub: Hub,
    files: dict[str, bytes],
    tmp_path: Path,
    error_of: Callable[..., ZooError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.create("ada/pets", files)

    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert error_of("pull", "ada/pets", "--to", str(tmp_path / "to" / "pets")).code == "disk-full"
    assert list((tmp_path / "to").iterdir()) == []


def test_a_connection_cut_for_good_leaves_no_folder(
    hub: Hub, files: dict[str, bytes], tmp_path: Path, error_of: Callable[..., ZooError]
) -> None:
    hub.create("ada/pets", files)
    hub.fail("GET", "/content/*", "half", times=99)

    assert error_of("pull", "ada/pets", "--to", str(tmp_path / "to")).code == "no-connection"
    assert not (tmp_path / "to").exists()


def test_a_process_of_its_own_pulls_and_prints_only_its_own_words(
    hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.create("ada/pets", files, private=True)
    hub.fail("GET", "/api/models/ada/pets/tree/*", 503)
    to = tmp_path / "pets"
    words = [str(Path(sys.executable).with_name("zoo")), "pull", "ada/pets", "--to", str(to), "--quiet"]
    done = subprocess.run(words, env=hub.environment(), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{to}\n", "")
    assert {path.name: path.read_bytes() for path in to.iterdir()} == files


def test_a_misspelt_folder_and_a_missing_repository_look_alike(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for offline, kind in ((False, HubError), (True, UnreachableError)):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(kind, match=r"^there is no folder 'runs/fashoin' here; "):
            zoo.load("runs/fashoin")
