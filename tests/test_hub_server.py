"""The Hub of the tests, driven by the official client alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from .hub_server import READER, STRANGER, WRITER, Hub

CARD = b"---\nlicense: mit\n---\n\n# A card\n"
WEIGHTS = bytes(range(256)) * 400


def a_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "README.md").write_bytes(CARD)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_bytes(b"{}\n")
    return folder


def publish(hub: Hub, tmp_path: Path) -> HfApi:
    api = HfApi()
    api.create_repo("ada/net", private=True)
    api.upload_folder(repo_id="ada/net", folder_path=a_folder(tmp_path))
    return api


def test_what_goes_up_comes_down_byte_for_byte(hub: Hub, tmp_path: Path) -> None:
    api = publish(hub, tmp_path)

    assert api.whoami()["name"] == "ada"
    down = Path(snapshot_download("ada/net"))
    assert {path.name: path.read_bytes() for path in down.iterdir() if path.name != ".gitattributes"} == {
        "README.md": CARD,
        "model.safetensors": WEIGHTS,
        "config.json": b"{}\n",
    }
    assert hub.repositories["ada/net"].private
    assert hub.seen("PUT", "/storage/*")
    assert hub.leaks() == []


def test_large_files_go_up_in_parts(hub: Hub, tmp_path: Path) -> None:
    hub.part_size = 30_000
    publish(hub, tmp_path)

    assert len(hub.seen("PUT", "/storage/*/*")) == 4
    assert hub.files("ada/net")["model.safetensors"] == WEIGHTS


def test_what_is_there_already_is_not_sent_again(hub: Hub, tmp_path: Path) -> None:
    api = publish(hub, tmp_path)
    sent = len(hub.seen("PUT"))
    commits = len(hub.repositories["ada/net"].commits)
    api.upload_folder(repo_id="ada/net", folder_path=tmp_path / "tree")

    assert len(hub.seen("PUT")) == sent
    assert len(hub.repositories["ada/net"].commits) == commits


def test_the_tree_is_listed_in_pages(hub: Hub) -> None:
    hub.page = 2
    hub.create("ada/net", {f"{index}.txt": b"x" for index in range(5)})

    assert len(list(HfApi().list_repo_tree("ada/net", recursive=True))) == 6
    assert len(hub.seen("GET", "/api/models/ada/net/tree/main")) == 3


def test_a_commit_upon_another_parent_is_refused(hub: Hub) -> None:
    parent = hub.create("ada/net").branches["main"]
    hub.commit("ada/net", {"a.txt": b"by another"})

    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        HfApi().create_commit(
            "ada/net", [CommitOperationAdd("a.txt", b"mine")], commit_message="x", parent_commit=parent
        )
    assert refused.value.response.status_code == 412
    assert hub.files("ada/net") == {"a.txt": b"by another"}


def test_a_pull_request_leaves_the_branch_alone(hub: Hub) -> None:
    hub.create("eve/net", {"old.txt": b"old"})
    operations = [CommitOperationAdd("a.txt", b"mine"), CommitOperationDelete("old.txt")]
    made = HfApi().create_commit("eve/net", operations, commit_message="x", create_pr=True)

    assert made.pr_url == f"{hub.url}/eve/net/discussions/1"
    assert hub.files("eve/net") == {"old.txt": b"old"}
    assert hub.files("eve/net", "refs/pr/1") == {"a.txt": b"mine"}
    refs = HfApi().list_repo_refs("eve/net", include_pull_requests=True)
    assert [pull.ref for pull in refs.pull_requests or []] == ["refs/pr/1"]


def test_tags_and_branches_name_commits(hub: Hub) -> None:
    hub.create("ada/net", {"a.txt": b"1"})
    api = HfApi()
    api.create_tag("ada/net", tag="first")
    api.create_branch("ada/net", branch="side")
    hub.commit("ada/net", {"a.txt": b"2"})

    assert Path(hf_hub_download("ada/net", "a.txt", revision="first")).read_bytes() == b"1"
    assert Path(hf_hub_download("ada/net", "a.txt", revision="side")).read_bytes() == b"1"
    assert Path(hf_hub_download("ada/net", "a.txt")).read_bytes() == b"2"
    with pytest.raises(HfHubHTTPError, match="exists already"):
        api.create_tag("ada/net", tag="first")


@pytest.mark.parametrize(
    ("token", "status"), [("hf_unknown", 401), (READER, 403), (STRANGER, 403), (False, 401)]
)  # fmt: skip
def test_who_may_not_write_is_refused(hub: Hub, token: str | bool, status: int) -> None:
    with pytest.raises(HfHubHTTPError) as refused:
        HfApi(token=token).create_repo("ada/net")
    assert refused.value.response.status_code == status


@pytest.mark.parametrize("token", [STRANGER, False])
def test_what_is_private_looks_as_if_it_were_missing(hub: Hub, token: str | bool) -> None:
    hub.create("ada/net", {"a.txt": b"1"}, private=True)

    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("ada/net", token=token)
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("ada/none", token=WRITER)


def test_what_is_gated_or_not_there_is_told_apart(hub: Hub) -> None:
    hub.create("ada/net", {"a.txt": b"1"}, gated=True)

    with pytest.raises(GatedRepoError):
        hf_hub_download("ada/net", "a.txt", token=STRANGER)
    with pytest.raises(RevisionNotFoundError):
        snapshot_download("ada/net", revision="none")


@pytest.mark.parametrize("what", ["cut", 503, 429])
def test_an_upload_that_fails_is_tried_again(hub: Hub, tmp_path: Path, what: int | str) -> None:
    hub.fail("PUT", "/storage/*", what, times=2)
    publish(hub, tmp_path)

    assert hub.files("ada/net")["model.safetensors"] == WEIGHTS
    assert hub.waits == [1, 2]


def test_a_download_that_is_cut_goes_on_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # what came in before the cut is kept by the chunk
    hub.create("ada/net", {"model.safetensors": WEIGHTS})
    hub.fail("GET", "/content/*", "half")

    assert Path(hf_hub_download("ada/net", "model.safetensors")).read_bytes() == WEIGHTS
    assert [one.headers.get("range") for one in hub.seen("GET", "/content/*")] == [None, f"bytes={len(WEIGHTS) // 2}-"]


def test_a_lost_answer_hides_work_that_was_done(hub: Hub) -> None:
    hub.create("ada/net")
    hub.fail("POST", "/api/models/*/commit/*", "lost")

    with pytest.raises(Exception, match="disconnected"):
        HfApi().create_commit("ada/net", [CommitOperationAdd("a.txt", b"mine")], commit_message="x")
    assert hub.files("ada/net") == {"a.txt": b"mine"}


def test_a_bad_front_matter_is_refused(hub: Hub) -> None:
    hub.create("ada/net")
    card = b"---\nlicense: [mit\n---\n"

    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        HfApi().create_commit("ada/net", [CommitOperationAdd("README.md", card)], commit_message="x")


def test_another_process_is_given_an_environment_without_the_users_own(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment = hub.environment(token=None)

    assert environment["HF_ENDPOINT"] == hub.url
    assert "HF_TOKEN" not in environment
    assert "HF_HUB_OFFLINE" not in environment
    assert environment["PATH"] == os.environ["PATH"]
