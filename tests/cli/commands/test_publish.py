"""``zoo publish``: what it shows, what it sends, what it refuses."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from huggingface_hub import snapshot_download

import zoo
from zoo import Backbone, Head, HubError, Preprocessing, ZooError
from zoo_harness.cli.main import run as run_zoo
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import read_run
from zoo_harness.util.digests import sha256_of

from ...hub_server import READER, WRITER, Hub
from ...saved_runs import EPOCH, edit_record, png, save_run

PNG = png()
FILES = ["README.md", "config.json", "history.jsonl", "loss.png", "model.safetensors", "zoo.json"]


@pytest.fixture(scope="module")
def saved(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with images so small that it is soon proven to load."""
    folder = tmp_path_factory.mktemp("saved")
    save_run(replace(tiny_resnet, preprocessing=Preprocessing(input_size=(32, 32))), folder)
    (folder / "history.jsonl").write_text(EPOCH)
    (folder / "loss.png").write_bytes(PNG)
    edit_record(folder, lambda record: record.update(plots=["loss.png"]))
    edit_record(folder, lambda record: record["results"].update(epochs_done=1))
    return folder


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "runs" / "pets"))


Refused = Callable[..., ZooError]


@pytest.fixture
def refused(error_of: Refused, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return the error of a publication that must be refused."""

    def refusal(run: Path, to: str, *options: str) -> ZooError:
        capsys.readouterr()
        return error_of("publish", str(run), "--to", to, *options)

    return refusal


def publish(run: Path, to: str | Path, *options: str) -> int:
    return run_zoo(["publish", str(run), "--to", str(to), *options])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".gitattributes"}


def test_a_run_goes_to_the_hub_and_comes_back_byte_for_byte(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(run, "ada/net", "--private") == 0

    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["file", "size", "sha256", "there"]
    assert [line.split()[0] for line in lines[1:-2]] == FILES
    assert all(line.endswith("new") for line in lines[1:-2])
    assert lines[-1] == f"published: {hub.url}/ada/net"
    for said in ("ada/net: not there yet", "zoo.load: same logits", "timm ", "transformers ", "created the private"):
        assert said in err
    assert hub.leaks() == []
    assert WRITER not in out + err
    back = Path(snapshot_download("ada/net"))
    assert content(back) == hub.files("ada/net")
    assert sorted(content(back)) == FILES
    assert (back / CHECKPOINT).read_bytes() == (run / CHECKPOINT).read_bytes()
    assert list(run.parent.iterdir()) == [run]
    assert read_run(back).checkpoint_sha256 == sha256_of(run / CHECKPOINT)
    (tag,) = hub.repositories["ada/net"].tags
    assert tag == f"run-20261122-093000-{sha256_of(run / CHECKPOINT)[:8]}"
    assert hub.repositories["ada/net"].messages[hub.repositories["ada/net"].tags[tag]] == "Publish tiny_resnet on Pets"
    commits = len(hub.repositories["ada/net"].commits)
    capsys.readouterr()

    assert publish(run, "ada/net", "-q") == 0
    assert capsys.readouterr() == (f"already published, nothing changed: {hub.url}/ada/net\n", "")
    assert len(hub.repositories["ada/net"].commits) == commits


def test_a_published_run_loads_from_the_hub_in_timm_and_zoo(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(run, "ada/net", "--quiet") == 0
    assert capsys.readouterr() == (f"published: {hub.url}/ada/net\n", "")

    own = zoo.load(run)
    images = torch.rand(2, 3, *own.record.settings.preprocessing.input_size)
    with torch.inference_mode():
        expected = own(images)
        assert torch.equal(zoo.load("ada/net")(images), expected)
        theirs = timm.create_model("hf-hub:ada/net", pretrained=True).eval()
        assert torch.equal(theirs(images), expected)


def test_a_dry_run_shows_all_and_sends_nothing(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(run, "ada/net")
    edit_record(run, lambda record: record.update(started="2026-11-23T09:30:00+00:00"))
    capsys.readouterr()
    asked = len(hub.requests)

    assert publish(run, "ada/net", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "nothing was sent to ada/net (--dry-run)"
    assert "transformers" in err
    states = {line.split()[0]: line.split()[-1] for line in out.splitlines()[1:-2]}
    assert (states["model.safetensors"], states["zoo.json"]) == ("same", "changed")
    assert {one.method for one in hub.requests[asked:]} <= {"GET", "HEAD"}


def test_a_dry_run_needs_neither_token_nor_hub(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert publish(run, "ada/net", "--dry-run") == 0
    assert "cannot compare with the repository: cannot inspect ada/net" in capsys.readouterr().err

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert publish(run, "ada/net", "--dry-run") == 0
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_json_tells_all_in_one_object(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*options: str) -> dict[str, Any]:
        assert publish(run, "ada/net", "--json", *options) == 0
        out, err = capsys.readouterr()
        assert err == ""
        result: dict[str, Any] = json.loads(out)
        return result

    dry, first, second = told("--dry-run"), told(), told()
    assert (dry["dry_run"], dry["changed"]) == (True, False)
    assert "url" not in dry
    assert (first["changed"], second["changed"]) == (True, False)
    assert [file["path"] for file in first["files"]] == FILES
    assert first["files"][4]["sha256"] == sha256_of(run / CHECKPOINT)
    assert {check["loader"].split()[0] for check in first["checks"]} == {"zoo.load", "timm", "transformers"}
    assert first["repository"] == "ada/net"
    assert first["commit"] == second["commit"] == hub.repositories["ada/net"].branches["main"]
    assert first["tag"] == second["tag"] == dry["tag"]
    assert (first["url"], first["pull_request"]) == (f"{hub.url}/ada/net", None)


def test_a_pull_request_is_proposed(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.create("eve/net")

    assert publish(run, "eve/net", "--create-pr", "--message", "Mine is better") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"published: {hub.url}/eve/net/discussions/1"
    assert hub.files("eve/net") == {}
    repository = hub.repositories["eve/net"]
    assert repository.messages[repository.pulls["refs/pr/1"]] == "Mine is better"


def test_a_persons_own_text_in_the_card_there_stays(hub: Hub, run: Path) -> None:
    publish(run, "ada/net")
    card = hub.files("ada/net")["README.md"].decode()
    edited = card.replace("---\n", "---\nlanguage: de\n", 1) + "\nMeine Worte.\n"
    hub.commit("ada/net", {"README.md": edited.encode()})
    edit_record(run, lambda record: record["dataset"].update(title="Many pets"))
    (run / "README.md").write_text(card + "\nWords at home.\n")

    assert publish(run, "ada/net") == 0
    merged = hub.files("ada/net")["README.md"].decode()
    assert merged.endswith("\nMeine Worte.\n")
    assert "Many pets" in merged
    assert yaml.safe_load(merged.split("---")[1])["language"] == "de"


def test_a_card_of_front_matter_alone_gets_its_body(hub: Hub, run: Path) -> None:
    """What the Hub's page makes where somebody chooses a licence for a new repository."""
    hub.create("ada/net", {"README.md": b"---\nlicense: mit\nlanguage: de\n---\n"})

    assert publish(run, "ada/net") == 0
    card = hub.files("ada/net")["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["language"] == "de"
    assert card.count("<!-- zoo:begin -->") == 1


def test_a_card_of_a_persons_own_is_not_touched(hub: Hub, run: Path, refused: Refused) -> None:
    hub.create("ada/net", {"README.md": b"# All mine\n"})

    assert str(refused(run, "ada/net")).startswith("card in ada/net: ")
    assert hub.files("ada/net") == {"README.md": b"# All mine\n"}


def test_a_class_name_with_markup_stays_a_name(hub: Hub, run: Path) -> None:
    hostile = "<script>alert(1)</script>\u202e"
    quoted = '": [x]\\n---\\nlicense: other'
    edit_record(run, lambda record: record["dataset"].update(classes=["cat", "dog", "<img src=x> --- : [y]"]))
    configuration = json.loads((run / "config.json").read_text())
    configuration["label_names"] = ["cat", "dog", "<img src=x> --- : [y]"]
    (run / "config.json").write_text(json.dumps(configuration))
    edit_record(run, lambda record: record["dataset"].update(title=hostile + quoted))

    assert publish(run, "ada/net") == 0
    card = hub.files("ada/net")["README.md"].decode()
    assert "<script>" not in card
    assert "\u202e" not in card
    assert yaml.safe_load(card.split("\n---\n")[0])["library_name"] == "timm"
    assert "\u202e" not in "".join(hub.repositories["ada/net"].messages.values())


def test_a_head_that_timm_does_not_know_is_published_and_refused_there(
    hub: Hub, tiny_resnet: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_run(replace(tiny_resnet, head=Head("fc", hidden=16)), tmp_path)

    assert publish(tmp_path, "ada/net") == 0
    assert capsys.readouterr().err.count("refuses it by name, as it must") == 2
    with pytest.raises(RuntimeError, match=r"load it with zoo\.load"):
        timm.create_model("hf-hub:ada/net", pretrained=True)


# Into a folder


def test_a_folder_gets_the_same_tree(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert publish(run, "./net") == publish(run, "other/") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "published: other"
    assert sorted(content(Path("net"))) == FILES
    assert content(Path("net")) == content(Path("other"))
    assert publish(run, tmp_path / "net") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"already published, nothing changed: {tmp_path / 'net'}"
    assert publish(run, "./none", "--dry-run") == 0
    assert not Path("none").exists()


def test_a_folder_and_the_hub_get_the_same_files(hub: Hub, run: Path, tmp_path: Path) -> None:
    publish(run, "ada/net")
    publish(run, tmp_path / "net")

    here, there = content(tmp_path / "net"), hub.files("ada/net")
    cards = [files.pop("README.md").decode() for files in (here, there)]
    assert here == there
    assert [card.count('zoo.load("') for card in cards] == [1, 1]
    assert 'zoo.load("PATH")' in cards[0]
    assert 'zoo.load("ada/net")' in cards[1]
    for card in cards:
        assert "zoo.json" in card
        assert "options.json" not in card
        assert "run.json" not in card


def test_in_a_folder_a_hand_edited_card_is_merged(run: Path, tmp_path: Path) -> None:
    publish(run, tmp_path / "net")
    card = tmp_path / "net" / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    (tmp_path / "net" / "notes.txt").write_text("mine")
    edit_record(run, lambda record: record["dataset"].update(title="Many pets"))

    assert publish(run, tmp_path / "net") == 0
    assert card.read_text().endswith("\nMine.\n")
    assert "Many pets" in card.read_text()
    assert (tmp_path / "net" / "notes.txt").read_text() == "mine"


# What is refused


@pytest.mark.parametrize(
    ("to", "options", "code"),
    [
        ("../x/..", ("--private",), "option-unused"),
        ("./net", ("--message", "x"), "option-unused"),
        ("./net", ("--create-pr",), "option-unused"),
        ("ada/my net", (), "not-a-repository"),
        ("net", (), "not-a-repository"),
        ("ada/net@v1", (), "publish-revision"),
    ],
)
def test_wrong_usage_is_refused_before_the_hub_is_asked(
    hub: Hub, run: Path, refused: Refused, to: str, options: tuple[str, ...], code: str
) -> None:
    error = refused(run, to, *options)
    assert (error.code, error.exit_code) == (code, 2)
    assert hub.requests == []


def test_an_unfinished_or_tampered_run_is_refused_before_the_hub_is_asked(
    hub: Hub, run: Path, refused: Refused
) -> None:
    edit_record(run, lambda record: record.update(status="interrupted"))
    assert refused(run, "ada/net").code == "run-not-finished"
    edit_record(run, lambda record: record.update(status="finished"))
    checkpoint = bytearray((run / CHECKPOINT).read_bytes())
    checkpoint[1000] ^= 1
    (run / CHECKPOINT).write_bytes(checkpoint)
    assert refused(run, "ada/net").code == "checkpoint-changed"
    assert refused(run / "nothing", "ada/net").code == "not-a-run"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "code"),
    [(None, "no-token"), ("hf_wrongwrongwrong", "invalid-token"), (READER, "forbidden")],
)
def test_a_token_that_may_not_publish_is_refused(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, token: str | None, code: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)

    error = refused(run, "ada/net")
    assert (error.code, error.exit_code) == (code, 1)
    assert token is None or token not in str(error)
    assert hub.repositories == {}


def test_a_broken_connection_is_reported_and_the_next_try_resumes(hub: Hub, run: Path, refused: Refused) -> None:
    hub.fail("POST", "/api/models/*/commit/*", "cut", times=99)
    assert refused(run, "ada/net").code == "no-connection"
    assert hub.files("ada/net") == {}
    hub.heal()
    uploads = len(hub.seen("PUT"))

    assert publish(run, "ada/net") == 0
    assert len(hub.seen("PUT")) == uploads


def test_a_change_by_somebody_else_in_between_is_not_overwritten(hub: Hub, run: Path, refused: Refused) -> None:
    publish(run, "ada/net")
    edit_record(run, lambda record: record.update(started="2026-11-23T09:30:00+00:00"))
    hub.meanwhile("POST", "/api/models/*/commit/*", lambda: hub.commit("ada/net", {"theirs.txt": b"x"}))

    assert refused(run, "ada/net").code == "changed"
    assert "2026-11-23" not in hub.files("ada/net")["zoo.json"].decode()
    assert publish(run, "ada/net") == 0


def test_a_traceback_shows_no_token(hub: Hub, run: Path) -> None:
    hub.fail("GET", "/api/models/ada/net", 403, headers={"X-Error-Message": f"{WRITER} may not"})

    with pytest.raises(HubError) as raised:
        publish(run, "ada/net", "--debug")
    text = "".join(traceback.format_exception(raised.value))
    assert "(a token) may not" in text
    assert WRITER not in text
