"""Side effects."""

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


class CannotSplitError(Exception):
    """The network has no cut that is sure to be right; the text says why. It never reaches a user as an error."""


@contextlib.contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Put flags and other numbers, buffers, gradients and random states back when the body ends."""
    flags = {module: module.training for module in network.modules()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    buffers_and_weights = [*network.buffers(), *network.parameters()]
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    attributes = [(module, {**vars(module)}) for module in network.modules()]
    try:
        with states_put_back(), torch.random.fork_rng({tensor.get_device() for tensor in buffers_and_weights} - {-1}):
            yield
    finally:
        for module, before in attributes:
            vars(module).update((name, value) for name, value in before.items() if type(value) in _NUMBERS)
        for module, training in flags.items():
            module.training = training
        put_buffers(network, buffers)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def put_buffers(network: nn.Module, saved: dict[str, Tensor]) -> None:
    """Write saved values into the buffers of the same names."""
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name in saved and buffer.device.type != "meta":
                buffer.copy_(saved[name])


def one_line(error: Exception) -> str:
    r"""An error's kind and the first line of its text.

    >>> one_line(ValueError("not square: 3 x 4\ngiven by resize"))
    'ValueError: not square: 3 x 4'
    """
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")


def tensors_in(value: object) -> list[Tensor]:
    """The tensors of a nested value."""
    return [part for part in pytree.tree_leaves(value) if isinstance(part, Tensor)]


def storage(tensor: Tensor) -> int:
    """Names the memory of a tensor; views of one tensor give the same."""
    return int(tensor.untyped_storage()._cdata)


def random_states() -> tuple[object, ...]:
    """The states of the generators of Python, numpy and torch, the last one last."""
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), *numpy[2:], torch.get_rng_state().numpy().tobytes()


@contextlib.contextmanager
def states_put_back() -> Iterator[None]:
    """Undo what the body draws from any of the generators."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def put_back(tensors: dict[str, Any], originals: dict[str, Any]) -> None:
    """Put the original tensors back in place."""
    tensors.clear()
    tensors.update(originals)


@contextlib.contextmanager
def attributes_put_back(network: nn.Module) -> Iterator[None]:
    """Undo what a ``forward`` that is recorded writes to its modules: these are stand-ins for tensors.

    Raises :class:`CannotSplitError` where it changed a number: code that counts may do something else next time.
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
            put_back(held, originals)
    if counted:
        raise CannotSplitError(f"its forward method changes its own attribute {counted[0]!r}, which it may go by")


def _is_another_number(before: object, after: object) -> bool:
    return type(before) in _NUMBERS and type(after) in _NUMBERS and before != after
