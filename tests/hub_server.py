"""A small Hub on loopback, in memory, for tests that drive the real huggingface_hub client over HTTP.

It answers what that client asks for (whoami, create, preupload, LFS, commit, refs, tags, tree, info, resolve)
as the Hub does, keeps every request that came in, and fails where a test wants it to. Files that are binary go to its
LFS store, whose addresses are on ``localhost`` while the Hub's own are on ``127.0.0.1``: to the client that is another
host, which must never be given the token.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
import yaml

WRITER, READER, STRANGER = (f"hf_{name}{'0' * 12}{name}" for name in ("writer", "reader", "stranger"))
OWNER = "ada"

Failure = int | Literal["cut", "half", "lost"]


@dataclass(frozen=True)
class Account:
    """Who a token belongs to; ``role`` is ``"write"`` or ``"read"``."""

    name: str
    organisations: tuple[str, ...] = ()
    role: str = "write"


@dataclass(frozen=True)
class Request:
    """One request as it came in, with the status that it was answered with; ``None`` where it was cut off."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    status: int | None

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        )

    @property
    def blob(self) -> str:
        """The git object's SHA-1, of the pointer where the content is elsewhere."""
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob


@dataclass
class Repository:
    """Commits are whole snapshots; ``branches``, ``tags`` and ``pulls`` name them; their ids have ``digits``."""

    digits: ClassVar[int] = 40

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def find(self, revision: str) -> str | None:
        for names in (self.branches, self.tags, self.pulls):
            if revision in names:
                return names[revision]
        matching = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        return matching[0] if len(matching) == 1 else None

    def add(self, files: dict[str, File], message: str) -> str:
        oid = secrets.token_hex(self.digits // 2)
        self.commits[oid] = dict(files)
        self.messages[oid] = message
        return oid


class Refused(Exception):  # noqa: N818 - not an error of the tests
    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.body = {"error": message, **body}


@dataclass
class Answer:
    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class _Call:
    """A request on its way through the server."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    account: Account | None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def create_pr(self) -> bool:
        return self.query.get("create_pr") == ["1"]


class Hub:
    """The server; ``with Hub() as hub`` starts and stops it.

    ``part_size`` is the size from which LFS uploads come in parts, ``page`` how many files one answer of the tree
    lists. ``waits`` are the seconds that the client would have waited in this process; it does not. ``tampered`` is
    what downloads of a path give in place of what is listed.
    """

    def __init__(self, part_size: int | None = None, page: int = 1000) -> None:
        self.part_size, self.page = part_size, page
        self.accounts = {
            WRITER: Account(OWNER, ("lovelace-lab",)),
            READER: Account(OWNER, role="read"),
            STRANGER: Account("eve"),
        }
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.waits: list[float] = []
        self.tampered: dict[str, bytes] = {}
        self._failures: list[_Failure] = []
        self._meanwhile: list[tuple[str, str, Callable[[], object]]] = []
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._home: Path | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._connections):
            _cut(connection)

    # What tests use.

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def create(
        self, repository: str, files: dict[str, bytes] | None = None, *, private: bool = False, gated: bool = False
    ) -> Repository:
        """A repository that is there, with one commit of these files."""
        made = self.repositories[repository] = Repository(repository, private, gated)
        made.branches["main"] = made.add({".gitattributes": File(b"*.safetensors filter=lfs\n", lfs=False)}, "initial")
        if files:
            self.commit(repository, files)
        return made

    def commit(self, repository: str, files: dict[str, bytes | None], branch: str = "main") -> str:
        """What somebody else does: files changed (deleted where ``None``) in one commit, whose id is returned."""
        with self._lock:
            changed = self.repositories[repository]
            snapshot = dict(changed.commits[changed.branches[branch]])
            for path, content in files.items():
                if content is None:
                    del snapshot[path]
                else:
                    snapshot[path] = file = File(content, _is_large(path, content, len(content)))
                    if file.lfs:
                        changed.objects[file.sha256] = content
            changed.branches[branch] = changed.add(snapshot, "by somebody else")
            return changed.branches[branch]

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository has at a revision, without the file that the Hub puts there itself."""
        found = self.repositories[repository]
        oid = found.find(revision)
        assert oid is not None, f"{repository} has no revision {revision!r}"
        return {path: file.content for path, file in found.commits[oid].items() if path != ".gitattributes"}

    def fail(
        self, method: str, path: str, what: Failure, times: int = 1, headers: dict[str, str] | None = None
    ) -> None:
        """Fail the next requests whose path, without query, matches the glob ``path``.

        ``what`` is a status; ``"cut"``: the connection ends while the request is read; ``"half"``: in the middle of
        the answer; ``"lost"``: after the work is done, before the answer.
        """
        self._failures.append(_Failure(method, path, what, times, headers or {}))

    def heal(self) -> None:
        """Fail no more."""
        self._failures.clear()

    def meanwhile(self, method: str, path: str, action: Callable[[], object]) -> None:
        """Run ``action`` once, right before the next request whose path matches the glob is worked on."""
        self._meanwhile.append((method, path, action))

    def seen(self, method: str = "*", path: str = "*") -> list[Request]:
        """The requests that came in so far, by method and path as globs."""
        return [one for one in self.requests if fnmatchcase(one.method, method) and fnmatchcase(one.path, path)]

    def leaks(self, token: str = WRITER) -> list[str]:
        """Where the token went that is no ``Authorization`` header of a request to the Hub itself."""
        found = []
        for one in self.requests:
            said = {name: value for name, value in one.headers.items() if name != "authorization"}
            elsewhere = one.headers["host"].startswith("localhost") and token in one.headers.get("authorization", "")
            if elsewhere or token in f"{one.path} {one.query} {said}" or token.encode() in one.body:
                found.append(f"{one.method} {one.path}")
        return found

    def environment(self, token: str | None = WRITER, **more: str) -> dict[str, str]:
        """The environment of a process that talks to this server, and to nobody else."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
        }
        return {**inherited, **self._settings(), **({"HF_TOKEN": token} if token else {}), **more}

    def use_here(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        """Turn the huggingface_hub of this process, which has read its environment already, to this server."""
        import huggingface_hub
        from huggingface_hub import constants, file_download, hf_api
        from huggingface_hub.utils import _http

        self._home = home
        for name in os.environ:
            if name.startswith(("HF_", "HUGGING")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        for name, value in self._settings().items():
            patch.setenv(name, value)
        patch.setenv("HF_TOKEN", WRITER)
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HUGGINGFACE_HUB_CACHE": str(home / "hub"),
            "HF_ASSETS_CACHE": str(home / "assets"),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }.items():
            patch.setattr(constants, name, value)
        patch.setattr(hf_api.api, "endpoint", self.url)
        clock = types.SimpleNamespace(**{**vars(time), "sleep": self.waits.append})
        patch.setattr(_http, "time", clock)
        patch.setattr(file_download, "time", clock)
        patch.setattr("zoo_harness.hub.client.sleep", self.waits.append)
        huggingface_hub.close_session()  # it may know a proxy, or connections that are gone

    def _settings(self) -> dict[str, str]:
        home = {"HF_HOME": str(self._home)} if self._home else {}
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            **home,
        }

    # What the handler uses.

    def injected(self, method: str, path: str) -> _Failure | None:
        with self._lock:
            for failure in self._failures:
                if failure.times and failure.method == method and fnmatchcase(path, failure.path):
                    failure.times -= 1
                    return failure
        return None

    def work(self, call: _Call) -> Answer:
        for waiting in [one for one in self._meanwhile if one[0] == call.method and fnmatchcase(call.path, one[1])]:
            self._meanwhile.remove(waiting)
            waiting[2]()
        for method, pattern, answer in _ROUTES:
            if method == call.method and (match := re.fullmatch(pattern, call.path)):
                with self._lock:
                    return answer(self, call, *map(unquote, match.groups()))
        raise Refused(404, f"no such address: {call.method} {call.path}")

    def account_of(self, headers: dict[str, str]) -> Account | None:
        given = headers.get("authorization")
        if given is None:
            return None
        account = self.accounts.get(given.removeprefix("Bearer "))
        if account is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return account

    def _readable(self, call: _Call, name: str) -> Repository:
        found = self.repositories.get(name)
        if found is None or (found.private and not _is_of(call.account, found.owner)):
            # The Hub does not tell what is missing from what is private.
            if call.account is None:
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return found

    def _writable(self, call: _Call, name: str) -> Repository:
        found = self._readable(call, name)
        if call.account is None:
            raise Refused(401, "Invalid username or password.")
        if not call.create_pr and not (_is_of(call.account, found.owner) and call.account.role == "write"):
            raise Refused(403, "Forbidden: you must use a write token of a member to change this repository")
        return found

    def _snapshot(self, call: _Call, name: str, revision: str) -> tuple[Repository, str, dict[str, File]]:
        found = self._readable(call, name)
        oid = found.find(revision)
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found, oid, found.commits[oid]

    # The addresses, in the order of the table below.

    def _whoami(self, call: _Call) -> Answer:
        if call.account is None:
            raise Refused(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "test", "role": call.account.role}}
        organisations = [{"type": "org", "name": name} for name in call.account.organisations]
        return Answer({"type": "user", "name": call.account.name, "orgs": organisations, "auth": access})

    def _create(self, call: _Call) -> Answer:
        asked = call.json()
        if call.account is None:
            raise Refused(401, "Invalid username or password.")
        owner = asked.get("organization") or call.account.name
        name = f"{owner}/{asked['name']}"
        if not re.fullmatch(r"[\w-][\w.-]*[\w-]|\w", asked["name"]) or "--" in name or ".." in name:
            raise Refused(400, f"Invalid repository name: {asked['name']}")
        if not _is_of(call.account, owner) or call.account.role != "write":
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        if name in self.repositories:
            raise Refused(409, "You already created this model repo", url=f"{self.url}/{name}")
        self.create(name, private=asked.get("visibility") == "private")
        return Answer({"url": f"{self.url}/{name}", "name": name})

    def _validate(self, call: _Call) -> Answer:
        content = call.json()["content"]
        fenced = re.match(r"---\r?\n(.*?)\r?\n---\s*?(\n|$)", content, re.DOTALL)
        try:
            metadata = yaml.safe_load(fenced[1]) if fenced else None
        except yaml.YAMLError as error:
            return Answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
        if metadata is None:
            return Answer({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        if not isinstance(metadata, dict) or not isinstance(metadata.get("model-index", []), list):
            return Answer({"errors": [{"message": '"metadata" must be an object'}], "warnings": []}, 400)
        return Answer({"errors": [], "warnings": []})

    def _preupload(self, call: _Call, name: str, revision: str) -> Answer:
        self._writable(call, name)
        _, _, present = self._snapshot(call, name, revision)
        return Answer({"files": [_upload_mode(asked, present) for asked in call.json()["files"]]})

    def _batch(self, call: _Call, name: str) -> Answer:
        asked = call.json()
        # The client leaves the branch out where it makes a pull request, for which reading is enough.
        found = self._writable(call, name) if "ref" in asked else self._readable(call, name)
        assert asked["operation"] == "upload"
        assert asked["hash_algo"] == "sha256"
        assert {"basic", "multipart"} <= set(asked["transfers"])
        return Answer(
            {"transfer": "basic", "objects": [self._instructions(found, **wanted) for wanted in asked["objects"]]},
            headers={"Content-Type": "application/vnd.git-lfs+json"},
        )

    def _instructions(self, repository: Repository, oid: str, size: int) -> dict[str, Any]:
        if oid in repository.objects:
            return {"oid": oid, "size": size}
        key = secrets.token_hex(8)
        self._uploads[key] = _Upload(repository, oid, size)
        storage = f"http://localhost:{self._server.server_port}/storage/{key}"
        upload: dict[str, Any] = {"href": storage, "header": {}}
        if self.part_size is not None and size > self.part_size:
            numbers = range(1, ceil(size / self.part_size) + 1)
            parts = {str(number): f"{storage}/{number}" for number in numbers}
            upload = {"href": f"{self.url}/complete/{key}", "header": {"chunk_size": str(self.part_size), **parts}}
        verify = {"href": f"{self.url}/{repository.id}.git/info/lfs/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _store(self, call: _Call, key: str, number: str = "1") -> Answer:
        upload = self._uploads[key]
        upload.parts[int(number)] = call.body
        return Answer(headers={"ETag": upload.etag(int(number))})

    def _complete(self, call: _Call, key: str) -> Answer:
        upload, asked = self._uploads[key], call.json()
        named = {part["partNumber"]: part["etag"] for part in asked["parts"]}
        if named != {number: upload.etag(number) for number in sorted(upload.parts)}:
            raise Refused(400, "parts are missing, or are others")
        return Answer({})

    def _verify(self, call: _Call, name: str) -> Answer:
        found, asked = self._readable(call, name), call.json()
        for upload in self._uploads.values():
            content = b"".join(upload.parts[number] for number in sorted(upload.parts))
            whole = hashlib.sha256(content).hexdigest() == asked["oid"] and len(content) == asked["size"]
            if upload.repository is found and upload.oid == asked["oid"] and whole:
                found.objects[upload.oid] = content
                return Answer({})
        raise Refused(404, "object is not there, or has another digest")

    def _commit(self, call: _Call, name: str, revision: str) -> Answer:
        found = self._writable(call, name)
        if revision not in found.branches:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in call.body.splitlines()]
        header = lines[0]["value"]
        head = found.branches[revision]
        parent = header.get("parentCommit", head)
        if not call.create_pr and not head.startswith(parent):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        snapshot = dict(found.commits[found.find(parent) or head])
        for line in lines[1:]:
            _apply(line["key"], line["value"], snapshot, found)
        oid = found.add(snapshot, header["summary"])
        pull = None
        if call.create_pr:
            number = len(found.pulls) + 1
            found.pulls[f"refs/pr/{number}"] = oid
            pull = f"{self.url}/{name}/discussions/{number}"
        else:
            found.branches[revision] = oid
        return Answer({"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid, "pullRequestUrl": pull})

    def _tag(self, call: _Call, name: str, revision: str) -> Answer:
        found = self._writable(call, name)
        _, oid, _ = self._snapshot(call, name, revision)
        tag = call.json()["tag"]
        if not re.fullmatch(r"[\w][\w.-]*(?<!\.lock)(?<!\.)", tag) or ".." in tag:
            raise Refused(400, f"Invalid tag: {tag}")
        if tag in found.tags:
            raise Refused(409, "Tag reference exists already")
        found.tags[tag] = oid
        return Answer({})

    def _branch(self, call: _Call, name: str, branch: str) -> Answer:
        found = self._writable(call, name)
        if branch in found.branches:
            raise Refused(409, "Reference exists already")
        start = (json.loads(call.body) if call.body else {}).get("startingPoint", "main")
        found.branches[branch] = self._snapshot(call, name, start)[1]
        return Answer({})

    def _refs(self, call: _Call, name: str) -> Answer:
        found = self._readable(call, name)
        described = {
            "branches": _references("refs/heads/", found.branches),
            "tags": _references("refs/tags/", found.tags),
            "converts": [],
        }
        if "include_prs" in call.query:
            described["pullRequests"] = _references("", found.pulls)
        return Answer(described)

    def _tree(self, call: _Call, name: str, revision: str) -> Answer:
        _, _, files = self._snapshot(call, name, revision)
        folders = {path.rsplit("/", 1)[0] for path in files if "/" in path}
        listed = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders)]
        listed += [_listed(path, file) for path, file in sorted(files.items())]
        start = int(call.query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.page < len(listed):
            address = f"{self.url}{call.path}?recursive=true&expand=false&cursor={start + self.page}"
            headers["Link"] = f'<{address}>; rel="next"'
        return Answer(listed[start : start + self.page], headers=headers)

    def _info(self, call: _Call, name: str, revision: str = "main") -> Answer:
        found, oid, files = self._snapshot(call, name, revision)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
        if "blobs" in call.query:
            siblings = [{"rfilename": path, **_listed(path, file)} for path, file in sorted(files.items())]
        about = {"id": name, "modelId": name, "author": found.owner, "sha": oid, "private": found.private}
        return Answer({**about, "gated": "manual" if found.gated else False, "tags": [], "siblings": siblings})

    def _resolve(self, call: _Call, name: str, revision: str, path: str) -> Answer:
        found, oid, files = self._snapshot(call, name, revision)
        if found.gated and not _is_of(call.account, found.owner):
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            raise Refused(401 if call.account is None else 403, message, "GatedRepo")
        headers = {"X-Repo-Commit": oid}
        if path not in files:
            refused = Refused(404, "Entry not found", "EntryNotFound")
            refused.headers |= headers
            raise refused
        file = files[path]
        if path in self.tampered:
            return _content(call, self.tampered[path], headers | {"ETag": f'"{file.etag}"'})
        if not file.lfs:
            return _content(call, file.content, headers | {"ETag": f'"{file.etag}"'})
        linked = {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        place = f"http://localhost:{self._server.server_port}/content/{quote(name)}/{file.sha256}"
        return Answer(f"Found. Redirecting to {place}", 302, headers | linked | {"Location": place})

    def _lfs_content(self, call: _Call, name: str, oid: str) -> Answer:
        return _content(call, self.repositories[name].objects[oid], {"ETag": f'"{oid}"'})


@dataclass
class _Failure:
    method: str
    path: str
    what: Failure
    times: int
    headers: dict[str, str]


@dataclass
class _Upload:
    repository: Repository
    oid: str
    size: int
    parts: dict[int, bytes] = field(default_factory=dict)

    def etag(self, number: int) -> str:
        return f'"{hashlib.md5(self.parts[number], usedforsecurity=False).hexdigest()}"'


_ID = r"([^/]+/[^/]+?)"
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", r"/api/whoami-v2", Hub._whoami),
    ("POST", r"/api/repos/create", Hub._create),
    ("POST", r"/api/validate-yaml", Hub._validate),
    ("POST", rf"/api/models/{_ID}/preupload/([^/]+)", Hub._preupload),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", Hub._batch),
    ("PUT", r"/storage/(\w+)", Hub._store),
    ("PUT", r"/storage/(\w+)/(\d+)", Hub._store),
    ("POST", r"/complete/(\w+)", Hub._complete),
    ("POST", rf"/{_ID}\.git/info/lfs/verify", Hub._verify),
    ("POST", rf"/api/models/{_ID}/commit/([^/]+)", Hub._commit),
    ("POST", rf"/api/models/{_ID}/tag/([^/]+)", Hub._tag),
    ("POST", rf"/api/models/{_ID}/branch/([^/]+)", Hub._branch),
    ("GET", rf"/api/models/{_ID}/refs", Hub._refs),
    ("GET", rf"/api/models/{_ID}/tree/([^/]+)", Hub._tree),
    ("GET", rf"/api/models/{_ID}", Hub._info),
    ("GET", rf"/api/models/{_ID}/revision/([^/]+)", Hub._info),
    ("HEAD", rf"/{_ID}/resolve/([^/]+)/(.+)", Hub._resolve),
    ("GET", rf"/{_ID}/resolve/([^/]+)/(.+)", Hub._resolve),
    ("HEAD", rf"/content/{_ID}/(\w+)", Hub._lfs_content),
    ("GET", rf"/content/{_ID}/(\w+)", Hub._lfs_content),
]


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, has the Hub work on it or fail, writes the answer."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.hub._connections.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client is gone, or a test cut it off
            self.close_connection = True

    def _serve(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        headers = {name.lower(): value for name, value in self.headers.items()}
        failure = self.hub.injected(self.command, address.path)
        what = failure.what if failure else None
        body = self._read_body(headers, half=what == "cut")
        call = _Call(self.command, address.path, query, headers, body, None)
        answer = None if what == "cut" else self._answer(call, failure)
        cut = what in ("cut", "lost")
        status = None if cut or answer is None else answer.status
        self.hub.requests.append(Request(self.command, address.path, query, headers, body, status))
        if cut or answer is None:
            self.close_connection = True
            _cut(self.connection)
        else:
            self._write(answer, half=what == "half")

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _answer(self, call: _Call, failure: _Failure | None) -> Answer:
        if failure is not None and isinstance(failure.what, int):
            message = {"error": f"failed by the test with {failure.what}"}
            return Answer(message, failure.what, dict(failure.headers))
        try:
            call.account = self.hub.account_of(call.headers)
            return self.hub.work(call)
        except Refused as refused:
            return Answer(refused.body, refused.status, refused.headers)
        except Exception as error:  # what the real Hub answers to its own faults
            return Answer({"error": f"{type(error).__name__}: {error}"}, 500)

    def _read_body(self, headers: dict[str, str], *, half: bool) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        length = int(headers.get("content-length", 0))
        return self.rfile.read(length // 2 if half else length)

    def _write(self, answer: Answer, *, half: bool) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        kind = "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
        self.send_response(answer.status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.close_connection = True
            _cut(self.connection)

    def log_message(self, *_: Any) -> None:
        pass


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed already
        connection.shutdown(socket.SHUT_RDWR)


def _is_of(account: Account | None, owner: str) -> bool:
    return account is not None and owner in (account.name, *account.organisations)


def _is_large(path: str, beginning: bytes, size: int) -> bool:
    return path.endswith((".safetensors", ".bin", ".pt", ".h5")) or b"\0" in beginning[:512] or size > 10 * 2**20


def _upload_mode(asked: dict[str, Any], present: dict[str, File]) -> dict[str, Any]:
    path = asked["path"]
    large = _is_large(path, base64.b64decode(asked["sample"]), asked["size"])
    known = {"oid": present[path].etag} if path in present else {}
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known}


def _apply(key: str, value: dict[str, Any], snapshot: dict[str, File], repository: Repository) -> None:
    path = value["path"]
    if path.startswith("/") or {"..", ".git", ""} & set(path.rstrip("/").split("/")):
        raise Refused(400, f"Invalid path: {path}")
    if key == "file":
        try:
            snapshot[path] = File(base64.b64decode(value["content"], validate=True), lfs=False)
        except binascii.Error as error:
            raise Refused(400, f"{path}: {error}") from error
    elif key == "lfsFile":
        if value["oid"] not in repository.objects:
            raise Refused(422, f"{path}: LFS object {value['oid']} was not uploaded")
        snapshot[path] = File(repository.objects[value["oid"]], lfs=True)
    elif key == "deletedFile":
        if path not in snapshot:
            raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        del snapshot[path]
    elif key == "deletedFolder":
        for name in [name for name in snapshot if name.startswith(path.rstrip("/") + "/")]:
            del snapshot[name]
    else:
        raise Refused(400, f"unknown operation {key}")


def _references(prefix: str, names: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "ref": f"{prefix}{name}", "targetCommit": oid} for name, oid in names.items()]


def _listed(path: str, file: File) -> dict[str, Any]:
    size = len(file.content)
    about: dict[str, Any] = {"type": "file", "oid": file.blob, "blobId": file.blob, "size": size, "path": path}
    if file.lfs:
        about["lfs"] = {"oid": file.sha256, "sha256": file.sha256, "size": size, "pointerSize": len(file.pointer)}
    return about


def _content(call: _Call, content: bytes, headers: dict[str, str]) -> Answer:
    headers = {**headers, "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-", call.headers.get("range", ""))
    if asked is None:
        return Answer(content, 200, headers)
    start = int(asked[1])
    if start >= len(content):
        return Answer(b"", 416, headers | {"Content-Range": f"bytes */{len(content)}"})
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return Answer(content[start:], 206, headers | {"Content-Range": span})
