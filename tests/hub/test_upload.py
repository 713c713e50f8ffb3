"""Sending a tree: the official client over HTTP against a Hub on loopback, which fails where a test wants it to."""

from __future__ import annotations

import json
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from zoo import HubError
from zoo_harness.hub.fetch import CommitListing, fetch_snapshot, list_commit
from zoo_harness.hub.names import parse_reference
from zoo_harness.hub.publication import compare
from zoo_harness.hub.upload import UploadResult, inspect_repository, require_token, send_tree

from ..hub_server import READER, STRANGER, WRITER, Answer, Hub, Repository

TAG = "run-20261122-093000-0123abcd"
COMMIT = "/api/models/*/commit/*"
XET_PATH = "/api/models/*/xet-write-token/*"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a published tree looks like from outside; what is in the files is nothing to the Hub."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name, content in {
        "README.md": b"---\nlicense: mit\n---\n\n# A card\n",
        "config.json": b"{}\n",
        "history.jsonl": b'{"epoch": 1}\n',
        "loss.png": b"\x89PNG\r\n\x1a\n\0\0",
        "model.safetensors": bytes(range(256)) * 400,
        "zoo.json": b'{"plots": ["loss.png"]}\n',
    }.items():
        (folder / name).write_bytes(content)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def send(
    tree: Path,
    text: str = "ada/net",
    *,
    said: list[str] | None = None,
    inspected: CommitListing | None = None,
    private: bool = False,
    create_pr: bool = False,
) -> UploadResult:
    return send_tree(
        tree,
        parse_reference(text),
        inspected or inspect_repository(parse_reference(text)),
        tag=TAG,
        message="Publish net on pets",
        private=private,
        create_pr=create_pr,
        say=[].append if said is None else said.append,
    )


def refusal(tree: Path, text: str = "ada/net", **options: Any) -> HubError:
    with pytest.raises(HubError) as raised:
        send(tree, text, **options)
    return raised.value


def card(text: str) -> str | None:
    listing = inspect_repository(parse_reference(text))
    return listing and listing.card


def states(tree: Path) -> dict[str, str]:
    return {change.path: change.state for change in compare(tree, list_commit(parse_reference("ada/net")).files)}


def use(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)


# What is sent


def test_a_repository_is_made_filled_in_one_commit_and_tagged(hub: Hub, tree: Path) -> None:
    said: list[str] = []
    sent = send(tree, said=said, private=True)

    repository = hub.repositories["ada/net"]
    assert repository.private
    assert hub.files("ada/net") == content(tree)
    assert len(repository.commits) == 2  # the Hub's own first one, and ours
    assert repository.messages[sent.commit] == "Publish net on pets"
    assert repository.branches["main"] == repository.tags[TAG] == sent.commit
    assert sent == UploadResult("ada/net", f"{hub.url}/ada/net", sent.commit, TAG, pull_request=None, changed=True)
    assert said == ["created the private repository ada/net"]
    assert hub.leaks() == []
    assert content(fetch_snapshot(parse_reference(f"ada/net@{TAG}"), said.append)) == content(tree)


def test_a_large_file_goes_in_parts(hub: Hub, tree: Path) -> None:
    hub.part_size = 30_000
    send(tree)

    assert len(hub.seen("PUT", "/storage/*/*")) == 4
    assert hub.files("ada/net") == content(tree)


def test_the_same_again_changes_nothing(hub: Hub, tree: Path) -> None:
    first = send(tree)
    written = len(hub.seen("POST", COMMIT)) + len(hub.seen("PUT"))

    assert states(tree) == dict.fromkeys(content(tree), "same")
    assert send(tree) == replace(first, changed=False)
    assert len(hub.seen("POST", COMMIT)) + len(hub.seen("PUT")) == written
    assert hub.repositories["ada/net"].tags == {TAG: first.commit}


def test_only_changed_files_are_sent(hub: Hub, tree: Path) -> None:
    first = send(tree)
    (tree / "README.md").write_text("---\nlicense: mit\n---\n\n# Another card\n")
    uploads = len(hub.seen("PUT"))
    second = send(tree)

    lines = [json.loads(line) for line in hub.seen("POST", COMMIT)[-1].body.splitlines()]
    assert [line["value"].get("path") for line in lines] == [None, "README.md"]
    assert len(hub.seen("PUT")) == uploads
    assert first.commit != second.commit
    assert hub.repositories["ada/net"].tags == {TAG: first.commit}


