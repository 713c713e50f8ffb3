"""Import the public names of a module lazily; the module's ``if TYPE_CHECKING`` block is the only list of the names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable


def lazy_imports(module: str) -> tuple[Callable[[str], object], Callable[[], list[str]], dict[str, str]]:
    """Return ``__getattr__`` and ``__dir__`` for a module, and a dictionary of its lazy names.

    The dictionary maps each lazy name to the module that defines the name. Type checkers read the imports under ``if
    TYPE_CHECKING``. ``lazy_imports`` reads the same imports from the module's source, so each name is written once.

    >>> lazy_imports("zoo")[2]["Backbone"]
    'zoo.backbone'
    """
    homes = _listed(module)

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    def names() -> list[str]:
        return sorted({*homes, *(name for name in vars(sys.modules[module]) if name == "__version__")})

    return get, names, homes


def _listed(module: str) -> dict[str, str]:
    spec = importlib.util.find_spec(module)
    source = getattr(spec.loader, "get_source")(module) if spec else ""  # noqa: B009 - some loaders lack get_source
    blocks = [node.body for node in ast.parse(source or "").body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}
