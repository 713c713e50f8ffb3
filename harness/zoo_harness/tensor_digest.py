"""A digest of tensors by name, dtype, shape and value, whatever device, order or memory format they are in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor


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
