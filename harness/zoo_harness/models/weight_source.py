"""Call weight sources, and name the plugin in errors of its sources, without importing torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from zoo import weights
from zoo.backbone import Backbone
from zoo.errors import PluginError, UnreachableError, WeightsError, ZooError
from zoo.plugin_guard import printing_to_stderr
from zoo.registry import explain, load_registry
from zoo.weights import WeightSource


def find_local(backbone: Backbone) -> Path | None:
    """Return the path of a backbone's weight file if the file is on this machine, otherwise ``None``.

    Raises :class:`~zoo.errors.PluginError` if a plugin's weight source fails.
    """
    with failures_by_plugin(backbone, backbone.weights):
        found: object = backbone.weights.locate()
        if found is not None and not isinstance(found, Path):
            raise PluginError(f"locate() returned {found!r:.80}; expected a pathlib.Path or None", code="plugin-return")
        return found


def is_built_in(source: WeightSource) -> bool:
    """Whether a weight source belongs to zoo itself and not to a plugin."""
    return type(source).__module__ == weights.__name__


@contextmanager
def failures_by_plugin(backbone: Backbone, source: WeightSource) -> Iterator[None]:
    """Prepend the names of plugin, backbone and source to errors of the ``with`` block.

    A :class:`~zoo.errors.WeightsError` keeps its type; other errors become :class:`~zoo.errors.PluginError`. Three
    kinds of errors do not change: any error of a built-in source; :class:`~zoo.errors.UnreachableError`;
    ``MemoryError``.
    """
    is_ours = is_built_in(source)
    try:
        with nullcontext() if is_ours else printing_to_stderr(_origin(backbone, source)):
            yield
    except (UnreachableError, MemoryError):
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        if is_ours:
            raise
        kind = WeightsError if isinstance(error, WeightsError) else PluginError
        message = str(error) if isinstance(error, ZooError) else explain(error)
        cause = error.code if isinstance(error, ZooError) else type(error).__name__
        raise kind(
            f"{_origin(backbone, source)}: {message}", code="plugin-weights", cause=cause, name=backbone.name
        ) from error


def _origin(backbone: Backbone, source: WeightSource) -> str:
    plugin, made = load_registry().declares(backbone), type(source)
    return (
        f"{plugin.origin if plugin else f'module {made.__module__!r}'}: weights of {backbone.name!r}, {made.__name__}"
    )
