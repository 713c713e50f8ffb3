"""Downloads: the file appears when it is complete and its digest is verified, and never before."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from torch import nn

from zoo import Backbone, KerasWeights, UnreachableError, WeightsError
from zoo_harness.models.weights import load_weights
from zoo_harness.util.digests import md5_of
from zoo_harness.util.download import fetch

CONTENT = bytes(range(256)) * 20_000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Shop(BaseHTTPRequestHandler):
    """Sends the file whole, half, half without its length, not at all, or stops sending."""

    def do_GET(self) -> None:
        if self.path == "/missing.h5":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unannounced.h5":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole.h5" else CONTENT[: len(CONTENT) // 2])
        if self.path == "/silent.h5":
            self.wfile.flush()
            self.connection.recv(1)  # until the client gives up

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_complete_file_arrives_and_nothing_else(shop: str, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "net.h5"
    fetch(f"{shop}/whole.h5", target, md5=MD5)
    assert target.read_bytes() == CONTENT
    assert md5_of(target) == MD5
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("half.h5", "the connection was cut after 2,560,000 of 5,120,000 bytes"),
        ("missing.h5", "HTTP Error 404: Not Found"),
        ("silent.h5", "timed out"),
    ],
)
def test_a_failed_download_leaves_nothing(shop: str, tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(OSError, match=reason):
        fetch(f"{shop}/{name}", tmp_path / "net.h5", md5=MD5, timeout=0.3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "md5"), [("whole.h5", "0" * 32), ("unannounced.h5", MD5)])
def test_a_file_with_another_digest_is_not_kept(shop: str, tmp_path: Path, name: str, md5: str) -> None:
    earlier = tmp_path / "net.h5"
    earlier.write_text("the earlier file")
    with pytest.raises(WeightsError) as caught:
        fetch(f"{shop}/{name}", earlier, md5=md5)
    assert (caught.value.code, caught.value.facts["url"]) == ("digest-mismatch", f"{shop}/{name}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the earlier file"]


def test_a_response_that_is_not_http_is_an_os_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 smtp ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionError, match="BadStatusLine: 220 smtp ready"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/net.h5", tmp_path / "net.h5", md5=MD5)
        thread.join()


# A published file that is not here yet


def published(port: int) -> KerasWeights:
    return KerasWeights(f"https://127.0.0.1:{port}/models/", "net.h5", md5=MD5)


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return tmp_path


def unreachable(backbone: Backbone, source: KerasWeights) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        load_weights(nn.Identity(), backbone, source)
    return caught.value


def test_the_error_lists_every_place(tiny_resnet: Backbone, keras_home: Path, shop: str) -> None:
    source = published(int(shop.rpartition(":")[2]))  # which speaks no https
    (here, reason), (there, words) = unreachable(tiny_resnet, source).tried
    assert (here, reason) == (str(keras_home / "models" / "net.h5"), "no such file")
    assert there == source.url
    assert "SSL" in words
    assert list((keras_home / "models").iterdir()) == []


def test_offline_mode_asks_nobody(
    tiny_resnet: Backbone, keras_home: Path, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "create_connection", never)
    source = published(int(shop.rpartition(":")[2]))
    assert unreachable(tiny_resnet, source).tried[1] == (source.url, "HF_HUB_OFFLINE is set")
    assert list(keras_home.iterdir()) == []


def test_a_host_that_does_not_exist(tiny_resnet: Backbone, keras_home: Path, shop: str) -> None:
    source = KerasWeights("https://no-such-host.invalid/", "net.h5", md5=MD5)
    assert unreachable(tiny_resnet, source).tried[1][1].startswith("no network: host no-such-host.invalid does not")


def test_a_folder_that_cannot_be_created(tiny_resnet: Backbone, keras_home: Path, shop: str) -> None:
    (keras_home / "models").write_text("a file where the folder should be")
    assert "File exists" in unreachable(tiny_resnet, published(int(shop.rpartition(":")[2]))).tried[1][1]