def test_stale_files_of_an_earlier_run_are_deleted_and_other_files_stay(hub: Hub, tree: Path) -> None:
    send(tree)
    hub.commit("ada/net", {"mine.png": b"\x89PNG", "notes.txt": b"mine", "more/loss.png": b"\x89PNG"})
    (tree / "zoo.json").write_text('{"plots": ["accuracy.png"]}\n')
    (tree / "loss.png").rename(tree / "accuracy.png")
    (tree / "history.jsonl").unlink()

    assert states(tree) == {
        "README.md": "same",
        "accuracy.png": "new",
        "config.json": "same",
        "model.safetensors": "same",
        "zoo.json": "changed",
        "history.jsonl": "deleted",
        "loss.png": "deleted",
    }
    send(tree)
    kept = {"mine.png": b"\x89PNG", "notes.txt": b"mine", "more/loss.png": b"\x89PNG"}
    assert hub.files("ada/net") == {**content(tree), **kept}


def test_the_card_of_the_repository_is_read_byte_for_byte(hub: Hub) -> None:
    hub.create("ada/net", {"README.md": "# Größe\r\n".encode()})

    assert card("ada/net") == "# Größe\r\n"
    hub.commit("ada/net", {"README.md": b"\xff"})
    with pytest.raises(HubError):
        inspect_repository(parse_reference("ada/net"))


# Pull requests


def test_a_pull_request_is_made_once(hub: Hub, tree: Path) -> None:
    hub.create("eve/net", {"README.md": b"# Eve's\n"})
    first = send(tree, "eve/net", create_pr=True)

    assert first.pull_request == f"{hub.url}/eve/net/discussions/1"
    assert first.tag is None
    assert hub.files("eve/net") == {"README.md": b"# Eve's\n"}
    assert hub.files("eve/net", "refs/pr/1") == content(tree)
    again = send(tree, "eve/net", create_pr=True)
    assert (again.changed, again.pull_request) == (False, first.pull_request)
    assert list(hub.repositories["eve/net"].pulls) == ["refs/pr/1"]


def test_a_pull_request_needs_a_repository(hub: Hub, tree: Path) -> None:
    assert refusal(tree, create_pr=True).code == "not-found"
    assert hub.repositories == {}


def test_a_pull_request_whose_answer_is_lost_is_not_made_twice(hub: Hub, tree: Path) -> None:
    hub.create("eve/net")
    hub.fail("POST", COMMIT, "lost")

    assert send(tree, "eve/net", create_pr=True).pull_request == f"{hub.url}/eve/net/discussions/1"
    assert list(hub.repositories["eve/net"].pulls) == ["refs/pr/1"]


# Hubs of other people


