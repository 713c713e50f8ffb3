"""Preserve the state of a network and of random generators while the code of the network runs on trial."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_NUMBERS = {bool, int, float}


class CannotPartitionError(Exception):
    """A network cannot be divided safely into prefix and suffix; the message gives the reason.

    The exception is always caught, and the network then trains without a partition.
    """


@contextlib.contextmanager
def preserve_state(network: nn.Module) -> Iterator[None]:
    """Restore the attributes, buffers and gradients of a network, and random generators, after the ``with`` block."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    devices = {tensor.get_device() for tensor in (*network.buffers(), *network.parameters())} - {-1}
    try:
        with preserve_attributes(network), preserve_random_states(), torch.random.fork_rng(devices):
            yield
    finally:
        write_buffers(network, buffers)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


@contextlib.contextmanager
def preserve_attributes(network: nn.Module) -> Iterator[Callable[[], list[str]]]:
    """Restore the attributes of all modules at the end of the ``with`` block.

    The content of attributes that are dictionaries is restored too, because networks cache tensors in dictionaries. The
    context manager yields a function that returns the names of the numeric attributes that have changed in the block.
    """
    attributes = [vars(module) for module in network.modules()]
    inside = [value for held in attributes for value in held.values() if type(value) is dict]
    saved = [(held, dict(held)) for held in (*attributes, *inside)]

    def changed_numbers() -> list[str]:
        pairs = [(name, value, held.get(name)) for held, before in saved for name, value in before.items()]
        return [name for name, *values in pairs if set(map(type, values)) <= _NUMBERS and values[0] != values[1]]

    try:
        yield changed_numbers
    finally:
        for held, before in saved:
            restore_dict(held, before)


@contextlib.contextmanager
def preserve_random_states() -> Iterator[None]:
    """Restore the random generators of Python, numpy and torch at the end of the ``with`` block."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def python_random_states() -> tuple[object, ...]:
    """Return the states of the random generators of Python and numpy as a value that can be compared with ``==``."""
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), *numpy[2:]


def random_states() -> tuple[object, ...]:
    """Return the states of the random generators of Python, numpy and torch as a value to compare with ``==``."""
    return *python_random_states(), torch.get_rng_state().numpy().tobytes()


def write_buffers(network: nn.Module, saved: dict[str, Tensor]) -> None:
    """Copy saved values into the network's buffers with the same names."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name in saved and buffer.device.type != "meta":
                buffer.copy_(saved[name])


def restore_dict(held: dict[str, Any], originals: dict[str, Any]) -> None:
    """Replace the content of the dictionary ``held`` by the content of ``originals``, in place."""
    held.clear()
    held.update(originals)


def tensors_in(value: object) -> list[Tensor]:
    """Return all tensors in a nested structure of lists, tuples and dictionaries."""
    return [part for part in pytree.tree_leaves(value) if isinstance(part, Tensor)]


def storage(tensor: Tensor) -> int:
    """Return an integer that identifies the memory of a tensor; a tensor and its views have the same integer."""
    return int(tensor.untyped_storage()._cdata)


def one_line(error: Exception) -> str:
    r"""Return the type of an exception and the first line of its message.

    >>> one_line(ValueError("not square: 3 x 4\ngiven by resize"))
    'ValueError: not square: 3 x 4'
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")
