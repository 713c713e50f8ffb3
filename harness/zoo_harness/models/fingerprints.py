"""A digest of tensors by name, dtype, shape and value, whatever device, order or memory format they are in."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn


def digest_of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 of named tensors as 64 hexadecimal digits; their order does not matter.

    For the key of kept outputs these are all parameters and buffers of the frozen part, running statistics too.

    >>> ones = torch.ones(2, 3)
    >>> digest_of_tensors([("weight", ones)]) == digest_of_tensors([("weight", ones.double())])
    False
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as executor:  # hashlib lets other threads run
        digests = sorted(executor.map(_digest_of_one, tensors))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest_of_one(named: tuple[str, Tensor]) -> bytes:
    name, tensor = named
    digest = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


_BY_VERSION = frozenset({"torch", "torchvision", "timm", "builtins"})  # whose versions are in every key
_MOST_FILES = 2_000


def digest_of_source(network: nn.Module, made_by: str = "") -> str:
    """The SHA-256 of the Python files of every package that defines a module of the network; empty where none does.

    ``made_by`` names the function that made it, ``module:function``, whose package counts too.

    torch, torchvision and timm are left out: they are told by their versions. Of a class that was defined in a program
    itself, that program's file counts.

    >>> digest_of_source(nn.Sequential(nn.Linear(2, 2)))
    ''
    """
    homes = {made_by.partition(":")[0], *(type(module).__module__ for module in network.modules())} - {""}
    packages = sorted({home.partition(".")[0] for home in homes} - _BY_VERSION)
    files = sorted({path for package in packages for path in _files_of(package)})
    if not files:
        return ""
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _files_of(package: str) -> list[Path]:
    source = getattr(sys.modules.get(package), "__file__", None)
    folders = [Path(folder) for folder in getattr(sys.modules.get(package), "__path__", [])]
    found = [path for folder in folders for path in sorted(folder.rglob("*.py"))[:_MOST_FILES]]
    if source is not None and source.endswith(".py"):
        found.append(Path(source))
    return [path for path in found if path.is_file()]