@pytest.fixture
def xet(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub without Xet storage, for a client with hf_xet."""
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    return hub


@pytest.mark.parametrize("answer", [404, 403, 501, b"<!doctype html>", {}, []])
def test_a_hub_without_xet_gets_the_files_by_plain_http(
    xet: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    work, said = xet.work, list[str]()
    if isinstance(answer, int):
        xet.fail("GET", XET_PATH, answer, times=99)
    monkeypatch.setattr(xet, "work", lambda call: Answer(answer) if "xet-write" in call.path else work(call))

    assert send(tree, said=said).changed
    assert xet.files("ada/net") == content(tree)
    assert "the Hub offers no Xet storage; uploading by plain HTTP" in said
    assert len(xet.seen("GET", XET_PATH)) == 1
    assert xet.leaks() == xet.waits == []
    assert not constants.HF_HUB_DISABLE_XET


@pytest.mark.parametrize(("what", "code"), [(503, "server-error"), ("cut", "no-connection")])
def test_a_hub_whose_xet_storage_is_out_of_order_is_given_up_soon(xet: Hub, tree: Path, what: Any, code: str) -> None:
    xet.fail("GET", XET_PATH, what, times=99)

    assert refusal(tree).code == code
    assert len(xet.seen("GET", XET_PATH)) == 5
    assert sum(xet.waits) < 60


def test_commits_of_64_digits_are_taken(hub: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "digits", 64)
    hub.create("ada/net", {"README.md": b"before"})
    inspected = inspect_repository(parse_reference("ada/net"))

    assert len(send(tree, inspected=inspected).commit) == 64
    assert hub.files("ada/net") == content(tree)
    hub.commit("ada/net", {"README.md": b"by another"})
    assert refusal(tree, inspected=inspected).code == "changed"
    assert hub.files("ada/net")["README.md"] == b"by another"


def test_a_hub_without_pull_requests_is_named_at_once(hub: Hub, tree: Path) -> None:
    hub.create("eve/net")
    hub.fail("POST", COMMIT, 501, times=99)

    error = refusal(tree, "eve/net", create_pr=True)
    assert (error.code, error.status) == ("not-supported", 501)
    assert "try again" not in str(error)
    assert len(hub.seen("POST", COMMIT)) == 1


# What goes wrong on the way


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/ada/net"),
        ("POST", "/api/repos/create"),
        ("POST", "/api/models/*/preupload/*"),
        ("POST", "/ada/net.git/info/lfs/objects/batch"),
        ("PUT", "/storage/*"),
        ("POST", "/ada/net.git/info/lfs/verify"),
        ("POST", COMMIT),
        ("POST", "/api/models/*/tag/*"),
    ],
)
@pytest.mark.parametrize("what", ["cut", "lost", 503])
def test_a_transient_failure_is_retried(hub: Hub, tree: Path, method: str, path: str, what: int | str) -> None:
    hub.fail(method, path, what)
    sent = send(tree)

    repository = hub.repositories["ada/net"]
    assert hub.files("ada/net") == content(tree)
    assert len(repository.commits) == 2
    assert repository.tags == {TAG: sent.commit}
    assert len(hub.waits) == 1


@pytest.mark.parametrize("what", ["cut", 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_card_that_cannot_be_read_for_a_moment_is_read_again(hub: Hub, method: str, what: int | str) -> None:
    hub.create("ada/net", {"README.md": b"# A card\n"})
    hub.fail(method, "/ada/net/resolve/*", what)

    assert card("ada/net") == "# A card\n"


def test_a_deletion_whose_answer_is_lost_is_found_done(hub: Hub, tree: Path) -> None:
    send(tree)
    (tree / "history.jsonl").unlink()
    hub.fail("POST", COMMIT, "lost")

    assert send(tree).changed
    assert hub.files("ada/net") == content(tree)


def test_the_seconds_that_the_hub_asks_for_are_waited(hub: Hub, tree: Path) -> None:
    hub.fail("POST", "/api/repos/create", 429, headers={"Retry-After": "7"})
    send(tree)

    assert hub.waits == [7.0]


def test_uploaded_files_are_not_uploaded_again_after_a_break(hub: Hub, tree: Path) -> None:
    hub.fail("POST", COMMIT, "cut", times=99)
    assert refusal(tree).code == "no-connection"
    assert hub.files("ada/net") == {}
    uploads = len(hub.seen("PUT"))
    hub.heal()

    assert send(tree).changed
    assert len(hub.seen("PUT")) == uploads


def test_a_break_in_the_middle_of_an_upload_leaves_the_repository_as_it_was(hub: Hub, tree: Path) -> None:
    hub.create("ada/net", {"README.md": b"before"})
    hub.fail("PUT", "/storage/*", "cut", times=99)

    assert refusal(tree).code == "no-connection"
    assert hub.files("ada/net") == {"README.md": b"before"}


@pytest.mark.parametrize("what", [500, 429])
def test_a_hub_that_stays_out_of_order_is_reported(hub: Hub, tree: Path, what: int) -> None:
    hub.fail("POST", COMMIT, what, times=99)

    error = refusal(tree)
    assert (error.status, error.code) == (what, "server-error" if what == 500 else "rate-limit")
    assert len(hub.seen("POST", COMMIT)) == 5


def test_a_tag_that_cannot_be_made_says_that_the_files_are_there(hub: Hub, tree: Path) -> None:
    hub.fail("POST", "/api/models/*/tag/*", 403)

    error = refusal(tree)
    commit = hub.repositories["ada/net"].branches["main"]
    assert (error.code, str(error).startswith(f"cannot tag commit {commit} of ada/net: ")) == ("forbidden", True)
    assert hub.files("ada/net") == content(tree)
    assert not send(tree).changed
    assert hub.repositories["ada/net"].tags == {TAG: commit}


def test_a_change_by_somebody_else_is_not_overwritten(hub: Hub, tree: Path) -> None:
    hub.create("ada/net", {"README.md": b"before"})
    inspected = inspect_repository(parse_reference("ada/net"))
    hub.commit("ada/net", {"README.md": b"by another"})

    error = refusal(tree, inspected=inspected)
    assert (error.status, error.code, error.repository) == (412, "changed", "ada/net")
    assert hub.files("ada/net") == {"README.md": b"by another"}


def test_a_change_at_the_last_moment_is_not_overwritten_either(hub: Hub, tree: Path) -> None:
    hub.create("ada/net", {"README.md": b"before"})
    hub.meanwhile("POST", COMMIT, lambda: hub.commit("ada/net", {"README.md": b"by another"}))

    assert refusal(tree).code == "changed"
    assert hub.files("ada/net") == {"README.md": b"by another"}


def test_a_card_that_the_hub_refuses_is_reported_with_its_words(hub: Hub, tree: Path) -> None:
    (tree / "README.md").write_text("---\nlicense: [mit\n---\n")

    error = refusal(tree)
    assert error.code == "invalid-card"
    assert "(the Hub says: while parsing" in str(error)
    assert hub.seen("PUT") == []


# Who may


@pytest.mark.parametrize(
    ("token", "text", "code"),
    [
        (READER, "ada/net", "forbidden"),
        (STRANGER, "ada/net", "forbidden"),
        (WRITER, "somebody/net", "forbidden"),
        ("hf_wrongwrongwrong", "ada/net", "invalid-token"),
        ("not-even-of-that-form", "ada/net", "invalid-token"),
    ],
)
def test_a_token_that_may_not_write_is_refused(
    hub: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch, token: str, text: str, code: str
) -> None:
    use(monkeypatch, token)

    error = refusal(tree, text)
    assert error.code == code
    assert token not in "".join(traceback.format_exception(error))
    assert hub.repositories == {}
    assert hub.seen("PUT") == []


def test_an_organisation_may_be_written_to_by_its_members(hub: Hub, tree: Path) -> None:
    send(tree, "lovelace-lab/net")

    assert hub.files("lovelace-lab/net") == content(tree)


def test_a_missing_token_is_reported_before_any_request(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    require_token()
    use(monkeypatch, None)

    with pytest.raises(HubError) as raised:
        require_token()
    assert raised.value.code == "no-token"
    assert hub.requests == []


def test_the_hubs_own_login_is_used(hub: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True)
    Path(constants.HF_TOKEN_PATH).write_text(WRITER)
    require_token()

    assert send(tree).changed


def test_a_public_repository_is_not_filled_as_private(hub: Hub, tree: Path) -> None:
    hub.create("ada/net")

    assert refusal(tree, private=True).code == "public"
    assert hub.files("ada/net") == {}


@pytest.mark.parametrize("private", [False, True])
def test_a_repository_that_somebody_makes_at_the_last_moment_is_looked_at_again(
    hub: Hub, tree: Path, private: bool
) -> None:
    hub.meanwhile("POST", "/api/repos/create", lambda: hub.create("ada/net", {"notes.txt": b"x"}))
    if private:
        assert refusal(tree, private=True).code == "public"
        assert hub.files("ada/net") == {"notes.txt": b"x"}
    else:
        send(tree)
        assert hub.files("ada/net") == {**content(tree), "notes.txt": b"x"}
    assert [one.status for one in hub.seen("POST", "/api/repos/create")] == [409]


def test_a_card_that_somebody_writes_at_the_last_moment_is_not_overwritten(hub: Hub, tree: Path) -> None:
    hub.meanwhile("POST", "/api/repos/create", lambda: hub.create("ada/net", {"README.md": b"# Mine"}))

    assert refusal(tree).code == "changed"
    assert hub.files("ada/net") == {"README.md": b"# Mine"}


def test_without_network_nothing_can_be_published(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(HubError) as raised:
        inspect_repository(parse_reference("ada/net"))
    assert raised.value.code == "offline"
