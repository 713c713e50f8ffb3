"""Modules."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from zoo.errors import DeclarationError, near_misses


def match_modules(network: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """Paths of the modules that exact paths or globs name, in the network's order, without repetition.

    Raises :class:`~zoo.errors.DeclarationError` with near misses for a pattern that names none.

    >>> match_modules(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), ["[02]"])
    ('0', '2')
    """
    paths = [name for name, _module in network.named_modules(remove_duplicate=False) if name]
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {path for path in paths if path == pattern} or set(fnmatch.filter(paths, pattern))
        if not matches:
            raise DeclarationError(f"no module of the network matches {pattern!r}{_nearest(pattern, paths)}")
        chosen |= matches
    return tuple(path for path in paths if path in chosen)


def outermost(paths: Sequence[str]) -> list[str]:
    """The paths that lie in none of the others.

    >>> outermost(["features", "features.0", "fc"])
    ['features', 'fc']
    """
    return [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]


def find_module(network: nn.Module, path: str) -> nn.Module:
    """The module at a path.

    Raises :class:`~zoo.errors.DeclarationError` with near misses.
    """
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        paths = [name for name, _module in network.named_modules() if name]
        raise DeclarationError(f"the network has no module {path!r}{_nearest(path, paths)}") from error


@contextlib.contextmanager
def capture(network: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what the modules at these paths put out while the body runs; the hooks go whatever happens.

    A module that runs more than once leaves its last output. It is a copy: an activation that works in place may
    follow.
    """
    outputs: dict[str, Tensor] = {}

    def keep(path: str, output: object) -> None:
        if not isinstance(output, Tensor):
            raise DeclarationError(f"layer {path!r} puts out a {type(output).__name__}, not one tensor")
        outputs[path] = output.clone()

    with contextlib.ExitStack() as hooks:
        for path in paths:
            module = find_module(network, path)
            handle = module.register_forward_hook(lambda _module, _inputs, out, path=path: keep(path, out))
            hooks.callback(handle.remove)
        yield outputs


def _nearest(path: str, paths: Sequence[str]) -> str:
    near = near_misses(path, paths)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; it has {', '.join(paths[:8])}, ..."
