"""Find the modules of a network by path, and capture their outputs."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from zoo.errors import DeclarationError, near_misses


def match_modules(network: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of the modules that match the given paths or glob patterns, in the network's order.

    Raises :class:`~zoo.errors.DeclarationError` with similar paths for a pattern without a match.

    >>> match_modules(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), ["[02]"])
    ('0', '2')
    """
    paths = [name for name, _module in network.named_modules(remove_duplicate=False) if name]
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {pattern} & set(paths) or set(fnmatch.filter(paths, pattern))
        if not matches:
            raise DeclarationError(
                f"no module of the network matches {pattern!r}{_nearest(pattern, paths)}",
                code="module-unknown",
                path=pattern,
            )
        chosen |= matches
    return tuple(path for path in paths if path in chosen)


def outermost(paths: Sequence[str]) -> list[str]:
    """From a list of module paths, return the paths that are not inside another module of the list.

    >>> outermost(["features", "features.0", "fc"])
    ['features', 'fc']
    """
    return [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]


def find_module(network: nn.Module, path: str) -> nn.Module:
    """Return the module at a path; raise :class:`~zoo.errors.DeclarationError` with similar paths if none exists."""
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        paths = [name for name, _module in network.named_modules() if name]
        raise DeclarationError(
            f"the network has no module {path!r}{_nearest(path, paths)}", code="module-unknown", path=path
        ) from error


@contextlib.contextmanager
def capture(network: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the modules at these paths while the ``with`` block runs the network.

    If a module runs several times, only the last output is kept. Outputs are copied, because a following in-place
    activation could overwrite them.
    """
    outputs: dict[str, Tensor] = {}

    def keep(path: str, output: object) -> None:
        if not isinstance(output, Tensor):
            raise DeclarationError(
                f"output of layer {path!r} is a {type(output).__name__}; expected one tensor",
                code="layer-type",
                layer=path,
            )
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
