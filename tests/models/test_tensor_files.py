"""Weight files: every fault is an error of one line with the file's name, and no code of a file runs."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo import WeightsError
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.util.digests import sha256_of

TENSORS = {"z.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "n": torch.tensor(7)}


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "zip.pth": torch.save,
    "legacy.pt": save_legacy,
    "net.safetensors": save_file,
}


def refusal(path: Path) -> WeightsError:
    """Read a file that must be refused, and return its error."""
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable(), f"an error is one line: {caught.value!r}"
    return caught.value


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_tensors_that_were_saved(tmp_path: Path, name: str) -> None:
    WRITERS[name](TENSORS, tmp_path / name)
    found = read_tensors(tmp_path / name)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in TENSORS.items())


def test_pickles_keep_the_order_of_the_file(tmp_path: Path) -> None:
    assert list(read_tensors(saved(tmp_path / "a.bin", TENSORS))) == ["z.weight", "a.bias", "n"]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_training_checkpoint_is_unwrapped(tmp_path: Path, wrapper: str) -> None:
    path = saved(tmp_path / "a.pth", {"epoch": 3, wrapper: TENSORS, "optimizer": {"lr": 0.1}})
    assert read_tensors(path).keys() == TENSORS.keys()


def test_parameters_count_as_tensors(tmp_path: Path) -> None:
    found = read_tensors(saved(tmp_path / "a.pth", dict(torch.nn.Linear(2, 3).named_parameters())))
    assert found["weight"].shape == (3, 2)


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def save_bare_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_bare_pickle])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    trace = tmp_path / "was here"
    save({"a": Malicious(trace)}, tmp_path / "a.pth")
    error = refusal(tmp_path / "a.pth")
    assert not trace.exists()
    assert error.code == "file-unsafe"
    assert "UnpicklingError: Trying to load unsupported GLOBAL posix.mkdir" in str(error)
    assert "weights_only" not in str(error), "no advice to disable the protection"


def test_a_bare_pickle_of_today_is_refused_without_a_warning_before(tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"a": Malicious(trace)}, protocol=4))
    # torch warns of that protocol, and here a warning would be an error.
    assert refusal(tmp_path / "a.pth").code == "file-unsafe"
    assert not trace.exists()


def test_whole_module_is_refused_with_its_class(tmp_path: Path) -> None:
    assert "torch.nn.modules.linear.Linear" in str(refusal(saved(tmp_path / "a.pth", torch.nn.Linear(2, 2))))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.ones(1)], "list"),
        (torch.ones(1), "Tensor"),
        ({}, "dict without tensors"),
        ({"state_dict": {}}, "dict without tensors"),
        ({"a": torch.ones(1), "epoch": 3}, "'epoch' as int"),
        ({"model": {"a": torch.ones(1), "note": "x"}}, "'note' as str"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, found: str) -> None:
    error = refusal(saved(tmp_path / "a.pth", content))
    assert error.code == "file-kind"
    assert f"found {found}" in str(error)


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"<!DOCTYPE html>\n<html>\n"], ids=["empty", "noise", "page"])
def test_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).code in ("file-unreadable", "file-unsafe")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_missing_file_and_folder_are_refused(tmp_path: Path, name: str) -> None:
    assert "No such file" in str(refusal(tmp_path / name))
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name).code == "file-unreadable"


@pytest.mark.parametrize("name", ["a.npz", "a.onnx", "safetensors", "h5"])
def test_other_suffix_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path / name)
    assert error.code == "file-kind"
    assert ".safetensors, .pth, .pt, .bin, .h5" in str(error)


# Torch warns of odd pickle protocols, and a flipped byte can be one.
@pytest.mark.parametrize("name", WRITERS)
def test_no_damage_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](TENSORS, path)
    whole = path.read_bytes()
    for damaged in [*truncated(whole), *with_flipped_bytes(whole)]:
        path.write_bytes(damaged)
        outcome = tensors_or_refusal(path)
        # A flipped byte may lie in a tensor's values or in padding; a missing end never goes unnoticed.
        assert isinstance(outcome, str) or len(damaged) == len(whole)


def truncated(whole: bytes) -> list[bytes]:
    return [whole[:length] for length in range(0, len(whole), max(1, len(whole) // 50))]


def with_flipped_bytes(whole: bytes) -> list[bytes]:
    generator = np.random.default_rng(0)
    damaged = []
    for _case in range(100):
        copy = np.frombuffer(whole, np.uint8).copy()
        copy[generator.integers(len(copy))] = generator.integers(256)
        damaged.append(copy.tobytes())
    return damaged


def tensors_or_refusal(path: Path) -> dict[str, Tensor] | str:
    try:
        return read_tensors(path)
    except WeightsError as error:
        return str(error)


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()
