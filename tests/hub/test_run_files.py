"""Files of a run are sent as they were parsed, and only if they are what their names say."""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from zoo import Backbone, ZooError
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.evaluation.confusion import Confusion, summarize
from zoo_harness.evaluation.predictions import Predictions, write_predictions
from zoo_harness.evaluation.split_evaluation import measure
from zoo_harness.hub.publication import publishable, write_tree
from zoo_harness.hub.run_files import check_pulled_predictions
from zoo_harness.records.file_names import CHECKPOINT, PREDICTIONS
from zoo_harness.records.run import read_run
from zoo_harness.util.digests import sha256_of

from ..saved_runs import CLASSES, EPOCH, edit_record, png, save_run

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
SENT = ["README.md", "config.json", "confusion.json", "history.jsonl", "loss.png", CHECKPOINT, "zoo.json", PREDICTIONS]
READ = ["config.json", "confusion.json", "history.jsonl", "loss.png", CHECKPOINT, PREDICTIONS, "run.json", "README.md"]


@pytest.fixture(scope="module")
def saved(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every kind of file that is published."""
    folder = tmp_path_factory.mktemp("saved")
    save_run(tiny_resnet, folder)
    (folder / "history.jsonl").write_text(EPOCH)
    (folder / "loss.png").write_bytes(png())
    confusion = Confusion(split="train", classes=CLASSES, counts=((1, 0, 0), (1, 0, 0), (0, 0, 1)))
    confusion.write(folder)
    likely = np.float32([0.5, 0.5, 0.75])
    label, predicted = np.int32([0, 1, 2]), np.int32([0, 0, 2])
    predictions = Predictions("train", "0" * 64, 3, label, predicted, np.int32([1, 3, 1]), likely, likely)
    described = write_predictions(predictions, folder).model_dump(mode="json")

    def complete(record: dict[str, Any]) -> None:
        record["plots"] = ["loss.png"]
        record["results"] |= {"epochs_done": 1, "confusion": summarize(confusion).model_dump(mode="json")}
        record["results"] |= {"predictions": described, "accuracy": measure(2 / 3, 3).model_dump()}

    edit_record(folder, complete)
    record = publishable(folder)
    write_tree(record, folder / "tree")
    shutil.copyfile(folder / "tree" / "README.md", folder / "README.md")
    shutil.rmtree(folder / "tree")
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def refused(run: Path) -> ZooError:
    with pytest.raises(ZooError) as raised:
        write_tree(publishable(run), run.parent / "tree")
    return raised.value


def test_an_honest_run_is_sent_byte_for_byte(run: Path, tmp_path: Path) -> None:
    write_tree(publishable(run), tmp_path / "tree")
    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == sorted(SENT)
    for name in set(SENT) - {"zoo.json"}:
        assert (tmp_path / "tree" / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.parametrize("name", READ)
def test_a_link_is_not_followed(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_bytes((run / name).read_bytes())
    (run / name).unlink()
    (run / name).symlink_to(tmp_path / "elsewhere")
    assert refused(run).code == ("card-unreadable" if name == "README.md" else "file-is-a-link")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READ)
def test_a_pipe_is_refused_at_once(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    assert refused(run).code == ("card-unreadable" if name == "README.md" else "not-a-regular-file")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("history.jsonl", SECRET, "history-invalid"),
        ("history.jsonl", EPOCH.encode() + SECRET, "history-invalid"),
        ("history.jsonl", (EPOCH + EPOCH.replace('"epoch":1', '"epoch":2')).encode(), "history-invalid"),
        ("history.jsonl", EPOCH.encode().rstrip(), "history-invalid"),
        ("confusion.json", SECRET, "confusion-invalid"),
        ("confusion.json", b"{}", "confusion-invalid"),
        ("confusion.json", b"[" * 100_000, "confusion-invalid"),
        (PREDICTIONS, SECRET, "predictions-invalid"),
        ("config.json", SECRET, "configuration-unreadable"),
        ("config.json", b"[1]", "configuration-unreadable"),
        ("config.json", b"[" * 100_000, "configuration-unreadable"),
        ("config.json", b'{"a": "\\ud800"}', "configuration-unreadable"),
        ("loss.png", SECRET, "not-png"),
        ("loss.png", b"\x89PNG\r\n\x1a\n" + SECRET, "not-png"),
        ("loss.png", png() + SECRET, "not-png"),
        ("loss.png", png()[:-1], "not-png"),
        ("loss.png", png()[:40] + b"\0" + png()[41:], "not-png"),
        ("run.json", SECRET, "record-invalid"),
        (CHECKPOINT, SECRET, "checkpoint-changed"),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(run: Path, name: str, content: bytes, code: str) -> None:
    (run / name).write_bytes(content)
    error = refused(run)
    assert error.code == code
    assert "PRIVATE KEY" not in str(error)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(classes=[*"abc"]),
        lambda it: it.update(split="test"),
        lambda it: it.update(counts=[[1, 0, 0], [1, 0, 0]]),
        lambda it: it.update(counts=[[1, 0, 0], [1, 0, 0], [0, 1]]),
        lambda it: it.update(counts=[[1, 0, 0], [1, 0, 0], [0, 0, 10**30]]),
        lambda it: it.update(counts=[[1, 0, 0], [1, 0, 0], [0, 2, -1]]),
        lambda it: it.update(counts=[[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        lambda it: it.update(counts=[[2, 0, 0], [0, 0, 0], [0, 0, 1]]),
    ],
)
def test_a_confusion_matrix_of_another_run_is_refused(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((run / "confusion.json").read_bytes())
    change(content)
    (run / "confusion.json").write_text(json.dumps(content))
    assert refused(run).code == "confusion-invalid"


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it["results"]["predictions"].update(sha256="0" * 64),
        lambda it: it["results"]["predictions"]["macro_f1"].update(value=0.9),
        lambda it: it["results"]["accuracy"].update(value=1.0),
        lambda it: it["dataset"]["evaluation"].update(fingerprint="1" * 64),
        lambda it: it["dataset"]["evaluation"].update(per_class=[1, 2, 0]),
    ],
)
def test_predictions_of_another_run_are_refused(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    edit_record(run, lambda it: it["results"].update(confusion=None))  # which would be refused first
    edit_record(run, change)
    assert refused(run).code == "predictions-invalid"
    with pytest.raises(ZooError) as raised:
        check_pulled_predictions(run, read_run(run))
    assert raised.value.code == "predictions-invalid"


def test_predictions_are_promised_by_the_record(run: Path) -> None:
    assert check_pulled_predictions(run, read_run(run)) == 3
    (run / PREDICTIONS).unlink()
    assert check_pulled_predictions(run, read_run(run)) is None
    error = refused(run)
    assert (error.code, error.facts["missing"]) == ("run-incomplete", [PREDICTIONS])


def test_what_a_schema_does_not_account_for_is_not_sent(run: Path, tmp_path: Path) -> None:
    for name in ("config.json", "confusion.json", "history.jsonl"):
        text = (run / name).read_text()
        key = next(iter(json.loads(text)))
        (run / name).write_text(text.replace("{", f'{{"{key}": "{SECRET.decode().strip()}",', 1))
    write_tree(publishable(run), tmp_path / "tree")
    for name in ("config.json", "confusion.json", "history.jsonl"):
        assert b"PRIVATE KEY" not in (tmp_path / "tree" / name).read_bytes()


def test_the_history_of_another_run_is_refused(run: Path) -> None:
    def scored(record: dict[str, Any]) -> None:
        record["results"]["evaluation_loss"] = json.loads(EPOCH)["evaluation_loss"]

    edit_record(run, scored)
    publishable(run)
    other = json.loads(EPOCH) | {"evaluation_loss": 1.25}
    (run / "history.jsonl").write_text(json.dumps(other) + "\n")
    with pytest.raises(ZooError) as caught:
        publishable(run)
    assert caught.value.code == "history-of-another-run"


def test_text_in_a_picture_is_not_sent(run: Path, tmp_path: Path) -> None:
    chunk = b"tEXtComment\0SECRET"
    text = (len(chunk) - 4).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    picture = (run / "loss.png").read_bytes()
    (run / "loss.png").write_bytes(picture[:33] + text + picture[33:])
    write_tree(publishable(run), tmp_path / "tree")
    assert (tmp_path / "tree" / "loss.png").read_bytes() == picture


def test_what_is_changed_after_the_check_is_not_sent(run: Path, tmp_path: Path) -> None:
    files, before = publishable(run), {name: (run / name).read_bytes() for name in ("history.jsonl", "loss.png")}
    for name in before:
        (run / name).write_bytes(SECRET)
    write_tree(files, tmp_path / "tree")
    assert {name: (tmp_path / "tree" / name).read_bytes() for name in before} == before

    checkpoint = bytearray((run / CHECKPOINT).read_bytes())
    checkpoint[-1] ^= 1
    (run / CHECKPOINT).write_bytes(checkpoint)
    with pytest.raises(ZooError) as raised:
        write_tree(files, tmp_path / "again")
    assert raised.value.code == "checkpoint-changed"


def test_a_record_that_lists_very_many_plots_is_refused(run: Path) -> None:
    edit_record(run, lambda record: record.update(plots=[f"plot{number}.png" for number in range(101)]))
    assert refused(run).code == "too-many-plots"


# Any file, changed in any way


def _mutate(folder: Path, name: str, how: str, where: float, others: list[str], outside: Path) -> None:
    path, content = folder / name, bytearray((folder / name).read_bytes())
    place = min(int(where * len(content)), len(content) - 1)
    path.unlink()
    match how:
        case "link":
            path.symlink_to(outside / "secret")
        case "link to itself":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "flipped":
            content[place] ^= 1 << place % 8
            path.write_bytes(content)
        case "cut":
            path.write_bytes(content[:place])
        case "longer":
            path.write_bytes(content + SECRET)
        case "swapped":
            path.write_bytes((folder / others[place % len(others)]).read_bytes())
        case "secret":
            path.write_bytes(SECRET)
        case "huge":
            path.write_bytes(content)
            os.truncate(path, 2**36)  # without blocks on the disk


HOW = ["link", "link to itself", "device", "folder", "pipe", "flipped", "cut", "longer", "swapped", "secret", "missing"]


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(READ), st.sampled_from([*HOW, "huge"]), st.floats(0, 1))
def test_a_run_with_any_file_changed_is_refused_or_sends_the_same_figures(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, name: str, how: str, where: float
) -> None:
    base = tmp_path_factory.mktemp("any")
    run = Path(shutil.copytree(saved, base / "run"))
    (base / "secret").write_bytes(SECRET)
    _mutate(run, name, how, where, [other for other in READ if other != name], base)
    began, code = time.monotonic(), "none"
    try:
        record = write_tree(publishable(run), base / "tree")
    except ZooError as error:
        code = error.code
    else:
        assert sha256_of(base / "tree" / CHECKPOINT) == sha256_of(saved / CHECKPOINT)
        assert read_run(base / "tree") == record
        sent = b"".join(path.read_bytes() for path in (base / "tree").iterdir() if path.name != "README.md")
        assert SECRET not in sent
        if name == "README.md" and how == "link":
            assert SECRET not in (base / "tree" / "README.md").read_bytes()
    assert code != "failed"
    assert time.monotonic() - began < 20
    assert sorted(path.name for path in base.iterdir() if path.name != "tree") == ["run", "secret"]
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def tree(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "tree"
    write_tree(publishable(saved), folder)
    return folder


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(["config.json", CHECKPOINT, "zoo.json"]), st.sampled_from(HOW), st.floats(0, 1))
def test_a_repository_with_any_file_changed_is_refused_or_loads_the_same_network(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, name: str, how: str, where: float
) -> None:
    base = tmp_path_factory.mktemp("any")
    folder = Path(shutil.copytree(tree, base / "tree"))
    (base / "secret").write_bytes(SECRET)
    _mutate(folder, name, how, where, [other for other in SENT if other != name], base)
    began, code = time.monotonic(), "none"
    try:
        loaded, own = load_folder(folder), load_folder(tree)
    except ZooError as error:
        code = error.code
    else:
        theirs = own.state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in loaded.state_dict().items())
        assert loaded.classes == own.classes
        assert loaded.record.settings.preprocessing == own.record.settings.preprocessing
    assert code != "failed"
    assert time.monotonic() - began < 20
    assert sorted(path.name for path in base.iterdir()) == ["secret", "tree"]
    shutil.rmtree(base)
