"""Fetching published files: the official client over HTTP against a Hub on loopback."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from zoo import HubError, UnreachableError, UsageError, WeightsError, ZooError
from zoo_harness.hub import fetch as fetching
from zoo_harness.hub.fetch import fetch_snapshot
from zoo_harness.hub.names import parse_reference

from ..hub_server import STRANGER, WRITER, Answer, Hub

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


def fetch(text: str = "ada/net", to: Path | None = None, said: list[str] | None = None) -> Path:
    return fetch_snapshot(parse_reference(text), to, [].append if said is None else said.append)


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
    assert "in the Hub's cache already" in said[0]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub) -> None:
    first = hub.create("ada/net", TREE).branches["main"]
    hub.repositories["ada/net"].tags["v1"] = first
    second = hub.commit("ada/net", {"zoo.json": b"{}\n"})

    assert fetch("ada/net").name == fetch("ada/net@main").name == second
    assert fetch("ada/net@v1").name == fetch(f"ada/net@{first}").name == fetch(f"ada/net@{first[:9]}").name == first


def test_a_folder_appears_whole(hub: Hub, tmp_path: Path) -> None:
    hub.create("ada/net", {**TREE, **OTHERS})
    to = tmp_path / "deep" / "net"

    assert fetch(to=to) == to
    assert content(to) == TREE
    assert not any(path.is_symlink() for path in to.iterdir())
    assert [path.name for path in to.parent.iterdir()] == ["net"]


def test_a_folder_with_something_in_it_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    hub.create("ada/net", TREE)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match="is not empty; give a folder that does not exist yet"):
        fetch(to=tmp_path / "net")
    assert hub.requests == []


def test_a_full_disk_leaves_no_folder(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(HubError, match=r"cannot fetch ada/net: the disk is full: .*; make room, or give a folder"):
        fetch(to=tmp_path / "to" / "net")
    assert list((tmp_path / "to").iterdir()) == []


def test_too_little_room_is_told_before_anything_is_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)
    usage = shutil.disk_usage("/")._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(HubError, match=r"no room in .*: 10\.0 KiB are needed and 5\.0 MiB are free"):
        fetch()
    assert hub.seen("*", "*resolve*") == []


@pytest.mark.parametrize(
    ("name", "limit", "told"),
    [
        ("MOST_FILES", 3, "lists more than 3 files"),
        ("MOST_CHECKPOINT_BYTES", 2**10, r"declares model\.safetensors of 10\.0 KiB; more than 1\.0 KiB"),
        ("MOST_OTHER_BYTES", 12, r"declares zoo\.json of 16 bytes"),
    ],
)
def test_absurd_declarations_are_refused_before_anything_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, told: str
) -> None:
    hub.create("ada/net", TREE)
    monkeypatch.setattr(fetching, name, limit)

    with pytest.raises(HubError, match=told):
        fetch()
    assert hub.seen("*", "*resolve*") == []


def test_a_repository_that_zoo_did_not_publish_is_told_with_what_it_has(hub: Hub) -> None:
    hub.create("ada/net", {"config.json": b"{}", "pytorch_model.bin": b"\0"})

    with pytest.raises(HubError, match=r"no zoo\.json and no model\.safetensors \(it has .*config\.json") as told:
        fetch()
    assert "in pytorch_model.bin alone, a pickle, which can run any code and is never loaded" in str(told.value)
    assert hub.seen("*", "*resolve*") == []


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"config.json": b'{"architecture": "vit_tiny"}'},
            r"network of timm, 'vit_tiny': timm\.create_model\('hf-hub:ada/net'",
        ),
        (
            {"config.json": b'{"model_type": "vit"}'},
            r"model of transformers, 'vit': AutoModel\.from_pretrained\('ada/net'\)",
        ),
        ({"config.json": b"[" * 5000}, "try timm or transformers"),
        ({"config.json": b"[1]"}, "try timm or transformers"),
        ({"adapter_config.json": b"{}"}, "an adapter of peft, and not a whole network"),
        ({"config.json": b'{"zoo": {}, "architecture": "x"}'}, "half of a published run"),
        ({}, "try timm or transformers"),
    ],
)
def test_what_a_foreign_repository_seems_to_be(hub: Hub, files: dict[str, bytes], told: str) -> None:
    hub.create("ada/net", {"model.safetensors": TREE["model.safetensors"], **files})

    with pytest.raises(HubError, match=rf"it has no zoo\.json \(it has .*; .*{told}"):
        fetch()
    assert hub.seen("GET", "*model.safetensors") == []


def test_half_of_a_published_run(hub: Hub) -> None:
    hub.create("ada/net", {"zoo.json": TREE["zoo.json"]})

    with pytest.raises(HubError, match=r"it has no model\.safetensors .* half of a published run"):
        fetch()


@pytest.mark.parametrize("name", ["model.safetensors", "zoo.json"])
def test_a_file_that_is_not_the_one_listed_is_refused_and_forgotten(hub: Hub, name: str) -> None:
    repository = hub.create("ada/net", TREE)
    file = repository.commits[repository.branches["main"]][name]
    tampered = bytes([file.content[0] ^ 1]) + file.content[1:]
    hub.tampered[name] = tampered

    with pytest.raises(WeightsError, match=rf"{name} is not the file that the Hub lists \([\d,]+ bytes, (git )?SHA"):
        fetch()
    hub.tampered.clear()
    assert content(fetch()) == TREE


def test_without_network_the_cache_is_used_and_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)
    online = fetch()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    said: list[str] = []

    assert fetch(said=said) == online
    assert fetch(f"ada/net@{online.name}") == online
    assert said == [f"ada/net: commit {online.name}, from the Hub's cache (HF_HUB_OFFLINE is set)"]
    assert len(hub.requests) == asked


def test_what_is_not_cached_is_told_with_what_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)
    commit = fetch().name
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(UnreachableError, match=f"no such revision; it has of ada/net: main, {commit[:12]}"):
        fetch("ada/net@v2")
    with pytest.raises(UnreachableError, match="not there; it has nothing of ada/other"):
        fetch("ada/other")


def test_a_cache_with_a_part_of_the_files_is_not_taken_for_whole(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE)
    huggingface_hub.hf_hub_download("ada/net", "config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(UnreachableError, match=r"without zoo\.json and model\.safetensors"):
        fetch()


@pytest.mark.parametrize("what", [503, 429, "cut"])
def test_a_hub_out_of_order_is_asked_again_and_then_the_cache(hub: Hub, what: int | str) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/api/models/ada/net", what, times=3)
    folder = fetch()
    assert hub.waits == [1, 2, 4]
    hub.fail("GET", "/api/models/ada/net", what, times=99)
    said: list[str] = []

    assert fetch(said=said) == folder
    assert "(attempt 1 of 5)" in said[0]
    assert "from the Hub's cache (" in said[-1]
    hub.fail("GET", "/api/models/ada/other", what, times=99)
    with pytest.raises(UnreachableError, match="nothing of ada/other"):
        fetch("ada/other")


def test_a_hub_that_is_not_there_at_all(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(UnreachableError, match="Connection refused"):
        fetch()
    monkeypatch.setattr(constants, "ENDPOINT", "http://no-such-host.invalid")
    with pytest.raises(UnreachableError, match=r"host no-such-host\.invalid does not resolve"):
        fetch()


@pytest.mark.parametrize("what", ["cut", "half", 503, 429])
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
def test_what_fails_for_a_moment_is_tried_again(hub: Hub, method: str, path: str, what: int | str) -> None:
    hub.create("ada/net", TREE)
    hub.fail(method, path, what)

    assert content(fetch()) == TREE


def test_a_download_cut_half_way_goes_on(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/content/*", "half", times=2)

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

    with pytest.raises(HubError) as raised:
        fetch(text)
    assert (raised.value.code, raised.value.status) == (code, status)
    assert raised.value.repository == text.partition("@")[0]
    assert ("hf auth login" in str(raised.value)) == (status == 401)
    assert token is None or token not in "".join(traceback.format_exception(raised.value))


def test_a_token_that_the_hub_repeats_is_not_shown(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/api/models/ada/net", 403, headers={"X-Error-Message": f"{WRITER} may not"})

    with pytest.raises(HubError, match=r"\(a token\) may not") as raised:
        fetch()
    assert WRITER not in "".join(traceback.format_exception(raised.value))


def test_what_is_refused_is_not_taken_from_the_cache_in_silence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create("ada/net", TREE, private=True)
    fetch()
    monkeypatch.setenv("HF_TOKEN", STRANGER)

    with pytest.raises(HubError) as raised:
        fetch()
    assert raised.value.code == "not-found"


def test_a_commit_during_a_download_does_not_mix_two_versions(hub: Hub) -> None:
    first = hub.create("ada/net", TREE).branches["main"]
    newer = {**TREE, "zoo.json": b'{"format": "newer"}\n'}
    hub.meanwhile("GET", "/api/models/ada/net/tree/*", lambda: hub.commit("ada/net", newer))

    folder = fetch()
    assert (folder.name, content(folder)) == (first, TREE)
    assert content(fetch()) == newer


def test_another_process_fetches_the_same(hub: Hub, tmp_path: Path) -> None:
    hub.create("ada/net", TREE)
    code = (
        "import pathlib, sys; from zoo_harness.hub.fetch import fetch_snapshot; from zoo_harness.hub.names import *\n"
        "fetch_snapshot(parse_reference('ada/net'), pathlib.Path(sys.argv[1]), print)"
    )
    to = tmp_path / "net"
    done = subprocess.run(
        [sys.executable, "-c", code, str(to)], env=hub.environment(), capture_output=True, text=True, check=True
    )

    assert content(to) == TREE
    assert "fetching 5 files" in done.stdout
    assert done.stderr == ""
    assert issubclass(HubError, ZooError)


PORTAL = b"<!doctype html><title>Welcome to the hotel</title>"


@pytest.mark.parametrize(
    "answer",
    [
        PORTAL,
        {},
        [],
        {"id": "ada/net"},
        {"id": "ada/net", "sha": "../../x"},
        {"id": "ada/net", "sha": "0" * 40},
        {"id": "ada/net", "sha": "0" * 40, "siblings": [{"rfilename": "zoo.json"}]},
    ],
)
def test_what_answers_and_is_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(hub, "work", lambda _call: Answer(answer))

    with pytest.raises(HubError, match=r"127.* is not a Hugging Face Hub .*; check HF_ENDPOINT") as raised:
        fetch()
    assert raised.value.code == "not-a-hub"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_file_of_another_size_is_refused_and_forgotten(hub: Hub, method: str) -> None:
    """From the HEAD request on only the digest shows it; from the GET request on the client itself sees it."""
    hub.create("ada/net", TREE)
    hub.meanwhile(method, "/ada/net/resolve/*/zoo.json", lambda: hub.tampered.update({"zoo.json": b"x"}))

    with pytest.raises(WeightsError, match=r"not the (file|one) that the Hub lists.*\b16 ") as raised:
        fetch()
    assert "zoo.json" in str(raised.value)
    hub.tampered.clear()
    assert content(fetch()) == TREE


def test_who_may_not_read_is_not_told_how_to_write(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/api/models/ada/net", 403)

    with pytest.raises(HubError, match="may not read from 'ada'") as raised:
        fetch()
    assert (raised.value.code, raised.value.status) == ("forbidden", 403)
    assert "--create-pr" not in str(raised.value)


@pytest.mark.parametrize("path", ["/api/models/ada/net", "/api/models/ada/net/tree/*", "/ada/net/resolve/*/zoo.json"])
@pytest.mark.parametrize("what", [500, 503])
def test_attempts_do_not_multiply_and_the_status_is_told(hub: Hub, path: str, what: int) -> None:
    hub.create("ada/net", TREE)
    for method in ("GET", "HEAD"):
        hub.fail(method, path, what, times=999)
    said: list[str] = []

    with pytest.raises(ZooError, match=f"status {what}.*try again later"):
        fetch(said=said)
    assert len(hub.seen("*", path)) <= 6
    assert sum(hub.waits) < 60
    assert f"the Hub answered with status {what}; trying again (attempt 1 of 5)" in said


def test_a_connection_that_is_always_cut_is_given_up_soon(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("HEAD", "/ada/net/resolve/*", "cut", times=999)

    with pytest.raises(HubError) as raised:
        fetch()
    assert raised.value.code == "no-connection"
    assert sum(hub.waits) < 60


@pytest.mark.parametrize("path", ["/api/models/ada/net", "/api/models/ada/net/tree/*", "/content/*"])
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Retry-After": "100000"}, "status 429 and asks to wait 1,667 minutes.*try again"),
        ({"Retry-After": "9" * 400}, "asks to wait 16,666,666,667 minutes"),
        ({"RateLimit": '"api";r=0;t=295'}, "asks to wait 5 minutes"),
        ({"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, r"asks to wait [\d,]{10} minutes"),
    ],
)
def test_a_hub_that_asks_for_too_long_a_wait_is_told_at_once(
    hub: Hub, path: str, headers: dict[str, str], told: str
) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", path, 429, times=999, headers=headers)

    with pytest.raises(ZooError, match=told):
        fetch()
    assert len(hub.seen("GET", path)) <= 2  # two large files at once
    assert hub.waits == []


def test_a_wait_that_can_be_waited_is_said(hub: Hub) -> None:
    hub.create("ada/net", TREE)
    hub.fail("GET", "/api/models/ada/net", 429, headers={"Retry-After": "30"})
    said: list[str] = []

    assert content(fetch(said=said)) == TREE
    assert hub.waits == [30]
    assert said[0] == "the Hub answered with status 429; waiting 30 seconds as it asks (attempt 1 of 5)"


def test_quietly_nothing_is_said_of_attempts(hub: Hub, tmp_path: Path) -> None:
    hub.create("ada/net", {**TREE, "zoo.json": b"{}"})
    hub.fail("GET", "/api/models/ada/net/tree/*", 503)
    zoo = str(Path(sys.executable).with_name("zoo"))
    done = subprocess.run(
        [zoo, "pull", "ada/net", "-q"], env=hub.environment(), capture_output=True, text=True, check=False
    )

    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
