"""Resolve ``module:function`` strings."""

from __future__ import annotations

import importlib
from typing import Any

from zoo.errors import DeclarationError, shortened


def load_function(path: str, what: str) -> Any:
    """The function that ``module:function`` names.

    Raises :class:`~zoo.errors.DeclarationError`, told with ``what`` it was wanted for.
    """
    module_name, _, function_name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise DeclarationError(f"{what} {shortened(path)} cannot be imported: {error}") from error
    if not callable(function):
        raise DeclarationError(f"{what} {shortened(path)} is not callable")
    return function
