"""The tree that is published of a run: which files, what is in them, and what is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import Backbone, DataError, DualHead, Head, UsageError, WeightsError, ZooError
from zoo.architecture import TimmArchitecture
from zoo_harness.hub import publication
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import FrozenPartRecord, RunRecord, read_run
from zoo_harness.util.atomic_files import folder_lock
from zoo_harness.util.digests import sha256_of

from ..saved_runs import EPOCH, edit_record, png, save_run

PNG = png()
HOME = ["README.md", "config.json", "history.jsonl", "loss.png", "model.safetensors", "zoo.json"]


@pytest.fixture(scope="module")
def saved(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with all that a run directory may hold."""
    folder = tmp_path_factory.mktemp("saved")
    save_run(tiny_resnet, folder)
    (folder / "history.jsonl").write_text(EPOCH)
    (folder / "loss.png").write_bytes(PNG)
    (folder / "options.json").write_text("{}")
    (folder / "training_state.safetensors").write_bytes(b"state")
    (folder / "tensorboard").mkdir()
    edit_record(folder, lambda record: record.update(plots=["loss.png", "gone.png"]))
    edit_record(folder, lambda record: record["results"].update(epochs_done=1))
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "runs" / "pets"))


def write_tree(run: Path, to: Path, *options: Any, **named: Any) -> RunRecord:
    return publication.write_tree(publication.publishable(run), to, *options, **named)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_tree_has_what_is_published_and_nothing_else(run: Path, tmp_path: Path) -> None:
    record = write_tree(run, tmp_path / "tree")

    assert names(tmp_path / "tree") == HOME
    for name in ("config.json", "history.jsonl", "loss.png", CHECKPOINT):
        assert (tmp_path / "tree" / name).read_bytes() == (run / name).read_bytes()
    assert record.plots == ("loss.png",)
    assert record == read_run(tmp_path / "tree")
    assert record.checkpoint_sha256 == sha256_of(tmp_path / "tree" / CHECKPOINT)
    assert zoo.load(tmp_path / "tree").record == record


@pytest.mark.parametrize(
    ("argument", "samples", "sent"),
    [("photos", None, False), ("photos", True, True), (None, None, True), (None, False, False)],
)
def test_a_grid_of_a_persons_own_images_is_not_sent_unasked(
    run: Path, tmp_path: Path, argument: str | None, samples: bool | None, sent: bool
) -> None:
    (run / "samples.png").write_bytes(PNG)
    edit_record(run, lambda record: record.update(plots=["samples.png"]))
    edit_record(run, lambda record: record["dataset"].update(argument=argument, hub_id=None))
    record = write_tree(run, tmp_path / "tree", samples=samples)

    assert (tmp_path / "tree" / "samples.png").exists() == sent
    assert ("samples.png" in record.plots) == sent
    assert ("samples.png" in (tmp_path / "tree" / "README.md").read_text()) == sent


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tree(run, tmp_path / name)

    for name in HOME:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_folder_of_this_machine_is_in_the_tree(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "my private photos"

    def with_paths(record: dict[str, Any]) -> None:
        record["command"] = ["zoo", "eval", "x", "--dataset", f"imagefolder:{place}", "--weights", str(place / "w.pth")]
        record["weights"] |= {"kind": "file", "source": str(place / "w.pth"), "filename": str(place / "w.pth")}
        record["dataset"] |= {"argument": str(place), "source": f"folder {place} (split test is its folder val)"}
        record["dataset"]["reading"] = [f"split train is folder {place}"]
        frozen = FrozenPartRecord(reason=None, place=f"files in {place}").model_dump(mode="json")
        record["results"]["frozen_part"] = frozen
        record["dataset"]["classes"] = ["/m/01g317", "/srv/cat", "dog"]

    edit_record(run, with_paths)
    (run / "config.json").write_text(
        (run / "config.json").read_text().replace('"cat"', '"/m/01g317"').replace('"dog"', '"/srv/cat"')
    )
    record = write_tree(run, tmp_path / "tree")

    for path in (tmp_path / "tree").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    assert record.weights.source == record.weights.filename == "w.pth"
    assert record.dataset.source == "folder my private photos (split test is its folder val)"
    assert record.dataset.classes == ("/m/01g317", "/srv/cat", "dog")


@pytest.mark.parametrize(
    ("status", "command", "verb"),
    [("interrupted", ["zoo", "eval"], "eval"), ("running", ["zoo", "train"], "train"), ("failed", ["zoo"], "eval")],
)
def test_an_unfinished_run_is_refused_with_the_command_that_finishes_it(
    run: Path, tmp_path: Path, status: str, command: list[str], verb: str
) -> None:
    edit_record(run, lambda record: record.update(status=status, command=command))

    facts = refusal(run, tmp_path, "run-not-finished").facts
    assert (facts["status"], facts["resume"]) == (status, f"zoo {verb} --resume {run}")


def refusal(run: Path, tmp_path: Path, code: str, kind: type[ZooError] = ZooError) -> ZooError:
    with pytest.raises(kind) as raised:
        write_tree(run, tmp_path / "refused")
    assert raised.value.code == code
    assert not (tmp_path / "refused").exists()
    return raised.value


def test_one_changed_byte_of_the_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    content = bytearray((run / CHECKPOINT).read_bytes())
    content[-1] ^= 1
    (run / CHECKPOINT).write_bytes(content)

    refusal(run, tmp_path, "checkpoint-changed", WeightsError)


def test_a_run_without_a_file_that_its_card_names_is_refused(run: Path, tmp_path: Path) -> None:
    refusal(tmp_path, tmp_path, "not-a-run")
    edit_record(run, lambda record: record["results"].update(epochs_done=1))
    (run / "history.jsonl").unlink()
    (run / CHECKPOINT).unlink()
    assert refusal(run, tmp_path, "run-incomplete").facts["missing"] == [CHECKPOINT, "history.jsonl"]


def test_a_plot_that_is_no_picture_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "loss.png").write_bytes(b"\x80\x04pickle")

    assert refusal(run, tmp_path, "not-png").facts["path"] == str(run / "loss.png")


