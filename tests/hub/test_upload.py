"""Sending a tree: the official client over HTTP against a Hub on loopback, which fails where it is told to."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from huggingface_hub import constants

from zoo import HubError
from zoo_harness.hub.fetch import fetch_snapshot
from zoo_harness.hub.names import parse_reference
from zoo_harness.hub.upload import RepositoryState, UploadResult, changes, inspect_repository, require_token, send_tree

from ..hub_server import READER, STRANGER, WRITER, Hub

TAG = "run-20261122-093000-0123abcd"
COMMIT = "/api/models/*/commit/*"


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
    remote: RepositoryState | None = None,
    private: bool = False,
    create_pr: bool = False,
) -> UploadResult:
    return send_tree(
        tree,
        remote or inspect_repository(parse_reference(text)),
        tag=TAG,
        message="Publish net on pets",
        private=private,
        create_pr=create_pr,
        say=[].append if said is None else said.append,
    )


def states(tree: Path) -> dict[str, str]:
    return {change.path: change.state for change in changes(tree, inspect_repository(parse_reference("ada/net")))}


def use(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)


# What is sent


def test_a_repository_is_made_filled_in_one_commit_and_tagged(hub: Hub, tree: Path, tmp_path: Path) -> None:
    said: list[str] = []
    sent = send(tree, said=said, private=True)

    repository = hub.repositories["ada/net"]
    assert repository.private
    assert hub.files("ada/net") == content(tree)
    assert len(repository.commits) == 2  # the Hub's own first one, and ours
    assert repository.messages[sent.commit] == "Publish net on pets"
    assert repository.branches["main"] == repository.tags[TAG] == sent.commit
    assert sent == UploadResult(f"{hub.url}/ada/net", sent.commit, changed=True, tag=TAG)
    assert said == ["made the private repository ada/net"]
    assert hub.leaks() == []
    assert content(fetch_snapshot(parse_reference(f"ada/net@{TAG}"), tmp_path / "back", said.append)) == content(tree)


def test_a_large_file_goes_in_parts(hub: Hub, tree: Path) -> None:
    hub.part_size = 30_000
    send(tree)

    assert len(hub.seen("PUT", "/storage/*/*")) == 4
    assert hub.files("ada/net") == content(tree)


def test_the_same_again_changes_nothing(hub: Hub, tree: Path) -> None:
    first = send(tree)
    written = len(hub.seen("POST")) + len(hub.seen("PUT"))

    assert states(tree) == dict.fromkeys(content(tree), "same")
    assert send(tree) == UploadResult(first.url, first.commit, changed=False, tag=TAG)
    assert len(hub.seen("POST")) + len(hub.seen("PUT")) == written


def test_only_what_differs_is_sent(hub: Hub, tree: Path) -> None:
    send(tree)
    (tree / "README.md").write_text("---\nlicense: mit\n---\n\n# Another card\n")
    said: list[str] = []
    uploads = len(hub.seen("PUT"))
    second = send(tree, said=said)

    lines = [json.loads(line) for line in hub.seen("POST", COMMIT)[-1].body.splitlines()]
    assert [line["value"].get("path") for line in lines] == [None, "README.md"]
    assert len(hub.seen("PUT")) == uploads
    assert hub.repositories["ada/net"].tags[TAG] != second.commit
    assert "stays at commit" in said[0]


def test_what_an_earlier_run_left_goes_and_what_a_person_added_stays(hub: Hub, tree: Path) -> None:
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


def test_the_card_that_is_there_is_what_was_looked_at(hub: Hub) -> None:
    hub.create("ada/net", {"README.md": "# Größe\r\n".encode(), "zoo.json": b"[1]"})

    remote = inspect_repository(parse_reference("ada/net"))
    assert remote.card == "# Größe\r\n"
    assert remote.plots == ()


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
    with pytest.raises(HubError, match=r"is not there, .*leave --create-pr out to have it made"):
        send(tree, create_pr=True)
    assert hub.repositories == {}


def test_a_pull_request_whose_answer_is_lost_is_not_made_twice(hub: Hub, tree: Path) -> None:
    hub.create("eve/net")
    hub.fail("POST", COMMIT, "lost")

    with pytest.raises(HubError, match="uploaded files are not uploaded again") as raised:
        send(tree, "eve/net", create_pr=True)
    assert raised.value.code == "no-connection"
    assert send(tree, "eve/net", create_pr=True).changed is False
    assert list(hub.repositories["eve/net"].pulls) == ["refs/pr/1"]


# What goes wrong on the way


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/ada/net"),
        ("GET", "/api/models/ada/net/refs"),
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
def test_what_fails_for_a_moment_is_tried_again(hub: Hub, tree: Path, method: str, path: str, what: int | str) -> None:
    hub.fail(method, path, what)
    sent = send(tree)

    repository = hub.repositories["ada/net"]
    assert hub.files("ada/net") == content(tree)
    assert len(repository.commits) == 2
    assert repository.tags == {TAG: sent.commit}
    assert len(hub.waits) == 1


def test_a_repository_that_was_made_and_stays_empty_is_told(hub: Hub, tree: Path) -> None:
    hub.fail("POST", COMMIT, 413)
    with pytest.raises(HubError, match=r"status 413.*; ada/net was made and is empty; the same command again fills it"):
        send(tree)
    send(tree)
    assert hub.files("ada/net") == content(tree)


def test_a_repository_that_is_full_is_not_told_to_be_empty(hub: Hub, tree: Path) -> None:
    hub.fail("POST", "/api/models/*/tag/*", 403)
    with pytest.raises(HubError) as told:
        send(tree)
    assert "is empty" not in str(told.value)
    assert hub.files("ada/net") == content(tree)


@pytest.mark.parametrize("what", ["cut", 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_card_that_cannot_be_read_for_a_moment_is_read_again(hub: Hub, method: str, what: int | str) -> None:
    hub.create("ada/net", {"README.md": b"# A card\n"})
    hub.fail(method, "/ada/net/resolve/*", what)

    assert inspect_repository(parse_reference("ada/net")).card == "# A card\n"


def test_a_deletion_whose_answer_is_lost_is_found_done(hub: Hub, tree: Path) -> None:
    send(tree)
    (tree / "history.jsonl").unlink()
    hub.fail("POST", COMMIT, "lost")
    said: list[str] = []

    assert send(tree, said=said).changed
    assert hub.files("ada/net") == content(tree)
    assert "the response was lost, but the commit had been made" in said


def test_the_seconds_that_the_hub_asks_for_are_waited(hub: Hub, tree: Path) -> None:
    hub.fail("POST", "/api/repos/create", 429, headers={"Retry-After": "7"})
    send(tree)

    assert hub.waits == [7.0]


def test_what_was_uploaded_before_a_break_is_not_uploaded_again(hub: Hub, tree: Path) -> None:
    hub.fail("POST", COMMIT, "cut", times=99)
    with pytest.raises(HubError, match="uploaded files are not uploaded again") as raised:
        send(tree)
    assert raised.value.code == "no-connection"
    assert hub.files("ada/net") == {}
    uploads = len(hub.seen("PUT"))
    hub.heal()

    assert send(tree).changed
    assert len(hub.seen("PUT")) == uploads


def test_a_break_in_the_middle_of_an_upload_leaves_the_repository_as_it_was(hub: Hub, tree: Path) -> None:
    hub.create("ada/net", {"README.md": b"before"})
    hub.fail("PUT", "/storage/*", "cut", times=99)

    with pytest.raises(HubError) as raised:
        send(tree)
    assert raised.value.code == "no-connection"
    assert hub.files("ada/net") == {"README.md": b"before"}


@pytest.mark.parametrize("what", [500, 429])
def test_a_hub_that_stays_out_of_order_is_told(hub: Hub, tree: Path, what: int) -> None:
    hub.fail("POST", COMMIT, what, times=99)

    with pytest.raises(HubError) as raised:
        send(tree)
    assert (raised.value.status, raised.value.code) == (what, "server-error" if what == 500 else "rate-limit")
    assert len(hub.seen("POST", COMMIT)) == 5


def test_a_tag_that_cannot_be_made_says_that_the_files_are_there(hub: Hub, tree: Path) -> None:
    hub.fail("POST", "/api/models/*/tag/*", 403)

    with pytest.raises(HubError, match=f"has all files, as commit [0-9a-f]{{40}}, but not the tag {TAG}.*again"):
        send(tree)
    assert hub.files("ada/net") == content(tree)
    assert send(tree) == UploadResult(f"{hub.url}/ada/net", hub.repositories["ada/net"].branches["main"], False, TAG)
    assert TAG in hub.repositories["ada/net"].tags


def test_a_change_by_somebody_else_is_told_and_not_overwritten(hub: Hub, tree: Path) -> None:
    hub.create("ada/net", {"README.md": b"before"})
    remote = inspect_repository(parse_reference("ada/net"))
    hub.commit("ada/net", {"README.md": b"by another"})

    with pytest.raises(HubError) as raised:
        send(tree, remote=remote)
    assert (raised.value.status, raised.value.code, raised.value.repository) == (412, "changed", "ada/net")
    assert hub.files("ada/net") == {"README.md": b"by another"}


def test_a_change_at_the_last_moment_is_not_overwritten_either(hub: Hub, tree: Path) -> None:
    hub.create("ada/net", {"README.md": b"before"})
    hub.meanwhile("POST", COMMIT, lambda: hub.commit("ada/net", {"README.md": b"by another"}))

    with pytest.raises(HubError) as raised:
        send(tree)
    assert raised.value.code == "changed"
    assert hub.files("ada/net") == {"README.md": b"by another"}


def test_a_card_that_the_hub_does_not_take_is_told_with_its_words(hub: Hub, tree: Path) -> None:
    (tree / "README.md").write_text("---\nlicense: [mit\n---\n")

    with pytest.raises(
        HubError, match=r"the front matter of the card \(README\.md\) is refused \(the Hub says: while parsing"
    ):
        send(tree)
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
def test_who_may_not_write_is_told(
    hub: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch, token: str, text: str, code: str
) -> None:
    use(monkeypatch, token)

    with pytest.raises(HubError) as raised:
        send(tree, text)
    assert raised.value.code == code
    assert token not in "".join(traceback.format_exception(raised.value))
    assert hub.repositories == {}
    assert hub.seen("PUT") == []


def test_an_organisation_may_be_written_to_by_its_members(hub: Hub, tree: Path) -> None:
    send(tree, "lovelace-lab/net")

    assert hub.files("lovelace-lab/net") == content(tree)


def test_no_token_is_told_with_where_to_get_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    require_token()
    use(monkeypatch, None)

    with pytest.raises(HubError, match=r"no token for the Hub: set HF_TOKEN .* hf auth login"):
        require_token()
    assert hub.requests == []


def test_the_hubs_own_login_is_used(hub: Hub, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True)
    Path(constants.HF_TOKEN_PATH).write_text(WRITER)
    require_token()

    assert send(tree).changed


def test_what_was_public_is_not_filled_as_if_it_were_private(hub: Hub, tree: Path) -> None:
    hub.create("ada/net")

    with pytest.raises(HubError) as raised:
        send(tree, private=True)
    assert raised.value.code == "public"
    assert hub.files("ada/net") == {}


@pytest.mark.parametrize("private", [False, True])
def test_a_repository_that_somebody_makes_at_the_last_moment_is_looked_at_again(
    hub: Hub, tree: Path, private: bool
) -> None:
    hub.meanwhile("POST", "/api/repos/create", lambda: hub.create("ada/net", {"notes.txt": b"x"}))
    if private:
        with pytest.raises(HubError) as raised:
            send(tree, private=True)
        assert raised.value.code == "public"
        assert hub.files("ada/net") == {"notes.txt": b"x"}
    else:
        send(tree)
        assert hub.files("ada/net") == {**content(tree), "notes.txt": b"x"}
    assert [one.status for one in hub.seen("POST", "/api/repos/create")] == [409]


def test_without_network_nothing_can_be_published(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(HubError, match="cannot inspect ada/net: HF_HUB_OFFLINE is set") as raised:
        inspect_repository(parse_reference("ada/net"))
    assert raised.value.code == "offline"


def test_an_empty_repository_is_filled(hub: Hub, tree: Path) -> None:
    """Made, with no commit at all, as some servers leave them."""
    hub.create("ada/net").branches.clear()
    hub.repositories["ada/net"].branches["main"] = hub.repositories["ada/net"].add({}, "nothing")
    hub.fail("GET", "/api/models/ada/net", 404, headers={"X-Error-Code": "RevisionNotFound"})
    hub.fail("GET", "/api/models/ada/net/refs", 404)

    assert send(tree).changed
    assert hub.files("ada/net") == content(tree)
