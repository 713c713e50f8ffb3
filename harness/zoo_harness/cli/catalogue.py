"""Describe the installed backbones and datasets as plain data, and cache the descriptions in a file.

The cache makes ``zoo list``, ``zoo show`` and shell completion several times faster. The cache becomes invalid if a
folder on ``sys.path`` or a source file of a plugin changes. The list is not cached if a plugin has an error. Commands
that load or train a backbone never read the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import weight_paths
from zoo._version import __version__
from zoo.errors import ZooError
from zoo_harness.util.safe_files import read_regular

if TYPE_CHECKING:
    from zoo.backbone import Backbone

Catalogue = dict[str, Any]
_MOST_BYTES = 2**26


def read_catalogue() -> Catalogue:
    """Return descriptions of all installed backbones and datasets, and the errors of broken plugins.

    >>> [backbone["name"] for backbone in read_catalogue()["backbones"]][:2]
    ['cait_s24', 'clip_b']
    """
    path = _path("catalogue")
    cached = _read_cache(path)
    return cached if cached is not None else _load(path)


def read_description(backbone: Backbone, recipe: str, classes: int) -> dict[str, Any]:
    """Return the cached result of :func:`~zoo_harness.reports.backbone_summary.describe_backbone`, or compute it.

    Computing a description imports torch and timm, because the network must be built to count its parameters. A cached
    description becomes invalid if the backbone's declaration, the source files of its network, or the version of torch,
    torchvision or timm change.

    >>> from zoo.registry import load_registry
    >>> read_description(load_registry().backbone("cait_s24"), "paper", 10)["parameters"]["trained"]
    1877130
    """
    from zoo_harness.frozen.cache.key import installed_software

    declaration = re.sub(r" at 0x[0-9a-f]+", "", repr(backbone))
    about = [recipe, classes, declaration, installed_software()]
    path = _path("show", backbone.name, recipe, str(classes))
    cached = _read_cache(path)
    if cached is not None and cached["about"] == about:
        description: dict[str, Any] = cached["description"]
        return description
    from zoo_harness.reports.backbone_summary import describe_backbone

    description = describe_backbone(backbone, recipe, classes)
    _write_cache(path, {"about": about, "description": description}, {*_plugin_files(), *_loose_files()})
    return description


def weights_file(row: Catalogue) -> Path | None:
    """Return the path of a backbone's weight file, or ``None`` if the file is not on this machine.

    ``row`` is the backbone's entry in the catalogue. Raises :class:`~zoo.errors.PluginError` if a plugin's own
    :class:`~zoo.weights.WeightSource` fails.
    """
    if row["weights_kind"] == "random":
        return None
    if row["weights_place"]:
        return weight_paths.find(row["weights_place"])
    from zoo.registry import load_registry
    from zoo_harness.models.weight_source import find_local

    return find_local(load_registry().backbone(row["name"]))


def _load(path: Path) -> Catalogue:
    from zoo.registry import load_registry

    registry = load_registry()
    catalogue = {
        "backbones": [_describe_backbone(name) for name in sorted(registry.backbones)],
        "datasets": [_describe_dataset(name) for name in sorted(registry.datasets)],
        "problems": registry.problems,
    }
    if not registry.problems:
        _write_cache(path, catalogue, _plugin_files())
    return catalogue


def _describe_backbone(name: str) -> dict[str, Any]:
    from zoo.registry import load_registry
    from zoo.weights import WeightSource

    backbone = load_registry().backbones[name]
    weights, has_standard_place = backbone.weights, type(backbone.weights).locate is WeightSource.locate
    return {
        "name": name,
        "weights": weights.describe(),
        "weights_kind": weights.kind,
        "weights_place": weights.standard_place() if has_standard_place else None,
        "imagenet_top1": backbone.imagenet_top1,
        "input_size": list(backbone.preprocessing.input_size) if backbone.preprocessing else None,
        "built_in": load_registry().owner("backbone", name).built_in,
        "license": backbone.license,
        "recipes": ["default", *backbone.recipes],
        "plugin": load_registry().owner("backbone", name).distribution,
    }


def _describe_dataset(name: str) -> dict[str, Any]:
    from zoo.registry import load_registry

    dataset = load_registry().datasets[name]
    return {
        "name": name,
        "call": dataset.call,
        "title": dataset.title,
        "classes": dataset.classes,
        "sizes": dataset.sizes,
        "license": dataset.license,
        "hub_id": dataset.hub_id,
        "plugin": load_registry().owner("dataset", name).distribution,
    }


def _read_cache(path: Path) -> Catalogue | None:
    if "ZOO_RAISE_PLUGIN_ERRORS" in os.environ:
        return None
    try:
        content = json.loads(read_regular(path, _MOST_BYTES))
        fresh = all(_stamp(file) == stamp for file, stamp in content["stamps"].items())
        cached: Catalogue = content["cached"]
    except (ZooError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return cached if fresh else None


def _write_cache(path: Path, content: Catalogue, files: Iterable[str]) -> None:
    from zoo_harness.util.atomic_files import write_text

    stamps = {file: _stamp(file) for file in [*filter(None, sys.path), *files]}
    with contextlib.suppress(OSError):  # without the cache, the next command is only slower
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"stamps": stamps, "cached": content}))


def _plugin_files() -> list[str]:
    """Return the source files of ``zoo`` and of every package with a plugin."""
    from zoo.registry import load_registry

    values = [plugin.value for plugin in load_registry().plugins]
    packages = {"zoo", *(value.partition(":")[0].partition(".")[0] for value in values)}
    loaded = [module for name, module in sys.modules.items() if name.partition(".")[0] in packages]
    return [file for module in loaded if (file := getattr(module, "__file__", None))]


def _loose_files() -> list[str]:
    """Return the files of all loaded modules that are neither in the standard library nor in ``site-packages``.

    Installing a package changes ``site-packages`` itself, which is a folder on ``sys.path``.
    """
    installed = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return [
        file
        for file in files
        if file and not file.startswith(installed) and not re.search(r"[/\\](site|dist)-packages[/\\]", file)
    ]


def _stamp(file: str) -> list[int] | None:
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return [status.st_mtime_ns, status.st_size]


def _path(kind: str, *about: str) -> Path:
    # Each environment and version has its own file, so that two environments do not overwrite each other's cache.
    key = zlib.crc32("\0".join([__version__, sys.version, sys.prefix, *sys.path, *about]).encode())
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "blockzoo" / f"{kind}-{key:08x}.json"
