"""Replace training settings of a recipe by the user's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from pydantic import TypeAdapter, ValidationError

from zoo.backbone import Training
from zoo.errors import UsageError


def apply_overrides(training: Training, given: Mapping[str, object]) -> Training:
    """Return the recipe's training settings with the given ones replaced.

    Raises :class:`~zoo.errors.UsageError` for a value that is not allowed, alone or together with the others.

    >>> apply_overrides(Training(), {"epochs": 3, "augment": "crop,flip"}).augment
    ('crop', 'flip')
    """
    changes = dict(given)
    for name in ("augment", "milestones"):
        if name in changes:
            changes[name] = _parts(changes[name])
    try:
        if changes.get("schedule", "multistep") != "multistep" and "milestones" not in changes:
            changes["milestones"] = ()  # of the recipe's own schedule
        return TypeAdapter(Training).validate_python({**asdict(training), **changes}, strict=False)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        raise UsageError(_explained(name, given, fault["msg"]), code="option-value", option=name) from error


def training_overrides(values: Mapping[str, object]) -> dict[str, object]:
    """Return the options that replace a training setting of the recipe.

    >>> training_overrides({"epochs": 3, "momentum": None, "seed": 1})
    {'epochs': 3}
    """
    settings = {field.name for field in fields(Training)}
    return {name: value for name, value in values.items() if name in settings and value is not None}


def _parts(given: object) -> tuple[object, ...]:
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    return tuple(given) if isinstance(given, Sequence) else (given,)


def _explained(name: str, given: Mapping[str, object], message: str) -> str:
    message, value = message.removeprefix("Value error, "), given.get(name)
    if not name:  # several options contradict each other
        options = " ".join(f"--{option.replace('_', '-')} {chosen}" for option, chosen in given.items())
        return f"{options}: {message}"
    hint = " (0 scores without training)" if name == "epochs" else ""
    return f"--{name.replace('_', '-')} {value}: {message[0].lower()}{message[1:]}{hint}"