def test_a_persons_own_text_in_the_card_stays(run: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_tree(run, tree)
    card = (tree / "README.md").read_text()
    (run / "README.md").write_text(card + "\nWords of my own.\n")
    write_tree(run, tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text().endswith("\nWords of my own.\n")

    write_tree(run, tmp_path / "theirs", card + "\nWords of theirs.\n")
    assert (tmp_path / "theirs" / "README.md").read_text() == card + "\nWords of theirs.\n"
    with pytest.raises(DataError, match="card in the folder: the card has no generated part between markers"):
        write_tree(run, tmp_path / "unmarked", "# All mine\n")


# Into a folder


def published(run: Path, to: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as tree:
        publication.check_folder(to)
        write_tree(run, Path(tree))
        changes = publication.compare_with_folder(Path(tree), to)
        publication.publish_to_folder(Path(tree), to, changes)
        return {change.path: change.state for change in changes}


def test_a_new_folder_appears_whole_with_copies(run: Path, tmp_path: Path) -> None:
    to = tmp_path / "deep" / "net"

    assert published(run, to) == dict.fromkeys(HOME, "new")
    assert names(to) == HOME
    assert names(to.parent) == ["net"]
    assert not (to / CHECKPOINT).samefile(run / CHECKPOINT)


def test_the_same_again_changes_nothing(run: Path, tmp_path: Path) -> None:
    published(run, tmp_path / "net")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "net").iterdir()}

    assert published(run, tmp_path / "net") == dict.fromkeys(HOME, "same")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "net").iterdir()} == before


def test_another_run_takes_the_place_of_the_first_and_leaves_what_is_a_persons(run: Path, tmp_path: Path) -> None:
    published(run, tmp_path / "net")
    (tmp_path / "net" / "mine.png").write_bytes(PNG)
    (tmp_path / "net" / "notes.txt").write_text("mine")
    edit_record(run, lambda record: record.update(plots=[], started="2026-11-23T09:30:00+00:00"))
    edit_record(run, lambda record: record["results"].update(epochs_done=0))
    (run / "history.jsonl").unlink()

    assert published(run, tmp_path / "net") == {
        "README.md": "changed",
        "config.json": "same",
        "history.jsonl": "deleted",
        "loss.png": "deleted",
        "model.safetensors": "same",
        "zoo.json": "changed",
    }
    assert names(tmp_path / "net") == ["README.md", "config.json", "mine.png", CHECKPOINT, "notes.txt", "zoo.json"]
    assert read_run(tmp_path / "net").started == "2026-11-23T09:30:00+00:00"


def test_a_folder_of_something_else_is_left_alone(run: Path, tmp_path: Path) -> None:
    for to, code in [(run, "folder-in-use"), (run / "loss.png", "not-a-folder")]:
        with pytest.raises(UsageError) as raised:
            published(run, to)
        assert raised.value.code == code
    assert "zoo.json" not in names(run)


def test_a_folder_whose_files_are_links_is_left_alone(run: Path, tmp_path: Path) -> None:
    published(run, tmp_path / "net")
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "net" / "config.json").unlink()
    (tmp_path / "net" / "config.json").symlink_to(tmp_path / "mine")

    with pytest.raises(ZooError) as raised:
        published(run, tmp_path / "net")
    assert (raised.value.code, raised.value.facts["path"]) == ("file-is-a-link", str(tmp_path / "net" / "config.json"))
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_two_processes_do_not_publish_to_one_folder_at_once(run: Path, tmp_path: Path) -> None:
    published(run, tmp_path / "net")
    (tmp_path / "net" / ".zoo.json.0123abcd.tmp").write_text("of a killed process")
    with folder_lock(tmp_path / "net"), pytest.raises(UsageError) as raised:
        published(run, tmp_path / "net")
    assert raised.value.code == "folder-locked"
    published(run, tmp_path / "net")
    assert names(tmp_path / "net") == HOME


def test_a_disk_that_fills_up_leaves_no_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shutil.copyfile

    def until_full(source: Path, target: Path) -> object:
        if Path(target).name == CHECKPOINT:
            raise OSError(28, "No space left on device", str(target))
        return whole(source, target)

    monkeypatch.setattr(shutil, "copyfile", until_full)
    with pytest.raises(ZooError) as raised:
        published(run, tmp_path / "deep" / "net")
    assert (raised.value.code, raised.value.facts["path"]) == ("disk-full", str(tmp_path / "deep" / "net"))
    assert names(tmp_path / "deep") == []


def test_two_heads_and_an_mlp_are_published_too(tiny_resnet: Backbone, tmp_path: Path) -> None:
    two = replace(
        tiny_resnet,
        architecture=TimmArchitecture("deit_tiny_distilled_patch16_224.fb_in1k"),
        head=DualHead(cls=Head("head"), dist=Head("head_dist")),
        unfreeze=("norm",),
    )
    for name, backbone in {"two": two, "mlp": replace(tiny_resnet, head=Head("fc", hidden=16))}.items():
        (tmp_path / name).mkdir()
        save_run(backbone, tmp_path / name)
        record = write_tree(tmp_path / name, tmp_path / f"{name}-tree")
        assert json.loads((tmp_path / f"{name}-tree" / "zoo.json").read_text())["settings"]["head"]
        assert record.loads_in_timm is (name == "two")
