"""The code a network is made of, as a digest: what its modules do may change while its weights and version do not."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from torch import nn

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
