"""Fetching published files: the official client over HTTP against a Hub on loopback."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from zoo import HubError, UnreachableError, WeightsError, ZooError
from zoo_harness.hub import fetch as fetching
from zoo_harness.hub.fetch import fetch_snapshot
from zoo_harness.hub.names import parse_reference

from ..hub_server import STRANGER, WRITER, Answer, Hub, Repository

TREE = {
    "README.md": b"# a card\n",
    "model.safetensors": bytes(range(256)) * 40,
    "config.json": b"{}\n",
    "zoo.json": b'{"format": "x"}\n',
    "loss.png": b"\x89PNG\r\n\x1a\n\0\0",
}
OTHERS = {
    "pytorch_model.bin": b"pickle\0",
    "run.py": b"import os\n",
    "more/loss.png": b"\0",
    ".png": b"\0",
    "a b.png": b"\0",
}


def fetch(text: str = "ada/net", said: list[str] | None = None) -> Path:
    return fetch_snapshot(parse_reference(text), [].append if said is None else said.append)


def refusal(text: str = "ada/net") -> HubError:
    with pytest.raises(HubError) as raised:
        fetch(text)
    assert raised.value.repository == text.partition("@")[0]
    return raised.value


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_published_files_are_fetched_byte_for_byte(hub: Hub) -> None:
    commit = hub.create("ada/net", {**TREE, **OTHERS}, private=True).branches["main"]
    said: list[str] = []
    folder = fetch(said=said)

    assert content(folder) == TREE
    assert folder.name == commit
    assert said == [f"ada/net: commit {commit}, fetching 5 files, 10.0 KiB"]
    assert not [one.path for one in hub.seen("*", "*resolve*") if one.path.endswith((".bin", ".py"))]
    assert hub.leaks() == []
    assert hub.seen("GET", "/api/models/*")[0].headers["user-agent"].startswith("blockzoo/")


def test_a_second_time_nothing_is_downloaded(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    fetch()
    before = len(hub.seen("GET", "/content/*"))
    said: list[str] = []

    assert content(fetch(said=said)) == TREE
    assert len(hub.seen("GET", "/content/*")) == before
    assert "already in the Hub cache" in said[0]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub) -> None:
    first = hub.create("ada/net", TREE).branches["main"]
    hub.repositories["ada/net"].tags["v1"] = first
    second = hub.commit("ada/net", {"zoo.json": b"{}\n"})

    assert fetch("ada/net").name == fetch("ada/net@main").name == second
    assert fetch("ada/net@v1").name == fetch(f"ada/net@{first}").name == fetch(f"ada/net@{first[:9]}").name == first


def test_without_network_the_cache_is_used_with_a_message(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)
    online = fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    said: list[str] = []

    assert fetch(said=said) == online
    assert fetch(f"ada/net@{online.name}") == online
    assert said == [f"ada/net: commit {online.name}, from the Hub cache (HF_HUB_OFFLINE is set)"]
    assert len(hub.requests) == asked


def test_a_cache_without_the_whole_run_is_not_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)
    hub.create("ada/other", TREE)
    fetch()
    huggingface_hub.hf_hub_download("ada/other", "zoo.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    for text in ("ada/net@v2", "ada/other", "ada/none"):
        with pytest.raises(UnreachableError) as raised:
            fetch(text)
        assert raised.value.tried[0] == ("Hub", "HF_HUB_OFFLINE is set")
        assert raised.value.tried[1][1] == "not there"


@pytest.mark.parametrize("what", [503, 429, "cut"])
def test_a_hub_out_of_order_is_asked_again_and_then_the_cache(hub: Hub, what: int | str) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/api/models/ada/net", what, times=3)
    folder = fetch()
    assert hub.waits == [1, 2, 4]
    hub.fail("GET", "/api/models/ada/*", what, times=99)
    said: list[str] = []

    assert fetch(said=said) == folder
    assert "(attempt 1 of 5)" in said[0]
    assert "from the Hub cache (" in said[-1]
    with pytest.raises(UnreachableError):
        fetch("ada/other")


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [("http://127.0.0.1:9", "Connection refused"), ("http://no-such-host.invalid", "does not resolve")],
)
def test_a_hub_that_is_not_there_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch, endpoint: str, reason: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)

    with pytest.raises(UnreachableError) as raised:
        fetch()
    assert reason in raised.value.tried[0][1]


def test_a_full_disk_is_reported(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache/model.safetensors")

    monkeypatch.setattr(file_download, "_chmod_and_move", full)
    assert refusal().code == "disk-full"


@pytest.mark.parametrize(
    ("name", "limit", "code"),
    [
        ("MOST_FILES", 3, "too-many-files"),
        ("MOST_CHECKPOINT_BYTES", 2**10, "file-too-large"),
        ("MOST_OTHER_BYTES", 12, "file-too-large"),
    ],
)
def test_absurd_declarations_are_refused_before_anything_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, code: str
) -> None:
    hub.create("ada/net", TREE)
    monkeypatch.setattr(fetching, name, limit)

    assert refusal().code == code
    assert hub.seen("*", "*resolve*") == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": b'{"architecture": "vit_tiny"}'}, "timm's vit_tiny: timm.create_model('hf-hub:ada/net'"),
        ({"config.json": b'{"model_type": "vit"}'}, "transformers' vit: AutoModel.from_pretrained('ada/net')"),
        ({"config.json": b"[" * 5000}, "try timm or transformers"),
        ({"config.json": b"[1]"}, "try timm or transformers"),
        ({"adapter_config.json": b"{}"}, "a peft adapter, which is not a whole network"),
        ({"config.json": b'{"zoo": {}, "architecture": "x"}'}, "an incomplete published run"),
        ({}, "try timm or transformers"),
        ({"model.safetensors": None, "zoo.json": b"{}"}, "an incomplete published run"),
        (
            {"model.safetensors": None, "config.json": b"{}", "pytorch_model.bin": b"\0"},
            "pickle file pytorch_model.bin",
        ),
    ],
)
def test_a_foreign_repository_is_described(hub: Hub, files: dict[str, bytes | None], told: str) -> None:
    listed = {"model.safetensors": TREE["model.safetensors"], **files}
    hub.create("ada/net", {name: data for name, data in listed.items() if data is not None})

    error = refusal()
    assert error.code == "not-published"
    assert told in str(error)
    assert {request.path.rsplit("/", 1)[-1] for request in hub.seen("*", "*resolve*")} <= {"config.json"}


@pytest.mark.parametrize("name", ["model.safetensors", "zoo.json"])
def test_a_file_of_another_digest_is_refused_and_forgotten(hub: Hub, name: str) -> None:
    hub.create("ada/net", TREE)
    hub.tampered[name] = bytes([TREE[name][0] ^ 1]) + TREE[name][1:]

    with pytest.raises(WeightsError) as raised:
        fetch()
    assert (raised.value.code, raised.value.facts["path"]) == ("not-the-listed-file", name)
    hub.tampered.clear()
    assert content(fetch()) == TREE


def test_a_refused_download_leaves_none_of_its_wrong_files(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    names = ("model.safetensors", "zoo.json", "loss.png")
    hub.tampered.update({name: bytes([TREE[name][0] ^ 1]) + TREE[name][1:] for name in names})

    with pytest.raises(WeightsError) as raised:
        fetch()
    assert raised.value.code == "not-the-listed-file"
    hub.tampered.clear()
    assert content(fetch()) == TREE


def test_a_download_that_ends_early_leaves_no_wrong_file_either(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.tampered["zoo.json"] = b"{" + TREE["zoo.json"][1:].upper()
    hub.fail("GET", "/content/*", 403, times=99)

    with pytest.raises(ZooError):
        fetch()
    hub.heal()
    hub.tampered.clear()
    assert content(fetch()) == TREE


def test_a_file_that_was_damaged_in_the_cache_is_removed_but_nothing_outside_of_it(hub: Hub, tmp_path: Path) -> None:
    hub.create("ada/net", TREE)
    folder, mine = fetch(), tmp_path / "mine"
    mine.write_bytes(b"precious")
    (folder / "zoo.json").unlink()
    (folder / "zoo.json").symlink_to(mine)

    with pytest.raises(WeightsError):
        fetch()
    assert mine.read_bytes() == b"precious"
    assert content(fetch()) == TREE


def test_commits_of_64_digits_are_taken(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "digits", 64)
    commit = hub.create("ada/net", TREE).branches["main"]
    hub.repositories["ada/net"].tags["v1"] = commit

    assert len(commit) == 64
    for text in ("ada/net", "ada/net@main", "ada/net@v1", f"ada/net@{commit}"):
        folder = fetch(text)
        assert (folder.name, content(folder)) == (commit, TREE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("ada/net@v1").name == fetch(f"ada/net@{commit}").name == fetch().name == commit


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_file_of_another_size_is_refused_and_forgotten(hub: Hub, method: str) -> None:
    """From the HEAD request on only the digest shows it; from the GET request on the client itself sees it."""
    hub.create("ada/net", TREE)
    hub.meanwhile(method, "/ada/net/resolve/*/zoo.json", lambda: hub.tampered.update({"zoo.json": b"x"}))

    with pytest.raises(ZooError, match=r"zoo\.json") as raised:
        fetch()
    assert raised.value.code in ("not-the-listed-file", "other")
    hub.tampered.clear()
    assert content(fetch()) == TREE


@pytest.mark.parametrize("what", ["cut", "half", 503])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/ada/net"),
        ("GET", "/api/models/ada/net/tree/*"),
        ("HEAD", "/ada/net/resolve/*"),
        ("GET", "/ada/net/resolve/*"),
        ("GET", "/content/*"),
    ],
)
def test_a_transient_failure_is_retried(hub: Hub, method: str, path: str, what: int | str) -> None:
    hub.create("ada/net", TREE)
    hub.fail(method, path, what)

    assert content(fetch()) == TREE


@pytest.mark.parametrize(
    ("token", "text", "code", "status"),
    [
        (None, "ada/none", "not-found", 401),
        (None, "ada/net", "not-found", 401),
        (STRANGER, "ada/net", "not-found", 404),
        ("hf_wrongwrongwrong", "ada/net", "invalid-token", 401),
        (WRITER, "ada/net@v9", "no-revision", 404),
        (STRANGER, "eve/gated", "not-published", None),
        (WRITER, "eve/gated2", "gated", 403),
    ],
)
def test_a_refused_reader_gets_the_cause_and_advice(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None, text: str, code: str, status: int | None
) -> None:
    hub.create("ada/net", TREE, private=True)
    hub.create("eve/gated", gated=True)
    hub.create("eve/gated2", TREE, gated=True)
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)

    error = refusal(text)
    assert (error.code, error.status) == (code, status)
    assert ("hf auth login" in str(error)) == (status == 401)
    assert token is None or token not in "".join(traceback.format_exception(error))


def test_a_refused_reader_gets_neither_the_token_nor_an_older_copy(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    fetch()
    hub.fail("GET", "/api/models/ada/net", 403, headers={"X-Error-Message": f"{WRITER} may not"})

    error = refusal()
    assert (error.code, error.status) == ("forbidden", 403)
    assert "(a token) may not" in str(error)
    assert "--create-pr" not in str(error)
    assert WRITER not in "".join(traceback.format_exception(error))


def test_a_commit_during_a_download_does_not_mix_two_versions(hub: Hub) -> None:
    first = hub.create("ada/net", TREE).branches["main"]
    newer = {**TREE, "zoo.json": b'{"format": "newer"}\n'}
    hub.meanwhile("GET", "/api/models/ada/net/tree/*", lambda: hub.commit("ada/net", newer))

    folder = fetch()
    assert (folder.name, content(folder)) == (first, TREE)
    assert content(fetch()) == newer


@pytest.mark.parametrize(
    "answer",
    [
        b"<!doctype html><title>Welcome to the hotel</title>",
        {},
        [],
        {"id": "ada/net"},
        {"id": "ada/net", "sha": "../../x"},
        {"id": "ada/net", "sha": "0" * 40},
        {"id": "ada/net", "sha": "0" * 40, "siblings": [{"rfilename": "zoo.json"}]},
    ],
)
def test_a_server_that_is_no_hub_is_reported(hub: Hub, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(hub, "work", lambda _call: Answer(answer))

    assert refusal().code == "not-a-hub"


@pytest.mark.parametrize("path", ["/api/models/ada/net", "/api/models/ada/net/tree/*", "/ada/net/resolve/*/zoo.json"])
@pytest.mark.parametrize("what", [500, 503])
def test_attempts_do_not_multiply(hub: Hub, path: str, what: int) -> None:
    hub.create("ada/net", TREE)
    for method in ("GET", "HEAD"):
        hub.fail(method, path, what, times=999)
    said: list[str] = []

    with pytest.raises(ZooError, match=f"status {what}.*try again later"):
        fetch(said=said)
    assert len(hub.seen("*", path)) <= 6
    assert sum(hub.waits) < 60
    assert f"the Hub answered with status {what}; trying again in 1 seconds (attempt 1 of 5)" in said


def test_a_connection_that_is_always_cut_is_given_up_soon(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("HEAD", "/ada/net/resolve/*", "cut", times=999)

    assert refusal().code == "no-connection"
    assert sum(hub.waits) < 60


@pytest.mark.parametrize("path", ["/api/models/ada/net", "/api/models/ada/net/tree/*", "/content/*"])
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Retry-After": "100000"}, "status 429 and asks to wait 1,667 minutes.*try again"),
        ({"Retry-After": "9" * 400}, "asks to wait 16,666,666,667 minutes"),
        ({"RateLimit": '"api";r=0;t=295'}, "asks to wait 5 minutes"),
    ],
)
def test_too_long_a_requested_wait_is_refused_at_once(hub: Hub, path: str, headers: dict[str, str], told: str) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", path, 429, times=999, headers=headers)

    with pytest.raises(ZooError, match=told):
        fetch()
    assert len(hub.seen("GET", path)) <= 2  # two large files at once
    assert hub.waits == []


def test_a_short_requested_wait_is_honoured_and_logged(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/api/models/ada/net", 429, headers={"Retry-After": "30"})
    said: list[str] = []

    assert content(fetch(said=said)) == TREE
    assert hub.waits == [30]
    assert said[0] == "the Hub answered with status 429; trying again in 30 seconds (attempt 1 of 5)"
