"""Import functions by names of the form ``module:function``."""

from __future__ import annotations

import pkgutil
from typing import Any

from zoo.errors import DeclarationError, shortened


def load_function(path: str, what: str) -> Any:
    """Import the function that ``module:function`` names; error messages begin with ``what``, its purpose.

    Raises :class:`~zoo.errors.DeclarationError` if the object cannot be imported or is not callable.
    """
    named = f"{what} {shortened(path)}"
    try:
        function = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise DeclarationError(f"{named} cannot be imported: {error}", code="import-failed", path=path) from error
    if not callable(function):
        message = f"{named} is not callable: {type(function).__name__}"
        raise DeclarationError(message, code="not-callable", path=path)
    return function
