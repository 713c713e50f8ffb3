"""Resolve ``module:function`` strings."""

from __future__ import annotations

import importlib
from typing import Any

from zoo.errors import DeclarationError, shortened


def load_function(path: str, what: str) -> Any:
    """Import the function that ``module:function`` names; ``what`` begins an error and names its purpose.

    Raises :class:`~zoo.errors.DeclarationError` if it cannot be imported or called.
    """
    module_name, _, function_name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise DeclarationError(
            f"{what} {shortened(path)} cannot be imported: {error}", code="import-failed", path=path
        ) from error
    if not callable(function):
        raise DeclarationError(
            f"{what} {shortened(path)} is not callable: {type(function).__name__}", code="not-callable", path=path
        )
    return function
