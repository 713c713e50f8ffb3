"""Training settings of a recipe with the user's options in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError

from zoo.backbone import Training
from zoo.errors import UsageError


def apply_overrides(training: Training, given: Mapping[str, object]) -> Training:
    """The recipe's training settings with what the user gave in their place.

    Raises :class:`~zoo.errors.UsageError` for a value that cannot be.

    >>> apply_overrides(Training(), {"epochs": 3, "augment": "crop,flip"}).augment
    ('crop', 'flip')
    """
    changes = dict(given)
    for name in ("augment", "milestones"):
        if name in changes:
            changes[name] = tuple(part.strip() for part in str(changes[name]).split(",") if part.strip())
    try:
        if changes.get("schedule", "multistep") != "multistep" and "milestones" not in changes:
            changes["milestones"] = ()  # of the recipe's own schedule
        return TypeAdapter(Training).validate_python({**asdict(training), **changes}, strict=False)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        raise UsageError(_explained(name, given, fault["msg"])) from error


def _explained(name: str, given: Mapping[str, object], message: str) -> str:
    message, value = message.removeprefix("Value error, "), given.get(name)
    if not name:  # of several together
        options = " ".join(f"--{option.replace('_', '-')} {chosen}" for option, chosen in given.items())
        return f"{options}: {message}"
    hint = " (0 scores without training)" if name == "epochs" else ""
    return f"--{name.replace('_', '-')} {value}: {message[0].lower()}{message[1:]}{hint}"
