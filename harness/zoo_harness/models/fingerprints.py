"""Compute SHA-256 digests of a network's tensors and of the source files that define the network."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

_BY_VERSION = frozenset({"torch", "torchvision", "timm", "builtins"})  # cache keys contain the versions
_MOST_FILES = 2_000


def digest_of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and values of tensors, as 64 hexadecimal digits.

    The order, the device and the memory format of the tensors do not change the digest. The cache of the frozen part's
    outputs uses the digest of all parameters and buffers of the frozen part, including running statistics.

    >>> ones = torch.ones(2, 3)
    >>> digest_of_tensors([("weight", ones)]) == digest_of_tensors([("weight", ones.double())])
    False
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as executor:  # hashlib releases the GIL
        digests = sorted(executor.map(_digest_of_one, tensors))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _digest_of_one(named: tuple[str, Tensor]) -> bytes:
    name, tensor = named
    digest = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def digest_of_source(network: nn.Module, made_by: str = "") -> str:
    """Return the SHA-256 of the Python files of all packages that define modules of a network; ``""`` without files.

    ``made_by`` names the function that built the network, as ``module:function``; the function's package is included.
    The digest excludes torch, torchvision and timm, because zoo records their versions. If a script defines a module
    class, the script file is included.

    >>> digest_of_source(nn.Sequential(nn.Linear(2, 2)))
    ''
    """
    homes = {made_by.partition(":")[0], *(type(module).__module__ for module in network.modules())} - {""}
    packages = {home.partition(".")[0] for home in homes} - _BY_VERSION
    files = sorted({path for package in packages for path in _files_of(package)})
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest() if files else ""


def _files_of(package: str) -> list[Path]:
    module = sys.modules.get(package)
    folders = [Path(folder) for folder in getattr(module, "__path__", [])]
    found = [path for folder in folders for path in sorted(folder.rglob("*.py"))[:_MOST_FILES]]
    found.append(Path(getattr(module, "__file__", None) or ""))
    return [path for path in found if path.suffix == ".py" and path.is_file()]
