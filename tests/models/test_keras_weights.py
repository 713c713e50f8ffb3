"""Keras' H5 files: tensors in torch's layout; damaged, other and hostile files are refused in one line."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import Backbone, FactoryArchitecture, FeatureLayer, FileWeights, Head, KerasWeights, WeightsError
from zoo_harness.models.keras_weights import named_as_in, network_of, read_keras_tensors
from zoo_harness.models.weights import load_weights

SOME = np.random.default_rng(0)
CONVOLUTION = SOME.normal(size=(3, 5, 2, 4)).astype("float32")  # height, width, in, out
LAYERS: dict[str, dict[str, np.ndarray]] = {
    "input_1": {},
    "conv1_conv": {"kernel": CONVOLUTION, "bias": np.arange(4, dtype="float32")},
    "conv1_bn": {
        name: SOME.uniform(1, 2, 4).astype("float32") for name in ("gamma", "beta", "moving_mean", "moving_variance")
    },
    "predictions": {"kernel": SOME.normal(size=(4, 3)).astype("float32"), "bias": np.zeros(3, "float32")},
}


def network() -> nn.Module:
    """What ``LAYERS`` are the weights of, its convolution and BatchNorm inside a module ``conv1``."""
    net = nn.Sequential()
    net.add_module("conv1", nn.Sequential())
    net.conv1.add_module("conv", nn.Conv2d(2, 4, (3, 5)))  # type: ignore[operator, union-attr]
    net.conv1.add_module("bn", nn.BatchNorm2d(4))  # type: ignore[operator, union-attr]
    net.add_module("predictions", nn.Linear(4, 3))
    return net


BACKBONE = Backbone(
    name="tiny_keras",
    architecture=FactoryArchitecture("tests:network"),
    weights=KerasWeights("https://no-such-host.invalid/models/", "tiny.h5", md5="0" * 32),
    unfreeze=("conv1",),
    head=Head("predictions"),
    features=(FeatureLayer("conv1", 4),),
    license="mit",
    paper=None,
    pretrained_on=None,
    imagenet_top1=None,
)


def write(path: Path, layers: dict[str, dict[str, Any]] = LAYERS, root: str = "/") -> Path:
    """Write the layout as Keras does; a value may be a function that puts its own dataset into the group."""
    with h5py.File(path, "w") as file:
        top = file.require_group(root)
        top.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for layer, weights in layers.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in weights]
            for name, values in weights.items():
                if callable(values):
                    values(group.require_group(layer), f"{name}:0")
                else:
                    group[f"{layer}/{name}:0"] = values
    return path


def refusal(path: Path, act: Callable[[Path], object] = read_keras_tensors) -> WeightsError:
    """Read a file that must be refused, and return its error."""
    with pytest.raises(WeightsError) as caught:
        act(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable(), f"an error is one line: {caught.value!r}"
    return caught.value


def assert_same(found: dict[str, Tensor], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert torch.equal(found[name], torch.from_numpy(np.ascontiguousarray(values))), name


EXPECTED = {
    "conv1_conv.weight": CONVOLUTION.transpose(3, 2, 0, 1),
    "conv1_conv.bias": LAYERS["conv1_conv"]["bias"],
    "conv1_bn.weight": LAYERS["conv1_bn"]["gamma"],
    "conv1_bn.bias": LAYERS["conv1_bn"]["beta"],
    "conv1_bn.running_mean": LAYERS["conv1_bn"]["moving_mean"],
    "conv1_bn.running_var": LAYERS["conv1_bn"]["moving_variance"],
    "predictions.weight": LAYERS["predictions"]["kernel"].T,
    "predictions.bias": LAYERS["predictions"]["bias"],
}


# Contents of a file


@pytest.mark.parametrize("root", ["/", "model_weights"])
def test_tensors_are_named_by_layer_and_laid_out_as_torch_does(tmp_path: Path, root: str) -> None:
    assert_same(read_keras_tensors(write(tmp_path / "net.h5", root=root)), EXPECTED)


def cut_up(group: Any, attribute: str, parts: int) -> None:
    names = group.attrs[attribute]
    del group.attrs[attribute]
    for number, part in enumerate(np.array_split(names, parts)):
        group.attrs[f"{attribute}{number}"] = part


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_attributes_may_be_cut_up(tmp_path: Path, parts: int) -> None:
    path = write(tmp_path / "net.h5")
    with h5py.File(path, "a") as file:
        cut_up(file, "layer_names", parts)
        cut_up(file["conv1_bn"], "weight_names", parts)
    assert_same(read_keras_tensors(path), EXPECTED)


def test_depthwise_convolution_gives_what_its_definition_says(tmp_path: Path) -> None:
    kernel = SOME.normal(size=(3, 3, 2, 4))  # height, width, in, multiplier
    images = SOME.normal(size=(1, 2, 3, 3))
    weight = read_keras_tensors(write(tmp_path / "net.h5", {"dw": {"depthwise_kernel": kernel}}))["dw.weight"]
    given = torch.nn.functional.conv2d(torch.from_numpy(images), weight, groups=2).flatten().numpy()
    # Keras: output channel c * multiplier + m is that of input channel c.
    expected = np.einsum("chw,hwcm->cm", images[0], kernel).flatten()
    assert np.allclose(given, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
def test_every_float_is_read_in_any_byte_order(tmp_path: Path, dtype: str) -> None:
    values = np.arange(4).astype(dtype)
    found = read_keras_tensors(write(tmp_path / "net.h5", {"a": {"bias": values}}))["a.bias"]
    assert found.tolist() == [0, 1, 2, 3]
    assert found.element_size() == values.itemsize


def test_layers_find_their_modules_whatever_is_nested() -> None:
    ours = ["conv5.block1.1_bn.weight", "conv1_conv.bias", "post_bn.running_var"]
    theirs = ["conv5_block1_1_bn.weight", "conv1_conv.bias", "post_bn.running_var", "other_bn.bias"]
    named = named_as_in(ours, {name: torch.ones(1) for name in theirs})
    assert list(named) == [*ours, "other_bn.bias"]


@pytest.mark.parametrize("notop", [False, True], ids=["full", "notop"])
def test_file_is_loaded_and_recorded(tmp_path: Path, notop: bool) -> None:
    layers = {name: weights for name, weights in LAYERS.items() if not (notop and name == "predictions")}
    path = write(tmp_path / "net.h5", layers)
    net = network()
    own = net.state_dict()["predictions.weight"].clone()
    record = load_weights(net, BACKBONE, FileWeights(str(path)))
    state = net.state_dict()
    assert torch.equal(state["conv1.conv.weight"], torch.from_numpy(CONVOLUTION.transpose(3, 2, 0, 1).copy()))
    assert state["conv1.bn.running_var"].tolist() == LAYERS["conv1_bn"]["moving_variance"].tolist()
    assert torch.equal(state["predictions.weight"], own) is notop
    assert (record.kind, record.filename) == ("file", "net.h5")
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


# Files that are refused


def test_without_h5py_the_error_advises_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert refusal(path).code == "h5py-missing"
    with pytest.raises(WeightsError, match=r"weights of 'tiny_keras': .* pip install 'blockzoo\[keras\]'") as caught:
        load_weights(network(), BACKBONE, BACKBONE.weights)
    assert caught.value.code == "h5py-missing"


def test_no_file_is_read_that_is_cut_short(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "net.h5"
    for length in (*range(0, 600, 7), *range(600, len(whole), 997), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert refusal(path).code == ("file-damaged" if length >= 8 else "file-kind"), length


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\x80\x04\x95"], ids=["empty", "page", "pickle"])
def test_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.h5").write_bytes(content)
    assert refusal(tmp_path / "net.h5").code == "file-kind"


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "net.h5").code == "file-unreadable"


def test_keras_3_files_are_refused_with_advice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"")
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = CONVOLUTION
    for name in ("net.keras", "net.weights.h5"):
        error = refusal(tmp_path / name)
        assert error.code == "file-kind"
        assert str(error).endswith("load the file in Keras and save it with model.save('net.h5')")


def test_h5_file_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    error = refusal(path)
    assert error.code == "file-kind"
    assert str(error).endswith("the file has 'images'")


def elsewhere(group: Any, name: str) -> None:
    group[name] = h5py.ExternalLink("other.h5", "/secret")


def soft(group: Any, name: str) -> None:
    group[name] = h5py.SoftLink("/conv1_conv/conv1_conv/kernel:0")


def external_storage(group: Any, name: str) -> None:
    group.create_dataset(name, (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (4,))
    group.create_virtual_dataset(name, layout)


def never_written(group: Any, name: str) -> None:
    group.create_dataset(name, (2**40,), "f4")


def bomb(group: Any, name: str) -> None:
    group.create_dataset(name, data=np.zeros(10**6, "f4"), compression="gzip")


def whole_numbers(group: Any, name: str) -> None:
    group[name] = np.arange(4)


@pytest.mark.parametrize(
    ("put", "code"),
    [
        (elsewhere, "file-unsafe"),
        (soft, "file-unsafe"),
        (external_storage, "file-unsafe"),
        (virtual, "file-unsafe"),
        (never_written, "file-damaged"),
        (bomb, "file-damaged"),
        (whole_numbers, "file-damaged"),
        (lambda group, name: group.create_group(name), "file-damaged"),
        (lambda _group, _name: None, "file-damaged"),
    ],
)
def test_hostile_or_damaged_tensor_is_refused_unread(
    tmp_path: Path, put: Callable[[Any, str], object], code: str
) -> None:
    error = refusal(write(tmp_path / "net.h5", {"a": {"bias": put}}))
    assert error.code == code
    assert "'a/bias:0'" in str(error)


def test_one_dataset_under_many_names_may_not_outgrow_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", {f"layer{number}": {} for number in range(50)})
    with h5py.File(path, "a") as file:
        file["layer0/bias:0"] = np.zeros(10**5, "f4")
        for number in range(50):
            layer = file[f"layer{number}"]
            layer.attrs["weight_names"] = [b"bias:0"]
            if number:
                layer["bias:0"] = file["layer0/bias:0"]
    assert "more bytes than the file has" in str(refusal(path))


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (np.arange(3), "is not a list of names"),
        (np.array([b"a" * 2000]), "is not a list of names"),
        (np.array([b"a"] * 10_001), "is not a list of names"),
        (["a" * 2000], "lists 'aaaa"),
        (["a\nb"], r"lists 'a\nb'"),
        (["a/../b"], "group 'a/../b' of '/' is listed but missing"),
        (["/a"], "group '/a' of '/' is listed but missing"),
        (["nowhere"], "group 'nowhere' of '/' is listed but missing"),
    ],
)
def test_names_that_keras_never_writes(tmp_path: Path, names: Any, fault: str) -> None:
    path = write(tmp_path / "net.h5", {"a": {"bias": np.zeros(1)}})
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = names
    error = refusal(path)
    assert error.code == "file-damaged"
    assert fault in str(error)


@pytest.mark.parametrize(
    "layer",
    [{"count": np.zeros(1)}, {"kernel": np.zeros((1, 2, 3))}, {"kernel": np.zeros((1, 1)), "gamma": np.zeros(1)}],
    ids=["unknown variable", "3-D kernel", "two weights"],
)
def test_layer_of_an_unknown_kind(tmp_path: Path, layer: dict[str, Any]) -> None:
    assert refusal(write(tmp_path / "net.h5", {"a": layer})).code == "file-damaged"


def test_code_in_a_model_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "net.h5", root="model_weights")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = '{"class_name": "Lambda", "config": {"function": ["broken", null, null]}}'
    assert_same(read_keras_tensors(path), EXPECTED)


# Files of another network


def loading(path: Path) -> object:
    return load_weights(network(), BACKBONE, FileWeights(str(path)))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"conv1_bn": {}}, "conv1.bn.weight: missing; conv1.bn.bias: missing; "),
        ({"conv2_bn": {"gamma": np.ones(2)}}, "conv2_bn.weight: not in the network"),
        (
            {"conv1_conv": {"kernel": np.zeros((5, 3, 2, 4), "f4"), "bias": np.zeros(4, "f4")}},
            "conv1.conv.weight: the file has float32 (4, 2, 5, 3), the network float32 (4, 2, 3, 5)",
        ),
        # The network is named if its layers identify it.
        (
            {"conv4_block6_preact_bn": {"gamma": np.ones(1)}, "conv4_block1_preact_bn": {}},
            "; by its layers it is Keras' ResNet50V2",
        ),
    ],
)
def test_missing_unused_and_other_layers(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    error = refusal(write(tmp_path / "net.h5", {**LAYERS, **changes}), loading)
    assert error.code == "weights-mismatch"
    assert fault in str(error)


def test_file_without_a_layer_of_the_network(tmp_path: Path) -> None:
    layers = {f"block5_conv{number}": {"bias": np.ones(1)} for number in range(1, 5)}
    error = refusal(write(tmp_path / "a.h5", layers), loading)
    assert error.code == "weights-mismatch"
    assert "conv1.conv.weight: missing" in str(error)
    assert str(error).endswith("; by its layers it is Keras' VGG19")


def test_unknown_network_has_no_name() -> None:
    assert network_of(["dense_1", "dense_2"]) is None


# The published file


def test_published_file_is_found_where_keras_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = tmp_path / "models" / "tiny.h5"
    path.parent.mkdir()
    assert BACKBONE.weights.describe() == "keras tiny.h5"
    assert BACKBONE.weights.locate() is None
    write(path)
    assert BACKBONE.weights.locate() == path
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".keras").mkdir(parents=True)
    path.parent.rename(tmp_path / "home" / ".keras" / "models")
    assert BACKBONE.weights.locate() == tmp_path / "home" / ".keras" / "models" / "tiny.h5"


def test_declared_file_is_checked_against_its_md5_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    path = write(tmp_path / "models" / "tiny.h5")
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    assert refusal(path, lambda _path: load_weights(network(), BACKBONE, BACKBONE.weights)).code == "digest-mismatch"
    source = KerasWeights("https://no-such-host.invalid/models/", "tiny.h5", md5=md5)
    declared = Backbone(**{**vars(BACKBONE), "weights": source})
    record = load_weights(network(), declared, source)
    assert (record.kind, record.source, record.filename) == ("keras", "https://no-such-host.invalid/models/", "tiny.h5")
    assert (record.declared, record.license) == (True, "mit")
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
