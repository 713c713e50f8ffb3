"""Preserves the state of a network and of random generators while its code is tried out."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_NUMBERS = (bool, int, float)


class CannotPartitionError(Exception):
    """No partition of the network is certain to be right; the text says why. It never reaches a user as an error."""


@contextlib.contextmanager
def preserve_state(network: nn.Module) -> Iterator[None]:
    """Restore flags and other numbers, buffers, gradients and random states when the body ends."""
    flags = {module: module.training for module in network.modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    attributes = [(module, {**vars(module)}) for module in network.modules()]
    devices = {tensor.get_device() for tensor in (*network.buffers(), *network.parameters())} - {-1}
    try:
        with preserve_random_states(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, before in attributes:
            vars(module).update((name, value) for name, value in before.items() if type(value) in _NUMBERS)
        for module, training in flags.items():
            module.training = training
        write_buffers(network, buffers)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


@contextlib.contextmanager
def preserve_attributes(network: nn.Module) -> Iterator[None]:
    """Restore the attributes of all modules, because a ``forward`` that is recorded writes placeholders to them.

    Dictionaries are attributes too: networks cache tensors in them. Raises :class:`CannotPartitionError` if a number
    changed, because code that counts may do something else next time.
    """
    attributes = [vars(module) for module in network.modules()]
    inside = [value for held in attributes for value in held.values() if type(value) is dict]
    saved = [(held, dict(held)) for held in (*attributes, *inside)]
    counted: list[str] = []
    try:
        yield
    finally:
        for held, originals in saved:
            counted += [name for name, value in originals.items() if _is_another_number(value, held.get(name))]
            restore_dict(held, originals)
    if counted:
        raise CannotPartitionError(f"its forward method changes its own attribute {counted[0]!r}, which it may go by")


@contextlib.contextmanager
def preserve_random_states() -> Iterator[None]:
    """Restore the generators of Python, numpy and torch when the body ends."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def random_states() -> tuple[object, ...]:
    """Return the states of the generators of Python, numpy and torch, in this order, to compare."""
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), *numpy[2:], torch.get_rng_state().numpy().tobytes()


def write_buffers(network: nn.Module, saved: dict[str, Tensor]) -> None:
    """Write saved values into the buffers of the same names."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name in saved and buffer.device.type != "meta":
                buffer.copy_(saved[name])


def restore_dict(held: dict[str, Any], originals: dict[str, Any]) -> None:
    """Give a dictionary its original content, in place."""
    held.clear()
    held.update(originals)


def tensors_in(value: object) -> list[Tensor]:
    """Return the tensors of a nested value."""
    return [part for part in pytree.tree_leaves(value) if isinstance(part, Tensor)]


def storage(tensor: Tensor) -> int:
    """Identify the memory of a tensor; views of one tensor share it."""
    return int(tensor.untyped_storage()._cdata)


def one_line(error: Exception) -> str:
    r"""Return the type of an error and the first line of its text.

    >>> one_line(ValueError("not square: 3 x 4\ngiven by resize"))
    'ValueError: not square: 3 x 4'
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")


def _is_another_number(before: object, after: object) -> bool:
    return type(before) in _NUMBERS and type(after) in _NUMBERS and before != after
